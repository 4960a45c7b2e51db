"""Draw a ball that bounces past a car, and what a network trained on `moving_shapes` sees of it.

Example:
    python -m benchmarks.bouncing_ball --checkpoint=runs/demo/msnet_tsm_r18 --output=docs/bouncing_ball.webp

The scene is drawn by this file. The network has seen neither balls nor cars. On the left is the scene with the
displacement to the next frame as arrows, on the right the same displacement in the colours of the wheel: right is
red, down yellow, left cyan and up violet.
"""

import cv2
import numpy as np

from motion_jax.cli import Parser, any_place, print_json, run, this_machine
from motion_jax.experiment import load_trained
from motion_jax.inspection.animation import write_animation
from motion_jax.inspection.clip_inspection import make_inspector
from motion_jax.inspection.colours import flow_colours, wheel_picture

FRAMES, SIZE, FPS = 28, 192, 12
FINE = 4  # The scene is drawn this many times larger, then averaged.
SCALE = 2  # of the pictures
ARROWS = 12  # on a side
LEAST_CONFIDENCE = 0.8  # of an arrow
LONGEST = 14.0  # pixels per frame at the rim of the wheel
GROUND, RADIUS, HEIGHT = 0.78, 0.12, 0.21  # of the scene, in parts of its size
PANELS = ((40, 60, 225), (250, 250, 250), (240, 170, 40), (250, 250, 250), (60, 120, 230), (250, 250, 250))


def main() -> None:
    """Write the animation."""
    parser = Parser(__doc__)
    source = "an MSNet trained on moving_shapes: its workdir or a checkpoint"
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help=source)
    parser.add_argument("--output", required=True, type=this_machine, metavar="FILE.webp", help="the animation")
    arguments = parser.parse_args()
    trained = load_trained(arguments.checkpoint)
    frames = draw_scene()
    motion = make_inspector(trained.model, trained.restored.variables)(frames).comparison
    if motion is None:
        raise ValueError(f"{arguments.checkpoint} has no block that compares frames: give an MSNet of moving_shapes")
    ahead = motion.main_offset
    displacement, confidence = motion.expected[:, :, :, ahead], motion.confidence[:, :, :, ahead]
    pictures = [draw_panels(frames[time], displacement[time], confidence[time]) for time in motion.pairs()]
    write_animation(arguments.output, pictures, fps=FPS)
    size = arguments.output.stat().st_size
    print(f"{len(pictures)} frames -> {arguments.output} ({size / 1e6:.2f} MB)")
    if arguments.json:
        print_json({"output": str(arguments.output), "frames": len(pictures), "bytes": size})


def draw_scene() -> np.ndarray:
    """Draw the clip: uint8 (t, SIZE, SIZE, 3)."""
    side = SIZE * FINE
    rng = np.random.default_rng(4)
    # The amplitude of the texture falls with the frequency, as in moving_shapes.
    frequency = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side))
    frequency[0, 0] = np.inf
    texture = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(side, side))) / frequency, s=(side, side))
    height = np.linspace(0, 1, side)[:, None, None]
    sky, grass = np.array([150, 190, 230]) + 40 * height, np.array([105, 150, 80]) - 30 * height
    ground = np.where(height > GROUND - 0.12, grass, sky) + 12 * (texture / texture.std())[..., None]
    ground = np.clip(ground, 0, 255).astype(np.uint8)
    return np.stack([draw_frame(ground, time / FRAMES) for time in range(FRAMES)])


def draw_frame(ground: np.ndarray, time: float) -> np.ndarray:
    """Draw the scene at a time from 0 to 1, after which it repeats."""
    picture = ground.copy()
    draw_car(picture, 1.35 - 1.7 * ((time + 0.35) % 1))
    phase = 2 * time % 1  # Two bounces.
    draw_ball(picture, -0.15 + 1.3 * time, GROUND + 0.1 - RADIUS - HEIGHT * 4 * phase * (1 - phase), 5 * time)
    return cv2.resize(picture, (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def draw_ball(picture: np.ndarray, x: float, y: float, angle: float) -> None:
    """Draw a ball of coloured panels at (x, y), turned by ``angle`` radians, with its shadow on the ground."""
    side = len(picture)
    at, radius = (round(x * side), round(y * side)), round(RADIUS * side)
    shadow = picture.copy()
    cv2.ellipse(shadow, (at[0], round((GROUND + 0.1) * side)), (radius, radius // 4), 0, 0, 360, (40, 60, 30), -1)
    picture[:] = cv2.addWeighted(shadow, 0.45, picture, 0.55, 0)
    for number, colour in enumerate(PANELS):
        start = np.degrees(angle) + 360 / len(PANELS) * number
        cv2.ellipse(picture, at, (radius, radius), start, 0, 360 / len(PANELS), colour, -1, cv2.LINE_AA)
    cv2.circle(picture, at, radius // 6, (250, 250, 250), -1, cv2.LINE_AA)
    cv2.circle(picture, at, radius, (40, 40, 60), 6, cv2.LINE_AA)


def draw_car(picture: np.ndarray, x: float) -> None:
    """Draw a car whose middle is at ``x``, driving to the left."""

    def points(*places: tuple[float, float]) -> np.ndarray:
        return np.array([[((x + dx) * side, (GROUND - 0.1 + dy) * side) for dx, dy in places]]).round().astype(np.int32)

    side = len(picture)
    hood, roof, boot = ((-0.19, 0), (-0.19, -0.07), (-0.11, -0.09)), ((-0.06, -0.16), (0.09, -0.16)), ((0.14, -0.09),)
    body = points(*hood, *roof, *boot, (0.19, -0.08), (0.19, 0))
    cv2.fillPoly(picture, body, (200, 70, 50), cv2.LINE_AA)
    cv2.polylines(picture, body, True, (70, 20, 20), 6, cv2.LINE_AA)
    front = points((-0.09, -0.09), (-0.05, -0.14), (0, -0.14), (0, -0.09))
    for window in (front, points((0.02, -0.09), (0.02, -0.14), (0.08, -0.14), (0.11, -0.09))):
        cv2.fillPoly(picture, window, (190, 220, 240), cv2.LINE_AA)
    cv2.rectangle(picture, *points((-0.18, -0.045), (0.18, -0.03))[0], (250, 230, 210), -1)
    for wheel in (-0.11, 0.11):
        (at,) = points((wheel, 0))[0]
        for radius, colour in ((0.045, (40, 40, 40)), (0.02, (210, 210, 210))):
            cv2.circle(picture, at, round(radius * side), colour, -1, cv2.LINE_AA)


def draw_panels(frame: np.ndarray, displacement: np.ndarray, confidence: np.ndarray) -> np.ndarray:
    """Draw a frame with arrows beside its displacement (h, w, 2) with the wheel."""
    side = SIZE * SCALE
    left = cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC)
    cells = len(displacement)
    step = cells // ARROWS
    for row in range(step // 2, cells, step):
        for column in range(step // 2, cells, step):
            motion = displacement[row, column]
            if np.hypot(*motion) < 1 or confidence[row, column] < LEAST_CONFIDENCE:
                continue
            start = (np.array([column, row]) + 0.5) * side / cells
            ends = [tuple(point.round().astype(int).tolist()) for point in (start, start + motion * SCALE)]
            for colour, width in (((20, 20, 20), 4), ((255, 255, 255), 2)):
                cv2.arrowedLine(left, *ends, colour, width, cv2.LINE_AA, tipLength=0.35)
    colours = flow_colours(displacement, longest=LONGEST)
    right = cv2.resize(colours, (side, side), interpolation=cv2.INTER_NEAREST)
    wheel = wheel_picture(side // 6)
    corner = right[8 : 8 + len(wheel), -8 - len(wheel) : -8]
    corner[:] = np.where(wheel[..., 3:] > 0, wheel[..., :3], corner)
    cv2.circle(right, (side - 8 - len(wheel) // 2, 8 + len(wheel) // 2), len(wheel) // 2, (90, 90, 90), 1, cv2.LINE_AA)
    return np.concatenate([left, np.full((side, 8, 3), 255, np.uint8), right], axis=1)


if __name__ == "__main__":
    run(main)

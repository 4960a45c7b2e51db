import subprocess
import sys

import cv2
import numpy as np
import pytest

from motion_jax.data.clips.labels import mirrored
from motion_jax.data.sources.moving_shapes import CELL, CLASSES, Scene, make_example, make_scene, render, truth
from motion_jax.data.storage.frames import decode_jpeg

PAIRS = [(CLASSES[k], CLASSES[k + 1]) for k in range(0, len(CLASSES), 2)]
SLIDES = [name for name in CLASSES if "rotate" not in name and "zoom" not in name]


def scene_of(name: str, *, key: int = 0, frames: int = 8, size: int = 64) -> Scene:
    return make_scene(name, frames=frames, size=size, rng=np.random.default_rng(key))


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("key", range(4))
def test_partners_show_the_same_frames_in_another_order(pair, key):
    one, other = (render(scene_of(name, key=key)) for name in pair)
    assert sorted(frame.tobytes() for frame in one) == sorted(frame.tobytes() for frame in other)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("pair", PAIRS[:4])
def test_partner_is_time_reversed(pair):
    one, other = (render(scene_of(name)) for name in pair)
    np.testing.assert_array_equal(one, other[::-1])


@pytest.mark.parametrize("key", range(6))
def test_long_range_partners_hold_the_same_movements(key):
    for pair in PAIRS[4:]:
        one, other = (scene_of(name, key=key).poses[:, :, 2] for name in pair)
        steps, others = (np.abs(np.diff(poses, axis=0)).max(axis=1) for poses in (one, other))
        assert len(set(steps)) == len(set(others)) == 1
        # Three steps one way and four back, or the reverse.
        assert abs(np.sign(np.diff(one, axis=0)).sum()) == 1


@pytest.mark.parametrize("name", SLIDES)
@pytest.mark.parametrize(("axis", "swap"), [(2, {"left": "right", "right": "left"}), (1, {"up": "down", "down": "up"})])
def test_mirrored_parameters_give_mirrored_frames(name, axis, swap):
    """Exact for translations: the mirror image of a clip is a clip of the class with the words exchanged."""
    scene = scene_of(name)
    row = 2 - axis
    poses = scene.poses.copy()
    # Frame pixel p shows layer pixel p + offset; mirrored, q = s - 1 - p shows s - 1 - (p + offset) = q - offset.
    poses[:, row, 2] *= -1
    layers = (np.flip(layer, axis - 1).copy() for layer in (scene.ground, scene.objects, scene.light))
    mirror = Scene(*layers, poses, scene.drift)
    np.testing.assert_array_equal(render(mirror), np.flip(render(scene), axis))
    partner = " ".join(swap.get(word, word) for word in name.split())
    np.testing.assert_array_equal(np.diff(mirror.poses, axis=0), np.diff(scene_of(partner).poses, axis=0))
    if axis == 2 and partner != name:
        assert mirrored(name, CLASSES) == partner


DIRECTIONS = {"move left": (-1, 0), "move right": (1, 0), "move up": (0, -1), "move down": (0, 1)}


@pytest.mark.parametrize(("name", "direction"), DIRECTIONS.items())
def test_truth_of_translations(name, direction):
    displacement, moving = truth(scene_of(name))
    assert displacement.shape == (7, 8, 8, 2)
    assert moving.shape == (7, 8, 8)
    assert (displacement.dtype, moving.dtype) == (np.float32, np.bool_)
    steps = displacement[moving]
    assert 0.2 < moving.mean() < 0.9
    assert np.allclose(steps, steps[0], atol=1e-5)
    assert 4 <= round(np.abs(steps[0]).max(), 3) <= 8
    assert np.sign(np.round(steps[0])).tolist() == list(direction)
    assert not displacement[~moving].any()


@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("left then right", (-1, 0), (1, 0)),
        ("right then left", (1, 0), (-1, 0)),
        ("up then down", (0, -1), (0, 1)),
        ("down then up", (0, 1), (0, -1)),
    ],
)
def test_truth_of_turning_back(name, first, last):
    displacement, moving = truth(scene_of(name))
    for step, direction in ((0, first), (-1, last)):
        mean = displacement[step][moving[step]].mean(axis=0)
        assert np.sign(np.round(mean)).tolist() == list(direction)


@pytest.mark.parametrize(("name", "sign"), [("rotate left", 1), ("rotate right", -1), ("zoom in", 1), ("zoom out", -1)])
def test_truth_of_rotation_and_zoom(name, sign):
    """A left turn runs counter-clockwise on the screen, and zooming in moves everything outwards."""
    displacement, moving = truth(scene_of(name))
    y, x = np.nonzero(moving[0])
    points = np.stack([x, y], axis=-1) * CELL + (CELL - 1) / 2
    to = points + displacement[0][moving[0]]
    # The linear map that takes centred points to centred points.
    linear = np.linalg.lstsq(points - points.mean(0), to - to.mean(0), rcond=None)[0].T
    if "rotate" in name:
        # Downward y: counter-clockwise takes (1, 0) to (cos, -sin).
        angle = np.degrees(np.arctan2(-linear[1, 0], linear[0, 0]))
        assert 14 <= sign * angle <= 26
        assert np.linalg.det(linear) == pytest.approx(1, abs=1e-4)
    else:
        growth = np.sqrt(np.linalg.det(linear)) ** sign
        assert 1.14 <= growth <= 1.22
        assert linear[0, 1] == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize("name", CLASSES)
def test_displacement_carries_frame_t_onto_the_next(name):
    """Warp frame t + 1 back by the truth at moving pixels: it must look like frame t, and better than without."""
    scene = scene_of(name, key=3)
    frames = render(scene).astype(np.float32)
    size = frames.shape[1]
    y, x = np.mgrid[:size, :size].astype(np.float32)
    errors, still = [], []
    for t in range(len(frames) - 1):
        displacement, moving = truth(scene)
        dense = cv2.resize(displacement[t], (size, size), interpolation=cv2.INTER_NEAREST)
        # Cell centres only: elsewhere rotation and zoom differ from the stored value.
        centre = np.zeros((size, size), bool)
        centre[3::CELL, 3::CELL] = centre[4::CELL, 4::CELL] = True
        opaque = scene.shown[t, ..., 3] == 255
        inside = cv2.remap(scene.shown[t + 1], x + dense[..., 0], y + dense[..., 1], cv2.INTER_LINEAR)
        chosen = (
            centre
            & opaque
            & (inside[..., 3] == 255)
            & cv2.resize(moving[t].astype(np.uint8), (size, size), interpolation=0).astype(bool)
        )
        back = cv2.remap(frames[t + 1], x + dense[..., 0], y + dense[..., 1], cv2.INTER_LINEAR)
        errors.append(np.abs(back - frames[t])[chosen].mean())
        still.append(np.abs(frames[t + 1] - frames[t])[chosen].mean())
    assert np.mean(errors) < 10
    assert np.mean(errors) < 0.35 * np.mean(still)


def test_single_frames_of_partners_have_equal_statistics():
    """Over whole examples, noise and JPEG included."""
    means = np.zeros((len(CLASSES), 2))
    for index in range(240):
        example = make_example(index, split="train", seed=5, frames=8, size=32)
        frames = np.stack([decode_jpeg(frame) for frame in example["frames"]]).astype(float)
        means[example["label"]] += [frames.mean() / 20, frames.std() / 20]
    np.testing.assert_allclose(means[::2], means[1::2], rtol=2e-3)


@pytest.mark.parametrize(
    ("arguments", "levels", "displacement", "moving"),
    [
        ((0, "train", 0, 8, 64), [139.3, 126.7, 122.4, 120.2], [-2.703, 0.0], 173),
        ((5, "train", 0, 8, 64), [121.5, 125.3, 138.4, 121.1], [0.782, 0.224], 156),
        ((6, "val", 0, 8, 64), [86.8, 118.4, 80.5, 100.7], [-0.327, 0.216], 199),
        ((9, "train", 3, 5, 32), [90.8, 128.5, 96.8, 120.2], [-0.062, 0.0], 20),
        ((23, "val", 1, 16, 96), [107.9, 160.2, 79.9, 189.4], [0.0, 0.208], 718),
    ],
)
def test_stored_examples_stay(arguments, levels, displacement, moving):
    """Quarters of the last frame, mean displacement and mask of (index, split, seed, frames, size).

    The last bit of a float depends on the machine, so single pixels may differ by one level.
    """
    index, split, seed, frames, size = arguments
    example = make_example(index, split=split, seed=seed, frames=frames, size=size)
    quarters = decode_jpeg(example["frames"][-1]).reshape(2, size // 2, 2, size // 2, 3).mean(axis=(1, 3, 4))
    np.testing.assert_allclose(quarters.ravel(), levels, atol=0.1)
    np.testing.assert_allclose(example["displacement"].mean(axis=(0, 1, 2)), displacement, atol=2e-3)
    assert example["moving"].sum() == moving


def test_example_is_a_pure_function_of_its_arguments():
    arguments = {"split": "train", "seed": 1, "frames": 8, "size": 64}
    one, again = (make_example(13, **arguments) for _ in range(2))
    assert one["frames"] == again["frames"]
    assert one["label"] == 13 % 12
    for change in ({"split": "val"}, {"seed": 2}):
        assert make_example(13, **{**arguments, **change})["frames"] != one["frames"]
    assert make_example(14, **arguments)["frames"] != one["frames"]


@pytest.mark.parametrize("pair", PAIRS)
def test_a_drifting_camera_keeps_the_frames_of_partners_equal(pair):
    one, other = (render(make_scene(name, frames=8, size=64, rng=np.random.default_rng(2), drift=3.0)) for name in pair)
    assert sorted(frame.tobytes() for frame in one) == sorted(frame.tobytes() for frame in other)


def test_drift_moves_the_ground_and_adds_to_the_motion_of_the_objects():
    still, drifting = (
        make_scene("move left", frames=8, size=64, rng=np.random.default_rng(4), drift=drift) for drift in (0.0, 4.0)
    )
    (before, _), (after, moving) = truth(still), truth(drifting)
    ground = after[~moving]
    assert np.ptp(ground, axis=0) == pytest.approx(0, abs=1e-4)
    assert 0.5 < np.linalg.norm(ground[0]) <= 4
    np.testing.assert_allclose(after[moving][0], before[truth(still)[1]][0] + ground[0], atol=1e-4)
    # The truth of the ground carries one frame onto the next.
    empty = Scene(
        drifting.ground, np.zeros_like(drifting.objects), np.ones((64, 64), np.float32), drifting.poses, drifting.drift
    )
    frames = render(empty).astype(np.float32)
    y, x = np.mgrid[8:56, 8:56].astype(np.float32)
    back = cv2.remap(frames[1], x + ground[0, 0], y + ground[0, 1], cv2.INTER_LINEAR)
    assert np.abs(back - frames[0, 8:56, 8:56]).mean() < 0.5 * np.abs(frames[1] - frames[0])[8:56, 8:56].mean()


def test_a_given_speed_is_that_of_the_objects():
    scene = make_scene("move down", frames=8, size=64, rng=np.random.default_rng(0), speed=12)
    displacement, moving = truth(scene)
    np.testing.assert_allclose(displacement[moving], np.broadcast_to([0, 12], (moving.sum(), 2)), atol=1e-4)


def test_textures_have_the_spectrum_of_natural_images():
    """Amplitude falls as 1 / f: a slope of -1 on logarithmic axes."""
    ground = np.mean([np.abs(np.fft.fft2(scene_of("move left", key=key).ground.mean(-1))) for key in range(20)], axis=0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    chosen = (frequency > 0.03) & (frequency < 0.4)
    slope = np.polyfit(np.log(frequency[chosen]), np.log(ground[chosen]), 1)[0]
    assert slope == pytest.approx(-1, abs=0.1)


def test_noise_differs_between_frames():
    one, other = (make_example(index, split="train", seed=1, frames=8, size=64)["frames"] for index in (2, 3))
    assert not set(one) & set(other)


@pytest.mark.parametrize("frames", [3, 5, 16])
@pytest.mark.parametrize("size", [32, 48, 72, 96, 224])
def test_other_lengths_and_sizes(frames, size):
    for name in CLASSES[::2]:
        scene = scene_of(name, frames=frames, size=size)
        assert render(scene).shape == (frames, size, size, 3)
        displacement, moving = truth(scene)
        assert displacement.shape == (frames - 1, size // CELL, size // CELL, 2)
        assert moving.any()


def test_speed_grows_with_size():
    small, large = (np.abs(truth(scene_of("move left", size=size))[0]).max() for size in (64, 128))
    assert large == pytest.approx(2 * small)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"name": "move"}, "class is 'move', expected one of"), ({"frames": 2}, "3 frames"), ({"size": 60}, "divides")],
)
def test_impossible_scenes(change, message):
    with pytest.raises(ValueError, match=message):
        scene_of(**{"name": "move left", **change})


def test_preparation_needs_no_tensorflow(tmp_path, pytestconfig):
    script = (
        "import sys; from motion_jax.data.sources.moving_shapes import MovingShapes\n"
        "builder = MovingShapes(clips=(12, 2), size=32, data_dir=sys.argv[1]); builder.download_and_prepare()\n"
        "assert len(builder.as_data_source('train')) == 12\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    command = [sys.executable, "-W", "error", "-c", script, str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True, cwd=pytestconfig.rootpath)

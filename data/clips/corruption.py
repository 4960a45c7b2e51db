"""Corruptions of test clips, which measure the robustness of a network.

Occlusion and motion blur are those of SELFY's supplement, which corrupts the 4th of 8 frames. The others change the
order of frames or remove some. Clips are uint8 (t, h, w, 3) as cropped for the network. Functions never write to their
input.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

# Side of the black square, and (radius, sigma) of the blur, in pixels of a frame of 224 x 224.
OCCLUSION = (40, 80, 120, 160, 200, 224)
MOTION_BLUR = ((15, 5), (10, 8), (15, 12), (20, 15), (25, 20), (30, 25))
LEVELS = {"occlusion": 6, "motion_blur": 6, "drop": 6, "duplicate": 6, "shuffle": 1, "reverse": 1, "freeze": 2}
"""Corruption -> its number of levels, which count from 1."""


@dataclass(frozen=True)
class Corruption:
    """A corruption of a clip.

    ``"occlusion"`` covers the centre of the frame with a black square. ``"motion_blur"`` blurs the frame along a line
    whose angle, -45 to 45 degrees, is drawn for each example. ``"drop"`` makes the frame black. ``"duplicate"``
    replaces the frame by its predecessor. Drop and duplicate corrupt ``level`` adjacent frames, with the chosen one in
    the middle or left of it. ``"shuffle"`` draws a new order of all frames for each example, never the original one.
    ``"reverse"`` reverses the order. ``"freeze"`` replaces the frames of each half of the clip by the middle frame of
    that half (level 1), or all frames by the middle one of the clip (level 2).

    Sizes of the first two are given for frames of 224 pixels and scale with the height of the frame.

    Attributes:
        name: one of :data:`LEVELS`.
        level: 1 to the number of levels there.
        frame: index of the corrupted frame; None is ``(t - 1) // 2``, the 4th of 8. Shuffle, reverse and freeze ignore
            it.

    Raises:
        ValueError: if the corruption or the level does not exist.

    Source: SELFY, supplement A, "Frame corruption details"; the others are additions.
    """

    name: str
    level: int
    frame: int | None = None

    def __post_init__(self) -> None:
        if self.name not in LEVELS:
            raise ValueError(f"there is no corruption {self.name!r}: choose one of {', '.join(LEVELS)}")
        if not 1 <= self.level <= LEVELS[self.name]:
            have = f"levels 1 to {LEVELS[self.name]}" if LEVELS[self.name] > 1 else "level 1 alone"
            raise ValueError(f"{self.name} has {have}, not {self.level}")

    @classmethod
    def parse(cls, text: str) -> "Corruption":
        """Read a corruption written as ``name:level`` or ``name:level:frame``.

        Raises:
            ValueError: if the text has another form.

        >>> Corruption.parse("occlusion:3"), str(Corruption("drop", 2, 5))
        (Corruption(name='occlusion', level=3, frame=None), 'drop:2:5')
        """
        name, *numbers = text.split(":")
        if len(numbers) not in (1, 2) or not all(number.isdecimal() for number in numbers):
            raise ValueError(f"corruption is {text!r}, expected NAME:LEVEL or NAME:LEVEL:FRAME, such as occlusion:3")
        return cls(name, *map(int, numbers))

    def __str__(self) -> str:
        """Return the text that ``parse`` reads."""
        return f"{self.name}:{self.level}" + (f":{self.frame}" if self.frame is not None else "")

    def frames(self, count: int) -> range:
        """Return the range of corrupted frames in a clip of ``count`` frames.

        Raises:
            ValueError: if the clip is too short.

        >>> Corruption("occlusion", 1).frames(8), Corruption("drop", 4).frames(8), Corruption("drop", 6, 7).frames(8)
        (range(3, 4), range(2, 6), range(2, 8))
        """
        if self.name in ("shuffle", "reverse", "freeze"):
            if count < (fewest := 3 if self.name == "freeze" else 2):
                raise ValueError(f"{self} needs clips of {fewest} or more frames, not {count}")
            return range(count)
        chosen = (count - 1) // 2 if self.frame is None else self.frame
        if not 0 <= chosen < count:
            raise ValueError(f"{self} corrupts frame {chosen}, but a clip has frames 0 to {count - 1}")
        length = self.level if self.name in ("drop", "duplicate") else 1
        # The first frame has no predecessor.
        earliest = 1 if self.name == "duplicate" else 0
        if count - earliest < length:
            raise ValueError(f"{self} corrupts {length} frames, too many for a clip of {count}")
        start = max(earliest, min(chosen - (length - 1) // 2, count - length))
        return range(start, start + length)

    def __call__(self, clip: np.ndarray, *, index: int) -> np.ndarray:
        """Return the corrupted clip, uint8 (t, h, w, 3).

        Draws depend on ``index``, the position of the example in its split, alone: they are the same for every level,
        view and network.

        Raises:
            ValueError: if the clip is too short.
        """
        frames = self.frames(len(clip))
        rng = np.random.default_rng([index])
        if self.name == "reverse":
            return clip[::-1].copy()
        if self.name == "shuffle":
            order = rng.permutation(len(clip))
            while np.array_equal(order, range(len(clip))):
                order = rng.permutation(len(clip))
            return clip[order]
        if self.name == "freeze":
            parts = np.array_split(np.arange(len(clip)), 3 - self.level)
            return clip[np.concatenate([np.full(len(part), part[(len(part) - 1) // 2]) for part in parts])]
        clip = clip.copy()
        scale = clip.shape[1] / 224
        for frame in frames:
            if self.name == "occlusion":
                clip[frame] = occlude(clip[frame], side=round(OCCLUSION[self.level - 1] * scale))
            elif self.name == "motion_blur":
                radius, sigma = MOTION_BLUR[self.level - 1]
                radius, angle = max(1, round(radius * scale)), rng.uniform(-45.0, 45.0)
                clip[frame] = motion_blur(clip[frame], radius=radius, sigma=sigma * scale, angle=angle)
            elif self.name == "drop":
                clip[frame] = 0
            else:
                clip[frame] = clip[frame - 1]
        return clip


def occlude(frame: np.ndarray, *, side: int) -> np.ndarray:
    """Cover the centre of a frame, uint8 (h, w, 3), with a black square of ``side`` pixels, cut off at the border."""
    height, width = frame.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    frame = frame.copy()
    frame[top : top + side, left : left + side] = 0
    return frame


def motion_blur(frame: np.ndarray, *, radius: int, sigma: float, angle: float) -> np.ndarray:
    """Blur a frame, uint8 (h, w, 3), along a line, as if the camera moved.

    Each pixel becomes the weighted mean of ``2 * radius + 1`` pixels, from itself on in the direction ``angle``. The
    i-th weight is half a Gaussian, ``exp(-i**2 / (2 * sigma**2))``, with ``radius`` and ``sigma`` in pixels. ``angle``
    is in degrees, 0 to the right, 90 down. The border is replicated.

    Source: ImageNet-C, ``motion_blur``, which calls ImageMagick's ``MotionBlurImage``.
    """
    kernel, anchor = motion_blur_kernel(radius=radius, sigma=sigma, angle=angle)
    return cv2.filter2D(frame, -1, kernel, anchor=anchor, borderType=cv2.BORDER_REPLICATE)


def motion_blur_kernel(*, radius: int, sigma: float, angle: float) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the weights (rows, columns) of motion blur, which sum to 1, and the (x, y) of the blurred pixel.

    >>> kernel, anchor = motion_blur_kernel(radius=1, sigma=1.0, angle=0)
    >>> kernel.round(3).tolist(), anchor
    ([[0.574, 0.348, 0.078]], (0, 0))
    """
    taps = np.arange(2 * radius + 1)
    weights = np.exp(-(taps**2) / (2 * sigma**2))
    turn = math.radians(angle)
    # Halves round down, as in the source.
    x, y = (np.ceil(taps * part - 0.5).astype(int) for part in (math.cos(turn), math.sin(turn)))
    anchor = -x.min(), -y.min()
    kernel = np.zeros((np.ptp(y) + 1, np.ptp(x) + 1))
    np.add.at(kernel, (y + anchor[1], x + anchor[0]), weights / weights.sum())
    return kernel, (int(anchor[0]), int(anchor[1]))

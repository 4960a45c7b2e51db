"""Crops and flips of RGB uint8 frames (h, w, 3). Random draws are an argument."""

import math
from typing import NamedTuple

import cv2
import numpy as np

from motion_jax.data.clips.sampling import Draw
from motion_jax.data.storage.frames import resize

SCALES = (1.0, 0.875, 0.75, 0.66)
_ASPECTS = (3 / 4, 4 / 3)


class Box(NamedTuple):
    """A rectangle of pixels: left edge, top edge, width, height."""

    x: int
    y: int
    width: int
    height: int


def multi_scale_sizes(height: int, width: int, *, size: int) -> list[tuple[int, int]]:
    """Return the candidate (width, height) of multi-scale crops in the official order, with repetitions.

    Sides are the shorter side of the frame times 1, .875, .75 and .66, rounded down. A side within 2 pixels of
    ``size`` becomes ``size``. A candidate pairs two scales that are at most one step apart.

    Source: MotionSqueeze, transforms.py, ``GroupMultiScaleCrop._sample_crop_size``.

    >>> multi_scale_sizes(240, 320, size=224)[:4]
    [(240, 240), (210, 240), (240, 210), (210, 210)]
    """
    sides = [int(min(height, width) * scale) for scale in SCALES]
    # The sides of the smallest frames would round down to 0.
    sides = [max(1, size if abs(side - size) < 3 else side) for side in sides]
    return [(sides[j], sides[i]) for i in range(len(sides)) for j in range(len(sides)) if abs(i - j) <= 1]


def fixed_offsets(height: int, width: int, *, crop_height: int, crop_width: int) -> list[tuple[int, int]]:
    """Return the 13 (x, y) positions of a multi-scale crop: corners, edges, centre and the quarter points.

    Source: MotionSqueeze, transforms.py, ``GroupMultiScaleCrop.fill_fix_offset`` with ``more_fix_crop``.

    >>> fixed_offsets(240, 320, crop_height=240, crop_width=240)[:5]
    [(0, 0), (80, 0), (0, 0), (80, 0), (40, 0)]
    """
    x, y = (width - crop_width) // 4, (height - crop_height) // 4
    steps = [(0, 0), (4, 0), (0, 4), (4, 4), (2, 2), (0, 2), (4, 2), (2, 4), (2, 0), (1, 1), (3, 1), (1, 3), (3, 3)]
    return [(i * x, j * y) for i, j in steps]


def multi_scale_crop(height: int, width: int, *, size: int, draw: Draw) -> Box:
    """Draw a multi-scale crop of a (height, width) frame for an input of ``size`` pixels.

    Two draws: the size among :func:`multi_scale_sizes`, then the position among :func:`fixed_offsets`.

    Source: MotionSqueeze, transforms.py, ``GroupMultiScaleCrop``.
    """
    sizes = multi_scale_sizes(height, width, size=size)
    crop_width, crop_height = sizes[int(draw(len(sizes)))]
    offsets = fixed_offsets(height, width, crop_height=crop_height, crop_width=crop_width)
    x, y = offsets[int(draw(len(offsets)))]
    return Box(x, y, crop_width, crop_height)


def random_resized_crop(height: int, width: int, *, rng: np.random.Generator) -> Box:
    """Draw a part of a (height, width) frame with 0.08 to 1 of its area and an aspect of 3:4 to 4:3.

    The area is uniform, and so is the logarithm of the aspect. If ten draws do not fit into the frame, the crop is the
    largest centred rectangle with an allowed aspect.

    Source: Szegedy et al., Going Deeper with Convolutions, CVPR 2015, section 6; ranges and the ten draws as in
        torchvision's ``RandomResizedCrop``.
    """
    for _ in range(10):
        area = height * width * rng.uniform(0.08, 1.0)
        aspect = math.exp(rng.uniform(*(math.log(bound) for bound in _ASPECTS)))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            x, y = rng.integers(width - crop_width, endpoint=True), rng.integers(height - crop_height, endpoint=True)
            return Box(int(x), int(y), crop_width, crop_height)
    least, most = _ASPECTS
    crop_width = max(1, min(width, round(height * most)))
    crop_height = max(1, min(height, round(width / least)))
    return Box((width - crop_width) // 2, (height - crop_height) // 2, crop_width, crop_height)


def center_crop(height: int, width: int, *, size: int) -> Box:
    """Return the centred square of ``size`` pixels; half pixels round to the even neighbour.

    Raises:
        ValueError: if the frame is smaller than ``size``.

    Source: torchvision's centre crop, which the official code uses.

    >>> center_crop(231, 225, size=224)
    Box(x=0, y=4, width=224, height=224)
    """
    _check_crop(height, width, size)
    return Box(round((width - size) / 2), round((height - size) / 2), size, size)


def three_crops(height: int, width: int, *, size: int) -> list[Box]:
    """Return squares of ``size`` pixels at the start, the end and the centre of the longer side, centred on the other.

    Steps are a quarter of the free space, rounded down, as in the source. The source always moves along the width, so
    an upright video yields one crop three times; here the crops follow the longer side.

    Raises:
        ValueError: if the frame is smaller than ``size``.

    Source: MotionSqueeze, transforms.py, ``GroupFullResSample``.

    >>> [(box.x, box.y) for box in three_crops(256, 340, size=256)]
    [(0, 0), (84, 0), (42, 0)]
    """
    _check_crop(height, width, size)
    x, y = (width - size) // 4, (height - size) // 4
    steps = [(0, 2), (4, 2), (2, 2)] if width >= height else [(2, 0), (2, 4), (2, 2)]
    return [Box(i * x, j * y, size, size) for i, j in steps]


def crop_and_resize(frame: np.ndarray, box: Box, *, size: int) -> np.ndarray:
    """Cut ``box`` out of a frame and resize it to uint8 (size, size, 3)."""
    return resize(frame[box.y : box.y + box.height, box.x : box.x + box.width], height=size, width=size)


def flip(frame: np.ndarray) -> np.ndarray:
    """Mirror a frame left to right: uint8 (h, w, 3)."""
    return cv2.flip(frame, 1)


def _check_crop(height: int, width: int, size: int) -> None:
    if min(height, width) < size:
        raise ValueError(f"a frame of {height}x{width} is smaller than the crop of {size}x{size}: enlarge the frame")

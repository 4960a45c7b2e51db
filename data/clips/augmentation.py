"""Color jitter and RandAugment of whole clips, uint8 (t, h, w, 3) RGB.

All frames of a clip share one draw. Contrast, autocontrast and equalize use statistics of the whole clip, so that
the clip does not flicker. Functions never write to their input.
"""

import math
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

_LEVELS = np.arange(256)
# Weights of red, green and blue in the lightness (ITU-R 601), as in OpenCV and Pillow.
_LIGHTNESS = np.array([0.299, 0.587, 0.114])
_SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13


def color_jitter(
    clip: np.ndarray, *, strengths: tuple[float, float, float, float], rng: np.random.Generator
) -> np.ndarray:
    """Change brightness, contrast, saturation and hue at random and in random order.

    The factors of the first three lie between max(0, 1 - strength) and 1 + strength; the hue rotates by up to its
    strength in turns. The number of draws is the same for every clip.

    Source: torchvision's ``ColorJitter``, which uses the mean of each frame for the contrast.
    """
    amounts = [rng.uniform(max(0.0, 1 - strength), 1 + strength) for strength in strengths[:3]]
    amounts.append(rng.uniform(-strengths[3], strengths[3]))
    for position in rng.permutation(4):
        if strengths[position] > 0:
            clip = (brightness, contrast, saturation, hue)[position](clip, amounts[position])
    return clip


def rand_augment(clip: np.ndarray, *, operations: int, magnitude: int, rng: np.random.Generator) -> np.ndarray:
    """Apply ``operations`` random operations of :data:`OPERATIONS` in sequence.

    Operations are drawn with replacement. ``magnitude`` is 0 to 30, where 30 is the largest change of each operation;
    the direction is drawn if there are two. Each operation takes two draws of ``rng``.

    Source: Cubuk et al., RandAugment, 2020, section 3 and table 6; ranges as in torchvision's ``RandAugment``.
    """
    for _ in range(operations):
        operation = OPERATIONS[int(rng.integers(len(OPERATIONS)))]
        clip = operation(clip, (1 if rng.integers(2) else -1) * magnitude / 30)
    return clip


def brightness(clip: np.ndarray, factor: float) -> np.ndarray:
    """Multiply every level by ``factor``: 0 gives black, 1 the same clip."""
    return _look_up(clip, factor * _LEVELS)


def contrast(clip: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance of every level from the mean lightness of the clip by ``factor``."""
    mean = np.rint(cv2.mean(_rows(clip))[:3] @ _LIGHTNESS)
    return _look_up(clip, mean + factor * (_LEVELS - mean))


def saturation(clip: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance of every pixel from its lightness by ``factor``: 0 gives gray."""
    matrix = factor * np.eye(3) + (1 - factor) * _LIGHTNESS[None, :]
    return cv2.transform(_rows(clip), matrix).reshape(clip.shape)


def hue(clip: np.ndarray, turns: float) -> np.ndarray:
    """Rotate every hue: a third of a turn maps red to green, green to blue and blue to red."""
    hsv = cv2.cvtColor(_rows(clip), cv2.COLOR_RGB2HSV_FULL)
    # A turn has 256 steps, so uint8 overflow is the rotation.
    hsv[..., 0] += np.uint8(round(turns * 256) % 256)
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB_FULL).reshape(clip.shape)


def sharpness(clip: np.ndarray, factor: float) -> np.ndarray:
    """Multiply the distance of every pixel from the mean of its neighbourhood by ``factor``: 0 smooths."""
    kernel = (1 - factor) * _SMOOTH
    kernel[1, 1] += factor
    return _each(clip, partial(cv2.filter2D, ddepth=-1, kernel=kernel, borderType=cv2.BORDER_REPLICATE))


def posterize(clip: np.ndarray, bits: int) -> np.ndarray:
    """Keep the highest ``bits`` bits of every level."""
    return clip & np.uint8(256 - 2 ** (8 - bits))


def solarize(clip: np.ndarray, threshold: float) -> np.ndarray:
    """Invert the levels at or above ``threshold``: 256 inverts none, 0 all."""
    return _look_up(clip, np.where(threshold <= _LEVELS, 255 - _LEVELS, _LEVELS))


def autocontrast(clip: np.ndarray) -> np.ndarray:
    """Stretch every color channel so that its darkest level becomes 0 and its brightest 255."""
    table = np.empty((256, 3))
    for channel, counts in enumerate(_counts(clip)):
        low, high = np.flatnonzero(counts)[[0, -1]]
        table[:, channel] = 255 / (high - low) * (_LEVELS - low) if high > low else _LEVELS
    return _look_up(clip, table)


def equalize(clip: np.ndarray) -> np.ndarray:
    """Equalize the histogram of every color channel.

    ``step`` is 1/255 of the number of pixels below the brightest level present. Level v becomes the number of pixels
    darker than v divided by ``step``, rounded. A channel whose ``step`` is 0 is not changed.

    Source: Pillow's ``ImageOps.equalize``.
    """
    table = np.empty((256, 3), np.int64)
    for channel, counts in enumerate(_counts(clip)):
        step = (counts.sum() - counts[np.flatnonzero(counts)[-1]]) // 255
        darker = np.cumsum(counts) - counts
        table[:, channel] = (step // 2 + darker) // step if step else _LEVELS
    return _look_up(clip, table)


def shear(clip: np.ndarray, *, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Move pixels right by ``x`` times their distance below the centre, and down likewise; fill with black."""
    return _warp(clip, np.array([[1, x], [y, 1]]))


def translate(clip: np.ndarray, *, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    """Move the clip right by ``x`` widths and down by ``y`` heights, in whole pixels; fill with black."""
    height, width = clip.shape[1:3]
    return _warp(clip, np.eye(2), move=(round(x * width), round(y * height)))


def rotate(clip: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate the clip clockwise about its centre; fill with black."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _warp(clip, np.array([[cosine, -sine], [sine, cosine]]))


# Each takes a strength from -1 to 1; operations with one direction use its absolute value.
OPERATIONS: tuple[Callable[[np.ndarray, float], np.ndarray], ...] = (
    lambda clip, strength: clip,
    lambda clip, strength: shear(clip, x=0.3 * strength),
    lambda clip, strength: shear(clip, y=0.3 * strength),
    lambda clip, strength: translate(clip, x=150 / 331 * strength),
    lambda clip, strength: translate(clip, y=150 / 331 * strength),
    lambda clip, strength: rotate(clip, 30 * strength),
    lambda clip, strength: brightness(clip, 1 + 0.9 * strength),
    lambda clip, strength: saturation(clip, 1 + 0.9 * strength),
    lambda clip, strength: contrast(clip, 1 + 0.9 * strength),
    lambda clip, strength: sharpness(clip, 1 + 0.9 * strength),
    lambda clip, strength: posterize(clip, 8 - round(4 * abs(strength))),
    lambda clip, strength: solarize(clip, 256 * (1 - abs(strength))),
    lambda clip, strength: autocontrast(clip),
    lambda clip, strength: equalize(clip),
)


def _rows(clip: np.ndarray) -> np.ndarray:
    """Reshape to one tall image (t * h, w, 3), for pixelwise functions."""
    return clip.reshape(-1, *clip.shape[2:])


def _look_up(clip: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Map levels by a table (256,), or (256, 3) with one column per channel, rounded and clipped to 0 to 255."""
    levels = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return cv2.LUT(_rows(clip), levels if levels.ndim == 1 else levels[:, None]).reshape(clip.shape)


def _counts(clip: np.ndarray) -> list[np.ndarray]:
    """Return the histogram (256,) of each channel."""
    rows = _rows(clip)
    # OpenCV counts in float32, which is exact below 2**24, the pixels of 334 frames of 224 x 224.
    return [cv2.calcHist([rows], [channel], None, [256], [0, 256]).ravel().astype(np.int64) for channel in range(3)]


def _each(clip: np.ndarray, change: Callable[..., np.ndarray]) -> np.ndarray:
    """Apply ``change`` to every frame."""
    changed = np.empty_like(clip)
    for frame, out in zip(clip, changed, strict=True):
        change(frame, dst=out)
    return changed


def _warp(clip: np.ndarray, matrix: np.ndarray, *, move: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Move pixel p = (x, y) to ``matrix @ (p - centre) + centre + move``; bilinear, black outside."""
    height, width = clip.shape[1:3]
    centre = np.array([(width - 1) / 2, (height - 1) / 2])
    affine = np.column_stack([matrix, centre + move - matrix @ centre])
    return _each(clip, partial(cv2.warpAffine, M=affine, dsize=(width, height), flags=cv2.INTER_LINEAR))

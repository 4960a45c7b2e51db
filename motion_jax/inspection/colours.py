"""The colours of displacement: the wheel of the Middlebury optical flow benchmark."""

import numpy as np

# Hues from red to yellow, green, cyan, blue, magenta and back to red, with the number of steps in each part.
_CORNERS = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [0, 0, 1], [1, 0, 1], [1, 0, 0]], np.float64)
_STEPS = (15, 6, 4, 11, 13, 6)
_DARKER = 0.75  # factor of lengths beyond the scale


def middlebury_wheel() -> np.ndarray:
    """Return the 55 fully saturated colours of the wheel: (55, 3) in [0, 1], from red over yellow.

    Source: Baker et al., A Database and Evaluation Methodology for Optical Flow (IJCV 2011), Figure 1; the benchmark's
    ``colorcode.cpp``.
    """
    parts = [
        start + np.arange(steps)[:, None] / steps * (end - start)
        for start, end, steps in zip(_CORNERS[:-1], _CORNERS[1:], _STEPS, strict=True)
    ]
    # The benchmark rounds the colours of the wheel down to 8 bits.
    return np.floor(np.concatenate(parts) * 255) / 255


_WHEEL = middlebury_wheel()


def flow_colours(displacement: np.ndarray, *, longest: float) -> np.ndarray:
    """Colour a displacement field by the Middlebury wheel.

    Hue is direction: right is red, down yellow, left cyan-blue, up violet. No motion is white, and colours are full at
    ``longest``. Longer displacements are darker.

    Args:
        displacement: (..., 2) as (dx, dy), right and down positive, in any unit.
        longest: length at which colours are full, in the same unit.

    Returns:
        uint8 (..., 3).

    >>> flow_colours(np.array([[0, 0], [1, 0]]), longest=1).tolist()
    [[255, 255, 255], [255, 0, 0]]
    """
    x, y = (np.asarray(displacement[..., axis], np.float64) / longest for axis in (0, 1))
    length = np.hypot(x, y)
    # The benchmark's angle runs from -pi (right) over -pi / 2 (down) to pi. A negative zero would turn right into pi.
    angle = np.arctan2(-y + 0.0, -x + 0.0) / np.pi
    angle = np.where((y == 0) & (x >= 0), -1, angle)
    position = (angle + 1) / 2 * (len(_WHEEL) - 1)
    first = np.floor(position).astype(int)
    rest = (position - first)[..., None]
    colour = (1 - rest) * _WHEEL[first] + rest * _WHEEL[(first + 1) % len(_WHEEL)]
    shade = length[..., None]
    colour = np.where(shade <= 1, 1 - shade * (1 - colour), colour * _DARKER)
    return (colour * 255).astype(np.uint8)


def wheel_picture(side: int) -> np.ndarray:
    """Draw the wheel itself: RGBA uint8 (side, side, 4), transparent outside of the circle.

    The centre is no motion and the rim is the longest displacement.
    """
    y, x = (np.mgrid[:side, :side] + 0.5) * 2 / side - 1
    field = np.stack([x, y], axis=-1)
    inside = np.hypot(x, y) <= 1
    return np.dstack([flow_colours(field, longest=1), np.where(inside, 255, 0).astype(np.uint8)])


def length_scale(fields: np.ndarray) -> float:
    """Return the length at which colours of fields (..., 2) are full: the 95th percentile of the lengths above 0.

    >>> length_scale(np.zeros((2, 2)))
    1.0
    """
    lengths = np.linalg.norm(fields, axis=-1)
    return float(np.percentile(lengths[lengths > 0], 95)) if np.any(lengths) else 1.0

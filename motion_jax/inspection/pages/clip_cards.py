"""Small animations of clips with what a network sees in them, as pictures for a page."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from motion_jax.inspection.clip_inspection import ClipInspection
from motion_jax.inspection.colours import flow_colours, length_scale, wheel_picture
from motion_jax.inspection.pages.page import picture_url
from motion_jax.inspection.panels import ACTIVATION_COLOURS, visibility

SIDE = 160
"""Largest side of a frame in pixels."""
_WIDEST = 16383  # of a WebP picture


def frames_picture(frames: np.ndarray) -> dict[str, Any]:
    """Return the frames (t, H, W, 3) of a clip beside each other, reduced to ``SIDE``, with their number and size."""
    count, height, width = frames.shape[:3]
    scale = min(1.0, SIDE / max(height, width), _WIDEST // count / width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = [cv2.resize(frame, size[::-1], interpolation=cv2.INTER_AREA) for frame in frames]
    picture = picture_url(np.concatenate(small, axis=1), "webp", quality=82)
    return {"frames": picture, "count": count, "size": size}


def overlays(seen: Sequence[ClipInspection], chosen: Sequence[int]) -> list[dict[str, Any]]:
    """Return the pictures over each clip: displacement to the next frame, and activation of the chosen class.

    Displacement fades where nothing moves and where the confidence is low for the clip. Its colours are full at
    ``longest`` pixels, the same for all clips. Activation is relative to the strongest of its clip.

    Args:
        seen: what the network sees in each clip.
        chosen: a class per clip.
    """
    comparisons = [each.comparison for each in seen if each.comparison is not None]
    fields = [each.expected[..., each.main_offset, :] for each in comparisons]
    weights = [visibility(each.confidence[..., each.main_offset]) for each in comparisons]
    sure = [field[weight > 0.5] for field, weight in zip(fields, weights, strict=True)]
    longest = length_scale(np.concatenate(sure)) if sure else None
    made = []
    for at, (each, label) in enumerate(zip(seen, chosen, strict=True)):
        activation = each.activation[label]
        pictures = {"activation": activation_colours(activation / max(activation.max(), 1e-12))}
        if longest is not None:
            opacity = weights[at] * np.clip(np.linalg.norm(fields[at], axis=-1) / longest, 0, 1)
            alpha = np.round(255 * opacity).astype(np.uint8)[..., None]
            pictures["displacement"] = np.concatenate([flow_colours(fields[at], longest=longest), alpha], axis=-1)
        made.append(
            {
                **{name: _strip(picture) for name, picture in pictures.items()},
                "counts": {name: len(picture) for name, picture in pictures.items()},
                "longest": longest,
            }
        )
    return made


def activation_colours(activation: np.ndarray) -> np.ndarray:
    """Colour values from 0 to 1 as RGBA uint8 (..., 4), from transparent black over red to opaque yellow."""
    from matplotlib import colormaps

    colours = colormaps[ACTIVATION_COLOURS](np.clip(activation, 0, 1))
    colours[..., 3] = np.clip(1.5 * activation, 0, 1)
    return np.round(255 * colours).astype(np.uint8)


def legend() -> dict[str, str]:
    """Return the wheel of displacement and the scale of activation, as data URLs."""
    scale = activation_colours(np.linspace(0, 1, 160)[None])
    return {"wheel": picture_url(wheel_picture(144), "png"), "scale": picture_url(scale, "png")}


def _strip(pictures: np.ndarray) -> str:
    """Return RGBA pictures (t, h, w, 4) beside each other."""
    return picture_url(np.concatenate(list(pictures), axis=1), "png")

"""Made-up clips with what a network sees in them, for the tests of pictures."""

import numpy as np

from motion_jax.inspection.clip_inspection import ClipInspection, Comparison
from motion_jax.inspection.panels import DrawnClip

LABELS = ("kick", "punch", "push")


def comparison(*, offsets=(-1, 0, 1), estimated=False, frames=4, size=(4, 6), window=5):
    """Similarities of noise, and one cell (1, 2) that moves 8 pixels to the right."""
    rng = np.random.default_rng(0)
    expected = np.zeros((frames, *size, len(offsets), 2), np.float32)
    confidence = np.full((frames, *size, len(offsets)), 0.5, np.float32)
    expected[:, 1, 2, -1] = (8, 0)
    confidence[:, 1, 2] = 0.9
    return Comparison(
        site="res3",
        block="Selfy",
        frames=np.arange(frames),
        offsets=offsets,
        step=1,
        similarities=rng.uniform(0.1, 0.9, (frames, *size, len(offsets), window, window)).astype(np.float32),
        expected=expected,
        confidence=confidence,
        estimated=estimated,
    )


def clip(motion=None, *, level=255, frames=4, label=0, truth=None, activation=None):
    pictures = np.full((frames, 32, 48, 3), level, np.uint8)
    if activation is None:
        activation = np.zeros((3, frames, 2, 3), np.float32)
        activation[0, 1, 0, 0] = 2.0
    probabilities = np.array([0.7, 0.2, 0.1], np.float32)
    seen = ClipInspection(pictures, probabilities, np.tile(probabilities, (frames, 1)), activation, motion)
    return DrawnClip(seen, LABELS, "a clip", np.arange(frames) / 8, label, truth)

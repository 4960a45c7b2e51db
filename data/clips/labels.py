"""Directional classes, and the effect of a horizontal flip on a label."""

import re
from collections.abc import Sequence

import numpy as np

from motion_jax.data.config import POLICIES

# Only letters continue a word: "move_left" and "left-hand" hold the word "left", "upright" does not hold "right".
_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
# In "pulling it right out" the word means "straight away".
_RIGHT_OUT = re.compile(r"(?<![a-z])right out(?![a-z])", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}


def directional(name: str) -> bool:
    """Return whether a class name has a direction, so that it does not fit a mirrored clip.

    True when the name holds the whole word left or right, in any case, after "right out" is removed.

    Source: MotionSqueeze, transforms.py, ``GroupRandomHorizontalFlip``, which lists label ids. This rule gives the same
        classes and does not depend on the order of the labels.

    >>> directional("Pulling something from left to right")
    True
    >>> directional("Plugging something into something but pulling it right out"), directional("Standing upright")
    (False, False)
    """
    return _SIDE.search(_RIGHT_OUT.sub("", name)) is not None


def mirrored(name: str, names: Sequence[str]) -> str | None:
    """Return the name with left and right exchanged; None if it is not in ``names`` or ``name`` has no direction.

    >>> mirrored("move left", ["move left", "move right"])
    'move right'
    >>> mirrored("turn left", ["turn left", "turn up"]) is None
    True
    """
    if not directional(name):
        return None
    kept = _RIGHT_OUT.findall(name)
    pieces = [_SIDE.sub(lambda word: _OTHER.get(word[0], _OTHER[word[0].lower()]), p) for p in _RIGHT_OUT.split(name)]
    other = pieces[0] + "".join(phrase + piece for phrase, piece in zip(kept, pieces[1:], strict=True))
    return other if other in names else None


def flipped_labels(names: Sequence[str], *, policy: str) -> np.ndarray:
    """Return the label of a mirrored clip of each class, int32 (k,); -1 where clips must not be mirrored.

    Args:
        names: class names in label order.
        policy: ``"skip"`` mirrors all classes but the directional ones; ``"swap"`` mirrors these too and exchanges the
            label, if the mirrored name is a class; ``"none"`` mirrors no clip; ``"always"`` mirrors every class and
            keeps the label.

    Raises:
        ValueError: if the policy is unknown.

    >>> flipped_labels(["clap", "move left", "move right", "turn left"], policy="swap").tolist()
    [0, 2, 1, -1]
    """
    if policy not in POLICIES:
        raise ValueError(f"flip policy is {policy!r}, expected one of {', '.join(POLICIES)}")
    labels = np.arange(len(names), dtype=np.int32)
    if policy == "always":
        return labels
    if policy == "none":
        return np.full_like(labels, -1)
    position = {name: label for label, name in enumerate(names)}
    for label, name in enumerate(names):
        if directional(name):
            labels[label] = position.get(mirrored(name, names), -1) if policy == "swap" else -1
    return labels

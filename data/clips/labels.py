"""Which classes have a direction, and what a horizontal flip does to a label."""

import re
from collections.abc import Sequence

import numpy as np

POLICIES = ("skip", "swap", "none", "always")

# Letters alone bound a word, so "move_left" and "left-hand" hold the word and "upright" does not.
_SIDE = re.compile(r"(?<![a-z])(left|right)(?![a-z])", re.IGNORECASE)
# In "pulling it right out" the word means "straight away".
_RIGHT_OUT = re.compile(r"(?<![a-z])right out(?![a-z])", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left", "Left": "Right", "Right": "Left", "LEFT": "RIGHT", "RIGHT": "LEFT"}


def directional(name: str) -> bool:
    """Whether a class name speaks of left or right, so that a mirrored clip no longer fits it.

    True when the name holds the whole word left or right, in any case, after "right out" is removed.

    Source: the rule stands for the official lists of label ids (MotionSqueeze, transforms.py,
        ``GroupRandomHorizontalFlip``), which depend on the order of the labels; this one depends on the names alone.

    >>> directional("Pulling something from left to right")
    True
    >>> directional("Plugging something into something but pulling it right out"), directional("Standing upright")
    (False, False)
    """
    return _SIDE.search(_RIGHT_OUT.sub("", name)) is not None


def mirrored(name: str, names: Sequence[str]) -> str | None:
    """The name with left and right exchanged, or None where ``names`` does not hold it or ``name`` has no direction.

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
    """The label of each class's mirrored clip, int32 (k,); -1 where clips of the class must not be mirrored.

    Args:
        names: class names in label order.
        policy: ``"skip"`` leaves directional classes unmirrored; ``"swap"`` mirrors them and exchanges the label,
            where the
            mirrored name is a class too; ``"none"`` mirrors nothing; ``"always"`` mirrors everything and keeps the
            label.

    Raises:
        ValueError: for another policy.

    >>> flipped_labels(["clap", "move left", "move right", "turn left"], policy="swap").tolist()
    [0, 2, 1, -1]
    """
    if policy not in POLICIES:
        raise ValueError(f"unknown flip policy {policy!r}: choose one of {', '.join(POLICIES)}")
    labels = np.arange(len(names), dtype=np.int32)
    if policy == "always":
        return labels
    if policy == "none":
        return np.full_like(labels, -1)
    position = {name: label for label, name in enumerate(names)}
    for label, name in enumerate(names):
        if directional(name):
            other = mirrored(name, names) if policy == "swap" else None
            labels[label] = -1 if other is None else position[other]
    return labels

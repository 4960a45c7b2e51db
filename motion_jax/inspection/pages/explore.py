"""The explorer page: what one or two networks see in clips, to play, switch and click."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np

from motion_jax.inspection.clip_inspection import ClipInspection, Comparison
from motion_jax.inspection.colours import flow_colours, length_scale, wheel_picture
from motion_jax.inspection.pages.page import packed, picture_url, render

BEST = 5
MOST_CLIPS = 12
JPEG_QUALITY = 92
WHEEL_SIDE = 96
# Name, title, opacity in percent, whether it is shown at first, and whether it needs a block that compares frames.
OVERLAYS = (
    ("activation", "Class activation", 65, True, False),
    ("displacement", "Displacement", 70, False, True),
    ("arrows", "Arrows", 100, True, True),
    ("confidence", "Confidence", 75, False, True),
    ("similarity", "Similarity", 65, True, True),
)
# Larger arrays are stored as 16-bit steps between their lowest and highest value, so that a clip stays below 5 MB.
MOST_FLOATS = 700_000


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that a page shows.

    Attributes:
        name: its name on the page, different from that of other networks.
        checkpoint: where it comes from.
    """

    name: str
    checkpoint: str


@dataclasses.dataclass(frozen=True)
class Clip:
    """A clip that a page shows.

    Attributes:
        name: file of the clip.
        label: position of the right class in ``labels``; None if unknown.
        origin: how the right class is known, as the end of "the right class is ...".
        seen: what each network sees in it.
    """

    name: str
    label: int | None
    origin: str
    seen: Sequence[ClipInspection]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What a network says of a clip, and whether it is right.

    Attributes:
        kind: ``"right"``, ``"wrong"`` or ``"unknown"``.
        predicted: name of the best class.
        probability: probability of the best class.
        answer: name of the right class, with its rank and probability; None if unknown.
        evidence: where the activation of the best class is largest, as the end of "the evidence is strongest ...".
    """

    kind: str
    predicted: str
    probability: float
    answer: tuple[str, int, float] | None
    evidence: str


def explorer_page(networks: Sequence[Network], clips: Sequence[Clip], labels: Sequence[str]) -> str:
    """Return the page as HTML.

    Args:
        networks: one network, or several that are shown side by side.
        clips: the clips, between which the page switches.
        labels: names of the classes.
    """
    table = colour_table()
    shown = [
        {
            "name": clip.name,
            "origin": clip.origin,
            "verdicts": (verdicts := [verdict_of(seen, labels, clip.label) for seen in clip.seen]),
            "headline": headline(verdicts),
            "notes": [note_of(seen.comparison) for seen in clip.seen],
            "data": clip_data(clip),
        }
        for clip in clips
    ]
    return render(
        "explore.html.j2",
        networks=networks,
        clips=shown,
        labels=list(labels),
        overlays=OVERLAYS,
        common={"labels": list(labels), "table": packed(table), "networks": [network.name for network in networks]},
        wheel=picture_url(wheel_picture(WHEEL_SIDE), "png"),
        ramp=picture_url(table[None], "png"),
    )


def colour_table() -> np.ndarray:
    """Return the colours of heat maps from low to high, matplotlib's magma: uint8 (256, 3)."""
    return (matplotlib.colormaps["magma"](np.arange(256))[:, :3] * 255).round().astype(np.uint8)


def verdict_of(seen: ClipInspection, labels: Sequence[str], label: int | None) -> Verdict:
    """Compare the best class with the right one, and describe where the evidence for it lies."""
    best = int(seen.probabilities.argmax())
    answer = None
    if label is not None:
        rank = 1 + int((seen.probabilities > seen.probabilities[label]).sum())
        answer = (labels[label], rank, float(seen.probabilities[label]))
    kind = "unknown" if label is None else "right" if best == label else "wrong"
    evidence = where_strongest(seen.activation[best], len(seen.frames))
    return Verdict(kind, labels[best], float(seen.probabilities[best]), answer, evidence)


def where_strongest(activation: np.ndarray, frames: int) -> str:
    """Return in words where an activation (t', h, w) of a clip is largest.

    >>> activation = np.zeros((4, 3, 3))
    >>> activation[1, 0, 2] = 1
    >>> where_strongest(activation, 4)
    'in frame 2 of 4, at the top right'
    """
    if not activation.max() > 0:
        return "nowhere: no position speaks for this class"
    maps, height, width = activation.shape
    time, row, column = np.unravel_index(int(activation.argmax()), activation.shape)
    first, last = time * frames // maps + 1, (time + 1) * frames // maps
    when = f"in frame {first} of {frames}" if first >= last else f"in frames {first} to {last} of {frames}"
    thirds = [int(3 * (index + 0.5) / count) for index, count in ((row, height), (column, width))]
    words = " ".join(filter(None, (("top", "", "bottom")[thirds[0]], ("left", "", "right")[thirds[1]])))
    return f"{when}, {f'at the {words}' if words else 'in the middle'}"


def headline(verdicts: Sequence[Verdict]) -> tuple[str, str, str, str]:
    """Return the heading of a clip: text before a class, the class, its kind as in ``Verdict``, and text after it."""
    first = verdicts[0]
    if len(verdicts) == 1:
        if first.kind == "wrong" and first.answer:
            return "Seen as ", first.predicted, "wrong", f", but it is {first.answer[0]}"
        return "Recognised as ", first.predicted, first.kind, ""
    if first.answer is None:
        same = len({verdict.predicted for verdict in verdicts}) == 1
        said = first.predicted if same else " or ".join(verdict.predicted for verdict in verdicts)
        return "", said, "unknown", f": the networks {'agree' if same else 'disagree'}"
    right = sum(verdict.kind == "right" for verdict in verdicts)
    kind, who = {
        0: ("wrong", "no network recognises it"),
        len(verdicts): ("right", "both networks recognise it"),
    }.get(right, ("unknown", "one of two networks recognises it"))
    return "", first.answer[0], kind, f": {who}"


def note_of(comparison: Comparison | None) -> str:
    """Return what a network can show beside its prediction and its activation."""
    if comparison is None:
        return "This network has no block that compares frames: the page shows its prediction and class activation."
    others = ", ".join(f"{offset:+d}".replace("-", "−") if offset else "0" for offset in comparison.offsets)
    source = "as the network estimates it" if comparison.estimated else "the soft-argmax of the similarities"
    return (
        f"{comparison.block} in {comparison.site} compares each cell with a window in the frames at {others}. "
        f"Displacement is {source}."
    )


def clip_data(clip: Clip) -> dict[str, Any]:
    """Return the numbers of a clip for JavaScript."""
    motions = [seen.comparison for seen in clip.seen if seen.comparison]
    # Networks side by side share one scale of displacement.
    longest = max((length_scale(_main(motion)) for motion in motions), default=1.0)
    return {"label": clip.label, "longest": longest, "seen": [_seen_data(seen, longest) for seen in clip.seen]}


def _seen_data(seen: ClipInspection, longest: float) -> dict[str, Any]:
    _, height, width, _ = seen.frames.shape
    motion = seen.comparison
    return {
        "height": height,
        "width": width,
        "frames": [picture_url(frame, "jpeg", quality=JPEG_QUALITY) for frame in seen.frames],
        "probabilities": packed(seen.probabilities),
        "frame_probabilities": packed(seen.frame_probabilities),
        "activation": compact(seen.activation),
        "motion": motion
        and {
            "block": motion.block,
            "offsets": list(motion.offsets),
            "main": motion.main_offset,
            "step": motion.step,
            "pairs": motion.pairs().tolist(),
            "similarities": compact(motion.similarities),
            "expected": packed(motion.expected.astype(np.float32)),
            "confidence": packed(motion.confidence.astype(np.float32)),
            "colours": packed(flow_colours(_main(motion, every=True), longest=longest)),
        },
    }


def _main(motion: Comparison, *, every: bool = False) -> np.ndarray:
    """Return the displacement (t, h, w, 2) at the main offset, of frames with a partner or of every frame."""
    field = motion.expected[:, :, :, motion.main_offset]
    return field if every else field[motion.pairs()]


def compact(values: np.ndarray) -> dict[str, Any]:
    """Return values as ``low + step * packed``: float32 as they are, or 16-bit steps if there are many."""
    if values.size <= MOST_FLOATS:
        return {"low": 0.0, "step": 1.0, "values": packed(values.astype(np.float32))}
    low, high = float(values.min()), float(values.max())
    step = (high - low) / (2**16 - 1) or 1.0
    steps = np.rint((values.astype(np.float64) - low) / step).astype(np.uint16)
    return {"low": low, "step": step, "values": packed(steps)}

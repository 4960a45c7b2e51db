"""Does a network use motion? Its accuracy on the same clips with their frames in order, reordered and frozen."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from motion_jax.inspection.score_statistics import bootstrap_mean, wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IN_ORDER, SHUFFLED, ONE_FRAME = "in order", "shuffled", "one frame"
CONDITIONS = {
    IN_ORDER: None,
    "reversed": "reverse:1",
    SHUFFLED: "shuffle:1",
    "frozen": "freeze:1",
    ONE_FRAME: "freeze:2",
}
"""Condition -> the corruption of the clips, see data/clips/corruption.py."""
MOST_CLASSES = 20
"""Classes in the picture."""
_COLOURS = ("#1f5fbf", "#b4550a", "#0b7a75", "#8a3a9c", "#6b6a12", "#b02a5b", "#4b5563", "#7a4a2a")

Row = dict[str, Any]


def probe_rows(right: Mapping[str, np.ndarray], labels: np.ndarray, classes: Sequence[str]) -> list[Row]:
    """Return accuracy and drop of each condition, over all clips and per class.

    Args:
        right: condition -> whether each clip is right (n,), with the clips in one order.
        labels: labels (n,).
        classes: class names (k,).

    Returns:
        Rows of class ("" for all clips), condition, clips, ``top1`` in percent with Wilson's interval ``top1_low`` to
        ``top1_high``, and ``drop`` from "in order" in points, with the interval ``drop_low`` to ``drop_high`` of the
        paired bootstrap over the clips. Classes without clips have no rows.
    """
    rows = []
    for name, chosen in [("", np.ones(len(labels), bool)), *((name, labels == at) for at, name in enumerate(classes))]:
        clips = int(chosen.sum())
        for condition, each in right.items() if clips else ():
            correct = int(each[chosen].sum())
            lost = 100 * (right[IN_ORDER][chosen].astype(int) - each[chosen])
            accuracy = (100 * correct / clips, *map(float, wilson(correct, clips)))
            drop = (float(lost.mean()), *bootstrap_mean(lost))
            row = {"class": name, "condition": condition, "clips": clips}
            row |= dict(zip(("top1", "top1_low", "top1_high"), accuracy, strict=True))
            rows.append(row | dict(zip(("drop", "drop_low", "drop_high"), drop, strict=True)))
    return rows


def of_all_clips(rows: Sequence[Row], condition: str) -> Row:
    """Return the row of a condition over all clips."""
    return next(row for row in rows if row["class"] == "" and row["condition"] == condition)


def verdict(name: str, rows: Sequence[Row]) -> str:
    """Return in one sentence whether a network uses motion and the order of the frames, from its rows.

    An interval that includes zero does not show that a network ignores motion: few clips have a wide interval.

    >>> def row(condition, *drop):
    ...     return {"class": "", "condition": condition, **dict(zip(("drop", "drop_low", "drop_high"), drop))}
    >>> print(verdict("tsn", [row("one frame", 0.5, -0.5, 1.5), row("shuffled", 0.0, 0.0, 0.0)]))
    tsn: removing motion costs 0.5 points (-0.5 to 1.5): these clips do not show that it uses motion.
    """
    motion, order = of_all_clips(rows, ONE_FRAME), of_all_clips(rows, SHUFFLED)
    sentence = f"{name}: removing motion costs {_points(motion)}: "
    if motion["drop_high"] < 0:
        return sentence + "on these clips motion misleads it."
    if motion["drop_low"] <= 0:
        return sentence + "these clips do not show that it uses motion."
    if order["drop_low"] > 0:
        return sentence + f"it uses motion, and the order of the frames, whose shuffling costs {_points(order)}."
    return sentence + (
        "it uses more than one frame, but these clips do not show that it uses their order, whose shuffling costs "
        f"{_points(order)}."
    )


def _points(row: Row) -> str:
    return f"{row['drop']:.1f} points ({row['drop_low']:.1f} to {row['drop_high']:.1f})"


def probe_figure(probes: Mapping[str, Sequence[Row]]) -> "Figure":
    """Draw the accuracy of each condition, and the motion score of each class, with their intervals.

    The classes with the largest scores of any network are shown, at most ``MOST_CLASSES``; networks of other data share
    only classes of the same name.

    Args:
        probes: name of a network -> its rows.
    """
    from matplotlib.figure import Figure

    scores = {
        name: {row["class"]: row for row in rows if row["class"] and row["condition"] == ONE_FRAME}
        for name, rows in probes.items()
    }
    classes = [each for each in next(iter(scores.values())) if all(each in found for found in scores.values())]
    highest = {each: max(found[each]["drop"] for found in scores.values()) for each in classes}
    classes = sorted(classes, key=lambda each: -highest[each])[:MOST_CLASSES]
    height = max(3.4, 0.6 + len(classes) * (0.14 + 0.1 * len(probes)))
    figure = Figure(figsize=(11, height + 0.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    width = 0.8 / len(probes)
    for number, (name, rows) in enumerate(probes.items()):
        colour, shift = _COLOURS[number % len(_COLOURS)], (number - (len(probes) - 1) / 2) * width
        found = [of_all_clips(rows, condition) for condition in CONDITIONS]
        _bars(left.bar, np.arange(len(found)) + shift, found, "top1", width, colour, name)
        found = [scores[name][each] for each in classes]
        _bars(right.barh, np.arange(len(found)) + shift, found, "drop", width, colour, name)
    left.set(ylabel="top-1 in percent, 95 % interval", ylim=(0, 108), yticks=range(0, 101, 20))
    left.set_xticks(range(len(CONDITIONS)), list(CONDITIONS))
    left.set_title("Accuracy by the order of the frames", loc="left", fontsize="medium")
    left.legend(frameon=False, fontsize="small", ncols=min(len(probes), 3), loc="upper right")
    right.set(xlabel=f'points of top-1 lost from "{IN_ORDER}" to "{ONE_FRAME}", 95 % interval')
    right.set_yticks(range(len(classes)), classes, fontsize="small")
    right.invert_yaxis()
    right.axvline(0, color="0.3", linewidth=0.8)
    right.set_title("Motion score by class", loc="left", fontsize="medium")
    for axis in (left, right):
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(axis="y" if axis is left else "x", alpha=0.25)
        axis.set_axisbelow(True)
    return figure


def _bars(draw: Any, at: np.ndarray, rows: Sequence[Row], value: str, width: float, colour: str, name: str) -> None:
    """Draw bars of a value with their intervals, upright or flat."""
    middle = np.array([row[value] for row in rows])
    ends = np.array([[row[value] - row[f"{value}_low"], row[f"{value}_high"] - row[value]] for row in rows]).T
    along, error = ("width", "yerr") if draw.__name__ == "bar" else ("height", "xerr")
    style = {along: 0.92 * width, error: ends.clip(0), "color": colour, "label": name}
    draw(at, middle, **style, error_kw={"elinewidth": 1, "ecolor": "0.2", "capsize": 2})

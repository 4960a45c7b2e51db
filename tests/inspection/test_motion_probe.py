"""The motion probe: drops and their intervals against slow twins, the verdicts, and the picture."""

import re

import numpy as np
import pytest

from motion_jax.inspection import motion_probe
from motion_jax.inspection.motion_probe import CONDITIONS, IN_ORDER, ONE_FRAME, SHUFFLED, probe_rows, verdict

CLASSES = ("push", "pull", "unseen")


def right_of(rng, shares):
    """Clips that are right in a condition with a probability of their own."""
    return {condition: rng.random(200) < share for condition, share in zip(CONDITIONS, shares, strict=True)}


def test_drops_clip_by_clip(rng):
    labels = rng.integers(0, 2, 200)
    right = right_of(rng, (0.9, 0.7, 0.6, 0.5, 0.3))
    rows = probe_rows(right, labels, CLASSES)
    assert [(row["class"], row["condition"]) for row in rows] == [
        (name, condition) for name in ("", "push", "pull") for condition in CONDITIONS
    ]
    for row in rows:
        clips = [at for at in range(200) if row["class"] in ("", CLASSES[labels[at]])]
        before = [bool(right[IN_ORDER][at]) for at in clips]
        after = [bool(right[row["condition"]][at]) for at in clips]
        assert row["clips"] == len(clips)
        assert row["top1"] == pytest.approx(100 * np.mean(after))
        assert row["top1_low"] < row["top1"] < row["top1_high"]
        lost = np.array([100 * (one - two) for one, two in zip(before, after, strict=True)])
        assert row["drop"] == pytest.approx(lost.mean())
        # Paired: both conditions of a drawn clip are drawn together.
        means = [lost[rng.integers(0, len(clips), len(clips))].mean() for _ in range(4000)]
        ends = np.quantile(means, (0.025, 0.975))
        assert (row["drop_low"], row["drop_high"]) == pytest.approx(ends, abs=2.5)
    again = probe_rows(right, labels, CLASSES)
    assert again == rows


@pytest.mark.parametrize(
    ("shares", "says"),
    [
        (
            (0.9, 0.5, 0.5, 0.4, 0.3),
            r"costs \d+\.\d points \(\d+\.\d to \d+\.\d\): it uses motion, and the order of the",
        ),
        (
            (0.9, 0.9, None, 0.6, 0.3),
            r"more than one frame, but these clips do not show that it uses their order, whose .* 0\.0",
        ),
        (
            (0.5, 0.5, 0.5, 0.5, None),
            r"motion costs 0\.0 points \(0\.0 to 0\.0\): these clips do not show that it uses motion",
        ),
        ((0.3, 0.5, 0.5, 0.5, 0.9), r"costs -\d+\.\d points .*: on these clips motion misleads it"),
    ],
)
def test_verdicts(rng, shares, says):
    right = right_of(rng, [share or 0 for share in shares])
    for condition, share in zip(CONDITIONS, shares, strict=True):
        if share is None:
            right[condition] = right[IN_ORDER]
    sentence = verdict("net", probe_rows(right, np.zeros(200, int), ("all",)))
    assert sentence.startswith("net: removing motion costs ")
    assert sentence.endswith(".")
    assert re.search(says, sentence)


def test_the_picture_shows_accuracy_and_scores_with_their_intervals(rng):
    labels = rng.integers(0, 40, 200)
    classes = tuple(f"class {number}" for number in range(40))
    probes = {
        name: probe_rows(right_of(rng, shares), labels, classes)
        for name, shares in (("a", (0.9, 0.7, 0.6, 0.5, 0.3)), ("b", (0.5,) * 5))
    }
    left, right = motion_probe.probe_figure(probes).axes
    heights = [bar.get_height() for bar in left.patches]
    assert heights == [motion_probe.of_all_clips(rows, each)["top1"] for rows in probes.values() for each in CONDITIONS]
    shown = [label.get_text() for label in right.get_yticklabels()]
    assert len(shown) == motion_probe.MOST_CLASSES
    scores = {
        (name, row["class"]): row["drop"]
        for name, rows in probes.items()
        for row in rows
        if row["condition"] == ONE_FRAME
    }
    assert [bar.get_width() for bar in right.patches] == [scores[name, each] for name in probes for each in shown]
    highest = [max(scores[name, each] for name in probes) for each in classes if ("a", each) in scores]
    assert max(scores[name, shown[0]] for name in probes) == max(highest)
    # Of the accuracy of "a" when shuffled, and its score of the class shown first: the ends of the lines.
    shuffled = motion_probe.of_all_clips(probes["a"], SHUFFLED)
    line = left.collections[0].get_segments()[list(CONDITIONS).index(SHUFFLED)]
    np.testing.assert_allclose(line[:, 1], [shuffled["top1_low"], shuffled["top1_high"]])


def test_networks_of_other_data_share_classes_by_name(rng):
    probes = {
        name: probe_rows(right_of(rng, (0.9, 0.7, 0.6, 0.5, 0.3)), rng.integers(0, 2, 200), classes)
        for name, classes in (("a", ("push", "pull")), ("b", ("pull", "lift")))
    }
    labels = motion_probe.probe_figure(probes).axes[1].get_yticklabels()
    assert [label.get_text() for label in labels] == ["pull"]

"""What the page of tools.report says, without a browser."""

import dataclasses

import numpy as np
import pytest

from motion_jax.inspection.pages import report
from motion_jax.inspection.pages.report import Evaluation, Run


def evaluation(right, *, clips=100, **protocol):
    """An evaluation of two classes whose first ``right`` clips are right."""
    labels = np.arange(clips) % 2
    chosen = np.where(np.arange(clips) < right, labels, 1 - labels)
    metrics = {"top1": 100 * right / clips, "top5": 100.0, "mean_class": 100 * right / clips, "clips": clips}
    known = {"name": "made", "split": "val", **protocol}
    return Evaluation(metrics, known, np.eye(2)[chosen], labels, ("left", "right"), None, "softmax")


def run(name, right=None, **values):
    known = None if right is None else evaluation(right)
    return Run(name, f"runs/{name}", name, {}, [], [], **{"evaluation": known, "pairs": {}, **values})


def test_the_headline_names_a_leader_only_if_the_interval_excludes_zero():
    clear = report.headline([run("a", 50), run("b", 90), run("c", 60)])
    assert clear["title"] == "b leads by 30.0 points"
    assert "3 runs on 100 clips of made, split val, 2 classes, where chance is 50 %." in clear["lead"]
    assert "c is second with 60.0 %" in clear["lead"]
    assert clear["lead"].endswith("points, excludes zero.")
    close = report.headline([run("a", 90), run("b", 91)])
    assert close["title"] == "No clear leader: b and a differ by 1.0 points"
    assert "includes zero" in close["lead"]
    assert report.headline([run("a", 90)])["title"] == "a: 90.0 % top-1"
    assert "No run is evaluated yet" in report.headline([run("a")])["lead"]


def test_differences_are_paired():
    # Wrong on the same clips: the difference is certain.
    points, interval = report.paired_difference(evaluation(60), evaluation(60))
    assert (points, interval) == (0, (0, 0))
    points, (low, high) = report.paired_difference(evaluation(70), evaluation(60))
    # 10 of 100 clips differ, so the deviation is that of a share of 10 %.
    deviation = 100 * np.sqrt(0.1 * 0.9 / 100)
    assert points == pytest.approx(10)
    assert (low, high) == pytest.approx((10 - 1.96 * deviation, 10 + 1.96 * deviation), abs=1)


def test_metrics_have_their_intervals():
    row = report.metric_row(run("b", 90), first := run("a", 60))
    top1, top5, mean_class = row["values"]
    assert top1 == pytest.approx((90, 82.56, 94.48), abs=0.01)
    assert top5 == pytest.approx((100, 96.30, 100), abs=0.01)
    assert mean_class[1] < 90 < mean_class[2]
    assert row["difference"][0] == pytest.approx(30)
    assert row["error"] == pytest.approx(10)  # certain, and right for 90 %
    assert report.metric_row(first, first)["difference"] is None


def test_configs_are_compared_key_by_key():
    configs = [{"seed": 0, "model": {"block": {"radius": 3}}}, {"seed": 0, "model": {"block": {}, "width": 8}}]
    flat = [report.flat(config) for config in configs]
    assert report.differences(flat) == [("model.block.radius", ["3", "–"], True), ("model.width", ["–", "8"], True)]
    assert report.differences(flat, equal=True)[-1] == ("seed", ["0", "0"], False)


def test_other_protocols_are_named():
    runs = [run(name, evaluation=evaluation(50, clips=100, crops=crops)) for name, crops in (("a", 1), ("b", 3))]
    assert report.other_views(runs) == ["crops"]
    assert "were not evaluated alike" in report.report_page(runs)
    assert report.other_views(runs[:1]) == []


def test_curves_skip_what_is_not_a_number():
    log = [{"step": step, "split": "train", "loss": value} for step, value in ((20, 2.0), (10, 4.0), (30, None))]
    log += [{"step": 40, "split": "train", "loss": float("nan")}, {"step": 40, "split": "val", "loss": 1.0}]
    assert report.curve(log, name="loss", split="train", factor=100) == [[10, 20], [400.0, 200.0]]
    assert report.curve(log, name="top1", split="train") == [[], []]


def test_the_history_tells_starts_changes_and_skipped_batches():
    lines = [
        {"time": 0.5, "step": 0, "devices": 8, "kind": "cpu", "host": "a", "versions": {"jax": "1"}, "changes": {}},
        {"time": 90061.0, "step": 40, "devices": 4, "kind": "TPU v5e", "changes": {"train.steps": [40, 80]}},
        {"time": "soon", "skipped": 52, "reason": "loss is nan at step 52"},
        {"changes": 3},
    ]
    assert report.history_rows(lines) == [
        ("1970-01-01 00:00:00", "0", "started on 8 × cpu"),
        ("1970-01-02 01:01:01", "40", "started on 4 × TPU v5e; changed: train.steps 40 → 80"),
        ("", "52", "batch skipped: loss is nan at step 52"),
        ("", "", "started on ? × unknown"),
    ]
    assert report.environment(lines)["devices"] == "4 × TPU v5e"
    assert report.environment([]) == {}


def test_scores_of_an_unknown_kind_have_no_calibration():
    page = report.report_page([run("a", evaluation=dataclasses.replace(evaluation(60), average=None))])
    assert 'id="reliability"' not in page
    assert 'id="confusion"' in page

"""Metrics computed by hand, and the metrics log after a kill."""

import json

import numpy as np
import pytest

from motion_jax.training.metrics import MetricLog, find_logged, summarise


def test_summarise_by_hand():
    # Class 0: 3 of 4, class 1: absent, class 2: 0 of 1, class 3: 1 of 3.
    sums = {
        "loss": 12.0,
        "top1": 4,
        "top5": 6,
        "count": 8,
        "class_correct": np.array([3, 0, 0, 1]),
        "class_count": np.array([4, 0, 1, 3]),
    }
    assert summarise(sums) == {
        "loss": 1.5,
        "top1": 50.0,
        "top5": 75.0,
        "mean_class": pytest.approx(100 * (3 / 4 + 0 + 1 / 3) / 3),
        "clips": 8,
    }


def test_nothing_evaluated_is_an_error():
    with pytest.raises(ValueError, match="no clip was evaluated"):
        summarise({"count": 0})


def write(log, *steps):
    for step in steps:
        log.write(step=step, epoch=step / 3, split="train", values={"loss": step / 2})


def lines(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_lines_beyond_the_restored_step_are_dropped(tmp_path):
    log = MetricLog(tmp_path, start_step=0)
    write(log, 2, 4, 6)
    log.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "epo')
    log = MetricLog(tmp_path, start_step=4)
    write(log, 6)
    assert [record["step"] for record in lines(tmp_path)] == [2, 4, 6]
    log.close()
    assert lines(tmp_path)[-1] == {"step": 6, "epoch": 2.0, "split": "train", "loss": 3.0}
    assert len(list((tmp_path / "tensorboard").iterdir())) >= 1


def test_a_line_is_on_disk_when_write_returns(tmp_path):
    log = MetricLog(tmp_path, start_step=0)
    write(log, 2)
    assert len(lines(tmp_path)) == 1
    log.close()


def test_find_logged(tmp_path):
    assert find_logged(tmp_path, step=2, split="train") is None
    log = MetricLog(tmp_path, start_step=0)
    write(log, 2)
    log.close()
    assert find_logged(tmp_path, step=2, split="train") == {"loss": 1.0}
    assert find_logged(tmp_path, step=2, split="val") is None
    assert find_logged(tmp_path, step=3, split="train") is None

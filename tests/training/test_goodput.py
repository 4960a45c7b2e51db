"""Goodput: every second of a run is counted once, also over restarts."""

import json

import pytest
import tiny_runs

from motion_jax.training import goodput as module
from motion_jax.training.goodput import KINDS, Goodput


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = 1000.0

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def seconds(values):
    return {kind: values[f"seconds_{kind}"] for kind in KINDS}


def test_every_second_counts_once(clock):
    goodput = Goodput(None)
    clock.now += 20  # Compilation.
    goodput.started()
    clock.now += 60
    with goodput.spent("evaluation"):
        clock.now += 8
    goodput.started()  # Only the first call counts.
    goodput.waited(5.0)
    with goodput.spent("saving"):
        clock.now += 2
    clock.now += 10
    values = goodput.values()
    assert seconds(values) == {"steps": 65, "input": 5, "evaluation": 8, "saving": 2, "restart": 20}
    assert (values["goodput"], values["time"]) == (0.65, 1100.0)


def test_a_restart_counts_lost_updates_and_the_time_without_a_process(clock):
    first = Goodput(None)
    first.started()
    clock.now += 50
    kept = first.values()
    clock.now += 30  # Updates that are lost, and the time until the restart.
    second = Goodput(kept)
    clock.now += 5
    second.started()
    clock.now += 15
    values = second.values()
    assert seconds(values) == {"steps": 65, "input": 0, "evaluation": 0, "saving": 0, "restart": 35}
    assert values["goodput"] == 0.65


def test_a_clock_that_is_set_back_takes_no_time_away(clock):
    goodput = Goodput({"time": 5000.0, **{f"seconds_{kind}": 7.0 for kind in KINDS}})
    goodput.started()
    assert seconds(goodput.values())["steps"] == 7.0
    assert sum(seconds(goodput.values()).values()) == 35.0


def test_lines_hold_the_goodput_of_the_whole_run(tmp_path):
    def lines():
        records = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
        return [record for record in records if record["split"] == "train"]

    tiny_runs.run(tmp_path, steps=4, log_every=2)
    last = lines()[-1]
    assert all(last[f"seconds_{kind}"] > 0 for kind in ("steps", "evaluation", "saving", "restart"))
    tiny_runs.run(tmp_path, steps=8, log_every=2)
    new = lines()[-1]
    assert new["seconds_restart"] > last["seconds_restart"]
    # The clock runs from the first line on, so all seconds add up to the time between two lines.
    between = new["time"] - last["time"]
    assert sum(new[f"seconds_{k}"] - last[f"seconds_{k}"] for k in KINDS) == pytest.approx(between, abs=0.05)

"""Profile of some updates on demand."""

import pytest
import tiny_runs

from motion_jax.training import profile as module
from motion_jax.training.profile import StepProfile, step_range


def test_the_updates_are_recorded(tmp_path, capsys):
    tiny_runs.run(tmp_path, steps=4, profile=(2, 3))
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))
    assert "profile of steps 2 to 3" in capsys.readouterr().err


def test_the_range_is_recorded_and_nothing_else(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(module.jax.profiler, "start_trace", lambda folder: calls.append("start"))
    monkeypatch.setattr(module.jax.profiler, "stop_trace", lambda: calls.append("stop"))

    def trace(first, last):
        calls.clear()
        with StepProfile((3, 5), tmp_path) as profile:
            for step in range(first, last + 1):
                profile.before(step)
                calls.append(step)
                profile.after(step, ())
        return calls

    assert trace(1, 7) == [1, 2, "start", 3, 4, 5, "stop", 6, 7]
    assert trace(4, 6) == ["start", 4, 5, "stop", 6]
    assert trace(1, 3) == [1, 2, "start", 3, "stop"]
    assert trace(6, 7) == [6, 7]


@pytest.mark.parametrize("text", ["5", "5:", "a:b", "0:3", "5:4", "-1:3"])
def test_other_ranges_are_refused(text):
    with pytest.raises(ValueError, match=r"--profile is .* such as 100:105"):
        step_range(text)

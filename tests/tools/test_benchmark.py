"""Timing: interleaved rounds, medians, and the command on a small case."""

import flax.linen as nn
import numpy as np
import pytest
from bench import call, error_of, last_json

import motion_jax
from motion_jax.profiling import timing
from motion_jax.tools import benchmark


class Tiny(nn.Module):
    """The smallest possible classifier."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, clips, *, train):
        return nn.Dense(self.num_classes, name="classifier")(clips.reshape(clips.shape[0], -1) / 255)


def program(name, called):
    return timing.Program(lambda: called.append(name), 0.0, None, None, 0, 0)


def test_programs_run_in_interleaved_rounds():
    called = []
    programs = [program(name, called) for name in "ab"]
    timings = timing.measure(programs, rounds=3, warm_up=1)
    assert "".join(called) == "ab" + "ab" + "ba" + "ab"
    assert [len(each.milliseconds) for each in timings] == [3, 3]


def test_median_and_range():
    taken = timing.Timing((3.0, 1.0, 20.0))
    assert (taken.median, taken.range) == (3.0, (1.0, 20.0))


def test_a_training_program_trains():
    """Each step gets the state of the previous one: the memory of the first was donated and cannot be read again."""
    step = timing.prepare(Tiny(), mode="train", clip_shape=(1, 4, 4, 3), batch=2)
    for _ in range(2):
        step.call()
    assert step.compile_seconds > 0
    # Clips, labels, step, and twice the parameters: themselves and their momentum.
    assert step.argument_bytes >= 2 * 48 + 2 * 4 + 4 + 2 * 4 * (48 * 3 + 3)


def test_an_unknown_mode_is_an_error():
    with pytest.raises(ValueError, match="mode is 'backward', expected one of forward, train"):
        timing.prepare(motion_jax.build_model("tsn_r18", num_classes=3), mode="backward", clip_shape=(), batch=1)


def test_the_rows_of_table_3g():
    rows = [{"milliseconds": 10.0 * (n + 1), "over_first": n + 1.0} for n in range(len(benchmark.TABLE_3G))]
    lines = benchmark.papers_table(rows).splitlines()
    assert lines[-1].split() == ["selfynet_tsm_r50", "8", "21.1", "50.0", "1.35", "5.0"]


def test_command():
    arguments = ("tsn_r18", "--frames=1", "--size=32", "--batch=1,2", "--mode=forward", "--rounds=2", "--json")
    result = last_json(call("benchmark", *arguments))
    assert [row["batch"] for row in result["rows"]] == [1, 2]
    for row in result["rows"]:
        assert row["shortest"] <= row["milliseconds"] <= row["longest"]
        np.testing.assert_allclose(row["clips_per_second"], 1e3 * row["batch"] / row["milliseconds"])
        assert row["over_first"] == 1
        assert 0 < row["share_of_peak"] < 2
    assert result["setting"]["platform"] == "cpu"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give named models, or --papers"),
        (("tsn_r19",), "there is no model tsn_r19"),
        (("tsn_r18", "--papers"), "give named models, or --papers"),
        (("tsn_r18", "--mode=backward"), "expected some of forward,train"),
        (("tsn_r18", "--batch=1,x"), "expected an integer"),
    ],
)
def test_bad_usage(arguments, message):
    assert message in error_of(call("benchmark", *arguments))

"""The log lines of training where there is no progress bar."""

import io

import pytest
from tqdm import tqdm

from motion_jax.training.meter import show


@pytest.mark.parametrize(("seconds", "shown"), [(0.0, "00:00"), (83.4, "01:23"), (7265.0, "2:01:05")])
def test_a_line_says_how_much_time_is_left(capsys, seconds, shown):
    line = {"step": 20, "loss": 0.25, "top1": 50.0, "clips_per_second": 12.34, "seconds_left": seconds}
    show(line, tqdm(total=300, disable=True))
    printed = capsys.readouterr().err
    assert printed == f"step 20/300: loss 0.2500, top1 50.0, 12.3 clips/s, {shown} left\n"


def test_a_bar_shows_the_loss_beside_its_own_estimate():
    steps = tqdm(total=300, file=io.StringIO())
    show({"step": 20, "loss": 0.25, "top1": 50.0, "clips_per_second": 12.34, "seconds_left": 9.0}, steps)
    assert steps.postfix == "loss 0.2500, 12.3 clips/s"

"""Progress on the terminal: what is compiled, how long it takes, and no alarm of XLA."""

import io
import re
import subprocess
import sys
import time

import pytest
import tiny_runs

from motion_jax.training import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def compiled_on(stderr, monkeypatch, *, seconds):
    """What a compilation of this length writes, with updates every 50 ms."""
    monkeypatch.setattr(sys, "stderr", stderr)
    monkeypatch.setattr(progress, "PERIOD", 0.05)
    assert progress.log_compilation(lambda x: time.sleep(seconds) or x, "the step")(3) == 3
    return stderr.getvalue()


def test_a_line_comes_before_the_compilation_and_one_after_it(monkeypatch):
    seen = []
    stderr = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stderr)
    call = progress.log_compilation(lambda: seen.append(stderr.getvalue()), "the step")
    call()
    assert seen == ["compiling the step ...\n"]
    assert re.fullmatch(r"compiling the step \.\.\.\ncompiled the step in 0\.0 s\n", stderr.getvalue())
    call()
    assert stderr.getvalue().count("compil") == 2


def test_a_terminal_shows_the_time_of_a_long_compilation(monkeypatch):
    written = compiled_on(Terminal(), monkeypatch, seconds=0.5)
    assert written.startswith("compiling the step ...\n")
    assert written.count("\rcompiling the step 00:0") >= 3
    assert re.search(r"\r *\rcompiled the step in 0\.[5-9] s\n$", written)


def test_a_terminal_shows_no_time_of_a_short_one(monkeypatch):
    assert "00:0" not in compiled_on(Terminal(), monkeypatch, seconds=0)


def test_a_file_holds_only_whole_lines(monkeypatch):
    assert "\r" not in compiled_on(io.StringIO(), monkeypatch, seconds=0.5)


def test_a_compilation_that_fails_raises_its_error_and_ends_the_display(monkeypatch):
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    with pytest.raises(ZeroDivisionError):
        progress.log_compilation(lambda: 1 / 0, "the step")()
    assert stderr.getvalue() == "compiling the step ...\n"


# XLA's log at the lowest level: a new CPU client writes a message, in place of the alarm, which takes two minutes.
PROGRAM = """
import sys
import jax
from jax.extend.backend import clear_backends
from motion_jax.training.progress import log_compilation

def called():
    clear_backends()
    jax.devices()

called()
print("before", file=sys.stderr, flush=True)
log_compilation(called, "the step")()
print("after", file=sys.stderr, flush=True)
called()
"""


def test_messages_of_xla_are_hidden_only_during_a_compilation():
    environment = tiny_runs.environment_of_a_process(TF_CPP_MIN_LOG_LEVEL="0")
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    before, during, after = re.split("before|after", done.stderr)
    assert "pjrt_client.cc" in before
    assert "pjrt_client.cc" not in during
    assert "pjrt_client.cc" in after

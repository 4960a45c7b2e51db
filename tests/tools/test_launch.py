"""tools.launch: processes of this machine, their lines and their exit status."""

import signal
import time

import pytest
from bench import call, error_of, run, start

LAUNCH = ("-m", "motion_jax.tools.launch", "--processes=3", "--")
SHOW = "import os, sys; print('out', *sys.argv[1:]); print('err', os.environ.get('XLA_FLAGS'), file=sys.stderr)"


def test_every_process_has_its_options():
    done = run(*LAUNCH[:3], "--devices_per_process=2", "--port=1234", "--", "-c", SHOW, "--workdir=x")
    assert done.returncode == 0
    # Only process 0 writes to stdout, so that --json is as of one process.
    assert done.stdout == "out --workdir=x --coordinator=127.0.0.1:1234 --processes=3 --process_id=0\n"
    lines = sorted(done.stderr.splitlines())
    assert [line[:8] for line in lines] == ["[0] err ", "[1] err ", "[2] err "]
    assert all(line.count("device_count") == 1 and line.endswith("device_count=2") for line in lines)


def test_the_status_of_the_first_that_fails():
    fail = "import sys, time; last = sys.argv[-1][-1]; time.sleep(0 if last == '1' else 60); sys.exit(5)"
    began = time.monotonic()
    assert run(*LAUNCH, "-c", fail).returncode == 5
    assert time.monotonic() - began < 40
    killed = "import os, sys; os.kill(os.getpid(), 9 if sys.argv[-1][-1] == '2' else 0)"
    assert run(*LAUNCH, "-c", killed).returncode == 128 + signal.SIGKILL


def test_a_signal_reaches_all():
    wait = (
        "import signal, sys, time\n"
        "def end(*_): print('saved', file=sys.stderr); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('ready', file=sys.stderr, flush=True)\n"
        "time.sleep(60)"
    )
    process = start(*LAUNCH, "-c", wait)
    try:
        for _ in range(3):
            assert process.stderr.readline().endswith("ready\n")
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert sorted(stderr.splitlines()) == ["[0] saved", "[1] saved", "[2] saved"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--processes=2"], "give the command after --"),
        (["--", "train.py"], "--processes"),
        (["--processes=0", "--", "train.py"], "expected an integer, 1 or more"),
    ],
)
def test_wrong_options(arguments, message):
    assert message in error_of(call("launch", *arguments))

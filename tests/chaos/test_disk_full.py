"""A run on a disk that is full ends with a few lines, the cause last, and goes on when there is room."""

import contextlib
import functools
import re
import subprocess

import pytest
import tiny_runs
from fleet import saved
from forks import as_command, fork
from outcomes import CHAOS, survived

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("disk")]

STEPS = 12
RUN = functools.partial(tiny_runs.run, devices=1, steps=STEPS, log_every=1, retry_minutes=0.02)
PROGRESS = re.compile(r"step \d+|training from step|compil(ing|ed) |waiting for |$")


def mount(*words):
    try:
        subprocess.run(["mount", "-t", "tmpfs", *map(str, words)], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted: {getattr(error, 'stderr', error)}")


@contextlib.contextmanager
def disk(folder, kilobytes):
    """Make a folder a disk of a size."""
    folder.mkdir()
    mount("-o", f"size={kilobytes}k", "none", folder)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tmp_path):
    # The commands set flags of XLA that change the last bits.
    straight = functools.partial(RUN, tmp_path / "straight")
    assert fork(as_command, straight, log=tmp_path / "log") == 0, (tmp_path / "log").read_text()
    expected = saved(tmp_path / "straight", STEPS)
    tries, lost = 0, []
    for kilobytes in range(40, 400, 20 if CHAOS else 120):
        folder, log = tmp_path / str(kilobytes), tmp_path / f"{kilobytes}.log"
        with disk(folder, kilobytes):
            run = functools.partial(RUN, folder / "run")
            status = fork(as_command, run, log=log)
            if status == 0:  # There was room enough.
                continue
            tries += 1
            said = [line for line in log.read_text().splitlines() if not PROGRESS.match(line)]
            few = status == 2 and len(said) <= 3 and re.search(r"error: .*No space left on device$", said[-1])
            mount("-o", "remount,size=50m", "none", folder)
            status = fork(as_command, run, log=tmp_path / "again.log")
            if not (few and status == 0 and saved(folder / "run", STEPS) == expected):
                lost.append(f"{kilobytes} kB: {log.read_text()}{(tmp_path / 'again.log').read_text()}")
    survived("the disk is full", tries=tries, lost=len(lost), test="test_disk_full.py")
    assert tries
    assert not lost, "\n".join(lost)

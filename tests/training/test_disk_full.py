"""A disk that is full for a while, or for good: nothing is lost, and the log has a few lines with the cause last."""

import errno
import json
import os
import shutil

import pytest
import tiny_runs

from motion_jax.training import checkpoints
from motion_jax.training.state import fingerprint


class Disk:
    """A disk whose free space a test sets."""

    def __init__(self, monkeypatch):
        self.full_for = 0
        whole = shutil.disk_usage

        def usage(path):
            found = whole(path)
            if self.full_for:
                self.full_for -= 1
                return found._replace(free=0)
            return found

        monkeypatch.setattr(checkpoints.shutil, "disk_usage", usage)
        monkeypatch.setattr(checkpoints, "_PAUSE", 0.01)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


def run(workdir, *, minutes=1.0, **options):
    return tiny_runs.run(workdir, retry_minutes=minutes, **options)


def final(workdir):
    return fingerprint(checkpoints.restore(workdir / "checkpoints" / "latest").variables)


@pytest.mark.parametrize("tries", [1, 4])
def test_a_checkpoint_is_tried_again(tmp_path, disk, caplog, tries):
    run(tmp_path / "straight", steps=6)
    disk.full_for = tries
    assert run(tmp_path / "run", steps=6)["finished"]
    assert final(tmp_path / "run") == final(tmp_path / "straight")
    said = [record.getMessage() for record in caplog.records if record.name.startswith("motion_jax")]
    folder = tmp_path / "run" / "checkpoints"
    assert said == [f"no checkpoint can be written to {folder} (No space left on device); trying for 1 min"]


def test_a_disk_that_stays_full_ends_the_run(tmp_path, disk, caplog):
    run(tmp_path / "straight", steps=9, eval_every_epochs=0)
    run(tmp_path / "run", steps=3, eval_every_epochs=0)
    caplog.clear()
    disk.full_for = 10**9
    with pytest.raises(OSError, match=r"no checkpoint can be written to .*checkpoints: No space left on device"):
        run(tmp_path / "run", steps=9, eval_every_epochs=0, minutes=0.001)
    assert len(caplog.records) <= 2
    disk.full_for = 0
    assert run(tmp_path / "run", steps=9, eval_every_epochs=0)["finished"]
    assert final(tmp_path / "run") == final(tmp_path / "straight")


def test_the_error_of_a_save_in_the_background_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "_PAUSE", 0.01)
    whole = checkpoints._RecordHandler.save
    left = [2]

    def failing(self, directory, args):
        if left[0]:
            left[0] -= 1
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return whole(self, directory, args)

    run(tmp_path / "straight", steps=6)
    monkeypatch.setattr(checkpoints._RecordHandler, "save", failing)
    assert run(tmp_path / "run", steps=6)["finished"]
    assert left == [0]
    assert final(tmp_path / "run") == final(tmp_path / "straight")


def test_lines_of_the_log_are_kept_while_they_cannot_be_written(tmp_path, monkeypatch, caplog):
    from motion_jax.training import metrics

    whole = metrics.append
    calls = []

    def failing(path, text):
        calls.append(text)
        if len(calls) == 2:
            whole(path, text[:10])  # A part of the line reaches the disk.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        whole(path, text)

    monkeypatch.setattr(metrics, "append", failing)
    run(tmp_path, steps=8, log_every=2, evaluate=False)
    lines = list(map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()))
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    assert "metrics.jsonl cannot be written (No space left on device); its lines are kept until it can" in caplog.text

"""A workdir has one owner, whose lock ends with its process."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import tiny_runs

from motion_jax.training import owner as owner_module
from motion_jax.training.owner import own

HOLD = """
import sys, time
from motion_jax.training.owner import own

with own(sys.argv[1]):
    print("owned", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def owner(tmp_path):
    """Another process that owns the workdir."""
    environment = tiny_runs.environment_of_a_process(JAX_PLATFORMS="cpu")
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "owned\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_with_the_owner(owner, tmp_path):
    checkpoints = tmp_path / "checkpoints"
    with pytest.raises(ValueError, match=rf"is in use by process {owner.pid} on .*, which began 0 min ago: wait"):
        tiny_runs.run(tmp_path, steps=2)
    assert not checkpoints.exists()


def test_the_lock_ends_with_its_process(owner, tmp_path):
    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()
    with own(tmp_path):
        assert json.loads((tmp_path / "owner.json").read_text())["process"] == os.getpid()


def test_a_run_gives_the_workdir_back(tmp_path):
    for steps in (2, 4):
        assert tiny_runs.run(tmp_path, steps=steps)["finished"]
        assert not (tmp_path / "owner.json").exists()


def test_a_file_that_its_owner_deletes_meanwhile_is_no_lock(tmp_path, monkeypatch):
    whole = owner_module._open
    opened = []

    def late(path):
        """Open the file, and let another owner delete it before it is looked at."""
        opened.append(whole(path))
        if len(opened) == 1:
            os.unlink(path)
        return opened[-1]

    monkeypatch.setattr(owner_module, "_open", late)
    with own(tmp_path):
        assert len(opened) == 2
        with pytest.raises(ValueError, match="is in use by process"), own(tmp_path):
            pass


@pytest.mark.parametrize("text", ["", "[]", "null", '{"since": "x"}', '{"host": 1}'])
def test_an_owner_whose_file_is_damaged_is_refused_too(tmp_path, text):
    with own(tmp_path):
        (tmp_path / "owner.json").write_text(text)
        with pytest.raises(ValueError, match="is in use by another run: wait"), own(tmp_path):
            pass


def test_the_age_is_that_of_the_owner(tmp_path):
    with own(tmp_path):
        path = tmp_path / "owner.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "since": time.time() - 600}))
        with pytest.raises(ValueError, match="which began 10 min ago"), own(tmp_path):
            pass

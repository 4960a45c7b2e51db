"""Several processes of train.py survive faults, or end together with the cause: ``make chaos`` runs all tries."""

import contextlib
import fcntl
import os
import re
import resource
import shutil
import signal
import socket
import subprocess
import time

import numpy as np
import pytest
from bench import succeed, write_videos
from fleet import HEARTBEAT, Fleet, finish, record, saved
from outcomes import CHAOS

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("processes")]

STEPS = 10
HOST = socket.gethostname()
SMOKE = (
    "train.py",
    "--config=configs/moving_shapes.py:tsn_r18,3,smoke",
    # The rate of this schedule does not depend on the number of steps: a shorter run is the same compiled program.
    "--config.train.schedule=step",
    f"--config.train.steps={STEPS}",
    "--config.train.log_every=1",
    "--config.checkpoint.every_steps=3",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Options that name a folder of prepared clips."""
    return f"--config.data.dir={tmp_path_factory.mktemp('data')}"


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """Return a function from a number of processes to the state of a run without faults."""
    folders = {}

    def state(count):
        if count not in folders:
            folders[count] = tmp_path_factory.mktemp("undisturbed")
            finish(folders[count], count, *SMOKE, data, f"--workdir={folders[count] / 'run'}")
        return saved(folders[count] / "run", STEPS)

    state.folders = folders
    return state


@pytest.mark.parametrize(("count", "runs", "kills"), [(2, 5, 5), (4, 2, 2)] if CHAOS else [(2, 1, 3), (4, 1, 1)])
def test_killed_at_any_moment(count, runs, kills, data, undisturbed, tmp_path):
    expected = undisturbed(count)
    seconds, lost = [], 0
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        folder = tmp_path / str(seed)
        arguments = (*SMOKE, data, f"--workdir={folder / 'run'}")
        for _ in range(kills):
            seconds.append(_kill_one(folder, count, rng, *arguments))
        finish(folder, count, *arguments)
        lost += kills * (saved(folder / "run", STEPS) != expected)
        shutil.rmtree(folder)
    record("kill -9 of one", processes=count, seconds=seconds, survived=len(seconds) - lost, lost=lost)
    assert lost == 0
    assert max(seconds) < HEARTBEAT + 20


def _kill_one(folder, count, rng, *arguments):
    """Kill a random process at a random moment; return the seconds until the others have ended with one line."""
    with Fleet(folder, count, *arguments) as fleet:
        fleet.wait_for("compiling the training step")
        start = int(re.search(r"training from step (\d+) to", fleet.text(0))[1])
        victim, step = int(rng.integers(count)), min(start + int(rng.integers(4)), STEPS - 1)
        if step > start:
            fleet.wait_for(f"step {step}/{STEPS}")
        time.sleep(rng.uniform(0, 0.4))
        fleet.send(victim)
        statuses, took = fleet.wait()
        others = set(range(count)) - {victim}
        assert [statuses[number] for number in others] == [2] * (count - 1), fleet.all_text()
        for number in others:
            *before, last = fleet.text(number).splitlines()
            assert re.match(rf"train.py: error: process {victim} \({HOST}\): .* was killed, or its machine", last), last
            assert not [line for line in before if re.search(r"error:|Traceback|stack trace|^ {4}", line)], fleet.text(
                number
            )
    return took


def test_sigterm_to_one(data, undisturbed, tmp_path):
    arguments = (*SMOKE, data, f"--workdir={tmp_path / 'run'}")
    with Fleet(tmp_path, 2, *arguments) as fleet:
        fleet.wait_for("step 2/")
        fleet.send(1, signal.SIGTERM)
        statuses, took = fleet.wait()
        assert statuses == [0, 0], fleet.all_text()
        assert "stopped by preemption after step" in fleet.text(0)
    assert "training from step 0 " not in finish(tmp_path, 2, *arguments).text(0)
    equal = saved(tmp_path / "run", STEPS) == undisturbed(2)
    record("SIGTERM to one", processes=2, seconds=[took], survived=int(equal), lost=int(not equal))
    assert equal


def test_an_evaluation_equals_that_of_one_process(undisturbed, tmp_path):
    undisturbed(2)
    results = []
    for count in (2, 1):
        workdir = shutil.copytree(undisturbed.folders[2] / "run", tmp_path / str(count) / "run")
        command = ("eval.py", f"--workdir={workdir}", "--which=latest", "--split=train", "--config.eval.batch_size=8")
        if count == 1:
            succeed(*command, devices=2)
        else:
            finish(tmp_path, 2, *command)
        results.append([(workdir / name).read_bytes() for name in ("eval_train.json", "scores_train.npz")])
    assert results[0] == results[1]


def test_one_starts_late(data, tmp_path):
    late = 60 if CHAOS else 12
    options = {"late": {1: late}, "heartbeat": HEARTBEAT}
    with Fleet(
        tmp_path, 2, *SMOKE, data, f"--workdir={tmp_path / 'run'}", "--config.train.steps=2", **options
    ) as fleet:
        took = fleet.wait_for("step 1/2")
        assert fleet.wait()[0] == [0, 0], fleet.all_text()
    says = r"^waiting for all processes to meet at 127.0.0.1:\d+, [56] s so far$"
    assert re.search(says, fleet.text(0), flags=re.MULTILINE)
    record(f"one starts {late} s late", processes=2, seconds=[took], survived=1, lost=0)


def test_one_prepares_for_long(data, undisturbed, tmp_path):
    """The other waits at the service: gloo, which connects the devices, gives up after 30 s."""
    undisturbed(2)  # has prepared the clips
    length = 90 if CHAOS else 35
    shutil.copytree(data.partition("=")[2], tmp_path / "slow")
    (prepared,) = {path.parent for path in (tmp_path / "slow").rglob("dataset_info.json")}
    shutil.rmtree(prepared)
    own = {1: [f"--config.data.dir={tmp_path / 'slow'}"]}
    with (prepared.parent / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        arguments = (*SMOKE, data, f"--workdir={tmp_path / 'run'}", "--config.train.steps=2")
        with Fleet(tmp_path, 2, *arguments, own=own) as fleet:
            fleet.wait_for(f"waiting for process 1 ({HOST}) to open the data, 6 s")
            time.sleep(length - HEARTBEAT)
            fcntl.flock(lock, fcntl.LOCK_UN)
            took = fleet.wait_for("step 1/2")
            assert fleet.wait()[0] == [0, 0], fleet.all_text()
    record(f"one prepares its data for {length} s", processes=2, seconds=[took], survived=1, lost=0)


def test_one_lacks_a_video(tmp_path):
    roots = [write_videos(tmp_path / name, train=2, val=1) for name in ("videos0", "videos1")]
    (roots[1] / "train" / "left" / "1.avi").unlink()
    own = {n: [f"--config.data.root={roots[n]}", f"--config.data.dir={tmp_path / f'data{n}'}"] for n in (0, 1)}
    options = ("--config.data.size=32", "--config.data.resize=(40,40)", "--config.train.batch_size=2")
    config = ("train.py", "--config=configs/video_folder.py:tsn_r18,2", *options, "--config.eval.batch_size=2")
    error = f"process 1 ({HOST}) has data clips of train = 3, process 0 ({HOST}) has 4: give all hosts the same videos"
    _end_with(error, "one lacks a video", tmp_path, *config, f"--workdir={tmp_path / 'run'}", own=own)


@pytest.mark.parametrize(
    ("fault", "option", "error"),
    [
        (
            "another config",
            "learning_rate=0.7",
            "process 1 ({0}) has config train.learning_rate = 0.7, process 0 ({0}) has",
        ),
        ("a wrong option", "steps=many", "process 1 ({0}): --config.train.steps=many: expected an integer"),
    ],
)
def test_one_has_another_config(fault, option, error, data, tmp_path):
    arguments = (*SMOKE, data, f"--workdir={tmp_path / 'run'}")
    own = {1: [f"--config.train.{option}"]}
    _end_with(error.format(HOST), f"one has {fault}", tmp_path, *arguments, own=own)


def test_workdirs_are_not_shared(data, tmp_path):
    own = {number: [f"--workdir={tmp_path / f'run{number}'}"] for number in (0, 1)}
    error = (
        f"the workdir is not shared: process 1 ({HOST}) does not see {tmp_path / 'run0'} of process 0 ({HOST}): give"
    )
    _end_with(error, "the workdir is not shared", tmp_path, *SMOKE, data, own=own)


def test_a_full_disk(data, undisturbed, tmp_path):
    arguments = (*SMOKE, data, f"--workdir={tmp_path / 'run'}")
    with Fleet(tmp_path, 2, *arguments) as fleet:
        fleet.wait_for("step 1/")
        # A write beyond this size fails as on a full disk, for this process alone.
        resource.prlimit(fleet.processes[0].pid, resource.RLIMIT_FSIZE, (20_000, 20_000))
        statuses, took = fleet.wait()
    assert statuses == [2, 2], fleet.all_text()
    for line in fleet.last_lines():
        assert re.match(rf"train.py: error: process 0 \({HOST}\): .*(File too large|EFBIG)", line), fleet.all_text()
    finish(tmp_path, 2, *arguments)
    equal = saved(tmp_path / "run", STEPS) == undisturbed(2)
    record("the disk of one is full", processes=2, seconds=[took], survived=int(equal), lost=int(not equal))
    assert equal


def test_one_loses_its_network(data, undisturbed, tmp_path):
    with _two_hosts() as (inside, addresses):
        arguments = (*SMOKE, data, f"--workdir={tmp_path / 'run'}")
        with Fleet(tmp_path, 2, *arguments, within=inside, coordinator=addresses[0]) as fleet:
            fleet.wait_for("step 2/")
            subprocess.run([*inside[1], "ip", "link", "set", "eth1", "down"], check=True)
            statuses, took = fleet.wait()
            assert statuses == [2, 2], fleet.all_text()
        for number, line in enumerate(fleet.last_lines()):
            assert re.match(
                r"train.py: error: process [01] \(.*\): (no heartbeat|it was cut off|its connection)", line
            ), (
                number,
                fleet.all_text(),
            )
    finish(tmp_path, 2, *arguments)
    equal = saved(tmp_path / "run", STEPS) == undisturbed(2)
    record("one loses its network", processes=2, seconds=[took], survived=int(equal), lost=int(not equal))
    assert equal


def _end_with(error, fault, folder, *arguments, own):
    """Start two processes that must end at once with an error, the last line of both."""
    workdir = (
        () if any("--workdir" in word for words in own.values() for word in words) else (f"--workdir={folder / 'run'}",)
    )
    with Fleet(folder, 2, *arguments, *workdir, own=own) as fleet:
        statuses, took = fleet.wait(timeout=60)
    assert statuses == [2, 2], fleet.all_text()
    for line in fleet.last_lines():
        assert line.startswith(f"train.py: error: {error}"), fleet.all_text()
    assert "Traceback" not in fleet.all_text()
    assert not (folder / "run" / "checkpoints").exists()
    record(fault, processes=2, seconds=[took], survived=1, lost=0)


@contextlib.contextmanager
def _two_hosts():
    """Make two network namespaces with a link between them; skip where that is not permitted."""
    names = [f"motion{os.getpid()}{side}" for side in "ab"]
    addresses = ["10.77.0.1", "10.77.0.2"]
    # gloo listens at the address that the name of the host stands for.
    rename = 'hostname "$0" && exec "$@"'
    inside = {
        number: ["ip", "netns", "exec", name, "unshare", "--uts", "sh", "-c", rename, addresses[number]]
        for number, name in enumerate(names)
    }

    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, text=True, check=True)

    try:
        try:
            for name in names:
                ip("netns", "add", name)
            ip("-n", names[0], "link", "add", "eth0", "type", "veth", "peer", "name", "eth1", "netns", names[1])
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no network namespaces here: {getattr(error, 'stderr', error)}")
        for name, device, address in zip(names, ("eth0", "eth1"), addresses, strict=True):
            ip("-n", name, "address", "add", f"{address}/24", "dev", device)
            ip("-n", name, "link", "set", device, "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield inside, addresses
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)

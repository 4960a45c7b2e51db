"""Runs in a bucket: train.py killed inside a save, refused writes, and the commands that read what it wrote."""

import json
import re
import signal
import subprocess
import time

import bucket
import jax
import numpy as np
import optax
import pytest
import tiny_runs
from bench import ROOT, call, error_of, last_json, random_variables, start, succeed, wait_for, write_video
from fleet import Fleet, finish

from motion_jax.experiment import initial_variables, load_trained
from motion_jax.places import entries_of, files_below, place, write_whole
from motion_jax.training import owner
from motion_jax.training import parallel as par
from motion_jax.training.checkpoints import CheckpointConfig, Checkpoints, find, restore
from motion_jax.training.state import create_state, fingerprint
from motion_jax.weights.files import read_tensors
from motion_jax.weights.save import save_safetensors

pytestmark = [
    pytest.mark.long,
    pytest.mark.xdist_group("bucket"),
    pytest.mark.skipif(not bucket.INSTALLED, reason="the packages that tests/bucket.py needs are not installed"),
]
# aiohttp recommends another type for bodies of more than 1 MB, which gcsfs does not use.
pytestmark.append(pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning"))
ONE_DEVICE = par.ParallelConfig(backend="pmap", devices=1)


@pytest.fixture(scope="module")
def gate():
    """Return the gate of a bucket, which every client in this process and in its children uses."""
    with bucket.serve() as gate, pytest.MonkeyPatch.context() as patch:
        for name, value in gate.environment.items():
            patch.setenv(name, value)
        yield gate


@pytest.fixture(autouse=True)
def open_gate(gate):
    """Let all requests pass after each test."""
    yield
    gate.refuse = gate.hold = None
    gate.held.clear()


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def command(workdir, data, *, frames=8):
    return (
        "train.py",
        f"--config=configs/moving_shapes.py:tsn_r18,{frames},smoke",
        "--config.checkpoint.every_steps=4",
        "--config.checkpoint.keep=3",
        f"--config.data.dir={data}",
        f"--workdir={workdir}",
    )


def leaves(folder):
    """Return shape, dtype and checksum of every array of a checkpoint, the optimizer's included."""
    return json.loads((folder / "checksums" / "leaves.json").read_text())["leaves"]


def logged(workdir):
    """Return the lines of the log without the values of time, which differ between runs."""
    names = ("step", "split", "loss", "grad_norm", "lr", "top1", "top5", "mean_class", "clips")
    lines = map(json.loads, (place(workdir) / "metrics.jsonl").read_text().splitlines())
    return [{name: line.get(name) for name in names} for line in lines]


@pytest.fixture(scope="module")
def straight_process(tmp_path_factory, data):
    """Start a run on the local disk that never stops; return its workdir and its process."""
    workdir = tmp_path_factory.mktemp("straight") / "run"
    process = start(*command(workdir, data))
    yield workdir, process
    process.kill()


@pytest.fixture(scope="module")
def straight(straight_process):
    """Return the workdir of a run on the local disk that never stopped."""
    workdir, process = straight_process
    _, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    return workdir


@pytest.fixture(scope="module")
def killed(gate, data, straight_process):
    """Return the workdir of a run that was killed inside the save of step 8 and then resumed, and the resumed run."""
    workdir = f"gs://{bucket.NAME}/killed"
    gate.hold = "latest/8/state/_METADATA"
    process = start(*command(workdir, data), JAX_COMPILATION_CACHE_DIR=None)
    assert gate.held.wait(120)
    process.kill()
    process.communicate()
    gate.hold = None
    assert {entry.name for entry in entries_of(place(workdir) / "checkpoints" / "latest")} == {"4", "8"}
    assert find(workdir).name == "4"
    gate.read.clear()
    return workdir, succeed(*command(workdir, data), JAX_COMPILATION_CACHE_DIR=None)


def test_a_run_killed_inside_a_save_ends_as_one_that_never_stopped(gate, killed, straight):
    workdir, resumed = killed
    assert "training from step 4 to 12" in resumed.stderr
    assert leaves(place(workdir) / "checkpoints/latest/12") == leaves(straight / "checkpoints/latest/12")
    assert logged(workdir) == logged(straight)
    assert any("compile_cache" in name and "alt=media" in name for name in gate.read)
    kept = {path.name for path in entries_of(place(workdir))}
    assert kept == {
        *("config.json", "labels.json", "metrics.jsonl", "history.jsonl"),
        *("tensorboard", "checkpoints", "compile_cache"),
    }
    assert not (ROOT / "gs:").exists()


def test_two_hosts_with_disks_of_their_own(gate, tmp_path):
    workdir = f"gs://{bucket.NAME}/two_hosts"
    train = (
        *command(workdir, "", frames=3)[:-2],
        "--config.model.batch_norm=synchronised",
        "--config.train.learning_rate=0.001",
    )
    own = {number: [f"--config.data.dir={tmp_path / f'data_{number}'}"] for number in range(2)}
    with Fleet(tmp_path / "killed", 2, *train, f"--workdir={workdir}", own=own) as fleet:
        fleet.wait_for("step 8/12")
        fleet.send(1)
        statuses, _ = fleet.wait()
    assert statuses == [2, -signal.SIGKILL], fleet.all_text()
    assert "process 1 (" in fleet.last_lines()[0]
    resumed = finish(tmp_path / "resumed", 2, *train, f"--workdir={workdir}", own=own)
    assert re.search(r"training from step (4|8) to 12", resumed.text(0))
    finish(tmp_path / "evaluated", 2, "eval.py", f"--workdir={workdir}", own=own)
    by_two = (place(workdir) / "eval.json").read_text()
    succeed("eval.py", f"--workdir={workdir}", *own[0])
    assert (place(workdir) / "eval.json").read_text() == by_two
    # One process, with other sums of the same numbers. Another clip in any batch would change its loss by percents.
    succeed(*train, *own[0], f"--workdir={tmp_path / 'one'}")
    losses = [[line["loss"] for line in logged(each)] for each in (workdir, tmp_path / "one")]
    np.testing.assert_allclose(*losses, rtol=5e-3)
    states = [restore(each / "checkpoints" / "latest").variables for each in (place(workdir), tmp_path / "one")]
    jax.tree.map(lambda one, other: np.testing.assert_allclose(one, other, rtol=5e-3, atol=5e-3), *states)


def test_commands_read_a_run_in_a_bucket(killed, straight, tmp_path):
    workdir, _ = killed
    one = "--config.parallel.devices=1"
    in_bucket, on_disk = (last_json(call("eval", f"--workdir={each}", one, "--json")) for each in (workdir, straight))
    assert in_bucket == on_disk
    assert in_bucket.items() <= json.loads((place(workdir) / "eval.json").read_text()).items()
    both = (workdir, straight)
    reported = last_json(call("report", *both, "--json"))["runs"]
    assert [run["workdir"] for run in reported] == list(map(str, both))
    assert reported[0]["top1"] == reported[1]["top1"] == in_bucket["top1"]
    ensemble = last_json(call("ensemble", f"{workdir}/scores.npz", straight, "--json"))
    assert ensemble["ensemble"]["top1"] == in_bucket["top1"]
    video = tmp_path / "video.avi"
    write_video(video, range(0, 240, 20))
    first, second = (
        last_json(call("predict", video, f"--checkpoint={each}", "--json"))["predictions"][0]["top5"] for each in both
    )
    assert first == second


def test_weights_from_a_bucket(killed, straight, tmp_path, monkeypatch):
    workdir, _ = killed
    trained = load_trained(workdir)
    clips = np.zeros((1, 8, 32, 32, 3), np.float32)
    drawn = random_variables(trained.model, clips)
    monkeypatch.setattr("motion_jax.experiment.random_variables", lambda model, *, seed: drawn)
    variables = initial_variables(trained.model, workdir, seed=1)
    assert fingerprint(variables) == fingerprint(restore(straight).variables)
    save_safetensors(tmp_path / "net.safetensors", variables)
    there = place(f"gs://{bucket.NAME}/net.safetensors")
    there.write_bytes((tmp_path / "net.safetensors").read_bytes())
    assert fingerprint(initial_variables(trained.model, str(there), seed=1)) == fingerprint(variables)
    with pytest.raises(ValueError, match=r"there is no file gs://bkt/absent\.pth"):
        read_tensors(f"gs://{bucket.NAME}/absent.pth")


def opened(workdir):
    section = CheckpointConfig(every_steps=None, every_epochs=1.0, keep=2, asynchronous=True)
    return Checkpoints(workdir, section=section, config={"model": {"name": "tiny"}}, labels=tiny_runs.LABELS)


@pytest.fixture
def saved(gate, request):
    """Return a workdir in the bucket with checkpoints of steps 1 and 2, and the state of step 1."""
    workdir = place(f"gs://{bucket.NAME}/{request.node.name}")
    base = create_state(tiny_runs.TinyNet(), optax.sgd(0.1, 0.9), seed=0, clip_shape=(2, 4, 4, 3))
    states = [par.place_state(base.replace(step=np.int32(step)), ONE_DEVICE) for step in (1, 2)]
    with opened(workdir) as checkpoints:
        for state in states:
            checkpoints.save_latest(state)
    return workdir, states[0]


def test_a_broken_checkpoint_is_set_aside(saved, caplog):
    workdir, state = saved
    latest = workdir / "checkpoints" / "latest"
    names = {path.relative_to(latest) for path in files_below(latest / "2")}
    file = max(files_below(latest / "2" / "state"), key=lambda path: path.stat().length)
    file.write_bytes(file.read_bytes()[::-1])
    with opened(workdir) as checkpoints:
        restored = checkpoints.restore_latest(state, sharding=par.state_sharding(ONE_DEVICE))
        assert checkpoints.latest_step() == 1
        checkpoints.save_latest(state.replace(step=state.step + 2))
    assert fingerprint(restored) == fingerprint(state)
    assert re.search(r"step 2 is broken \(state/.* is not as it was written\); going on from step 1", caplog.text)
    broken = workdir / "checkpoints" / "broken"
    assert {path.relative_to(broken) for path in files_below(broken)} == names
    assert sorted(entry.name for entry in entries_of(latest)) == ["1", "3"]


def test_a_half_written_step_is_removed(saved):
    workdir, _ = saved
    (workdir / "checkpoints" / "latest" / "2" / "commit_success.txt").unlink()
    assert find(workdir).name == "1"
    with opened(workdir) as checkpoints:
        assert checkpoints.latest_step() == 1
    assert [entry.name for entry in entries_of(workdir / "checkpoints" / "latest")] == ["1"]


def test_questions_about_checkpoints_send_no_requests(saved, gate):
    workdir, state = saved
    with opened(workdir) as checkpoints:
        gate.read.clear()
        assert checkpoints.latest_step() == 2
        checkpoints.save_latest(state)
        assert not gate.read


def test_what_another_process_writes_is_seen(gate):
    folder = place(f"gs://{bucket.NAME}/shared")
    write_whole(folder / "ours", "1")
    assert [entry.name for entry in entries_of(folder)] == ["ours"]
    gate.put("shared/theirs", b"2")
    assert (folder / "theirs").read_text() == "2"
    assert sorted(entry.name for entry in entries_of(folder)) == ["ours", "theirs"]


def test_a_copy_of_a_local_run_is_a_run(straight, gate):
    copy = place(f"gs://{bucket.NAME}/copy")
    for file in files_below(place(straight / "checkpoints")):
        file.copy(copy / file.relative_to(straight))
    assert fingerprint(restore(copy).variables) == fingerprint(restore(straight).variables)


def refuse_after_step_4(gate, process, workdir, *, status):
    """Refuse writes with a status as soon as the checkpoint of step 4 is complete."""
    wait_for(place(workdir) / "checkpoints" / "latest" / "4" / "commit_success.txt", process)
    gate.refuse = status


def test_writes_that_are_refused_for_10_seconds_are_repeated(gate, straight, data):
    workdir = f"gs://{bucket.NAME}/waiting"
    process = start(*command(workdir, data))
    refuse_after_step_4(gate, process, workdir, status=503)
    time.sleep(10)
    gate.refuse = None
    _, stderr = process.communicate(timeout=100)
    assert process.returncode == 0, stderr
    assert re.search(rf"^waiting for .*{workdir}/.* to be written, 5 s so far$", stderr, re.MULTILINE)
    assert gate.refused > 1
    assert leaves(place(workdir) / "checkpoints/latest/12") == leaves(straight / "checkpoints/latest/12")
    assert logged(workdir) == logged(straight)


def test_writes_that_are_refused_for_good_end_the_run(gate, straight, data):
    workdir = f"gs://{bucket.NAME}/refused"
    process = start(*command(workdir, data), "--config.checkpoint.retry_minutes=0.05")
    refuse_after_step_4(gate, process, workdir, status=403)
    _, stderr = process.communicate(timeout=100)
    gate.refuse = None
    assert process.returncode == 2, stderr
    *before, cause = stderr.splitlines()
    assert re.fullmatch(rf"train.py: error: .* {workdir}/.*: access denied: {bucket.REASON}", cause)
    # At most two lines since the last line of the log, such as that of a wait.
    last = max(number for number, line in enumerate(before) if line.startswith("step "))
    assert len(before[last + 1 :]) <= 2, stderr
    assert restore(workdir).step == 4
    assert leaves(find(workdir)) == leaves(straight / "checkpoints/latest/4")


def test_a_bucket_that_does_not_exist(gate, data):
    done = call("train", *command("gs://absent/run", data)[1:], "--config.parallel.devices=1")
    assert error_of(done, only=False).endswith("gs://absent/run/writable cannot be written: there is no such bucket")


@pytest.fixture
def short_lease(monkeypatch):
    monkeypatch.setattr(owner, "RENEWED", 0.2)
    monkeypatch.setattr(owner, "EXPIRES", 1.0)
    # Processes of this machine are known to have ended: these tests are about those of other machines.
    monkeypatch.setattr(owner, "_has_ended", lambda content: False)


def test_a_lease_refuses_a_second_run_as_long_as_it_is_renewed(gate, short_lease):
    workdir = f"gs://{bucket.NAME}/leased"
    with owner.own(workdir):
        time.sleep(1.5)
        with pytest.raises(ValueError, match=r"leased is in use by process \d+ on \S+, which began 0 min ago"):
            owner.own(workdir).__enter__()
    assert not (place(workdir) / owner.NAME).exists()
    with owner.own(workdir):
        pass


def test_a_lease_that_is_not_renewed_expires(gate, short_lease, monkeypatch):
    workdir = f"gs://{bucket.NAME}/expired"
    monkeypatch.setattr(owner._Lease, "_renew_until_done", lambda lease: None)
    with owner.own(workdir):
        began = time.monotonic()
        with owner.own(workdir):
            assert 0.9 < time.monotonic() - began < 5


def test_a_lease_of_a_killed_process_of_this_machine_is_free(gate):
    workdir = place(f"gs://{bucket.NAME}/killed_owner")
    content = json.loads(owner._this_process())
    ended = subprocess.Popen(["true"])
    ended.wait()
    (workdir / owner.NAME).write_text(json.dumps({**content, "process": ended.pid}))
    began = time.monotonic()
    with owner.own(workdir):
        assert time.monotonic() - began < 5
    (workdir / owner.NAME).write_text(json.dumps(content))
    assert not owner._has_ended((workdir / owner.NAME).read_text())


def test_pictures_go_into_the_bucket(gate):
    workdir = place(f"gs://{bucket.NAME}/pictures")
    picture = b"\x89PNG" + bytes(12) + (30).to_bytes(4, "big") + (20).to_bytes(4, "big")
    tiny_runs.run(workdir, steps=3, picture=lambda variables: lambda: picture, pictures_every=1.0)
    assert (workdir / "pictures" / "step_3.png").read_bytes() == picture
    (events,) = entries_of(workdir / "tensorboard" / "pictures")
    assert picture in events.read_bytes()

"""train.py and eval.py as a user runs them: to the end, killed and restarted, and with bad input."""

import json
import os
import re
import shutil
import signal

import cv2
import numpy as np
import pytest
from bench import (
    ROOT,
    call,
    error_of,
    kill_when,
    last_json,
    run,
    snapshot,
    start,
    succeed,
    wait_for,
    write_videos,
)

from motion_jax.experiment import Experiment
from motion_jax.training.checkpoints import restore
from motion_jax.training.state import fingerprint

# One worker of pytest-xdist runs all tests of a group, so that they share what their fixtures trained.
moving_shapes = pytest.mark.xdist_group("commands_moving_shapes")
video_folder = pytest.mark.xdist_group("commands_video_folder")

SMOKE = "configs/moving_shapes.py:msnet_tsm_r18,8,smoke"
TSN = "configs/moving_shapes.py:tsn_r18,8,smoke"
# The rate of this schedule does not depend on the number of steps: a longer run is the same compiled program.
CONSTANT = "--config.train.schedule=step"
VIDEOS = (
    "--config=configs/video_folder.py:tsn_r18,2",
    "--config.model.width=8",
    "--config.data.size=32",
    "--config.data.resize=(40,40)",
    "--config.train.batch_size=4",
    "--config.train.milestones=()",
    "--config.train.eval_every_epochs=0",
    "--config.checkpoint.every_steps=4",
)


def records(workdir, split):
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [record for record in lines if record["split"] == split]


def measured(record):
    """A line of the log without the times, which differ between runs."""
    times = ("clips_per_second", "input_wait", "goodput", "time")
    return {name: value for name, value in record.items() if name not in times and not name.startswith("seconds_")}


class Trained:
    """A workdir that was trained, restarted, extended and evaluated, with the output of the commands."""

    def __init__(self, workdir):
        self.workdir = workdir
        train = ("train.py", f"--config={SMOKE}", f"--workdir={workdir}", CONSTANT, "--json")
        self.first = succeed(*train)
        self.again = succeed(*train)
        self.longer = succeed(*train, "--config.train.steps=16", "--change=train.steps")
        self.evaluated = succeed("eval.py", f"--workdir={workdir}", "--json")
        self.eval_json = json.loads((workdir / "eval.json").read_text())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return Trained(tmp_path_factory.mktemp("trained") / "run")


@moving_shapes
def test_a_finished_run_is_reported_and_extended(trained):
    result = last_json(trained.first)
    assert (result["step"], result["finished"], result["clips"]) == (12, True, 24)
    assert "training from step 0 to 12" in trained.first.stderr
    assert "is finished: 12 of 12 steps" in trained.again.stderr
    assert "training from" not in trained.again.stderr
    assert last_json(trained.again) == result
    assert "training from step 12 to 16" in trained.longer.stderr
    assert last_json(trained.longer)["step"] == 16
    assert [record["step"] for record in records(trained.workdir, "train")] == [4, 8, 12, 16]
    assert [record["step"] for record in records(trained.workdir, "val")] == [12, 16]


@moving_shapes
def test_eval_equals_the_evaluation_in_training(trained):
    written = trained.eval_json
    assert set(written) == {"top1", "top5", "mean_class", "clips", "protocol"}
    assert last_json(trained.evaluated) == {name: written[name] for name in ("top1", "top5", "mean_class", "clips")}
    in_training = {record["step"]: record for record in records(trained.workdir, "val")}
    # The best checkpoint is evaluated, of equally good ones the later.
    best = max(in_training.values(), key=lambda record: (record["top1"], record["step"]))
    assert written["protocol"]["step"] == best["step"]
    assert f"{trained.workdir}/checkpoints/best/{best['step']}: loss" in trained.evaluated.stdout
    evaluated_latest = succeed("eval.py", f"--workdir={trained.workdir}", "--which=latest", "--json")
    assert f"{trained.workdir}/checkpoints/latest/16: loss" in evaluated_latest.stdout
    of_latest = last_json(evaluated_latest)
    for result, record in ((written, best), (of_latest, in_training[16])):
        for name in ("top1", "top5", "mean_class"):
            assert result[name] == pytest.approx(record[name], abs=1e-6)
        assert result["clips"] == record["clips"] == 24


@moving_shapes
def test_an_evaluation_of_corrupted_clips_has_files_of_its_own(trained):
    clean = {name: (trained.workdir / name).read_bytes() for name in ("eval.json", "scores.npz")}
    done = succeed(
        "eval.py",
        f"--workdir={trained.workdir}",
        "--corruption=drop:6:2",
        "--average=logits",
        "--full_resolution",
        "--json",
    )
    assert {name: (trained.workdir / name).read_bytes() for name in clean} == clean
    written = json.loads((trained.workdir / "eval_drop_6_2.json").read_text())
    assert last_json(done).items() <= written.items()
    protocol = written["protocol"]
    assert (protocol["corruption"], protocol["average"], protocol["full_resolution"]) == ("drop:6:2", "logits", True)
    with np.load(trained.workdir / "scores.npz") as one, np.load(trained.workdir / "scores_drop_6_2.npz") as other:
        assert (one["average"], other["average"]) == ("softmax", "logits")
        assert one["ids"].tolist() == other["ids"].tolist() == [f"val_{number:06}" for number in range(24)]
        np.testing.assert_allclose(one["scores"].sum(1), 1, rtol=1e-5)
        assert np.abs(other["scores"].sum(1) - 1).max() > 0.1


@moving_shapes
def test_an_evaluation_of_another_split_has_files_of_its_own(trained):
    clean = {name: (trained.workdir / name).read_bytes() for name in ("eval.json", "scores.npz")}
    options = ("--split=train", "--config.parallel.devices=1", "--json")
    done = call("eval", f"--checkpoint={trained.workdir}", *options)
    assert {name: (trained.workdir / name).read_bytes() for name in clean} == clean
    written = json.loads((trained.workdir / "eval_train.json").read_text())
    assert last_json(done).items() <= written.items()
    assert (written["clips"], written["protocol"]["split"]) == (48, "train")
    with np.load(trained.workdir / "scores_train.npz") as file:
        assert len(file["scores"]) == 48
        assert file["ids"][0].startswith("train")
    call("eval", f"--workdir={trained.workdir}", *options, "--corruption=reverse:1")
    assert (trained.workdir / "eval_train_reverse_1.json").is_file()


@pytest.mark.long
@moving_shapes
def test_a_causal_network_is_trained_evaluated_and_streamed(tmp_path):
    config = f"--config={SMOKE}"
    succeed("train.py", config, f"--workdir={tmp_path}", "--config.model.causal=true", CONSTANT)
    assert json.loads((tmp_path / "config.json").read_text())["model"]["causal"]
    assert last_json(succeed("eval.py", f"--workdir={tmp_path}", "--json"))["clips"] == 24
    refused = call("eval", f"--workdir={tmp_path}", config)
    assert "its model.causal is True, the config's False" in error_of(refused, only=False)
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        cv2.imwrite(str(frames / f"{number}.png"), np.full((48, 48, 3), 80 * number, np.uint8))
    result = last_json(call("predict", "--stream", frames, f"--checkpoint={tmp_path}", "--json"))["stream"]
    assert (result["frames"], result["fps"]) == (3, 10.0)


@moving_shapes
def test_protocol_states_how_clips_were_made(trained):
    protocol = trained.eval_json["protocol"]
    assert (protocol["corruption"], protocol["full_resolution"]) == (None, False)
    assert (protocol["clips"], protocol["crops"], protocol["average"]) == (1, 1, "softmax")
    assert protocol["unreadable"] == 0
    assert (protocol["model"], protocol["name"], protocol["split"]) == ("msnet_tsm_r18", "moving_shapes", "val")
    assert (protocol["frames"], protocol["size"], protocol["sampling"]) == (8, 32, "segment")


@moving_shapes
def test_workdir_and_checkpoints_describe_themselves(trained):
    steps = sorted(path.relative_to(trained.workdir).as_posix() for path in trained.workdir.glob("checkpoints/*/*"))
    assert {"checkpoints/latest/12", "checkpoints/latest/16"} < set(steps)
    assert len([step for step in steps if "/best/" in step]) == 1
    for folder in (trained.workdir, *(trained.workdir / step for step in steps)):
        config = json.loads((folder / "config.json").read_text())
        assert Experiment.from_config(config).model.name == "msnet_tsm_r18"
        labels = json.loads((folder / "labels.json").read_text())
        assert len(labels) == len(set(labels)) >= 8


@moving_shapes
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train.py", f"--config={TSN}"), r"holds a run of msnet_tsm_r18, this one is of tsn_r18: choose another"),
        (
            (
                "train.py",
                f"--config={SMOKE}",
                "--config.model.width=16",
                "--config.train.steps=20",
                "--change=model.width,train.steps,train.schedule",
            ),
            r"of another model or optimizer: params/.* where .* is expected, .*; use the config it was trained with",
        ),
        (
            ("train.py", f"--config={SMOKE}", "--config.seed=1", "--config.data.threads=1"),
            r"has other values: .*seed 0 -> 1.*They change its result\. .* or allow this with --change=.*seed",
        ),
        (("train.py", f"--config={SMOKE}", "--change=train.step"), r"no train\.step; did you mean train\.steps\?"),
        (("eval.py", f"--config={TSN}"), r"model\.name is 'msnet_tsm_r18', the config's 'tsn_r18'; leave out --config"),
        (("eval.py", "--clips=many"), r"argument --clips: invalid int value: 'many'"),
        (("eval.py", "--crops=2"), r"eval\.crops is 2, expected 1 .* or 3"),
        (("eval.py", "--average=mean"), r"eval\.average is 'mean', expected one of"),
        (("eval.py", "--corruption=fog:1"), r"no corruption 'fog': choose one of occlusion"),
        (("eval.py", "--corruption=occlusion:1:8"), r"corrupts frame 8, but a clip has frames 0 to 7"),
        (("eval.py", "--which=first"), r"argument --which: invalid choice: 'first'"),
        (
            ("eval.py", "--which=latest", "--checkpoint=x"),
            r"--which selects a checkpoint of --workdir: give it without",
        ),
        (("eval.py", "--split=test"), r"no split 'test', only train, val"),
        (("eval.py", "--config.data.size=63"), r"data\.size is 63, expected a multiple of 8"),
        (("eval.py", "--config.model.width=16"), r"model\.width is 8, the config's 16; leave out --config"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_bad_input_leaves_a_trained_workdir_as_it_is(trained, arguments, says):
    before = snapshot(trained.workdir)
    program, *options = arguments
    options += [] if program == "eval.py" else ["--config.parallel.devices=1"]
    done = call(program.removesuffix(".py"), *options, f"--workdir={trained.workdir}")
    assert re.search(says, error_of(done, only=program == "eval.py"))
    assert snapshot(trained.workdir) == before


@moving_shapes
def test_a_checkpoint_outside_a_workdir_needs_one(trained, tmp_path):
    copy = tmp_path / "300"
    shutil.copytree(trained.workdir / "checkpoints" / "latest" / "16", copy)
    assert re.search(
        r"is not in a workdir: give the workdir it was trained in", error_of(call("eval", f"--checkpoint={copy}"))
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            (f"--config={TSN}", "--config.train.learnig_rate=0.1"),
            r"no key train\.learnig_rate; did you mean train\.learning_rate\?",
        ),
        ((f"--config={TSN}", "--config.trian.steps=1"), r"no key trian\.steps; did you mean train\.steps\?"),
        (
            (f"--config={TSN}", "--config.optimizer=adam"),
            r"no key optimizer; --help together with --config=FILE lists the keys",
        ),
        (
            (f"--config={TSN}", "--config.train=adam"),
            r"no key train; it is a section: set",
        ),
        ((f"--config={TSN}", "--config.train.lr=0.1"), r"no key train\.lr; did you mean train\.learning_rate"),
        (
            (f"--config={TSN}", "--config.train.steps=many"),
            r"train\.steps=many: expected an integer, or None",
        ),
        (
            (f"--config={TSN}", "--config.train.milestones=a"),
            r"train\.milestones=a: expected a tuple of float",
        ),
        (
            (f"--config={TSN}", "--config.train.steps"),
            r"train\.steps needs a value: --config\.train",
        ),
        ((f"--config={TSN}", "--config.data.resize=9"), r"data\.resize is 9, expected None: moving_shapes"),
        ((f"--config={TSN}", "--wrokdir=runs"), r"arguments: --wrokdir=runs; did you mean --workdir\?"),
        ((f"--config={TSN}", "--json=maybe"), r"--json=maybe: expected true or false"),
        ((f"--config={TSN}", "runs"), r"unrecognized arguments: runs; see --help"),
        ((f"--config={TSN}", "--config.train.batch_size=12"), r"is 12, .* 8 devices: set it to 8 or 16"),
        ((f"--config={TSN}", "--config.parallel.devices=9"), r"is 9, but 8 cpu device\(s\) are present: lower it"),
        (("--config=configs/moving_shapes.py:tsn_r19,8,smoke",), r"no model 'tsn_r19'; did you mean tsn_r18"),
        (("--config=configs/moving_shapes.py:tsn_r18,x",), r"are model,frames\[,smoke\], such as .*got 'tsn_r18,x'"),
        (("--config=configs/nothing.py",), r"no config file 'configs/nothing\.py'; motion_jax brings .*moving_shapes"),
        (("--config=configs/moving_shapes.py,tsn_r18",), r"use a colon: configs/moving_shapes\.py:tsn_r18"),
        (("--config=configs/common.py",), r"configs/common\.py cannot be used: .* no attribute 'get_config'"),
        (
            ("--config=configs/video_folder.py:tsn_r18,8",),
            r"data\.root is None, expected the folder .*--config\.data",
        ),
        ((), r"--config=FILE and --workdir=DIR are needed; see --help"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_train_refuses(tmp_path, arguments, says):
    workdir = tmp_path / "run"
    assert re.search(says, error_of(call("train", *arguments, f"--workdir={workdir}")))
    assert not workdir.exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("train.py", f"--config={TSN}"), r"--workdir=DIR are needed"),
        (("train.py", f"--config={TSN}", "--workdir="), r"--workdir=DIR are needed"),
        (("train.py",), r"--config=FILE and --workdir=DIR are needed"),
        (("eval.py",), r"--workdir=DIR or --checkpoint=PATH is needed"),
        (("eval.py", "--workdir=runs/nowhere"), r"runs/nowhere is not a folder; give a workdir"),
        (("eval.py", "--checkpoint=configs"), r"no checkpoint in .*configs: give a workdir that train\.py wrote"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_workdir_is_needed(arguments, says):
    assert re.search(says, error_of(call(arguments[0].removesuffix(".py"), *arguments[1:])))


def test_a_run_that_diverges_stops(tmp_path):
    done = run("train.py", f"--config={TSN}", f"--workdir={tmp_path}", CONSTANT, "--config.train.learning_rate=1e30")
    says = r"is (nan|inf) at step \d+: training stopped, (no|the last good) checkpoint .*; lower train\.learning_rate"
    assert re.search(says, error_of(done, only=False))
    # What is on disk, if anything, is sound.
    assert all((path / "checksums" / "files.json").is_file() for path in tmp_path.glob("checkpoints/*/*"))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """18 good videos, one that is cut off in the middle, and two (at most a tenth) that cannot be read."""
    root = write_videos(tmp_path_factory.mktemp("videos"))
    sound = (root / "train" / "left" / "0.avi").read_bytes()
    (root / "train" / "left" / "half.avi").write_bytes(sound[: len(sound) // 2])
    (root / "train" / "right" / "cut.avi").write_bytes(sound[:300])
    (root / "val" / "left" / "zero.mp4").write_bytes(b"")
    return root


@video_folder
@pytest.mark.long
def test_a_killed_run_ends_as_one_that_was_never_killed(videos, tmp_path):
    def train(workdir):
        root = os.path.relpath(videos, ROOT)
        return ("train.py", *VIDEOS, f"--config.data.root={root}", "--config.train.steps=40", f"--workdir={workdir}")

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    whole = succeed(*train(straight), "--json")
    for bad, why in (
        ("right/cut.avi", "no readable video stream"),
        ("left/zero.mp4", r"the file is empty \(0 bytes\)"),
    ):
        assert re.search(rf"{bad} is left out: .*{why}", whole.stderr)
    assert re.search(r"left/half\.avi is kept: \d+ of 12 declared frames", whole.stderr)
    assert (last_json(whole)["step"], last_json(whole)["clips"]) == (40, 6)
    # The run stores absolute paths, so that its checkpoint finds the data from any folder.
    assert json.loads((straight / "config.json").read_text())["data"]["root"] == str(videos)

    latest = killed / "checkpoints" / "latest"
    kill_when(start(*train(killed)), latest / "8")
    assert not (latest / "40").exists()

    told = start(*train(killed))
    wait_for(latest / "16", told)
    told.send_signal(signal.SIGTERM)
    _, noise = told.communicate(timeout=60)
    assert told.returncode == 0, noise
    assert re.search(r"training from step ([48]|12) to 40", noise)
    stopped_at = int(re.search(r"stopped by SIGTERM after step (\d+), which is saved", noise)[1])
    assert 16 <= stopped_at < 40

    resumed = succeed(*train(killed), "--json")
    assert f"training from step {stopped_at} to 40" in resumed.stderr
    # Batches, dropout, momentum and statistics are those of a run without interruption.
    whole_states = [
        json.loads((run / "checkpoints" / "latest" / "40" / "checksums" / "leaves.json").read_text())["leaves"]
        for run in (straight, killed)
    ]
    assert any(name.startswith("opt_state") for name in whole_states[0])
    assert whole_states[0] == whole_states[1]
    stored = [fingerprint(restore(run / "checkpoints" / "latest" / "40").variables) for run in (straight, killed)]
    assert stored[0] == stored[1]
    assert measured(records(straight, "val")[-1]) == measured(records(killed, "val")[-1])

    written = last_json(succeed("eval.py", f"--workdir={killed}", "--clips=2", "--crops=3", "--json"))
    assert written["clips"] == 6
    assert json.loads((killed / "eval.json").read_text())["protocol"]["clips"] == 2


def bad_folder(root, kind):
    """Write a folder of videos with a fault, and return the pattern of its error."""
    good = write_videos(root, train=2, val=1) / "train" / "left" / "0.avi"
    sound = good.read_bytes()
    if kind == "missing root":
        shutil.rmtree(root)
        return r"there is no folder .*; give one that holds a folder of videos per class"
    if kind == "no classes":
        shutil.rmtree(root / "train")
        (root / "train").mkdir()
        return r"train holds no class folders; put videos into .*train/<class>/"
    if kind == "empty class":
        (root / "train" / "zoom").mkdir()
        return r"class folder 'zoom' of split train .* holds no videos; put some there or remove it"
    if kind == "no val":
        shutil.rmtree(root / "val")
        return r"no split 'val', only train; add videos to it"
    for video in root.glob("train/*/*.avi"):
        video.write_bytes({"only zero-byte": b"", "only truncated": sound[:300], "too many": sound}[kind])
    if kind == "too many":
        good.write_bytes(b"")
        (root / "val" / "left" / "0.avi").write_bytes(sound[:300])
        return (
            r"2 of 6 videos .* cannot be read, more than data\.max_bad_fraction = 0\.1; repair or remove them, .*"
            r"train/left/0\.avi: the file is empty .*val/left/0\.avi: it holds no readable"
            r"|.*val/left/0\.avi.*train/left/0\.avi"
        )
    return r"no video of split train of .* can be read: " + ".*".join(
        rf"train/{name}/{number}\.avi is left out" for name in ("left", "right") for number in (0, 1)
    )


@pytest.mark.parametrize(
    "kind",
    ["missing root", "no classes", "empty class", "no val", "only zero-byte", "only truncated", "too many"],
)
def test_train_refuses_videos(tmp_path, kind):
    says = bad_folder(tmp_path / "videos", kind)
    arguments = (*VIDEOS, f"--config.data.root={tmp_path / 'videos'}", f"--workdir={tmp_path / 'run'}")
    # Before a video is read nothing is said but the error; reading shows a progress bar and names bad videos.
    done = call("train", *arguments, "--config.parallel.devices=1")
    error = error_of(done, only=kind in ("missing root", "no classes", "empty class"))
    assert re.search(says, error), error
    assert not (tmp_path / "run" / "checkpoints").exists()

"""Paths that a user types: local, in a bucket, or of a scheme that every command refuses."""

import importlib.util
import logging
import os
import pathlib
import re
import time

import pytest
from bench import call, data_config, error_of

from motion_jax import places, tools
from motion_jax.places import data_folder, files_below, is_bucket, local_place, move_folder, place, write_whole

SMOKE = "configs/moving_shapes.py:tsn_r18,8,smoke"
# Every option that takes a path, with what else its command needs. PATH is the path to refuse.
PATHS = {
    "train": (f"--config={SMOKE} --workdir=PATH",),
    "eval": ("--workdir=PATH", "--checkpoint=PATH", "--checkpoint=PATH --workdir=out"),
    "export": ("--checkpoint=PATH --format=onnx --output=out.onnx", "--checkpoint=x --format=onnx --output=PATH.onnx"),
    "predict": ("PATH.mp4 --checkpoint=x", "x.mp4 --checkpoint=PATH", "x.mp4 --checkpoint=x --save=PATH.png"),
    "explore": ("PATH.mp4 --checkpoint=x --output=out.html", "x.mp4 --checkpoint=PATH --output=out.html"),
    "visualize": ("--checkpoint=PATH --output=out.png", "--checkpoint=x --output=PATH.png"),
    "evaluate_motion": ("--checkpoint=PATH",),
    "robustness": ("PATH --output=out", "--checkpoint=PATH --output=out", "x --output=PATH"),
    "report": ("PATH", "x --checkpoint=PATH"),
    "ensemble": ("PATH", "--checkpoint=PATH"),
    "import_weights": (
        f"PATH --config={SMOKE} --workdir=out",
        f"x.pth --config={SMOKE} --workdir=PATH",
        f"x.pth --config={SMOKE} --workdir=out --labels=PATH",
        f"x.pth --config={SMOKE} --workdir=out --root=PATH",
    ),
    "prepare": (
        "configs/moving_shapes.py --dir=PATH",
        "configs/moving_shapes.py --workdir=PATH",
        "configs/ucf101.py --dir=out --root=PATH",
    ),
    "rows": ("--output=PATH",),
}
WITHOUT_PATHS = {"benchmark", "complexity", "doctor", "launch", "models", "tpu_compile"}


@pytest.fixture
def no_files(tmp_path, monkeypatch):
    """Run a command in an empty folder, and check that it is empty after it."""
    monkeypatch.setattr("bench.ROOT", tmp_path)
    yield
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("command", "words"), [(command, words) for command, options in PATHS.items() for words in options]
)
def test_every_command_refuses_other_schemes(command, words, no_files):
    line = error_of(call(command, *words.replace("PATH", "s3://b/x").split()))
    assert re.search(r"s3://b/x[.\w]*: s3:// is not supported", line)
    assert re.search(r"; give (a local folder or gs://BUCKET/PATH|a path on this machine)", line)


def test_every_command_with_a_path_is_listed():
    commands = {path.stem for path in pathlib.Path(tools.__path__[0]).glob("*.py")} - {"__init__"}
    assert commands == set(PATHS) | WITHOUT_PATHS


@pytest.mark.parametrize(
    ("config", "value", "cure"),
    [
        ("configs/ucf101.py", "data.root=gs://b/x", "mount the bucket with gcsfuse, or run tools.prepare on each host"),
        ("configs/ucf101.py", "data.root=s3://b/x", "expected a folder on this machine"),
        (SMOKE, "data.dir=gs://b/x", "mount the bucket with gcsfuse, or run tools.prepare on each host"),
        (SMOKE, "data.dir=s3://b/x", "expected a folder on this machine"),
        (SMOKE, "train.init_from=s3://b/x", "give a local folder or gs://BUCKET/PATH"),
    ],
)
def test_values_of_a_config_refuse_other_schemes(config, value, cure, no_files):
    options = (f"--config={config}", f"--config.{value}", "--config.parallel.devices=1", "--workdir=out")
    line = error_of(call("train", *options))
    assert value.partition("=")[2] in line
    assert cure in line


@pytest.mark.parametrize("path", ["s3://b/x", "file:///x", "http://h/x", "hdfs://h/x", "az://b/x", "GS://b/x"])
def test_another_scheme_is_named(path):
    scheme = path.partition(":")[0]
    with pytest.raises(ValueError, match=rf"^{path}: {scheme}:// is not supported; give a local folder or gs://BUCKET"):
        place(path)
    with pytest.raises(ValueError, match=rf"^{path}: {scheme}:// is not supported here; give a path on this machine"):
        local_place(path)


@pytest.mark.parametrize("path", ["gs://", "gs://b", "gs://b/", "gs:///x", "gs:/b/x", pathlib.Path("gs://b/x")])
def test_an_incomplete_bucket_is_refused(path):
    with pytest.raises(ValueError, match=r"is incomplete; give a local folder or gs://BUCKET/PATH"):
        place(path)


def test_a_bucket_without_its_packages_names_the_extra(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"^gs://b/x needs packages .*: pip install motion-jax\[gcs\]$"):
        place("gs://b/x")


def test_local_paths_are_absolute_and_know_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/somewhere")
    assert os.fspath(place("runs/../mine")) == str(tmp_path / "mine")
    assert os.fspath(place("~/mine")) == os.fspath(local_place("~/mine")) == "/somewhere/mine"
    assert os.fspath(local_place("mine")) == "mine"
    assert data_config(dir="~/mine").dir == "/somewhere/mine"
    with pytest.raises(ValueError, match="there is no home folder of that user"):
        place("~nobody-has-this-name/x")


def test_paths_in_a_bucket_stay_as_they_are():
    if not importlib.util.find_spec("gcsfs"):
        pytest.skip("gcsfs is not installed: pip install -r tests/requirements.txt")
    workdir = place("gs://b/runs/mine/")
    assert (str(workdir), workdir.name, place(workdir)) == ("gs://b/runs/mine", "mine", workdir)
    assert is_bucket(workdir / "x")
    assert not is_bucket(place("x"))


def test_prepared_records_of_a_run_in_a_bucket_are_local(monkeypatch, caplog):
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setattr(places, "place", lambda path: pathlib.PurePosixPath(path))
    monkeypatch.setattr(places, "is_bucket", lambda path: path.name == "far")
    with caplog.at_level(logging.INFO):
        assert (data_folder("/near"), data_folder("/far")) == ("/near/data", "/somewhere/.cache/motion_jax/data")
    assert re.search(r"in a bucket: .* /somewhere/.cache/motion_jax/data of each host \(set data.dir", caplog.text)


def test_folders_with_odd_names_are_moved_whole(tmp_path):
    source, target = place(tmp_path / "run [1]" / "2*"), place(tmp_path / "broken" / "2")
    (source / "deep").mkdir(parents=True)
    target.mkdir(parents=True)
    (target / "old").touch()
    write_whole(source / "deep" / "file", "ü")
    write_whole(source / "other", b"\0")
    assert files_below(source) == [source / "deep" / "file", source / "other"]
    move_folder(source, target)
    assert not source.exists()
    assert files_below(target) == [target / "deep" / "file", target / "other"]
    assert (target / "deep" / "file").read_text() == "ü"


def test_a_long_wait_is_logged_until_it_ends(monkeypatch, caplog):
    monkeypatch.setattr(places, "FIRST_LINE", 0.02)
    monkeypatch.setattr(places, "NEXT_LINES", 0.02)
    with caplog.at_level(logging.INFO):
        with places.waiting("nothing"):
            pass
        assert not caplog.messages
        with places.waiting("a file to be written"):
            time.sleep(0.3)
        lines = list(caplog.messages)
        time.sleep(0.1)
    assert len(lines) >= 2
    assert lines == caplog.messages
    assert set(lines) == {"waiting for a file to be written, 0 s so far"}

"""Files beside the checkpoints: damage to any of them is named and never stops a sound run."""

import json
import logging
import re
import shutil

import jax
import pytest
import tiny_runs

from motion_jax.training import checkpoints
from motion_jax.training.state import fingerprint
from motion_jax.training.workdir import use_compile_cache

STEPS = 6


def final(workdir):
    return fingerprint(checkpoints.restore(workdir / "checkpoints" / "latest").variables)


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run of half the steps."""
    workdir = tmp_path_factory.mktemp("side_files") / "half"
    tiny_runs.run(workdir, steps=STEPS // 2)
    return workdir


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The state of a run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("side_files") / "straight"
    tiny_runs.run(workdir, steps=STEPS)
    return final(workdir)


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def not_utf8(path):
    path.write_bytes(b"\xff\xfe" + path.read_bytes()[2:])


def folder(path):
    path.unlink()
    path.mkdir()


def text(content):
    def write(path):
        path.write_text(content)

    write.__name__ = content
    return write


DAMAGES = (empty, truncated, not_utf8, folder, *map(text, ("[]", "3", "{}", "null", '{"step": null}', '{"model": 3}')))
# Lines of the logs are added as they come, so that an empty file is one of a run that was killed before the first.
SILENT = {("metrics.jsonl", "empty"), ("history.jsonl", "empty")}
# The history takes any object.
SILENT |= {("history.jsonl", content) for content in ("{}", '{"step": null}', '{"model": 3}')}


@pytest.mark.parametrize("name", ["config.json", "labels.json", "metrics.jsonl", "history.jsonl"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_named_and_the_run_goes_on(half, straight, tmp_path, caplog, name, damage):
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    damage(workdir / name)
    with caplog.at_level(logging.WARNING):
        assert tiny_runs.run(workdir, steps=STEPS)["finished"]
    assert final(workdir) == straight
    if (name, damage.__name__) not in SILENT:
        assert name in caplog.text
    for path, kind in (("config.json", dict), ("labels.json", list)):
        assert isinstance(json.loads((workdir / path).read_text()), kind)
    lines = list(map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines()))
    assert [line["step"] for line in lines if line["split"] == "train"][-1] == STEPS


@pytest.mark.parametrize("line", ["1", "[]", "null", '{"step": null}', '{"step": 2}', '{"step": true, "split": "val"}'])
def test_a_damaged_line_of_the_log_is_counted(half, tmp_path, caplog, line):
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    whole = (workdir / "metrics.jsonl").read_text()
    (workdir / "metrics.jsonl").write_text(f"{line}\n{whole}")
    with caplog.at_level(logging.WARNING):
        tiny_runs.run(workdir, steps=STEPS)
    assert re.search(r"metrics.jsonl: 1 (damaged lines|lines without step and split) are ignored", caplog.text)
    assert (workdir / "metrics.jsonl").read_text().startswith(whole)


@pytest.mark.parametrize("name", ["tensorboard", "checkpoints/broken"])
def test_a_file_in_the_place_of_a_folder_is_moved(half, straight, tmp_path, caplog, name):
    workdir = tmp_path / "run"
    shutil.copytree(half, workdir)
    shutil.rmtree(workdir / name, ignore_errors=True)
    (workdir / name).write_text("a file")
    if name == "checkpoints/broken":
        tiny_runs.run(workdir, steps=STEPS - 1)
        (workdir / "checkpoints" / "latest" / str(STEPS - 1) / "labels.json").write_text("[]")
    with caplog.at_level(logging.WARNING):
        assert tiny_runs.run(workdir, steps=STEPS)["finished"]
    assert final(workdir) == straight
    assert f"{name} is no folder and is moved to" in caplog.text
    assert (workdir / f"{name}.moved").read_text() == "a file"
    assert (workdir / name).is_dir()


def test_a_damaged_entry_of_the_compile_cache_is_replaced(tmp_path, caplog, monkeypatch):
    cache = tmp_path / "compile_cache"
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
        use_compile_cache(tmp_path)
        jax.jit(lambda x: x * 3.25 + 1)(2.0)
        (entry,) = cache.glob("*-cache")
        whole = entry.read_bytes()
        for damaged in (whole[: len(whole) // 2], b""):
            entry.write_bytes(damaged)
            jax.config.update("jax_compilation_cache_dir", None)
            jax.clear_caches()
            with caplog.at_level(logging.WARNING):
                use_compile_cache(tmp_path)
            assert f"{entry.name} is damaged and is deleted" in caplog.text
            jax.jit(lambda x: x * 3.25 + 1)(2.0)
            assert entry.read_bytes()[:1] == b"x"
            caplog.clear()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()

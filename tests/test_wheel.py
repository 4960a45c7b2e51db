"""A wheel, installed into an empty environment, works from any folder."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time
import zipfile

import pytest
from bench import ROOT, moving_noise, succeed, write_video

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("wheel")]


def call(*words: object, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Run a program in ``folder`` with an environment that does not know the checkout."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    done = subprocess.run([*map(str, words)], cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, f"{done.args} exits with {done.returncode}:\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> pathlib.Path:
    """The wheel of this checkout, built from a copy: setuptools leaves its build folder beside the sources."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    for name in ("motion_jax", "data", "configs"):
        shutil.copytree(ROOT / name, sources / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, sources)
    call(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, sources, folder=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> pathlib.Path:
    """The programs of a fresh environment with the wheel and the versions that requirements.txt pins."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", folder / "venv", folder=folder)
    pins = folder / "constraints.txt"
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    pins.write_text("\n".join(line for line in lines if not line.startswith("-")))
    programs = folder / "venv" / "bin"
    call(programs / "pip", "install", "--quiet", "--constraint", pins, wheel, folder=folder)
    return programs


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> pathlib.Path:
    """A folder with a video and with modules of its own that have the names of our folders."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("data.py", "configs.py"):
        (folder / name).write_text("raise AssertionError('a stranger was imported')\n")
    write_video(folder / "clip.avi", moving_noise(step=4, seed=0))
    return folder


def test_the_wheel_holds_one_top_level_package_and_every_module(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    assert {name.partition("/")[0] for name in names} == {"motion_jax"}
    modules = {path.relative_to(ROOT).as_posix() for path in (ROOT / "motion_jax").rglob("*.py")}
    for room in ("data", "configs"):
        modules |= {f"motion_jax/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / room).rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == modules
    pages = ROOT / "motion_jax" / "inspection" / "pages"
    templates = {path.relative_to(ROOT).as_posix() for path in pages.iterdir() if path.suffix in (".j2", ".css", ".js")}
    assert templates
    assert templates <= set(names)


def test_every_requirement_is_a_dependency(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        declared = re.findall(r"^Requires-Dist: ([\w.-]+)", archive.read(metadata).decode(), flags=re.MULTILINE)
    required = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), flags=re.MULTILINE)
    assert {name.lower() for name in required} <= {name.lower() for name in declared}


def test_a_video_is_predicted_from_another_folder(installed, elsewhere, tmp_path):
    run = tmp_path / "run"
    succeed("train.py", "--config=configs/moving_shapes.py:msnet_tsm_r18,8,smoke", f"--workdir={run}")
    options = (elsewhere / "clip.avi", f"--checkpoint={run}", "--json")
    expected = json.loads(succeed("-m", "motion_jax.tools.predict", *options).stdout.splitlines()[-1])
    found = json.loads(call(installed / "motion-jax", "predict", *options, folder=elsewhere).stdout.splitlines()[-1])
    (ours,), (theirs,) = expected["predictions"], found["predictions"]
    assert theirs["label"] == ours["label"]
    assert theirs["probability"] == pytest.approx(ours["probability"], rel=1e-4)


CODE = """
import sys, motion_jax
predictor = motion_jax.Predictor(motion_jax.from_pretrained(sys.argv[1]))
predictions = predictor(sys.argv[2])
print(predictions.labels[0], predictions.probabilities[0])
"""


def test_a_label_for_a_clip_from_a_hub_folder_within_a_minute(installed, elsewhere, tmp_path):
    run = tmp_path / "run"
    succeed("train.py", "--config=configs/moving_shapes.py:msnet_tsm_r18,8,smoke", f"--workdir={run}")
    options = (f"--checkpoint={run}", "--format=hub", f"--output={tmp_path / 'net'}", "--batch=1")
    succeed("-m", "motion_jax.tools.export", *options)
    start = time.monotonic()
    done = call(installed / "python", "-c", CODE, tmp_path / "net", elsewhere / "clip.avi", folder=elsewhere)
    assert time.monotonic() - start < 60
    label, _, probability = done.stdout.strip().rpartition(" ")
    told = succeed("-m", "motion_jax.tools.predict", elsewhere / "clip.avi", f"--checkpoint={run}", "--json").stdout
    (prediction,) = json.loads(told.splitlines()[-1])["predictions"]
    assert label == prediction["label"]
    assert float(probability) == pytest.approx(prediction["probability"], rel=1e-4)


def test_a_network_is_trained_and_evaluated_from_another_folder(installed, elsewhere, tmp_path):
    # The config is found in the package, as there is no folder configs/ here.
    config = "--config=configs/moving_shapes.py:tsm_r18,8,smoke"
    call(installed / "motion-jax", "train", config, f"--workdir={tmp_path}", folder=elsewhere)
    call(installed / "python", "-m", "motion_jax.tools.eval", f"--workdir={tmp_path}", folder=elsewhere)
    assert json.loads((tmp_path / "eval.json").read_text())["clips"] == 24


def test_modules_of_the_same_name_do_not_disturb_the_library(installed, elsewhere):
    code = "import motion_jax.data.pipeline, motion_jax.configs.moving_shapes, motion_jax; print(motion_jax.__file__)"
    done = call(installed / "python", "-c", code, folder=elsewhere)
    assert str(installed.parent) in done.stdout

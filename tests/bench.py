"""The bench of all tests: random variables, made videos, configs, checkpoints, and commands to call."""

import contextlib
import importlib
import io
import json
import logging
import math
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from typing import Any
from unittest import mock

import cv2
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from motion_jax import cli
from motion_jax.data.config import DataConfig
from motion_jax.experiment import Experiment, save_initial

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Compiling takes seconds instead of a minute; the tests do not depend on the quality of the code.
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
Done = subprocess.CompletedProcess
_COMMON = {
    "version": None,
    "dir": None,
    "sampling": "segment",
    "quality": 95,
    "color_jitter": None,
    "rand_augment": None,
    "threads": 0,
    "processes": 0,
}
_MOVING_SHAPES = {
    **_COMMON,
    "name": "moving_shapes",
    "root": None,
    "frames": 8,
    "size": 32,
    "resize": None,
    "crop": "multi_scale",
    "flip": "swap",
    "clips": (24, 7),
    "max_bad_fraction": 0.1,
}
_VIDEO_FOLDER = {
    **_COMMON,
    "name": "video_folder",
    "root": "videos",
    "frames": 4,
    "size": 16,
    "resize": (24, 32),
    "crop": "center",
    "flip": "skip",
    "clips": None,
    "max_bad_fraction": 0.1,
}


def random_variables(model: Any, clips: Any, *, seed: int | np.random.Generator = 0, positive: bool = False) -> dict:
    """Draw the variables of a module for an input of this shape with NumPy, without compiling ``init``.

    No scale is one and no statistic zero, so that no branch is silent.

    Args:
        model: the network or block.
        clips: its input.
        seed: a seed or a generator.
        positive: draw positive values only, so that no ReLU is silent.
    """
    rng = np.random.default_rng(seed)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), jnp.asarray(clips))
    shapes = flax.traverse_util.flatten_dict({name: shapes[name] for name in ("params", "batch_stats")})

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if positive:
            return rng.uniform(*((0.1, 0.3) if len(shape) > 1 else (0.5, 1.5)), shape)
        if name in ("scale", "var"):
            return rng.uniform(0.5, 1.5, shape)
        deviation = math.sqrt(2 / math.prod(shape[:-1])) if len(shape) > 1 else 0.1
        return deviation * rng.standard_normal(shape)

    return flax.traverse_util.unflatten_dict(
        {path: jnp.asarray(draw(path[-1], like.shape), like.dtype) for path, like in shapes.items()}
    )


def evaluate(block: Any, variables: dict, x: Any) -> tuple[jax.Array, dict]:
    """Return the compiled result of a block in evaluation, and its intermediates."""
    y, sown = jax.jit(lambda v, x: block.apply(v, x, train=False, mutable=["intermediates"]))(variables, x)
    return y, sown.get("intermediates", {})


def data_section(**changes: Any) -> dict[str, Any]:
    """Return the fields of a small `DataConfig`: moving_shapes, or 16-pixel clips of videos if ``name`` is another."""
    made = changes.get("name", "moving_shapes") == "moving_shapes"
    return {**(_MOVING_SHAPES if made else _VIDEO_FOLDER), **changes}


def data_config(**changes: Any) -> DataConfig:
    """Return a small `DataConfig`; see :func:`data_section`."""
    return DataConfig(**data_section(**changes))


def write_video(
    path: pathlib.Path, frames: Iterable[int | np.ndarray], *, size: tuple[int, int] = (48, 64), fps: float = 10.0
) -> None:
    """Write a Motion JPEG video, which OpenCV reads whatever the extension of ``path``.

    Args:
        path: the file; its folder is made.
        frames: RGB uint8 (h, w, 3), or gray levels of uniform frames; levels are taken modulo 256.
        size: (height, width) of uniform frames.
        fps: frames per second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.avi")
    frames = [each if isinstance(each, np.ndarray) else np.full((*size, 3), each % 256, np.uint8) for each in frames]
    height, width, _ = frames[0].shape
    writer = cv2.VideoWriter(str(made), cv2.VideoWriter_fourcc(*"MJPG"), fps, (width, height))
    for frame in frames:
        writer.write(cv2.cvtColor(frame.astype(np.uint8), cv2.COLOR_RGB2BGR))
    writer.release()
    made.rename(path)


def moving_noise(*, step: int, seed: int, frames: int = 12, side: int = 48) -> list[np.ndarray]:
    """Return frames of noise that moves ``step`` pixels to the right per frame."""
    image = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    return [np.roll(image, step * frame, axis=1) for frame in range(frames)]


def write_videos(root: pathlib.Path, *, train: int = 6, val: int = 3) -> pathlib.Path:
    """Write two classes with a number of videos each, as ``root/<split>/<class>/<number>.avi``."""
    for split, count in (("train", train), ("val", val)):
        for step, name in ((4, "right"), (-4, "left")):
            for number in range(count):
                noise = moving_noise(step=step, seed=100 * (split == "val") + number)
                write_video(root / split / name / f"{number}.avi", noise)
    return root


def save_untrained(config: dict, labels: list[str], workdir: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
    """Write a workdir with a checkpoint of a network with random variables."""
    experiment = Experiment.from_config(config)
    data = experiment.data
    clips = np.zeros((1, data.frames, data.size, data.size, 3), np.float32)
    variables = random_variables(experiment.model.build(len(labels)), clips, seed=seed)
    variables["params"]["classifier"]["kernel"] *= 0.1  # probabilities away from 0 and 1
    save_initial(workdir, config, list(labels), variables=variables)
    return workdir


def call(command: str, *arguments: object) -> Done:
    """Run a command of ``motion_jax.tools``, or a module, in this process and in the root of the repository."""
    module = importlib.import_module(command if "." in command else f"motion_jax.tools.{command}")
    argv = [command, *map(str, arguments)]
    code, out, err = 0, io.StringIO(), io.StringIO()
    loggers = [logging.getLogger(name) for name in (None, "motion_jax")]
    before = [(logger, list(logger.handlers), logger.level) for logger in loggers]
    with (
        contextlib.chdir(ROOT),
        mock.patch.object(sys, "argv", argv),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            cli.run(module.main)
        except SystemExit as left:
            code = left.code or 0
        finally:
            for logger, handlers, level in before:
                logger.handlers[:] = handlers
                logger.setLevel(level)
    return Done(argv, code, out.getvalue(), err.getvalue())


def last_json(done: Done) -> dict:
    """Return the object that ``--json`` prints, of a command that succeeded."""
    assert done.returncode == 0, f"{done.args} exits with {done.returncode}:\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def error_of(done: Done, *, only: bool = True) -> str:
    """Return the line that a command prints for bad input; with ``only``, the only one on stderr."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    *before, line = done.stderr.splitlines()
    assert not any("error:" in other for other in before), done.stderr
    assert not (only and before), done.stderr
    program = re.escape(pathlib.Path(next(word for word in done.args if word != sys.executable)).name)
    assert re.match(rf"{program}: error: |python -m [\w.]+: error: ", line), done.stderr
    return line


def environment(*, devices: int = 1) -> dict[str, str]:
    """Return the environment of a user with a number of CPU devices and the compiled programs of earlier tests."""
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{CHEAP} --xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(*arguments: object, devices: int = 1, cwd: pathlib.Path = ROOT, **variables: str | None) -> subprocess.Popen:
    """Start ``python <arguments>``, in the root of the repository by default; a variable that is None is unset."""
    variables = {**environment(devices=devices), **variables}
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={name: value for name, value in variables.items() if value is not None},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, timeout: float = 200, **options: object) -> Done:
    """Run ``python <arguments>`` to its end."""
    process = start(*arguments, **options)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return Done(process.args, process.returncode, stdout, stderr)


def succeed(*arguments: object, **options: object) -> Done:
    """Run ``python <arguments>``, which must exit with 0."""
    done = run(*arguments, **options)
    assert done.returncode == 0, f"{done.args} exits with {done.returncode}:\n{done.stderr}"
    return done


def wait_for(path: pathlib.Path, process: subprocess.Popen, *, timeout: float = 120) -> None:
    """Wait until a process has made a path."""
    end = time.monotonic() + timeout
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"there is no {path} after all this:\n{process.communicate()[1]}")
        time.sleep(0.005)


def kill_when(process: subprocess.Popen, ready: pathlib.Path) -> None:
    """Kill a process as soon as a path exists."""
    wait_for(ready, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
    """Return every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

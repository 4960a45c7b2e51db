"""A bench for commands: calls them in this process or in their own, with checkpoints, videos and files to read."""

import contextlib
import importlib
import io
import json
import logging
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
from unittest import mock

import cv2
import jax
import numpy as np
from variables import drawn_variables

from motion_jax import cli
from motion_jax.experiment import Experiment, save_initial

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Compiling takes seconds instead of a minute; the tests do not depend on the quality of the code.
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
Done = subprocess.CompletedProcess


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
    """The object that ``--json`` prints, of a command that succeeded."""
    assert done.returncode == 0, f"{done.args} exits with {done.returncode}:\n{done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def error_of(done: Done, *, only: bool = True) -> str:
    """The one line that a command prints for bad input; ``only``: it prints nothing else on stderr."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    *before, line = done.stderr.splitlines()
    assert not any("error:" in other for other in before), done.stderr
    assert not (only and before), done.stderr
    program = re.escape(pathlib.Path(next(word for word in done.args if word != sys.executable)).name)
    assert re.match(rf"{program}: error: |python -m [\w.]+: error: ", line), done.stderr
    return line


def environment(*, devices: int = 1) -> dict[str, str]:
    """The environment of a user with a number of CPU devices, and with the compiled programs of earlier tests."""
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{CHEAP} --xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(*arguments: object, devices: int = 1, cwd: pathlib.Path = ROOT, **variables: str) -> subprocess.Popen:
    """Start ``python <arguments>``, in the root of the repository by default."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**environment(devices=devices), **variables},
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
    """``run`` that must exit with 0."""
    done = run(*arguments, **options)
    assert done.returncode == 0, f"{done.args} exits with {done.returncode}:\n{done.stderr}"
    return done


def wait_for(path: pathlib.Path, process: subprocess.Popen, *, timeout: float = 120) -> None:
    """Return as soon as a process has made a path."""
    end = time.monotonic() + timeout
    while not path.exists():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"there is no {path} after all this:\n{process.communicate()[1]}")
        time.sleep(0.005)


def kill_when(process: subprocess.Popen, ready: pathlib.Path) -> None:
    """SIGKILL a process as soon as a path exists."""
    wait_for(ready, process)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def save_untrained(config: dict, labels: list[str], workdir: pathlib.Path, *, seed: int = 0) -> pathlib.Path:
    """Write a workdir with a checkpoint of a network with random variables."""
    experiment = Experiment.from_config(config)
    data = experiment.data
    clips = np.zeros((1, data.frames, data.size, data.size, 3), np.float32)
    variables = drawn_variables(experiment.model.build(len(labels)), clips, seed=seed)
    variables["params"]["classifier"]["kernel"] *= 0.1  # probabilities away from 0 and 1
    save_initial(workdir, config, list(labels), variables=variables)
    return workdir


def write_video(path: pathlib.Path, *, step: int, seed: int, frames: int = 12, side: int = 48) -> None:
    """A Motion-JPEG video of noise that moves ``step`` pixels to the right per frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (side, side))
    for frame in range(frames):
        writer.write(np.roll(image, step * frame, axis=1))
    writer.release()


def write_videos(root: pathlib.Path, *, train: int = 6, val: int = 3) -> pathlib.Path:
    """Two classes with a number of videos each, as ``root/<split>/<class>/<number>.avi``."""
    for split, count in (("train", train), ("val", val)):
        for step, name in ((4, "right"), (-4, "left")):
            for number in range(count):
                write_video(root / split / name / f"{number}.avi", step=step, seed=100 * (split == "val") + number)
    return root


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

"""Runs the commands as a user does, each in a process of its own, and writes the tiny videos they read."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import cv2
import jax
import numpy as np

ROOT = pathlib.Path(__file__).resolve().parent.parent
# A minute of compiling becomes seconds; what is tested here does not depend on how good the code is.
CHEAP = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def environment(*, devices: int = 1) -> dict[str, str]:
    """That of a user with so many CPU devices, and with the compiled programs of earlier tests."""
    return {
        **{name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{CHEAP} --xla_force_host_platform_device_count={devices}",
        "JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(*arguments: object, devices: int = 1) -> subprocess.Popen:
    """Begin ``python <arguments>`` in the root of the repository."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env=environment(devices=devices),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(*arguments: object, devices: int = 1, timeout: float = 200) -> subprocess.CompletedProcess:
    """``python <arguments>`` to its end."""
    process = start(*arguments, devices=devices)
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def succeed(*arguments: object, devices: int = 1) -> subprocess.CompletedProcess:
    """``run`` that must exit with 0."""
    done = run(*arguments, devices=devices)
    assert done.returncode == 0, f"{done.args} exits with {done.returncode}:\n{done.stderr}"
    return done


def wait_for(path: pathlib.Path, process: subprocess.Popen, *, timeout: float = 120) -> None:
    """Return as soon as a path exists that a process is to make."""
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


def write_video(path: pathlib.Path, *, step: int, seed: int, frames: int = 12, side: int = 48) -> None:
    """A Motion-JPEG video of noise that moves ``step`` pixels to the right per frame."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (side, side))
    for frame in range(frames):
        writer.write(np.roll(image, step * frame, axis=1))
    writer.release()


def write_videos(root: pathlib.Path, *, train: int = 6, val: int = 3) -> pathlib.Path:
    """Two classes, so many videos of each, as ``root/<split>/<class>/<number>.avi``."""
    for split, count in (("train", train), ("val", val)):
        for step, name in ((4, "right"), (-4, "left")):
            for number in range(count):
                write_video(root / split / name / f"{number}.avi", step=step, seed=100 * (split == "val") + number)
    return root


def snapshot(folder: pathlib.Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

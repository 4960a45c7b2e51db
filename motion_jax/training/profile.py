"""Profile of some updates of a run, on demand."""

import os
import pathlib
import shutil
import tempfile
from typing import Any

import jax

from motion_jax.places import files_below, is_bucket, place, write_whole
from motion_jax.training.progress import log


class StepProfile:
    """Context that records the updates ``first`` to ``last`` with JAX's profiler, for TensorBoard or XProf.

    Each process writes the trace of its own devices to ``folder``. With ``steps`` None, nothing is recorded.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: str | os.PathLike) -> None:
        self._first, self._last = steps or (0, -1)
        self._folder = place(folder)
        self._running: str | None = None

    def __enter__(self) -> "StepProfile":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """Begin before the first update of the range, also if the run resumes inside it."""
        if not self._running and self._first <= step <= self._last:
            # The profiler writes to local disks only.
            self._running = tempfile.mkdtemp() if is_bucket(self._folder) else str(self._folder)
            jax.profiler.start_trace(self._running)

    def after(self, step: int, outputs: Any) -> None:
        """End after the last update of the range, when its outputs are computed."""
        if self._running and step >= self._last:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            written, self._running = pathlib.Path(self._running), None
            jax.profiler.stop_trace()
            if is_bucket(self._folder):
                for file in files_below(written):
                    write_whole(self._folder / file.relative_to(written), file.read_bytes())
                shutil.rmtree(written)
            log(f"profile of steps {self._first} to {self._last} -> {self._folder}; tensorboard --logdir shows it")


def step_range(text: str) -> tuple[int, int]:
    """Read the option ``FIRST:LAST``.

    >>> step_range("100:105")
    (100, 105)

    Raises:
        ValueError: if the text is not two step numbers in order.
    """
    first, _, last = text.partition(":")
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ValueError(f"--profile is {text!r}, expected the first and the last step, such as 100:105")
    return int(first), int(last)

"""Profile of some updates of a run, on demand."""

import os
from typing import Any

import jax

from motion_jax.training.progress import log


class StepProfile:
    """Context that records the updates ``first`` to ``last`` with JAX's profiler, for TensorBoard or XProf.

    Each process writes the trace of its own devices to ``folder``. With ``steps`` None, nothing is recorded.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: str | os.PathLike) -> None:
        self._first, self._last = steps or (0, -1)
        self._folder = str(folder)
        self._running = False

    def __enter__(self) -> "StepProfile":
        return self

    def __exit__(self, *error: object) -> None:
        self._stop()

    def before(self, step: int) -> None:
        """Begin before the first update of the range, also if the run resumes inside it."""
        if not self._running and self._first <= step <= self._last:
            jax.profiler.start_trace(self._folder)
            self._running = True

    def after(self, step: int, outputs: Any) -> None:
        """End after the last update of the range, when its outputs are computed."""
        if self._running and step >= self._last:
            jax.block_until_ready(outputs)
            self._stop()

    def _stop(self) -> None:
        if self._running:
            self._running = False
            jax.profiler.stop_trace()
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

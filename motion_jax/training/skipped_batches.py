"""Batches that made a value non-finite and are skipped after a rollback."""

import os
from collections.abc import Callable, Iterator, Mapping

import numpy as np

from motion_jax.training.history import add_line, read_lines
from motion_jax.training.state import NonFiniteError

Batch = Mapping[str, np.ndarray]
MOST = 3
"""Rollbacks of one run before it stops."""


class SkippedBatches:
    """The steps of a run whose batch is replaced, noted in ``history.jsonl`` of the workdir."""

    def __init__(self, workdir: str | os.PathLike, *, replaced_from: int) -> None:
        """Read the steps of earlier rollbacks. Step s takes the batch that follows step ``replaced_from + s``."""
        self._workdir = workdir
        self._replaced_from = replaced_from
        self._steps = {line["skipped"] for line in read_lines(workdir) if "skipped" in line}

    def add(self, error: NonFiniteError) -> None:
        """Skip the batch of the step at which a value was not finite.

        Raises:
            NonFiniteError: ``error``, if its batch was skipped before or ``MOST`` batches were.
        """
        if error.step in self._steps or len(self._steps) >= MOST:
            raise error
        self._steps.add(error.step)
        add_line(self._workdir, {"skipped": error.step, "reason": str(error)})

    def batches(self, train_batches: Callable[[int], Iterator[Batch]], *, start: int) -> Iterator[Batch]:
        """Yield the batches after ``start`` updates, with others in place of those that are skipped."""
        for step, batch in enumerate(train_batches(start), start + 1):
            yield next(train_batches(self._replaced_from + step)) if step in self._steps else batch

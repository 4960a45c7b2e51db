"""Time in which the devices wait for the next batch."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

Item = TypeVar("Item")


class InputWait:
    """Sum of the time in which the devices had finished all updates and the next batch was not ready.

    JAX dispatches an update before the previous one has finished, so a late batch costs no time while an update still
    runs. Only the part of a fetch after the end of the newest update counts. A thread records that end, so that the
    training loop does not wait for it.
    """

    def __init__(self) -> None:
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="update-ends")
        # Time at which the newest update ended; before the first update the devices are idle.
        self._newest: Future[float] = Future()
        self._newest.set_result(0.0)
        # Of each fetch that is not counted yet: its begin, its end, and the end of the update before it.
        self._fetches: list[tuple[float, float, Future[float]]] = []

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """Yield batches, and record the time that fetching each one takes."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self._fetches.append((began, time.perf_counter(), self._newest))
            if batch is None:
                return
            yield batch

    def dispatched(self, outputs: Any) -> None:
        """Record that an update that returns these arrays was dispatched."""
        self._newest = self._watcher.submit(_end_of, outputs)

    def seconds(self) -> float:
        """Return the seconds of waiting since the last call; a fetch whose update still runs counts in the next."""
        settled = [fetch for fetch in self._fetches if fetch[2].done()]
        self._fetches = [fetch for fetch in self._fetches if not fetch[2].done()]
        return sum(max(0.0, end - max(began, idle.result())) for began, end, idle in settled)

    def close(self) -> None:
        """Wait for the updates that still run, and end the thread."""
        self._watcher.shutdown()


def _end_of(outputs: Any) -> float:
    """Wait for arrays, and return the time on the clock of ``time.perf_counter``."""
    jax.block_until_ready(outputs)
    return time.perf_counter()

"""How long the devices stood still because the next batch was not there."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax

Item = TypeVar("Item")


class InputWait:
    """Adds up the time in which the devices had finished all updates they were given and the next batch was awaited.

    Updates are given to the devices before they have finished the last one, so a batch that comes late costs nothing
    while one still runs: of the time that fetching a batch takes, only the part after the newest update's end counts.
    A thread of its own notes that end; the loop never waits for it.
    """

    def __init__(self) -> None:
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="update-ends")
        # When the newest update ended; before the first one the devices have nothing to do.
        self._newest: Future[float] = Future()
        self._newest.set_result(0.0)
        # For each fetch that is not counted yet: beginning, end, and when the update before it ended.
        self._fetches: list[tuple[float, float, Future[float]]] = []

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """Pass batches on, noting how long each took to come."""
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            self._fetches.append((began, time.perf_counter(), self._newest))
            if batch is None:
                return
            yield batch

    def dispatched(self, outputs: Any) -> None:
        """Note that the devices were given an update that returns these arrays."""
        self._newest = self._watcher.submit(_end_of, outputs)

    def seconds(self) -> float:
        """The seconds of waiting since the last call; a fetch whose update still runs goes into the next one."""
        settled = [fetch for fetch in self._fetches if fetch[2].done()]
        self._fetches = [fetch for fetch in self._fetches if not fetch[2].done()]
        return sum(max(0.0, end - max(began, idle.result())) for began, end, idle in settled)

    def close(self) -> None:
        """End the thread, after the updates that still run."""
        self._watcher.shutdown()


def _end_of(outputs: Any) -> float:
    """When arrays are there, on the clock of ``time.perf_counter``."""
    jax.block_until_ready(outputs)
    return time.perf_counter()

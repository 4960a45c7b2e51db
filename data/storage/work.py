"""Long work: a parallel map on all cores and a progress bar."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from tqdm import tqdm

Item = TypeVar("Item")
Result = TypeVar("Result")


def parallel_map(function: Callable[[Item], Result], items: Iterable[Item]) -> Iterator[Result]:
    """Yield the results of ``function`` in the order of ``items``, with at most two calls per core pending.

    Threads are enough because OpenCV releases Python's lock while it decodes, resizes and encodes. They share memory
    and need neither picklable arguments nor a main guard. An exception is raised in place of its result.
    """
    workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    waiting: deque = deque()
    with ThreadPoolExecutor(workers, thread_name_prefix="prepare") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) >= 2 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def progress_bar(total: int, *, label: str, done: int = 0) -> tqdm:
    """Return a bar on stderr that starts at ``done``; it is updated every ten seconds where stderr is a file."""
    return tqdm(total=total, initial=done, desc=label, mininterval=0.1 if sys.stderr.isatty() else 10)

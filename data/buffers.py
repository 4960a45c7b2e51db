"""Memory for batches that is used again once nobody holds the batch."""

import math
import weakref

import numpy as np

# Memory of so many batches is kept when nobody holds them.
_KEPT = 4
# The largest block from which glibc learns, less its own bookkeeping.
_LEARNT_FROM = 32 * 2**20 - 2**16


class Buffers:
    """Makes uint8 arrays whose memory is used again when the last view of it is gone.

    Memory fresh from the kernel is cleared page by page when it is first written, which can take longer than to resize
    all the frames that go there. Threads may share one.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        # glibc hands freed memory back to the kernel beyond twice the largest block that it has seen freed, of blocks
        # up to 32 MB. It learns from large batches that are freed, but these are not: so it learns from this block,
        # which is never written. Otherwise the memory of each record and each decoded frame would be fresh too.
        np.empty(_LEARNT_FROM, np.uint8)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """uint8 of ``shape`` with any values, as from ``np.empty``."""
        size = math.prod(shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or memory.size != size:
            memory = np.empty(size, np.uint8)
        # NumPy's views of views refer to the array behind them all, but not past a memoryview: that array is `lent`
        # and never `memory`. When `lent` goes, so has the last view.
        lent = np.frombuffer(memoryview(memory), np.uint8)
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return lent.reshape(shape)

    def _take_back(self, memory: np.ndarray) -> None:
        if len(self._free) < _KEPT:
            self._free.append(memory)

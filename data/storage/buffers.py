"""Memory for batches that is reused when no array refers to it any more."""

import math
import weakref

import numpy as np

# At most this many free blocks are kept.
_KEPT = 4
# The largest block whose release raises glibc's trim threshold, less glibc's own header.
_LARGEST = 32 * 2**20 - 2**16


class Buffers:
    """Allocator of uint8 arrays that reuses memory when its last view is gone. Threads may share one.

    The kernel clears new memory page by page on its first write, which can take longer than resizing all frames that
    are written there: without this, a batch of 64 clips takes 25 % more CPU time.
    """

    def __init__(self) -> None:
        self._free: list[np.ndarray] = []
        # glibc returns freed memory to the kernel beyond twice the largest block of at most 32 MB that was freed. The
        # blocks here are not freed, so free one that is never written. Otherwise the memory of each record and each
        # decoded frame would be new too.
        np.empty(_LARGEST, np.uint8)

    def empty(self, shape: tuple[int, ...]) -> np.ndarray:
        """Return an uninitialized uint8 array, as ``np.empty`` does."""
        size = math.prod(shape)
        try:
            memory = self._free.pop()
        except IndexError:
            memory = None
        if memory is None or memory.size != size:
            memory = np.empty(size, np.uint8)
        # A view of a view refers to the array at its base, but not through a memoryview: the base of all views is
        # `lent`, not `memory`. When `lent` is deleted, no view is left.
        lent = np.frombuffer(memoryview(memory), np.uint8)
        weakref.finalize(lent, self._take_back, memory).atexit = False
        return lent.reshape(shape)

    def _take_back(self, memory: np.ndarray) -> None:
        if len(self._free) < _KEPT:
            self._free.append(memory)

"""Memory of batches is used again, never while anyone can still see it."""

import gc
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.data.storage.buffers import Buffers


def address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]


def test_memory_is_used_again():
    buffers = Buffers()
    first = buffers.empty((2, 3, 4))
    assert (first.shape, first.dtype, first.flags.writeable, first.flags.c_contiguous) == ((2, 3, 4), np.uint8, 1, 1)
    where = address(first)
    del first
    assert address(buffers.empty((6, 4))) == where


@pytest.mark.parametrize(
    "view",
    [
        lambda array: array[1],
        lambda array: array[:, ::-1][..., None][0],
        lambda array: array.reshape(-1)[3:].view(np.int8),
        lambda array: np.asarray(memoryview(array)),
        lambda array: np.lib.stride_tricks.sliding_window_view(array, 2, axis=0),
        lambda array: array.T.reshape(-1, order="F")[5:6],
    ],
)
def test_not_while_a_view_is_left(view):
    buffers = Buffers()
    array = buffers.empty((4, 6))
    array[...] = 7
    kept = view(array)
    del array
    gc.collect()
    for _ in range(3):
        buffers.empty((4, 6))[...] = 0
    assert (np.asarray(kept) == 7).all()


def test_other_sizes_and_many_at_once():
    buffers = Buffers()
    held = [buffers.empty((count, 2)) for count in (1, 2, 3, 3, 3, 3, 3, 3)]
    assert len({address(array) for array in held}) == len(held)
    del held
    assert len(buffers._free) == 4
    assert buffers.empty((5,)).shape == (5,)


def test_threads_get_memory_of_their_own():
    buffers = Buffers()

    def write(value: int) -> bool:
        array = buffers.empty((1000,))
        array[...] = value
        return bool((array == value).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(write, [number % 256 for number in range(2000)]))


def test_not_while_an_array_of_jax_may_share_it():
    """On a CPU, JAX takes an array over without copying it where the memory is aligned."""
    buffers = Buffers()
    for _ in range(20):
        array = buffers.empty((64, 1024))
        array[...] = 7
        kept = [jax.device_put(array), jax.device_put(array[:32]), jnp.asarray(array)]
        del array
        for _ in range(3):
            buffers.empty((64, 1024))[...] = 0
        assert all(bool((value == 7).all()) for value in kept)

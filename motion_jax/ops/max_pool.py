"""Max pooling whose gradient is fast on every platform."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def max_pool(
    x: Float[Array, "*lead c"],
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
) -> Float[Array, "*lead_out c"]:
    """Largest entry of each window over the last axes before the channels, as many as ``window`` has.

    The first of equal entries, in row-major order, takes the gradient, as in PyTorch. NaN is larger than any number.

    Args:
        x: (*lead, *space, c); the leading axes are left alone.
        window: cells per spatial axis.
        strides: cells between windows, per spatial axis.
        padding: cells of minus infinity before and after, per spatial axis; fewer than the window has.

    Raises:
        ValueError: unless the three have one length, less than ``x`` has axes.

    >>> max_pool(jnp.arange(6.0).reshape(1, 6, 1), window=(3,), strides=(2,), padding=((1, 1),))[0, :, 0].tolist()
    [1.0, 3.0, 5.0]
    """
    if not len(strides) == len(padding) == len(window) < x.ndim:
        raise ValueError(
            f"window {tuple(window)}, strides {tuple(strides)} and padding {tuple(padding)} must name the same spatial "
            f"axes, fewer than those of {x.shape}"
        )
    # On a CPU, XLA finds the entry that takes the gradient by a scatter, 7 times slower than comparing the cells of
    # the window one by one; on a TPU the comparisons move 7 times as many bytes (docs/performance.md).
    options = {"window": window, "strides": strides, "padding": padding}
    return jax.lax.platform_dependent(
        x, cpu=functools.partial(_compare_cells, **options), default=functools.partial(_reduce_windows, **options)
    )


def _reduce_windows(
    x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
    lead = x.ndim - len(window) - 1
    return jax.lax.reduce_window(
        x,
        np.array(-np.inf, x.dtype),
        jax.lax.max,
        (1,) * lead + (*window, 1),
        (1,) * lead + (*strides, 1),
        [(0, 0)] * lead + [*padding, (0, 0)],
    )


def _compare_cells(
    x: jax.Array, *, window: Sequence[int], strides: Sequence[int], padding: Sequence[tuple[int, int]]
) -> jax.Array:
    lead = x.ndim - len(window) - 1
    x = jnp.pad(x, [(0, 0)] * lead + [*padding, (0, 0)], constant_values=-jnp.inf)
    # The last axis first, so that of equal entries the first in row-major order is kept.
    for axis, side, stride in reversed(list(zip(range(lead, x.ndim), window, strides, strict=False))):
        end = (x.shape[axis] - side) // stride * stride + 1
        cells = [jax.lax.slice_in_dim(x, start, start + end, stride, axis) for start in range(side)]
        x = functools.reduce(lambda largest, cell: jnp.where((cell > largest) | jnp.isnan(cell), cell, largest), cells)
    return x

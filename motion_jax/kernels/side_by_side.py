"""Several maps side by side along the channels of one; equals treating one map after the other.

Maps of few channels leave most of a TPU's rows of 128 empty. With 8 frames side by side, the layers of 3 to 64 channels
in a MotionSqueeze block read and write 4.22 instead of 5.15 GB (docs/performance.md); CPU times do not change.
"""

import jax
import jax.numpy as jnp

# The most maps that are packed together: 8 maps of 16 channels fill a row of a TPU.
MOST_MAPS = 8


def pack_maps(x: jax.Array) -> tuple[jax.Array, int]:
    """Pack frames of a clip side by side: ``(b, t, h, w, c)`` to ``(n, h, w, maps * c)``, and how many ``maps``.

    The number of maps is the largest divisor of ``t`` up to 8.
    """
    batch, frames, height, width, channels = x.shape
    maps = max(n for n in range(1, MOST_MAPS + 1) if frames % n == 0)
    x = jnp.moveaxis(x.reshape(batch * frames // maps, maps, height, width, channels), 1, 3)
    return x.reshape(-1, height, width, maps * channels), maps


def unpack_maps(x: jax.Array, maps: int, *, frames: int) -> jax.Array:
    """Undo ``pack_maps``: ``(n, h, w, maps * c)`` to ``(b, frames, h, w, c)``."""
    _, height, width, channels = x.shape
    x = jnp.moveaxis(x.reshape(-1, height, width, maps, channels // maps), 3, 1)
    return x.reshape(-1, frames, height, width, channels // maps)


def kernel_of_maps(kernel: jax.Array, maps: int, *, depthwise: bool) -> jax.Array:
    """Return the convolution kernel of ``maps`` maps side by side: repeated if depth-wise, else block-diagonal."""
    if maps == 1:
        return kernel
    if depthwise:
        return jnp.tile(kernel, maps)
    *window, inputs, outputs = kernel.shape
    diagonal = jnp.eye(maps, dtype=kernel.dtype).reshape((1,) * len(window) + (maps, 1, maps, 1))
    blocks = diagonal * kernel.reshape(*window, 1, inputs, 1, outputs)
    return blocks.reshape(*window, maps * inputs, maps * outputs)


def repeat_per_map(values: jax.Array, maps: int, *, ndim: int) -> jax.Array:
    """Repeat values per channel ``(c,)`` for each map: ``(1, .., 1, maps * c)`` of ``ndim`` axes."""
    return jnp.tile(values, maps).reshape((1,) * (ndim - 1) + (-1,))

"""Convolution in the form that suits its shape and the platform; equals ``jax.lax.conv_general_dilated``.

Measured (docs/performance.md), forward / with gradient in ms on two CPU cores, and GB that a TPU reads and writes:

- size 1: a matrix product, on a CPU of two dimensions, else XLA transposes copies of 572 MB for the kernel's gradient;
  on a TPU of as many dimensions as the input has, 57.4 instead of 57.8 GB;
- depth-wise, on a CPU: a sum of shifted products, 17 instead of 26 for the layers of a MotionSqueeze block; on a TPU
  10.3 GB by XLA's convolution instead of 12.2;
- kernels that reach every cell from every cell, on a CPU: one product with the kernel as a matrix of cells, 6 / 19
  instead of 727 / 1416 for 3x3 on 64 maps of 2x2 cells and 512 channels;
- small maps of few channels, on a CPU: products of rows with the kernel as a banded matrix, 82 / 231 instead of
  107 / 426 for the extraction of SELFY; on a TPU 16.6 GB by XLA's convolution instead of 52.0.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.kernels.implementation import is_reference
from motion_jax.kernels.side_by_side import kernel_of_maps

# What a CPU multiplies with a banded kernel: rows of few channels and few numbers (cells times channels), as in the
# first two layers of SELFY's extraction, with windows of up to 17 x 17. Longer bands are mostly zeros. Forward / with
# gradient in ms instead of XLA's convolution, 5120 windows: 1.7 / 4.0 instead of 14.9 / 37.8 for 9x9x1, 4.1 / 11.9
# instead of 7.2 / 23.7 for 9x9x4, but 12.0 / 45.9 instead of 6.8 / 38.1 for 5x5x16.
MOST_CHANNELS = 4
LONGEST_ROW = 17 * MOST_CHANNELS


def convolution(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Sequence[int],
    depthwise: bool = False,
    implementation: str | None = None,
) -> jax.Array:
    """Convolve ``(n, *space, c)`` with ``(*window, c, d)``, or ``(*window, 1, c)`` where ``depthwise``.

    Args:
        x: the input. Where it has a multiple of the kernel's channels, it holds that many maps side by side (see
            ``side_by_side``), and each is convolved with the kernel to as many in the result.
        kernel: of the dtype of ``x``.
        strides: cells between the windows, per spatial axis.
        padding: zeros on both sides, per spatial axis.
        depthwise: convolve each channel by itself.
        implementation: None for the fast form on the platform, ``reference`` for XLA's convolution.
    """
    rank = len(strides)
    sizes = {"strides": tuple(strides), "padding": tuple(padding)}
    maps = x.shape[-1] // kernel.shape[-1 if depthwise else -2]
    by_xla_alone = functools.partial(by_xla, **sizes, depthwise=depthwise)
    if is_reference(implementation):
        return by_xla_alone(x, kernel_of_maps(kernel, maps, depthwise=depthwise))
    if depthwise:
        kernel = kernel_of_maps(kernel, maps, depthwise=True)
        on_cpu, elsewhere = functools.partial(by_shifts, **sizes), by_xla_alone
    elif math.prod(kernel.shape[:rank]) == 1 and not any(padding):
        on_cpu, elsewhere = (functools.partial(form, **sizes) for form in (by_product_of_rows, by_product))
    else:
        kernel = kernel_of_maps(kernel, maps, depthwise=False)
        if reaches_everywhere(x.shape[1:-1], kernel.shape, **sizes):
            axes = rank
        elif x.shape[-1] <= MOST_CHANNELS and x.shape[-2] * x.shape[-1] <= LONGEST_ROW:
            axes = 1
        else:
            return by_xla_alone(x, kernel)
        on_cpu, elsewhere = functools.partial(by_banded_rows, **sizes, axes=axes), by_xla_alone
    return jax.lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere)


def by_xla(
    x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Sequence[int], depthwise: bool = False
) -> jax.Array:
    """Convolve by ``jax.lax.conv_general_dilated``."""
    space = "DHW"[-len(strides) :]
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        strides,
        [(p, p) for p in padding],
        dimension_numbers=(f"N{space}C", f"{space}IO", f"N{space}C"),
        feature_group_count=x.shape[-1] if depthwise else 1,
    )


def by_product(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Sequence[int]) -> jax.Array:
    """Convolve with a kernel of size 1 as a product with a matrix, block-diagonal for maps side by side."""
    x = _strided(x, strides)
    maps = x.shape[-1] // kernel.shape[-2]
    return jnp.dot(x, kernel_of_maps(kernel.reshape(kernel.shape[-2:]), maps, depthwise=False))


def by_product_of_rows(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Sequence[int]) -> jax.Array:
    """Convolve with a kernel of size 1 as a product of two dimensions, with a row for each of the maps side by side."""
    x = _strided(x, strides)
    product = jnp.dot(x.reshape(-1, kernel.shape[-2]), kernel.reshape(kernel.shape[-2:]))
    return product.reshape(*x.shape[:-1], -1)


def _strided(x: jax.Array, strides: Sequence[int]) -> jax.Array:
    return x[(slice(None), *(slice(None, None, stride) for stride in strides))]


def by_shifts(x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Sequence[int]) -> jax.Array:
    """Convolve depth-wise as a sum, over the cells of the kernel, of the shifted input times that cell's weights.

    A scan over the kernel's first axis keeps the program small, its steps checkpointed so that the gradient keeps the
    input alone. Written out cell by cell, it compiles three times as long and runs slower.
    """
    first, *others = size = kernel.shape[: len(strides)]
    outputs = _output_size(x.shape[1:-1], size, strides, padding)
    x = jnp.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])

    @jax.checkpoint
    def slab(x: jax.Array, kernel: jax.Array, index: jax.Array) -> jax.Array:
        rows = jax.lax.dynamic_slice_in_dim(x, index, (outputs[0] - 1) * strides[0] + 1, axis=1)[:, :: strides[0]]
        weights = jax.lax.dynamic_index_in_dim(kernel, index, keepdims=False)
        total = jnp.zeros((), x.dtype)
        for cell in np.ndindex(*others):
            window = tuple(
                slice(start, start + (n - 1) * stride + 1, stride)
                for start, n, stride in zip(cell, outputs[1:], strides[1:], strict=True)
            )
            weight = weights[cell].reshape((1,) * (x.ndim - 1) + (-1,))
            total = total + rows[(slice(None), slice(None), *window)] * weight
        return total

    def add(total: jax.Array, index: jax.Array) -> tuple[jax.Array, None]:
        return total + slab(x, kernel, index), None

    # Start with the first slab: zeros would not vary over the devices under shard_map, as the sum does.
    return jax.lax.scan(add, slab(x, kernel, 0), jnp.arange(1, first))[0]


def by_banded_rows(
    x: jax.Array, kernel: jax.Array, *, strides: Sequence[int], padding: Sequence[int], axes: int
) -> jax.Array:
    """Convolve as the product of rows with the kernel as a banded matrix, zero outside its reach.

    A row is the last ``axes`` spatial axes and the channels together: (n, *outer, *inner, c) as (n, *outer, row). Over
    the outer axes, the rows around each result are laid side by side.
    """
    rank = len(strides)
    split = rank - axes
    window, features = kernel.shape[:rank], kernel.shape[-1]
    outputs = _output_size(x.shape[1:-1], window, strides, padding)

    band = kernel
    for axis in range(split, rank):
        # The taps of this axis become the cells of the input, shifted with each cell of the result, which comes last.
        cells, tap = x.shape[1 + axis], padding[axis]
        before = max(0, (outputs[axis] - 1) * strides[axis] - tap)
        after = max(0, cells + tap - window[axis])
        band = jnp.pad(band, [(before, after) if other == axis else (0, 0) for other in range(band.ndim)])
        starts = [before + tap - result * strides[axis] for result in range(outputs[axis])]
        band = jnp.stack([jax.lax.slice_in_dim(band, start, start + cells, axis=axis) for start in starts], axis=-2)

    rows = x.reshape(*x.shape[: 1 + split], -1)
    rows = jnp.pad(rows, [(0, 0), *((p, p) for p in padding[:split]), (0, 0)])
    around = [
        tuple(slice(first, first + (n - 1) * s + 1, s) for first, n, s in zip(start, outputs, strides, strict=False))
        for start in np.ndindex(*window[:split])
    ]
    rows = jnp.concatenate([rows[(slice(None), *cut)] for cut in around], axis=-1)
    product = jnp.dot(rows.reshape(-1, rows.shape[-1]), band.reshape(rows.shape[-1], -1))
    return product.reshape(-1, *outputs, features)


def reaches_everywhere(
    size: Sequence[int], window: Sequence[int], *, strides: Sequence[int], padding: Sequence[int]
) -> bool:
    """Return whether every cell of the result depends on every cell of the input."""
    outputs = _output_size(size, window, strides, padding)
    return all(
        (out - 1) * s <= p and n + p <= k
        for n, out, k, s, p in zip(size, outputs, window, strides, padding, strict=False)
    )


def _output_size(
    size: Sequence[int], window: Sequence[int], strides: Sequence[int], padding: Sequence[int]
) -> list[int]:
    return [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, window, strides, padding, strict=False)]

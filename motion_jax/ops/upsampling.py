"""Upsampling by zeros between the cells, as a transposed convolution of kernel 1 does."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax import kernels


def scale_upsampled(
    x: Float[Array, "b t y x c"],
    scale: Float[Array, "1 1 1 1 c"],
    shift: Float[Array, "1 1 1 1 c"],
    *,
    stride: int,
    size: tuple[int, int],
    implementation: kernels.Implementation | None = None,
) -> Float[Array, "b t h w c"]:
    """Return U(x) * scale + shift in the dtype of ``x``, where U inserts zeros: U(x)[:, :, ::stride, ::stride] = x.

    Args:
        x: features of ``ceil(h / stride)`` by ``ceil(w / stride)`` cells.
        scale: per channel.
        shift: per channel.
        stride: cells of the result per cell of ``x``, along both axes.
        size: (h, w) of the result.
        implementation: None for a form that never computes with the zeros, ``reference`` for the equation.
    """
    if not kernels.is_reference(implementation):
        return kernels.scale_upsampled(x, scale, shift, stride=stride, size=size)
    gaps = [(0, full - (stride * (small - 1) + 1), stride - 1) for full, small in zip(size, x.shape[2:4], strict=True)]
    upsampled = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *gaps, (0, 0, 0)])
    return (upsampled.astype(shift.dtype) * scale + shift).astype(x.dtype)

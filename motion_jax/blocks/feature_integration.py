"""What follows the comparison in SELFY and in the local self-attention beside it: integration and upsampling.

Functions to be called inside a module's compact method: the layers they make are that module's own.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.blocks.protocol import Operations, Shape
from motion_jax.layers import Conv

Norm = Callable[..., nn.Module]


def conv_bn_relu(
    x: jax.Array,
    features: int,
    kernel: tuple[int, ...],
    *,
    name: str,
    norm: Norm,
    dtype: jnp.dtype,
    train: bool,
    strides: tuple[int, ...] | None = None,
    padding: tuple[int, ...] | None = None,
    banded: bool = False,
) -> jax.Array:
    """A convolution ``<name>_conv``, a normalisation ``<name>_bn`` and ReLU."""
    x = Conv(features, kernel, strides, padding, banded=banded, dtype=dtype, name=f"{name}_conv")(x)
    return nn.relu(norm(dtype=dtype, name=f"{name}_bn")(x, train=train))


def integrate(x: jax.Array, width: int, *, norm: Norm, dtype: jnp.dtype, train: bool) -> jax.Array:
    """Convolutions over (x, y) shared by all temporal offsets, then one over all of them together.

    (b, t, h, w, l, d) -> (b, t, h, w, width).

    Source: SELFY, section 3.3; the official code's ``STSSIntegration``.
    """
    options = {"padding": (1, 1), "norm": norm, "dtype": dtype, "train": train}
    batch, frames, *space, offsets, channels = x.shape
    # One axis for all maps: a TPU can then lay it along its rows of 128, which the channels would leave half empty.
    x = jnp.moveaxis(x, 4, 2).reshape(-1, *space, channels)
    for index in range(3):
        x = conv_bn_relu(x, width, (3, 3), name=f"integration{index}", **options)
    x = jnp.moveaxis(x.reshape(batch, frames, offsets, *space, width), 2, 4)
    x = x.reshape(*x.shape[:4], -1)  # offset-major
    return conv_bn_relu(x, width, (3, 3), name="integration3", **options)


def upsample(x: jax.Array, *, like: jax.Array, stride: int, norm: Norm, dtype: jnp.dtype, train: bool) -> jax.Array:
    """A 1x1 convolution, zeros between the cells up to the size of ``like``, and BN, whose statistics include them.

    The zeros are never written: they count in the statistics, and become BN's shift. BN's scale starts at zero.

    Source: the official SELFY code's ``STSSIntegration`` (a transposed convolution of kernel 1).
    """
    height, width, features = like.shape[2:]
    x = Conv(features, (1, 1), dtype=dtype, name="upsample_conv")(x)
    gaps = [
        (0, full - (stride * (small - 1) + 1), stride - 1)
        for full, small in zip((height, width), x.shape[2:4], strict=True)
    ]
    norm_of_all = norm(dtype=dtype, scale_init=nn.initializers.zeros, name="upsample_bn")
    factor, shift = norm_of_all.affine(x, train=train, cells=math.prod(like.shape[:-1]))
    x = (x * factor + shift).astype(dtype)
    x = jax.lax.pad(x, jnp.zeros((), dtype), [(0, 0, 0), (0, 0, 0), *gaps, (0, 0, 0)])
    rows, columns = (np.arange(side) % stride == 0 for side in (height, width))
    is_cell = jnp.asarray(rows[None, None, :, None, None] & columns[:, None])
    return jnp.where(is_cell, x.astype(shift.dtype), shift).astype(dtype)


# Official names of the layers made here: SELFY's ``STSSIntegration``, whose kernels have three axes.
OFFICIAL_MODULES = (
    (r"downsample_conv", "selfy.stss_transformation.downsample.0"),
    (r"downsample_bn", "selfy.stss_transformation.downsample.1"),
    (r"integration([012])_conv", r"selfy.stss_integration.conv\1.0"),
    (r"integration([012])_bn", r"selfy.stss_integration.conv\1.1"),
    (r"integration3_conv", "selfy.stss_integration.conv3_fuse.1"),
    (r"integration3_bn", "selfy.stss_integration.conv3_fuse.2"),
    (r"upsample_conv", "selfy.stss_integration.upsample.0"),
    (r"upsample_bn", "selfy.stss_integration.upsample.1"),
)
TRANSPOSED = ("upsample_conv",)


def upsample_operations(maps: int, size: Shape, *, stride: int, width: int, features: int) -> Operations:
    """Return the cost of ``upsample`` beyond its convolution layer.

    The official transposed convolution also multiplies the zeros between the cells, which are skipped here, and BN
    runs over all cells.

    Args:
        maps: number of frames in the batch.
        size: (height, width) of the result.
        stride: cells of the result per cell of the input.
        width: channels of the input.
        features: channels of the result.
    """
    full, small = math.prod(size), math.prod(-(-side // stride) for side in size)
    return Operations(conv_fc=maps * (full - small) * features * width, bn=4 * maps * full * features)

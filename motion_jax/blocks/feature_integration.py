"""Layers that follow the comparison in SELFY and in local self-attention: integration and upsampling.

Functions to call inside a module's compact method: their layers become submodules of that module.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from motion_jax.blocks.protocol import Operations, Shape
from motion_jax.layers import Conv, ConvBNAct
from motion_jax.ops import scale_upsampled


def integrate(layer: ConvBNAct, x: jax.Array, width: int) -> jax.Array:
    """Apply three convolutions over (x, y) to each temporal offset, then one to all offsets together.

    (b, t, h, w, l, d) -> (b, t, h, w, width).

    Source: SELFY, section 3.3; the official code's ``STSSIntegration``.
    """
    batch, frames, *space, offsets, channels = x.shape
    # One axis for all maps: a TPU can then lay it along its rows of 128, which the channels would leave half empty.
    x = jnp.moveaxis(x, 4, 2).reshape(-1, *space, channels)
    for index in range(3):
        x = layer(x, width, (3, 3), name=f"integration{index}")
    x = jnp.moveaxis(x.reshape(batch, frames, offsets, *space, width), 2, 4)
    x = x.reshape(*x.shape[:4], -1)  # offset-major
    return layer(x, width, (3, 3), name="integration3")


def upsample(layer: ConvBNAct, x: jax.Array, *, like: jax.Array, stride: int) -> jax.Array:
    """Apply a transposed 1x1 convolution up to the size of ``like``, and BN with a scale that starts at zero.

    The zeros that a transposed convolution leaves between the cells count in the statistics of BN.

    Source: the official SELFY code's ``STSSIntegration``.
    """
    x = Conv(like.shape[-1], (1, 1), dtype=layer.dtype, name="upsample_conv")(x)
    norm = layer.norm(dtype=layer.dtype, scale_init=nn.initializers.zeros, name="upsample_bn")
    zeros = math.prod(like.shape[:-1]) - math.prod(x.shape[:-1])
    scale, shift = norm.scale_and_shift(x, train=layer.train, zeros=zeros)
    return scale_upsampled(x, scale, shift, stride=stride, size=like.shape[2:4])


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

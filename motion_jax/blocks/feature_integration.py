"""Layers that follow the comparison in SELFY and in local self-attention: integration and upsampling.

Functions to call inside a module's compact method: their layers become submodules of that module.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

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

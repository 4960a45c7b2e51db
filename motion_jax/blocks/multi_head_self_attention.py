"""Multi-head self-attention with relative positions over the frames of a clip, as a bottleneck (BoTNet)."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import Operations, Shape
from motion_jax.fields import Channels, Range, check_fields
from motion_jax.layers import BatchNorm, Conv, ConvBNAct, at_least_float32
from motion_jax.ops import relative_scores

Distance = Annotated[int, Range(0, 2**12)]


class MultiHeadSelfAttention(nn.Module):
    """A BoTNet bottleneck over space and time: 1x1 convolution, multi-head self-attention, 1x1 convolution, shortcut.

    Every position of the clip attends to every other. To the products of queries and keys, a score adds terms for the
    distances along time, rows and columns, each with its own table, shared by the heads. BN follows each of the three
    layers and ReLU the first two; the scale of the last BN starts at zero. The sum with the input is rectified, as in a
    ResNet bottleneck. Time and memory grow with the square of the number of positions, times the heads.

    After res3 of TSM-R50 with 8 frames of 224 pixels, N = 8 * 28 * 28 = 6272 positions of C = 512 channels, three heads
    of 64, so D = 192, this counts 2 N C D + 3 N D D = 1.927 G for the 1x1 convolutions, 2 N N D = 15.106 G for the two
    products, N D (15 + 55 + 55) = 0.151 G for the relative positions, 3 N (3 N - 1) = 0.354 G for the softmax and
    4 N (2 D + C) = 0.022 G for BN: 17.560 G over the 33.056 G of the network, the 50.6 G of SELFY's Table 3g, which
    does not print the widths. (BoTNet's own four heads of 128 would add 49.4 G.)

    Attributes:
        heads: number of heads.
        head_channels: channels of each head.
        distances: the largest distances in frames, rows and columns that have their own embedding; larger ones share
            the last. The default covers 8 frames of 28x28.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; scores and softmax are float32 at least.

    Source: Srinivas et al., Bottleneck Transformers for Visual Recognition (CVPR 2021), figures 1, 3 and 4; the time
    axis is an extension, for SELFY's Table 3g.
    """

    heads: Annotated[int, Range(1, 1024)] = 3
    head_channels: Channels = 64
    distances: tuple[Distance, Distance, Distance] = (7, 27, 27)
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Attend within each clip; the result has the shape of ``x`` and ``dtype``."""
        layer = ConvBNAct(self.norm, self.dtype, train)
        x = x.astype(self.dtype)
        y = layer(x, self.heads * self.head_channels, (1, 1), name=("conv1", "bn1"))
        y = self._attend(y)
        y = nn.relu(self.norm(dtype=self.dtype, name="bn2")(y, train=train))
        zeros = nn.initializers.zeros
        return nn.relu(x + layer(y, x.shape[-1], (1, 1), act=None, scale_init=zeros, name=("conv3", "bn3")))

    def _attend(self, x: jax.Array) -> jax.Array:
        """Attend: (b, t, h, w, heads * d) -> (b, t, h, w, heads * d)."""
        batch, frames, height, width, features = x.shape
        axes = (batch, frames, height, width, self.heads, self.head_channels)

        def project(name: str) -> jax.Array:
            projected = Conv(features, (1, 1), dtype=self.dtype, name=name)(x).reshape(axes)
            return jnp.moveaxis(projected, 4, 1)  # (b, heads, t, h, w, d)

        query, key, value = project("query") / self.head_channels**0.5, project("key"), project("value")
        scores = jnp.einsum("bnthwd,bnlyxd->bnthwlyx", query, key, preferred_element_type=at_least_float32(self.dtype))
        scores += self._relative(query, "relative_frame", axis=2)[:, :, :, :, :, :, None, None]
        scores += self._relative(query, "relative_row", axis=3)[:, :, :, :, :, None, :, None]
        scores += self._relative(query, "relative_column", axis=4)[:, :, :, :, :, None, None, :]
        weights = jax.nn.softmax(scores, axis=(-3, -2, -1)).astype(self.dtype)
        y = jnp.einsum("bnthwlyx,bnlyxd->bthwnd", weights, value)
        return y.reshape(x.shape)

    def _relative(self, query: jax.Array, name: str, *, axis: int) -> jax.Array:
        """Return scores for the distance along one axis: (b, heads, t, h, w, length of that axis)."""
        table = self.param(
            name,
            nn.initializers.normal(self.head_channels**-0.5),
            (2 * self.distances[axis - 2] + 1, self.head_channels),
            at_least_float32(self.dtype),
        )
        scores = relative_scores(jnp.moveaxis(query, axis, 4), table.astype(self.dtype))
        return jnp.moveaxis(scores, 4, axis)

    narrow_fields: ClassVar[Mapping[str, Any]] = {"heads": 1, "head_channels": 16, "distances": (7, 15, 15)}

    @nn.nowrap
    def operations(self, shape: Shape) -> Operations:
        """Return the cost of the two matrix products, the relative positions and the softmax.

        Source: SELFY's supplement, Table 3g, "TSM-R50 + MHSA" (50.6 G).
        """
        batch, *space, _ = shape
        positions = math.prod(space)
        embeddings = sum(2 * distance + 1 for distance in self.distances)
        products = batch * positions * self.heads * self.head_channels * (2 * positions + embeddings)
        return Operations(correlation=products) + Operations.softmax(batch * positions * self.heads, positions)

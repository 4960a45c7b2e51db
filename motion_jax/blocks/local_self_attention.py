"""Local self-attention in space and time, with the layers that follow the comparison in SELFY."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks import feature_integration
from motion_jax.blocks.feature_integration import integrate, upsample
from motion_jax.blocks.protocol import Operations, Shape, TensorNames
from motion_jax.fields import Channels, OddSide, Range, check_fields
from motion_jax.layers import BatchNorm, Conv, ConvBNAct, at_least_float32
from motion_jax.ops import relative_scores
from motion_jax.ops.self_similarity import temporal_offsets


class LocalSelfAttention(nn.Module):
    """Attention of each position to its neighbourhood in space and time.

    SELFY uses the similarities as features; this block multiplies them with the features (Table 3e, "mult. w/ V"). The
    layers before and after are SELFY's: a 3x3 convolution to fewer channels and a lower resolution, integration over
    (x, y), upsampling, and ReLU of the sum with the input. Cells outside the clip or the frame are masked.

    Attributes:
        window: (L, U, V) of the neighbourhood, odd.
        channels: channels that the input is reduced to.
        stride: of the reduction, in space; the result is upsampled to the input's size.
        integration_width: channels of the convolutions over (x, y).
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; scores and softmax are float32 at least.

    Raises:
        ValueError: if a field is out of its range, such as an even side of the window.

    Source: Ramachandran et al., Stand-Alone Self-Attention in Vision Models (2019), equations 2 and 3, with one head,
    the relative positions along the axes added, and the time axis that SELFY's supplement, section C, extends it to.
    """

    window: tuple[OddSide, OddSide, OddSide] = (5, 9, 9)
    channels: Channels = 32
    stride: Annotated[int, Range(1, 64)] = 2
    integration_width: Channels = 64
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Fuse the attended features with ``x``; the result has its shape and ``dtype``."""
        layer = ConvBNAct(self.norm, self.dtype, train)
        x = x.astype(self.dtype)
        y = layer(x, self.channels, (3, 3), strides=(self.stride, self.stride), name="downsample")
        y = integrate(layer, self._attend(y)[:, :, :, :, None], self.integration_width)
        return nn.relu(x + upsample(layer, y, like=x, stride=self.stride))

    def _attend(self, x: jax.Array) -> jax.Array:
        """Attend: (b, t, h, w, c) -> (b, t, h, w, c).

        Scores are computed for whole frames and masked: re-indexing them by displacement would cost more.
        """
        frames, height, width = x.shape[1:4]
        offsets = temporal_offsets(self.window[0])
        query, key, value = (
            Conv(self.channels, (1, 1), dtype=self.dtype, name=name)(x) for name in ("query", "key", "value")
        )

        def neighbours(x: jax.Array) -> jax.Array:
            reach = len(offsets) // 2
            x = jnp.pad(x, [(0, 0), (reach, reach), (0, 0), (0, 0), (0, 0)])
            return jnp.stack([x[:, start : start + frames] for start in range(len(offsets))], axis=2)

        wide = at_least_float32(self.dtype)
        scores = jnp.einsum("bthwc,btlyxc->bthwlyx", query, neighbours(key), preferred_element_type=wide)
        frames_table = self._table("relative_frame", len(offsets))
        by_frame = jnp.einsum("bthwc,lc->bthwl", query, frames_table, preferred_element_type=wide)
        by_row = relative_scores(jnp.swapaxes(query, 2, 3), self._table("relative_row", self.window[1]))
        by_column = relative_scores(query, self._table("relative_column", self.window[2]))
        scores += by_frame[..., None, None]
        scores += jnp.swapaxes(by_row, 2, 3)[:, :, :, :, None, :, None] + by_column[:, :, :, :, None, None, :]

        frame = jnp.arange(frames)[:, None] + jnp.asarray(offsets)[None, :]
        exists = (frame >= 0) & (frame < frames)
        near_row, near_column = (
            jnp.abs(jnp.arange(size)[None, :] - jnp.arange(size)[:, None]) <= side // 2
            for size, side in ((height, self.window[1]), (width, self.window[2]))
        )
        within = (
            exists[:, None, None, :, None, None]
            & near_row[None, :, None, None, :, None]
            & near_column[None, None, :, None, None, :]
        )
        weights = jax.nn.softmax(scores, axis=(-3, -2, -1), where=within[None]).astype(self.dtype)
        return jnp.einsum("bthwlyx,btlyxc->bthwc", weights, neighbours(value))

    def _table(self, name: str, length: int) -> jax.Array:
        """Return the embeddings of the distances along one axis."""
        init = nn.initializers.normal(self.channels**-0.5)
        return self.param(name, init, (length, self.channels), at_least_float32(self.dtype)).astype(self.dtype)

    official_names: ClassVar[TensorNames] = TensorNames(
        feature_integration.OFFICIAL_MODULES, feature_integration.TRANSPOSED, r"(integration|upsample).*"
    )
    narrow_fields: ClassVar[Mapping[str, Any]] = {"window": (5, 5, 5), "channels": 16, "integration_width": 16}

    @nn.nowrap
    def operations(self, shape: Shape) -> Operations:
        """Return the cost of attention within the window, and of upsampling.

        Products of query and key, of weights and value, and of query and the embeddings of the distances.
        """
        batch, frames, *size, features = shape
        window = math.prod(self.window)
        positions = batch * frames * math.prod(-(-side // self.stride) for side in size)
        return (
            feature_integration.upsample_operations(
                batch * frames, size, stride=self.stride, width=self.integration_width, features=features
            )
            + Operations(correlation=positions * self.channels * (2 * window + sum(self.window)))
            + Operations.softmax(positions, window)
        )

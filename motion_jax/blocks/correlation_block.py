"""The correlation block of CorrNet: learned correlation of neighbouring frames."""

import math
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import Operations, Shape, Similarities, TensorNames
from motion_jax.fields import Channels, Range, check_fields
from motion_jax.layers import BatchNorm, ConvBNAct, at_least_float32

PUBLISHED_GROUPS = 32


class CorrelationBlock(nn.Module):
    """Similarities of each frame with a window in the frame before, and a 1x1 convolution on them, added to the input.

    A 1x1 convolution with BN and ReLU reduces the channels to a quarter. A similarity is the mean, over the channels of
    a group, of the products of two features and a learned weight, one per channel and displacement. The similarities
    of all groups are the input channels of a 1x1 convolution with BN back to the channels of the block. ReLU of the sum
    with the input follows, as in every residual block. The first frame is compared with itself.

    Sows ``correlation`` (b, t, h, w, p, p, groups): dy then dx, zero outside the frame.

    From the paper: the formula S = mean_c(W_c B_c A_c) of its operator, a window of K = 7 with a dilation of 2 (13x13
    cells), 32 groups, the clip's first frame compared with itself, and the form that it calls correlation-sum. Ours:
    all frames share the weights (the paper has a set for each), so that a clip may have any length; the weights start
    at one, the plain correlation; the last BN's scale starts at zero; the window lies in the earlier of the two frames.

    Attributes:
        radius: largest displacement, in steps of ``dilation`` cells; the window is ``2 * radius + 1`` wide (K = 7).
        dilation: cells between neighbouring displacements of the window.
        channels: that the input is reduced to; None for a quarter of the input's.
        groups: number of groups of channels with their own similarities; None for 32, or for the largest power of two
            that divides fewer channels. 1 gives one similarity per displacement.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; similarities are float32 at least.

    Raises:
        ValueError: if a field is out of its range, or the groups do not divide the reduced
            channels.

    Source: Wang et al., Video Modeling with Correlation Networks (CVPR 2020), sections 3 and 4.
    """

    radius: Annotated[int, Range(1, 31)] = 3
    dilation: Annotated[int, Range(1, 31)] = 2
    channels: Channels | None = None
    groups: Channels | None = None
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Add correlation features to ``x``; the result has its shape and ``dtype``."""
        channels, groups = self.compared(x.shape[-1])
        x = x.astype(self.dtype)
        layer = ConvBNAct(self.norm, self.dtype, train)
        correlation = self._correlate(layer(x, channels, (1, 1), name="reduction"), groups)
        self.sow("intermediates", "correlation", correlation, reduce_fn=lambda _, new: new)
        y = correlation.reshape(*x.shape[:4], -1)
        return nn.relu(x + layer(y, x.shape[-1], (1, 1), act=None, scale_init=nn.initializers.zeros, name="out"))

    def compared(self, features: int) -> tuple[int, int]:
        """Return the number of compared channels for an input of ``features``, and the number of groups."""
        channels = max(features // 4, 1) if self.channels is None else self.channels
        groups = math.gcd(PUBLISHED_GROUPS, channels) if self.groups is None else self.groups
        if channels % groups:
            raise ValueError(f"the groups must divide the {channels} channels compared; got groups={groups}")
        return channels, groups

    def _correlate(self, x: jax.Array, groups: int) -> jax.Array:
        """Correlate each frame with the one before: (b, t, h, w, c) -> (b, t, h, w, p, p, groups).

        One row of displacements at a time: the weights differ by displacement, which excludes a single product.
        """
        wide = at_least_float32(self.dtype)
        side, per_group = 2 * self.radius + 1, x.shape[-1] // groups
        weights = self.param("filter", nn.initializers.ones, (side, side, groups, per_group), wide)
        x = x.reshape(*x.shape[:4], groups, per_group).astype(wide)
        reach = self.radius * self.dilation
        before = jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)
        before = jnp.pad(before, [(0, 0), (0, 0), (reach, reach), (reach, reach), (0, 0), (0, 0)])
        height, width = x.shape[2:4]

        def row(index: int) -> jax.Array:
            rows = before[:, :, index * self.dilation :][:, :, :height]
            columns = [rows[:, :, :, column * self.dilation :][:, :, :, :width] for column in range(side)]
            return jnp.einsum("bthwgc,bthwpgc,pgc->bthwpg", x, jnp.stack(columns, axis=4), weights[index])

        return jnp.stack([row(index) for index in range(side)], axis=4) / per_group

    official_names: ClassVar[TensorNames] = TensorNames(
        ((r"reduction_conv", "chnl_reduction.0"), (r"reduction_bn", "chnl_reduction.1"))
    )
    narrow_fields: ClassVar[Mapping[str, Any]] = {"channels": 16, "dilation": 1}

    @nn.nowrap
    def operations(self, shape: Shape) -> Operations:
        """Return the cost of the similarities: 2 c - 1 for c channels, and c more for their weights."""
        batch, frames, height, width, features = shape
        channels, groups = self.compared(features)
        cells = batch * frames * height * width * (2 * self.radius + 1) ** 2
        return Operations(correlation=cells * (3 * channels - groups))

    @nn.nowrap
    def similarities(self, variables: Mapping[str, Any], x: Float[Array, "b t h w c"]) -> Similarities:
        """Return the similarities with the frame before, averaged over the groups; 0 for the first frame."""
        _, state = self.clone(parent=None, name=None).apply(variables, x, train=False, mutable=["intermediates"])
        values = state["intermediates"]["correlation"].mean(axis=-1)
        return Similarities(values.at[:, 0].set(0)[:, :, :, :, None], (-1,), self.dilation)

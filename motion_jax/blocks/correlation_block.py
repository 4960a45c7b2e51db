"""The correlation block of CorrNet: learned correlation of neighbouring frames."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.layers import BatchNorm, Conv, at_least_float32


class CorrelationBlock(nn.Module):
    """Similarities of each frame with a window in the frame before, and a 1x1 convolution on them, added to the input.

    A 1x1 convolution with BN and ReLU reduces the channels; each similarity is a weighted sum of the products of two
    features, with a learned weight per displacement and channel that starts as the mean; the similarities become
    channels of a 1x1 convolution back, with BN whose scale starts at zero. The first frame is compared with itself.

    Sows ``correlation`` (b, t, h, w, p, p, groups): dy then dx, zero outside the frame.

    Attributes:
        radius: largest displacement, in cells; the window is ``2 * radius + 1`` wide (K = 7).
        channels: the input is reduced to; None for a quarter of its own.
        groups: of channels, each with similarities of its own. 1 gives one similarity per displacement, as SELFY's
            supplement describes the block; the paper's best is 32.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; similarities are float32 at least.

    Raises:
        ValueError: if the groups do not divide the reduced channels.

    Source: Wang et al., Video Modeling with Correlation Networks (CVPR 2020), section 3 and figure 2.
    """

    radius: int = 3
    channels: int | None = None
    groups: int = 1
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Add correlation features to ``x``; the result has its shape and ``dtype``."""
        features = x.shape[-1]
        channels = max(features // 4, 1) if self.channels is None else self.channels
        if self.groups < 1 or channels % self.groups:
            raise ValueError(f"the groups must divide the {channels} channels compared; got groups={self.groups}")
        x = x.astype(self.dtype)
        y = Conv(channels, (1, 1), dtype=self.dtype, name="reduction_conv")(x)
        y = nn.relu(self.norm(dtype=self.dtype, name="reduction_bn")(y, train=train))
        correlation = self._correlate(y)
        self.sow("intermediates", "correlation", correlation, reduce_fn=lambda _, new: new)
        y = Conv(features, (1, 1), dtype=self.dtype, name="out_conv")(correlation.reshape(*x.shape[:4], -1))
        return x + self.norm(dtype=self.dtype, scale_init=nn.initializers.zeros, name="out_bn")(y, train=train)

    def _correlate(self, x: jax.Array) -> jax.Array:
        """(b, t, h, w, c) -> (b, t, h, w, p, p, groups), each frame with the one before.

        One row of displacements at a time: the weights differ by displacement, so that no single product does it.
        """
        side, per_group = 2 * self.radius + 1, x.shape[-1] // self.groups
        weights = self.param(
            "filter",
            nn.initializers.constant(1 / per_group),
            (side, side, self.groups, per_group),
            at_least_float32(self.dtype),
        )
        wide = at_least_float32(self.dtype)
        x = x.reshape(*x.shape[:4], self.groups, per_group).astype(wide)
        before = jnp.concatenate([x[:, :1], x[:, :-1]], axis=1)
        reach = (self.radius, self.radius)
        before = jnp.pad(before, [(0, 0), (0, 0), reach, reach, (0, 0), (0, 0)])
        height, width = x.shape[2:4]

        def row(dy: int) -> jax.Array:
            rows = before[:, :, dy : dy + height]
            window = jnp.stack([rows[:, :, :, dx : dx + width] for dx in range(side)], axis=4)
            return jnp.einsum("bthwgc,bthwpgc,pgc->bthwpg", x, window, weights[dy])

        return jnp.stack([row(dy) for dy in range(side)], axis=4)

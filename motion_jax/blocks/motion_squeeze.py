"""MotionSqueeze: displacement between neighbouring frames, learned inside a network."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.layers import BatchNorm, Conv
from motion_jax.ops import l2_normalize, match


class MotionSqueeze(nn.Module):
    """The MS module: correlation, displacement estimation and feature transformation, added to its input.

    Sows ``displacement`` (b, t-1, h, w, 2), (dx, dy) in units of the radius, and ``confidence`` (b, t-1, h, w, 1).
    A clip of one frame has no pair: its motion tensor is zero.

    Attributes:
        reduction: channels the features are reduced to before matching; None matches the input itself.
        radius: largest displacement searched, in cells; the window is ``2 * radius + 1`` wide (P = 15).
        sigma: width of the Gaussian around the best match, in cells.
        temperature: multiplier of the scores before the softmax.
        widths: hidden channels of the depth-wise separable feature transformation.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; normalisation, matching and displacement are float32 at least.

    Source: Kwon et al., MotionSqueeze (ECCV 2020), section 3; resnet.py of the official code, ``flow_computation`` and
    ``flow_refinement``.
    """

    reduction: int | None = 64
    radius: int = 7
    sigma: float = 5.0
    temperature: float = 100.0
    widths: tuple[int, ...] = (16, 32, 64)
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Add motion features to ``x``; the result has its shape and ``dtype``."""
        motion = self._motion_tensor(self._reduce_channels(x, train=train))
        return x.astype(self.dtype) + self._transform_features(motion, x.shape[-1], train=train)

    def _reduce_channels(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.reduction is None:
            return x
        x = Conv(self.reduction, (1, 1), dtype=self.dtype, name="reduction_conv")(x)
        return nn.relu(self.norm(dtype=self.dtype, name="reduction_bn")(x, train=train))

    def _motion_tensor(self, x: jax.Array) -> jax.Array:
        """Displacement and confidence of every frame: (b, t, h, w, 3), the last pair repeated for the last frame."""
        batch, frames, *space, _ = x.shape
        x = l2_normalize(x)
        source, target = (half.reshape(-1, *half.shape[2:]) for half in (x[:, :-1], x[:, 1:]))
        displacement, confidence = match(
            source, target, radius=self.radius, sigma=self.sigma, temperature=self.temperature
        )
        displacement = displacement.reshape(batch, frames - 1, *space, 2)
        confidence = confidence.reshape(batch, frames - 1, *space, 1)
        self.sow("intermediates", "displacement", displacement, reduce_fn=lambda _, new: new)
        self.sow("intermediates", "confidence", confidence, reduce_fn=lambda _, new: new)
        motion = jnp.concatenate([displacement, confidence], axis=-1)
        if frames == 1:
            return jnp.zeros((batch, 1, *space, 3), motion.dtype)
        return jnp.concatenate([motion, motion[:, -1:]], axis=1)

    def _transform_features(self, x: jax.Array, features: int, *, train: bool) -> jax.Array:
        """Depth-wise separable convolutions, the first 7x7 and the others 3x3; BN and ReLU after each of the eight."""
        for index, width in enumerate((*self.widths, features), start=1):
            side = 7 if index == 1 else 3
            name = f"transform{index}"
            x = Conv(
                x.shape[-1],
                (side, side),
                padding=(side // 2, side // 2),
                depthwise=True,
                dtype=self.dtype,
                name=f"{name}_depthwise",
            )(x)
            x = nn.relu(self.norm(dtype=self.dtype, name=f"{name}_depthwise_bn")(x, train=train))
            x = Conv(width, (1, 1), dtype=self.dtype, name=f"{name}_pointwise")(x)
            x = nn.relu(self.norm(dtype=self.dtype, name=f"{name}_pointwise_bn")(x, train=train))
        return x

"""SELFY: spatio-temporal self-similarity (STSS) as a motion representation."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.layers import BatchNorm, Conv
from motion_jax.ops import l2_normalize, self_similarity

FUSIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "relu_of_sum": lambda z, v: nn.relu(z + v),  # the official code
    "sum_of_relu": lambda z, v: v + nn.relu(z),  # the paper's text, and "Z+V" of Table 3c
    "z_only": lambda z, v: nn.relu(z),
    "v_only": lambda z, v: v,
}


class Selfy(nn.Module):
    """The SELFY block: self-similarity transformation, feature extraction, feature integration, fusion.

    Sows ``stss`` (b, t, h', w', l, u, v), at the reduced resolution.

    Attributes:
        window: (L, U, V) of the self-similarity, odd; the papers use (5, 9, 9) for 8 frames, (9, 9, 9) for 16.
        offsets: temporal offsets in frames in place of L, such as (1,) for the next frame only.
        channels: channels the input is reduced to before comparing.
        stride: of the reduction, in space; the result is brought back to the input's size.
        extraction_widths: channels of the convolutions over (u, v); the last closes the window to one cell.
        integration_width: channels of the convolutions over (x, y).
        fusion: ``relu_of_sum``, ``sum_of_relu``, ``z_only`` or ``v_only``, with Z the block's features, V its input.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; normalisation and similarities are float32 at least.

    Source: Kwon et al., Learning Self-Similarity in Space and Time (ICCV 2021), section 3; the official code's
    ``STSSTransformation``, ``STSSExtraction`` and ``STSSIntegration``.
    """

    window: tuple[int, int, int] = (5, 9, 9)
    offsets: tuple[int, ...] | None = None
    channels: int = 128
    stride: int = 2
    extraction_widths: tuple[int, ...] = (4, 16, 64, 64)
    integration_width: int = 64
    fusion: str = "relu_of_sum"
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Fuse self-similarity features with ``x``; the result has its shape and ``dtype``."""
        if self.fusion not in FUSIONS:
            raise ValueError(f"fusion must be one of {', '.join(FUSIONS)}; got {self.fusion!r}")
        x = x.astype(self.dtype)
        stss = self._transform(x, train=train)
        features = self._integrate(self._extract(stss, train=train), train=train)
        return FUSIONS[self.fusion](self._upsample(features, like=x, train=train), x)

    def _conv_bn_relu(
        self,
        x: jax.Array,
        features: int,
        kernel: tuple[int, ...],
        *,
        name: str,
        train: bool,
        strides: tuple[int, ...] | None = None,
        padding: tuple[int, ...] = (1, 1),
    ) -> jax.Array:
        x = Conv(features, kernel, strides, padding, dtype=self.dtype, name=f"{name}_conv")(x)
        return nn.relu(self.norm(dtype=self.dtype, name=f"{name}_bn")(x, train=train))

    def _transform(self, x: jax.Array, *, train: bool) -> jax.Array:
        """STSS transformation: (b, t, h, w, c) -> (b, t, h', w', l, u, v)."""
        strides = (self.stride, self.stride)
        x = self._conv_bn_relu(x, self.channels, (3, 3), name="downsample", train=train, strides=strides)
        stss = self_similarity(l2_normalize(x), window=self.window, offsets=self.offsets)
        self.sow("intermediates", "stss", stss, reduce_fn=lambda _, new: new)
        return stss

    def _extract(self, stss: jax.Array, *, train: bool) -> jax.Array:
        """Feature extraction: convolutions over (u, v) until one cell is left; (b, t, h, w, l, d)."""
        x = stss[..., None].astype(self.dtype)
        *hidden, last = self.extraction_widths
        for index, width in enumerate(hidden):
            # Halve the window, but never below three cells: strides 1, 2, 2 for 9x9, 13x13 and 17x17; 1, 2, 1 for 5x5.
            strides = tuple(2 if index > 0 and (side + 1) // 2 >= 3 else 1 for side in x.shape[-3:-1])
            x = self._conv_bn_relu(x, width, (3, 3), name=f"extraction{index}", train=train, strides=strides)
        x = self._conv_bn_relu(x, last, x.shape[-3:-1], name=f"extraction{len(hidden)}", train=train, padding=(0, 0))
        return x.reshape(*x.shape[:-3], last)

    def _integrate(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Feature integration: convolutions over (x, y) shared by all offsets, then one over all of them together."""
        x = jnp.moveaxis(x, 4, 2)  # (b, t, l, h, w, d)
        for index in range(3):
            x = self._conv_bn_relu(x, self.integration_width, (3, 3), name=f"integration{index}", train=train)
        x = jnp.moveaxis(x, 2, 4)
        x = x.reshape(*x.shape[:4], -1)  # offset-major
        return self._conv_bn_relu(x, self.integration_width, (3, 3), name="integration3", train=train)

    def _upsample(self, x: jax.Array, *, like: jax.Array, train: bool) -> jax.Array:
        """A 1x1 convolution, zeros between the cells up to the input's size, and BN, whose statistics include them."""
        height, width, features = like.shape[2:]
        x = Conv(features, (1, 1), dtype=self.dtype, name="upsample_conv")(x)
        gaps = [
            (0, full - (self.stride * (small - 1) + 1), self.stride - 1)
            for full, small in zip((height, width), x.shape[2:4], strict=True)
        ]
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *gaps, (0, 0, 0)])
        return self.norm(dtype=self.dtype, scale_init=nn.initializers.zeros, name="upsample_bn")(x, train=train)

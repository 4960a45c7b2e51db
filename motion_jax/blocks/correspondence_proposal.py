"""The correspondence proposal (CP) module: the best matches of every position in all other frames."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import Operations, Shape
from motion_jax.fields import Channels, Range, check_fields
from motion_jax.layers import BatchNorm, ConvBNAct
from motion_jax.ops.correlation import all_pairs


class CorrespondenceProposal(nn.Module):
    """Maximum over the embeddings of the ``k`` nearest features in other frames, added to the input.

    The nearest features are chosen by their distance over all positions of all other frames, without a gradient through
    the choice. The embedding of each takes (displacement, own feature, other feature), with the displacement (dt, dy,
    dx) in units of the clip's length, height and width. The last BN's scale starts at zero, so the block starts as the
    identity. Time and memory grow with the square of the number of frames. In a clip of one frame, each position
    proposes itself.

    Sows ``proposals`` (b, t, h, w, k, 3), the displacements in frames, rows and columns, best first.

    After res3 of TSM-R18 with 8 frames of 224 pixels, N = 8 * 28 * 28 = 6272 positions of C = 128 channels, k = 8 and
    widths (32, 128), this counts N N C = 5.035 G for the distances, N k ((2 C + 3) 32 + 32 * 128) = 0.621 G and
    4 N k (32 + 128) = 0.032 G for the embedding and its BN, N 128 C + 4 N C = 0.106 G for the last layer: 5.795 G over
    the 14.589 G of the network, the 20.4 G of MotionSqueeze's supplement, Table 2. (With the widths (C / 4, C / 2) of
    the official code it would be 20.2 G.)

    Attributes:
        k: proposals per position; fewer where the other frames have fewer positions.
        widths: channels of the layers that embed a proposal; None for (C / 4, C) of the input's channels C.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; distances are float32 at least.

    Raises:
        ValueError: if a field is out of its range.

    Source: Liu et al., Learning Video Representations from Correspondence Proposals (CVPR 2019), section 3; the
    official code's ``cp_module``.
    """

    k: Annotated[int, Range(1, 1024)] = 8
    widths: tuple[Channels, ...] | None = None
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Add the embedding of the proposals to ``x``; the result has its shape and ``dtype``."""
        layer = ConvBNAct(self.norm, self.dtype, train)
        batch, frames, height, width, features = x.shape
        x = x.astype(self.dtype)
        flat = x.reshape(batch, -1, features)
        chosen = self._choose(flat, frames)
        displacement = self._displacements(chosen, x.shape)
        self.sow("intermediates", "proposals", displacement.reshape(*x.shape[:4], -1, 3), reduce_fn=lambda _, new: new)
        size = jnp.asarray((frames, height, width), self.dtype)
        other = jnp.take_along_axis(flat[:, None], chosen[..., None], axis=2)
        own = jnp.broadcast_to(flat[:, :, None], other.shape)
        y = jnp.concatenate([displacement.astype(self.dtype) / size[None, None, None], own, other], axis=-1)
        widths = (max(features // 4, 1), features) if self.widths is None else self.widths
        for index, channels in enumerate(widths):
            y = layer(y, channels, (1, 1), name=f"embedding{index}")
        y = y.max(axis=2).reshape(*x.shape[:4], -1)
        return x + layer(y, features, (1, 1), act=None, scale_init=nn.initializers.zeros, name="out")

    def _choose(self, x: jax.Array, frames: int) -> jax.Array:
        """Return the positions (b, n, k) of the nearest features in other frames for (b, n, c), nearest first."""
        positions = x.shape[1]
        per_frame = positions // frames
        if frames == 1:
            return jnp.broadcast_to(jnp.arange(positions)[None, :, None], (*x.shape[:2], 1))
        x = jax.lax.stop_gradient(x)  # indices have no gradient: skip that of the distances
        products = all_pairs(x, x)
        # The negative squared distance, without the term that all candidates of a position share.
        closeness = 2 * products - jnp.sum(jnp.square(x.astype(products.dtype)), axis=-1)[:, None]
        frame = jnp.arange(positions) // per_frame
        closeness = jnp.where((frame[:, None] == frame[None])[None], -jnp.inf, closeness)
        return jax.lax.top_k(closeness, min(self.k, positions - per_frame))[1]

    @staticmethod
    def _displacements(chosen: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Return (dt, dy, dx) of the chosen positions, (b, n, k, 3), in frames and cells."""
        _, _, height, width, _ = shape
        own = jnp.arange(chosen.shape[1])[None, :, None]

        def coordinates(position: jax.Array) -> jax.Array:
            cell = position % (height * width)
            return jnp.stack([position // (height * width), cell // width, cell % width], axis=-1)

        return coordinates(chosen) - coordinates(own)

    narrow_fields: ClassVar[Mapping[str, Any]] = {"widths": (16, 16)}

    @nn.nowrap
    def operations(self, shape: Shape) -> Operations:
        """Return the cost of the distances: one matrix product over all pairs of positions.

        Source: MotionSqueeze's supplement, Table 2, "CP module" (20.4 G).
        """
        batch, frames, height, width, features = shape
        return Operations(correlation=batch * (frames * height * width) ** 2 * features if frames > 1 else 0)

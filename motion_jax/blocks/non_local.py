"""The non-local block: attention of every position of a clip to every other."""

import math
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import Operations, Shape
from motion_jax.fields import Channels, check_fields
from motion_jax.layers import BatchNorm, Conv, ConvBNAct, at_least_float32


class NonLocal(nn.Module):
    """Embedded Gaussian non-local block over all positions of all frames, added to its input.

    The last BN's scale starts at zero, so the block starts as the identity. Time and memory grow with the square of
    the number of positions.

    After res3 of TSM-R50 with 8 frames of 224 pixels, N = 8 * 28 * 28 = 6272 positions of C = 512 channels, D = 256,
    this counts 4 N C D = 3.288 G for the 1x1 convolutions, N N D = 10.071 G for one of the two products,
    N (3 N - 1) = 0.118 G for the softmax and 4 N C = 0.013 G for BN: 13.490 G over the 33.056 G of the network, the
    46.5 G of SELFY's Table 3g. The second product, which that figure leaves out, is another 10.071 G.

    Attributes:
        channels: of the embeddings; None for half of the input's.
        norm: a ``BatchNorm`` with its options bound.
        dtype: compute dtype; scores and softmax are float32 at least.

    Source: Wang et al., Non-local Neural Networks (CVPR 2018), section 3, equations 4 and 6, without subsampling.
    """

    channels: Channels | None = None
    norm: Callable[..., nn.Module] = BatchNorm
    dtype: jnp.dtype = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t h w c"]:
        """Add the attended features to ``x``; the result has its shape and ``dtype``."""
        batch, *space, features = x.shape
        channels = max(features // 2, 1) if self.channels is None else self.channels
        x = x.astype(self.dtype)

        def embed(name: str) -> jax.Array:
            return Conv(channels, (1, 1), dtype=self.dtype, name=name)(x).reshape(batch, -1, channels)

        theta, phi, g = embed("theta"), embed("phi"), embed("g")
        scores = jnp.einsum("bnc,bmc->bnm", theta, phi, preferred_element_type=at_least_float32(self.dtype))
        weights = jax.nn.softmax(scores, axis=-1).astype(self.dtype)
        y = jnp.einsum("bnm,bmc->bnc", weights, g).reshape(batch, *space, channels)
        layer = ConvBNAct(self.norm, self.dtype, train)
        return x + layer(y, features, (1, 1), act=None, scale_init=nn.initializers.zeros, name="out")

    narrow_fields: ClassVar[Mapping[str, Any]] = {"channels": 16}

    @nn.nowrap
    def operations(self, shape: Shape) -> Operations:
        """Return the cost of both matrix products and the softmax.

        Source: SELFY's supplement, Table 3g, "TSM-R50 + NL", which counts one of the two products (46.5 G).
        """
        batch, *space, features = shape
        positions = math.prod(space)
        channels = max(features // 2, 1) if self.channels is None else self.channels
        products = Operations(correlation=2 * batch * positions**2 * channels)
        return products + Operations.softmax(batch * positions, positions)

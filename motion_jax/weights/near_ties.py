"""How nearly a clip's matching was decided otherwise: there float32 rounding alone can choose another displacement."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks import MotionSqueeze
from motion_jax.models import VideoClassifier
from motion_jax.ops import l2_normalize, local_correlation

ROUNDING = 2e-6
"""What float32 may change in the difference of two matching scores, each of which is 1 at most."""


def logits_and_gap(
    model: VideoClassifier, variables: Mapping[str, Any], clips: jax.Array
) -> tuple[jax.Array, Float[Array, " b"]]:
    """Logits, and per clip the smallest lead of a best match over the second best, over all positions and blocks.

    A MotionSqueeze block centres its soft-argmax on the best match. Two programs of one network may round
    differently, and where the lead is less than ``ROUNDING`` they may so choose differently: such clips tell nothing
    about the programs. Infinite for networks without such a block.
    """
    logits, aux = model.apply(variables, clips, train=False, method="features")
    gap = jnp.full(clips.shape[0], jnp.inf)
    for site, block in (model.backbone.blocks or {}).items():
        if isinstance(block, MotionSqueeze):
            inner = {name: variables[name]["backbone"][f"blocks_{site}"] for name in variables}
            gap = jnp.minimum(gap, _smallest_lead(block, inner, aux["stages"][site]))
    return logits, gap


def _smallest_lead(block: MotionSqueeze, variables: Mapping[str, Any], x: jax.Array) -> jax.Array:
    if block.reduction is not None:
        _, captured = block.clone(parent=None, name=None).apply(
            variables,
            x,
            train=False,
            capture_intermediates=lambda module, _: module.name == "reduction_bn",
            mutable=["intermediates"],
        )
        x = nn.relu(captured["intermediates"]["reduction_bn"]["__call__"][0])
    x = l2_normalize(x)
    pairs = [(x[:, :-1], x[:, 1:])]
    if block.directions == "forward_and_backward":
        pairs.append((x[:, 1:], x[:, :-1]))
    leads = [_lead(*pair, radius=block.radius, dilation=block.dilation) for pair in pairs]
    return jnp.stack(leads).min(axis=0)


def _lead(source: jax.Array, target: jax.Array, *, radius: int, dilation: int) -> jax.Array:
    batch = source.shape[0]
    source, target = (x.reshape(-1, *x.shape[2:]) for x in (source, target))
    scores = nn.relu(local_correlation(source, target, radius=radius, dilation=dilation))
    best, second = jnp.moveaxis(jax.lax.top_k(scores.reshape(batch, -1, (2 * radius + 1) ** 2), 2)[0], -1, 0)
    # Where nothing matches at all the choice does not matter.
    return jnp.where(best > 0, best - second, jnp.inf).min(axis=1)

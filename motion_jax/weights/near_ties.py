"""The smallest margin of a clip's best matches: below it, float32 rounding can choose another displacement."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.blocks.protocol import declared
from motion_jax.models import VideoClassifier
from motion_jax.models.classifier import block_variables

ROUNDING = 2e-6
"""Largest change by float32 rounding in the difference of two matching scores, each of which is 1 at most."""


def logits_and_gap(
    model: VideoClassifier, variables: Mapping[str, Any], clips: jax.Array, *, of_frames: bool = False
) -> tuple[jax.Array, Float[Array, " b"]]:
    """Return logits, and per clip the smallest margin between the best match and the second-best one, over all blocks.

    The logits are those of the clips (b, num_classes), or with ``of_frames`` those of each frame (b, t, num_classes).

    Two programs of one network may round differently. Where a margin is below ``ROUNDING`` they may choose different
    matches, so that their logits cannot be compared. Infinite for networks without a block that chooses a best match.
    """
    logits, aux = model.apply(variables, clips, train=False, method="features")
    gap = jnp.full(clips.shape[0], jnp.inf)
    for site, block in (model.backbone.blocks or {}).items():
        if match_margin := declared(block, "match_margin"):
            gap = jnp.minimum(gap, match_margin(block_variables(variables, site), aux["stages"][site]))
    return aux["frame_logits"] if of_frames else logits, gap

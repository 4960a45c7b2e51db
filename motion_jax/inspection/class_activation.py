"""Class activation: where in a clip the evidence for a class lies."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from motion_jax.models import VideoClassifier


def class_activation(
    model: VideoClassifier, variables: Mapping[str, Any], features: Float[Array, "t h w c"]
) -> Float[Array, "k t h w"]:
    """Return the Grad-CAM of every class on the features before pooling.

    The weight of a channel is the mean, over all positions of the clip, of the gradient of the class's logit. The map
    of a class is the weighted sum of the channels, and 0 where it is negative.

    Args:
        model: the network.
        variables: its variables.
        features: the last stage for one clip (see ``VideoClassifier.features``).

    Source: Selvaraju et al., Grad-CAM (ICCV 2017), equations 1 and 2.
    """
    features = features.astype(jnp.float32)

    def logits(features: jax.Array) -> jax.Array:
        return model.apply(variables, features[None], train=False, method="classify")[0].mean(axis=0)

    scores, pull_back = jax.vjp(logits, features)
    # One class at a time: the gradients of all classes together may not fit into memory.
    weights = jax.lax.map(lambda row: pull_back(row)[0].mean(axis=(0, 1, 2)), jnp.eye(len(scores), dtype=scores.dtype))
    return nn.relu(jnp.einsum("thwc,kc->kthw", features, weights))

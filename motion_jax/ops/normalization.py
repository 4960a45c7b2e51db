"""Unit-length features for cosine similarity."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def l2_normalize(x: Float[Array, "*lead c"], *, epsilon: float = 1e-6) -> Float[Array, "*lead c"]:
    """Divide each feature vector by its length.

    Computed and returned in float32 at least, so that similarities of bfloat16 features stay exact to 1e-6. A zero
    vector stays zero, with a finite gradient.

    Args:
        x: features, the vectors along the last axis.
        epsilon: added to the squared length, inside the square root.

    Source: MotionSqueeze, resnet.py, ``L2normalize``.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x * jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1, keepdims=True) + epsilon)

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


def unit_length(x: Float[Array, "*lead c"], *, least: float = 1e-12) -> Float[Array, "*lead c"]:
    """Divide each feature vector by its length, or by ``least`` if that is more.

    Computed and returned in float32 at least. A vector no longer than ``least`` has no gradient; PyTorch's is ``1 /
    least`` there.

    Args:
        x: features, the vectors along the last axis.
        least: the smallest divisor.

    Source: PyTorch, ``torch.nn.functional.normalize``.

    >>> unit_length(jnp.array([[3.0, 4.0], [0.0, 0.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929], [0.0, 0.0]]
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    squares = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    long = squares > least**2
    # The root of zero has no derivative, so it is not taken.
    return jnp.where(long, x / jnp.sqrt(jnp.where(long, squares, 1)), jax.lax.stop_gradient(x) / least)

"""Intermediate results computed again for the gradient instead of kept; equals the function itself.

SELFYNet-R50's training step, features copied for five temporal offsets: 1526 instead of 1584 ms on a CPU, 4.74 instead
of 4.78 GB of temporary memory on a TPU.
"""

from collections.abc import Callable

import jax


def recompute(function: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """Return the function with a gradient that keeps its arguments alone."""
    return jax.checkpoint(function)

"""The sum at the end of a residual block."""

import jax
from jaxtyping import Array, Float

from motion_jax import kernels


def residual_sum(
    branch: Float[Array, "*lead c"],
    shortcut: Float[Array, "*lead c"],
    *,
    implementation: kernels.Implementation | None = None,
) -> Float[Array, "*lead c"]:
    """Return ReLU(F(x) + x), with F(x) the result of the residual branch.

    Args:
        branch: the result of the residual branch.
        shortcut: the block's input, or its projection.
        implementation: None keeps the result in memory on a CPU, ``reference`` leaves that to XLA.

    Source: He et al., Deep Residual Learning (CVPR 2016), equation 1.
    """
    y = jax.nn.relu(branch + shortcut)
    return y if kernels.is_reference(implementation) else kernels.materialise(y)

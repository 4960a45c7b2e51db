"""Keeping a result in memory where XLA on a CPU would compute it again for each of its uses."""

import jax
from jaxtyping import Array, Shaped


def materialise(x: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """``x`` itself, written to memory once on a CPU.

    What is cheap to compute XLA fuses into everything that reads it. A residual stage is a chain of such additions, so
    that its last block would compute all of them again, several times over. A barrier ends the fusion, if XLA is told
    to respect it: see ``motion_jax.kernels.cpu_flags``. Other platforms decide by themselves.

    >>> materialise(jax.numpy.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)

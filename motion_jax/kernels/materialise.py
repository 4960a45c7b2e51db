"""A result kept in memory where XLA on a CPU would compute it again for each of its uses; equals the identity.

Residual results of a ResNet-50 kept in memory: 184 instead of 200 ms forward, 1339 instead of 1442 ms in training on a
CPU. Masked matching scores of MSNet-R50: 203 instead of 226 ms forward.
"""

import jax


def materialise(x: jax.Array) -> jax.Array:
    """Return ``x``, written to memory once on a CPU.

    XLA fuses what is cheap to compute into everything that reads it. A residual stage is a chain of such additions, so
    that its last block would compute all of them again, several times over. An optimization barrier ends the fusion, if
    XLA is told to respect it: see ``motion_jax.kernels.cpu_flags``. The compilers of other platforms decide themselves.

    >>> materialise(jax.numpy.ones(3)).tolist()
    [1.0, 1.0, 1.0]
    """
    return jax.lax.platform_dependent(x, cpu=jax.lax.optimization_barrier, default=lambda x: x)

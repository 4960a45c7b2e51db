"""Fast forms of operations, each equal to an equation in ``motion_jax.ops`` or to a function of JAX.

This is the only room that asks which platform it runs on. Each file names the operation that it equals and the
measurement that earned the form (docs/performance.md). ``tests/kernels`` compares every form with its operation.
"""

from motion_jax.kernels.argmax import first_argmax
from motion_jax.kernels.convolution import convolution
from motion_jax.kernels.correlation import all_pairs, local_correlation
from motion_jax.kernels.implementation import Implementation, is_reference, reference
from motion_jax.kernels.matching import match
from motion_jax.kernels.materialise import materialise
from motion_jax.kernels.max_pool import max_pool
from motion_jax.kernels.recompute import recompute
from motion_jax.kernels.side_by_side import pack_maps, repeat_per_map, unpack_maps
from motion_jax.kernels.statistics import mean_and_variance
from motion_jax.kernels.upsampling import scale_upsampled

"""Pure array functions: no parameters, no Flax. Each is differentiable and safe under ``jax.jit``."""

from motion_jax.ops.correlation import local_correlation
from motion_jax.ops.matching import kernel_soft_argmax, match
from motion_jax.ops.materialise import materialise
from motion_jax.ops.max_pool import max_pool
from motion_jax.ops.normalization import l2_normalize
from motion_jax.ops.relative_position import relative_scores
from motion_jax.ops.self_similarity import self_similarity
from motion_jax.ops.temporal_shift import temporal_shift

__all__ = [
    "kernel_soft_argmax",
    "l2_normalize",
    "local_correlation",
    "match",
    "materialise",
    "max_pool",
    "relative_scores",
    "self_similarity",
    "temporal_shift",
]

"""The papers' equations as pure array functions: no parameters, no Flax, differentiable, safe under ``jax.jit``.

Operations with a fast form take ``implementation``: None selects the fast form for the platform, from
``motion_jax.kernels``; ``"reference"`` selects the equation as written in the operation's own file.
"""

from motion_jax.ops.correlation import local_correlation
from motion_jax.ops.frame_packing import pack_frames, unpack_frames
from motion_jax.ops.matching import kernel_soft_argmax, match
from motion_jax.ops.max_pool import max_pool
from motion_jax.ops.normalization import l2_normalize, unit_length
from motion_jax.ops.relative_position import relative_scores
from motion_jax.ops.residual import residual_sum
from motion_jax.ops.self_similarity import self_similarity
from motion_jax.ops.temporal_shift import temporal_shift
from motion_jax.ops.upsampling import scale_upsampled

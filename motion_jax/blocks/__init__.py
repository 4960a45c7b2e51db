"""Motion blocks: Flax modules (b, t, h, w, c) -> (b, t, h, w, c), one per file, for any backbone.

A block is called as ``block(x, train=...)``. It sows intermediate results (displacement, confidence, STSS) into the
collection "intermediates". ``protocol`` lists what a block may declare beside its layers.

``TokenMotion`` is for transformers: (b, t * h * w, c) -> (b, t * h * w, features), with the grid as an argument.
"""

from motion_jax.blocks.correlation_block import CorrelationBlock
from motion_jax.blocks.correspondence_proposal import CorrespondenceProposal
from motion_jax.blocks.local_self_attention import LocalSelfAttention
from motion_jax.blocks.motion_squeeze import MotionSqueeze
from motion_jax.blocks.multi_head_self_attention import MultiHeadSelfAttention
from motion_jax.blocks.non_local import NonLocal
from motion_jax.blocks.selfy import Selfy
from motion_jax.blocks.token_motion import TokenMotion

# The blocks for backbones; TokenMotion has another call.
__all__ = [
    "CorrelationBlock",
    "CorrespondenceProposal",
    "LocalSelfAttention",
    "MotionSqueeze",
    "MultiHeadSelfAttention",
    "NonLocal",
    "Selfy",
]

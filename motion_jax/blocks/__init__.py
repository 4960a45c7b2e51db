"""Motion blocks: Flax modules (b, t, h, w, c) -> (b, t, h, w, c), one per file, that fit into any backbone.

A block is called as ``block(x, train=...)``. What it lets others see (displacement, confidence, STSS) it sows into the
collection "intermediates" under its plain name.
"""

from motion_jax.blocks.motion_squeeze import MotionSqueeze
from motion_jax.blocks.selfy import Selfy

__all__ = ["MotionSqueeze", "Selfy"]

"""Motion learning for video action recognition in JAX: MotionSqueeze and SELFY.

>>> import motion_jax
>>> model = motion_jax.build_model("msnet_tsm_r18", num_classes=174)
"""

from motion_jax import losses, streaming
from motion_jax.models import build_model, list_models
from motion_jax.weights import load_torch, save_torch

__version__ = "0.1.0"
__all__ = ["build_model", "list_models", "load_torch", "losses", "save_torch", "streaming"]

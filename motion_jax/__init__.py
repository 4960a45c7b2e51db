"""Motion learning for video action recognition in JAX: MotionSqueeze and SELFY.

>>> import motion_jax
>>> model = motion_jax.build_model("msnet_tsm_r18", num_classes=174)
"""

import importlib
from typing import TYPE_CHECKING, Any

from motion_jax import losses, streaming
from motion_jax.models import build_model, list_models
from motion_jax.weights import from_pretrained, load_torch, save_torch

if TYPE_CHECKING:
    from motion_jax.prediction import Predictor, load_run

__version__ = "0.1.0"
__all__ = [
    "Predictor",
    "build_model",
    "from_pretrained",
    "list_models",
    "load_run",
    "load_torch",
    "losses",
    "save_torch",
    "streaming",
]

# Imported on first access: they need the packages of the input pipeline and of checkpoints.
_LATER = {"Predictor": "motion_jax.prediction", "load_run": "motion_jax.prediction"}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module 'motion_jax' has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)

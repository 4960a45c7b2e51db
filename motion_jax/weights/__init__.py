"""Reading and writing weights in other formats: PyTorch, safetensors, StableHLO, ONNX, SavedModel, hub folders."""

from motion_jax.weights.exported import Exported, load_exported
from motion_jax.weights.hub import from_pretrained
from motion_jax.weights.load import load_torch
from motion_jax.weights.save import save_torch

__all__ = ["Exported", "from_pretrained", "load_exported", "load_torch", "save_torch"]

"""Weights in other formats: so far, reading the official PyTorch checkpoints."""

from motion_jax.weights.load import load_torch

__all__ = ["load_torch"]

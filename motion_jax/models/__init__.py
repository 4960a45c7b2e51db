"""Video classifiers and the table of named ones."""

from motion_jax.models.classifier import VideoClassifier
from motion_jax.models.table import ModelConfig, build_model, list_models

__all__ = ["ModelConfig", "VideoClassifier", "build_model", "list_models"]

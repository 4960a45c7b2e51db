"""Video classifiers and the table of named ones."""

from motion_jax.models.classifier import VideoClassifier
from motion_jax.models.table import (
    DEPTHS,
    MODELS,
    TSM,
    ModelConfig,
    NamedModel,
    build_model,
    list_models,
    narrow_fields,
    published_fields,
)

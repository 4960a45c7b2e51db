"""Export of networks with their weights as a TensorFlow SavedModel. Needs TensorFlow."""

import os
from collections.abc import Callable

import jax
import numpy as np

INSTALL = "pip install tensorflow"


def save(
    path: str | os.PathLike, function: Callable[[jax.Array], jax.Array], clip_shape: tuple[int, ...], *, dtype: str
) -> None:
    """Write a folder with a function from clips (b, *clip_shape) of ``dtype`` to logits, for every number of clips b.

    Raises:
        ValueError: if TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
        from jax.experimental import jax2tf
    except ImportError as error:
        raise ValueError(f"writing {os.fspath(path)} as a SavedModel needs TensorFlow: {INSTALL}") from error
    converted = jax2tf.convert(function, polymorphic_shapes=[f"(b, {', '.join(map(str, clip_shape))})"])
    signature = tf.TensorSpec((None, *clip_shape), np.dtype(dtype), name="clips")
    module = tf.Module()
    module.f = tf.function(converted, input_signature=[signature], autograph=False)
    tf.saved_model.save(module, os.fspath(path), signatures=module.f)


def load(path: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of a folder that ``save`` wrote, clips to logits, both NumPy.

    Raises:
        ValueError: if TensorFlow is not installed, or the folder holds no SavedModel.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ValueError(f"reading {os.fspath(path)} needs TensorFlow: {INSTALL}") from error
    try:
        module = tf.saved_model.load(os.fspath(path))
    except Exception as error:  # OSError for files, other errors for their content
        raise ValueError(f"{path} is not a SavedModel: {' '.join(str(error).split())[:200]}") from error
    return lambda clips: module.f(clips).numpy()

"""Networks as StableHLO with their weights, for any program that runs XLA: CPU, CUDA and TPU."""

import os
from collections.abc import Callable

import jax
import numpy as np

PLATFORMS = ("cpu", "cuda", "tpu")


def save(
    path: str | os.PathLike, function: Callable[[jax.Array], jax.Array], clip_shape: tuple[int, ...], *, dtype: str
) -> None:
    """Write a function from clips (b, *clip_shape) of ``dtype`` to logits, for every number of clips b."""
    from jax import export

    shape = export.symbolic_shape(f"b, {', '.join(map(str, clip_shape))}")
    exported = export.export(jax.jit(function), platforms=PLATFORMS)(jax.ShapeDtypeStruct(shape, np.dtype(dtype)))
    with open(path, "wb") as file:
        file.write(exported.serialize())


def load(path: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """Clips to logits, both NumPy, of a file that ``save`` wrote; compiled once for every number of clips.

    Raises:
        ValueError: if the file is damaged, or of a JAX too new or too old for this one. Damage inside the program may
            raise it only when the function is called.
    """
    from jax import export

    with open(path, "rb") as file:
        content = file.read()
    try:
        predict = jax.jit(export.deserialize(bytearray(content)).call)
    except Exception as error:  # whatever flatbuffers and the StableHLO reader raise for bytes that are neither
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"{path} is not a StableHLO export that JAX {jax.__version__} reads (it takes those of a JAX up to three "
            f"weeks newer and six months older): {reason}"
        ) from error

    def run(clips: np.ndarray) -> np.ndarray:
        try:
            return np.asarray(predict(clips))
        except jax.errors.JaxRuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not compile or run, so it may be damaged: {reason}") from error

    return run

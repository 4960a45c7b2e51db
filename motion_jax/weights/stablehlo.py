"""Networks as StableHLO with their weights, for any program that runs XLA: CPU, CUDA and TPU."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

PLATFORMS = ("cpu", "cuda", "tpu")


def save(
    path: str | os.PathLike, function: Callable[[jax.Array], jax.Array], clip_shape: tuple[int, ...], *, dtype: str
) -> None:
    """Write a function from clips (b, *clip_shape) of ``dtype`` to logits, for every number of clips b."""
    _save(path, function, batches_of([(clip_shape, dtype)]))


def save_stream(
    path: str | os.PathLike,
    step: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]],
    state: Mapping[str, jax.ShapeDtypeStruct],
    frame_shape: tuple[int, ...],
    *,
    dtype: str,
) -> None:
    """Write a function from a state and frames (b, *frame_shape) to logits and the next state, for every b.

    ``state`` has the shapes of the tensors without the batch axis.
    """
    frame, *tensors = batches_of([(frame_shape, dtype), *((like.shape, like.dtype) for like in state.values())])
    _save(path, step, [dict(zip(state, tensors, strict=True)), frame])


def batches_of(shapes: Sequence[tuple[tuple[int, ...], Any]]) -> list[jax.ShapeDtypeStruct]:
    """Return batches of arrays of the given shapes and dtypes, all of the same symbolic number."""
    (batch,) = jax.export.symbolic_shape("b")
    return [jax.ShapeDtypeStruct((batch, *shape), np.dtype(dtype)) for shape, dtype in shapes]


def _save(path: str | os.PathLike, function: Callable, specs: Sequence[Any]) -> None:
    from jax import export

    exported = export.export(jax.jit(function), platforms=PLATFORMS)(*specs)
    with open(path, "wb") as file:
        file.write(exported.serialize())


def load(path: str | os.PathLike) -> Callable[..., Any]:
    """Return the function of a file that ``save`` or ``save_stream`` wrote, from NumPy to NumPy.

    It is compiled once for every size of the batch.

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

    def run(*inputs: Any) -> Any:
        try:
            return jax.tree.map(np.asarray, predict(*inputs))
        except jax.errors.JaxRuntimeError as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{path} does not compile or run, so it may be damaged: {reason}") from error

    return run

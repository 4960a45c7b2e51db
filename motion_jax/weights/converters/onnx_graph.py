"""Export of networks with their weights as ONNX graphs. Writing needs jax2onnx and onnx, reading onnxruntime."""

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from motion_jax.weights.plain_graph import plain
from motion_jax.weights.stablehlo import batches_of

# Before the name of a state tensor as an output.
NEXT = "next/"
INSTALL = 'pip install -e ".[onnx]", then pip install --no-deps jax2onnx==0.17.1'


def save(
    path: str | os.PathLike, function: Callable[[jax.Array], jax.Array], clip_shape: tuple[int, ...], *, dtype: str
) -> None:
    """Write a function from clips (b, *clip_shape) of ``dtype`` to logits, for every number of clips b.

    Raises:
        ValueError: if the converter is not installed.
    """
    _save(path, function, batches_of([(clip_shape, dtype)]), inputs=["clips"], outputs=["logits"])


def save_stream(
    path: str | os.PathLike,
    step: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]],
    state: Mapping[str, jax.ShapeDtypeStruct],
    frame_shape: tuple[int, ...],
    *,
    dtype: str,
) -> None:
    """Write a function from a state and frames (b, *frame_shape) to logits and the next state, for every b.

    The inputs are ``frame`` and the tensors of the state by name, the outputs ``logits`` and ``next/<name>``. ``state``
    has the shapes of the tensors without the batch axis.

    Raises:
        ValueError: if the converter is not installed.
    """
    names = list(state)

    def flat(frame: jax.Array, *tensors: jax.Array) -> list[jax.Array]:
        logits, after = step(dict(zip(names, tensors, strict=True)), frame)
        return [logits, *(after[name] for name in names)]

    specs = batches_of([(frame_shape, dtype), *((like.shape, like.dtype) for like in state.values())])
    _save(path, flat, specs, inputs=["frame", *names], outputs=["logits", *(NEXT + name for name in names)])


def _save(
    path: str | os.PathLike,
    function: Callable,
    specs: Sequence[jax.ShapeDtypeStruct],
    *,
    inputs: Sequence[str],
    outputs: Sequence[str],
) -> None:
    try:
        import onnx
        from jax2onnx import to_onnx
    except ImportError as error:
        raise ValueError(f"writing {os.fspath(path)} needs more packages: {INSTALL}") from error
    # It logs one line for each of hundreds of intermediate results whose type the converter leaves out.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    graph = to_onnx(plain(function, *specs), inputs=specs, input_names=inputs, output_names=outputs)
    onnx.save(graph, os.fspath(path))


def load(path: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of a file that ``save`` wrote, clips to logits, both NumPy, on the CPU by onnxruntime.

    Raises:
        ValueError: if onnxruntime is not installed, or the file is damaged.
    """
    session = _open(path)
    return lambda clips: session.run(None, {"clips": clips})[0]


def load_stream(path: str | os.PathLike) -> Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]]:
    """Return the function of a file that ``save_stream`` wrote, from state and frames to logits and the next state.

    Raises:
        ValueError: if onnxruntime is not installed, or the file is damaged.
    """
    session = _open(path)
    names = [output.name.removeprefix(NEXT) for output in session.get_outputs()[1:]]

    def step(state: Mapping[str, np.ndarray], frame: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        logits, *tensors = session.run(None, {"frame": frame, **state})
        return logits, dict(zip(names, tensors, strict=True))

    return step


def _open(path: str | os.PathLike) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"reading {os.fspath(path)} needs onnxruntime: pip install onnxruntime") from error
    try:
        return onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common public base
        raise ValueError(f"{path} is not an ONNX graph: {' '.join(str(error).split())[:200]}") from error

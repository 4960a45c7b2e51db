"""Export of networks with their weights as ONNX graphs. Writing needs jax2onnx and onnx, reading onnxruntime."""

import logging
import os
from collections.abc import Callable

import jax
import numpy as np

from motion_jax.weights.plain_graph import plain

INSTALL = 'pip install -e ".[onnx]", then pip install --no-deps jax2onnx==0.17.1'


def save(
    path: str | os.PathLike, function: Callable[[jax.Array], jax.Array], clip_shape: tuple[int, ...], *, dtype: str
) -> None:
    """Write a function from clips (b, *clip_shape) of ``dtype`` to logits, for every number of clips b.

    Raises:
        ValueError: if the converter is not installed.
    """
    try:
        import onnx
        from jax2onnx import to_onnx
    except ImportError as error:
        raise ValueError(f"writing {os.fspath(path)} needs more packages: {INSTALL}") from error
    # It logs one line for each of hundreds of intermediate results whose type the converter leaves out.
    logging.getLogger("onnx_ir.serde").setLevel(logging.ERROR)
    shape = jax.export.symbolic_shape(f"b, {', '.join(map(str, clip_shape))}")
    spec = jax.ShapeDtypeStruct(shape, np.dtype(dtype))
    graph = to_onnx(plain(function, spec), inputs=[spec], input_names=["clips"], output_names=["logits"])
    onnx.save(graph, os.fspath(path))


def load(path: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """Return the function of a file that ``save`` wrote, clips to logits, both NumPy, on the CPU by onnxruntime.

    Raises:
        ValueError: if onnxruntime is not installed, or the file is damaged.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError(f"reading {os.fspath(path)} needs onnxruntime: pip install onnxruntime") from error
    try:
        session = onnxruntime.InferenceSession(os.fspath(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no common public base
        raise ValueError(f"{path} is not an ONNX graph: {' '.join(str(error).split())[:200]}") from error
    return lambda clips: session.run(None, {"clips": clips})[0]

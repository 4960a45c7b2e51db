"""Reading tensors from files without running code in them."""

import json
import os
import pickle
import re
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

INSTALL_TORCH = "pip install torch"
CHECKSUMS = "crc32"
"""Key of the metadata of a safetensors file: JSON of name -> CRC-32 of each tensor."""


def read_tensors(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Return name -> NumPy array of every tensor in a file or a dict.

    PyTorch files are read with ``weights_only``, which refuses pickles that call anything but constructors of tensors.

    Args:
        source: a file, ``.safetensors`` or PyTorch's own (``.pth``, ``.pth.tar``, ``.pt``, which needs PyTorch); or a
            dict name -> array (NumPy or PyTorch). Of a training checkpoint, its ``state_dict`` is read.

    Raises:
        ValueError: if the file cannot be read, does not match its suffix, would run code, or holds no tensor.
    """
    content = source if isinstance(source, Mapping) else _read_file(os.fspath(source))
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if isinstance(content, Mapping):
        tensors = {str(name): _to_numpy(value) for name, value in content.items() if hasattr(value, "shape")}
        if tensors:
            return tensors
    where = "the dict" if isinstance(source, Mapping) else os.fspath(source)
    raise ValueError(f"{where} holds no named tensors: expected a state dict, or a training checkpoint with one")


def _read_file(path: str) -> Any:
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path}")
    return _read_safetensors(path) if path.endswith(".safetensors") else _read_torch(path)


def _read_safetensors(path: str) -> dict[str, np.ndarray]:
    from safetensors import safe_open
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
        with safe_open(path, framework="np") as file:
            checksums = json.loads((file.metadata() or {}).get(CHECKSUMS, "{}"))
        damaged = [
            name for name, expected in checksums.items() if name not in tensors or crc32(tensors[name]) != expected
        ]
    except Exception as error:  # the package's own errors, and NumPy's for impossible sizes
        raise ValueError(f"{path} is not a whole safetensors file: {_first_line(error)}") from error
    if damaged:
        raise ValueError(
            f"{path}: the values of {', '.join(damaged[:3])} are not those that were written; copy it again"
        )
    return tensors


def crc32(array: np.ndarray) -> int:
    """Return the CRC-32 of the values of an array in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _read_torch(path: str) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"reading {path} needs PyTorch: {INSTALL_TORCH}, or bring it as .safetensors") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of unusual pickles, and raises for bad ones
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle or archive raises
        raise ValueError(f"{path} is not a PyTorch file of plain tensors: {_why_refused(error)}") from error
    # PyTorch writes the checksums of a zip archive and does not verify them.
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise ValueError(f"{path}: {damaged} is not as it was written; copy or download it again")
    return content


def _why_refused(error: Exception) -> str:
    """Return the reason without PyTorch's advice to read the file without ``weights_only``."""
    if wanted := re.search(r"GLOBAL (\S+)", str(error)):
        return f"its pickle asks for {wanted[1]}, which is refused; keep a state dict of tensors and nothing else"
    if isinstance(error, pickle.UnpicklingError):
        detail = re.search(r"Unsupported [^\n]+", str(error))
        return f"its pickle holds more than tensors{f' ({detail[0]})' if detail else ''}, which is refused"
    return _first_line(error)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy()
    return np.asarray(value)

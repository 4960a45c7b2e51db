"""Reading tensors from files without running code in them."""

import contextlib
import io
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

from motion_jax.places import is_bucket, place

INSTALL_TORCH = "pip install torch"
CHECKSUMS = "crc32"
"""Key of the metadata of a safetensors file: JSON of name -> CRC-32 of each tensor."""
OURS = {"format": "motion_jax"}
"""Metadata of the safetensors files that must hold checksums, even if damage hides those."""


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
    file = place(path)
    if not file.is_file():
        raise ValueError(f"there is no file {path}")
    # The readers map local files into memory.
    source = io.BytesIO(file.read_bytes()) if is_bucket(file) else os.fspath(file)
    return _read_safetensors(path, source) if path.endswith(".safetensors") else _read_torch(path, source)


def _read_safetensors(path: str, source: str | io.BytesIO) -> dict[str, np.ndarray]:
    from safetensors import numpy as safetensors

    try:
        tensors = safetensors.load_file(source) if isinstance(source, str) else safetensors.load(source.getvalue())
        metadata = _metadata(source)
        checksums = json.loads(metadata.get(CHECKSUMS, "{}"))
        names = {*checksums, *tensors} if checksums or OURS.items() <= metadata.items() else set()
        damaged = sorted(name for name in names if name not in tensors or crc32(tensors[name]) != checksums.get(name))
    except Exception as error:  # the package's own errors, and NumPy's for impossible sizes
        raise ValueError(f"{path} is not a whole safetensors file: {_first_line(error)}") from error
    if damaged:
        raise ValueError(
            f"{path}: the values of {', '.join(damaged[:3])} are not those that were written; copy it again"
        )
    return tensors


def _metadata(source: str | io.BytesIO) -> dict[str, str]:
    """Return the metadata in the header of a safetensors file: eight bytes of its length, then JSON."""
    with open(source, "rb") if isinstance(source, str) else contextlib.nullcontext(source) as file:
        file.seek(0)
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return header.get("__metadata__", {})


def crc32(array: np.ndarray) -> int:
    """Return the CRC-32 of the values of an array in C order."""
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def _read_torch(path: str, source: str | io.BytesIO) -> Any:
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"reading {path} needs PyTorch: {INSTALL_TORCH}, or bring it as .safetensors") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # PyTorch warns of unusual pickles, and raises for bad ones
            content = torch.load(source, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile pickle or archive raises
        raise ValueError(f"{path} is not a PyTorch file of plain tensors: {_why_refused(error)}") from error
    # PyTorch writes the checksums of a zip archive and does not verify them.
    if zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
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

"""Our variables as files for others: state dicts of the official PyTorch code, and safetensors with our own names."""

import json
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from motion_jax.weights.files import CHECKSUMS, INSTALL_TORCH, OURS, crc32
from motion_jax.weights.torch_names import names_of

OUR_COLLECTIONS = ("params", "batch_stats")


def save_torch(path: str | os.PathLike, model: nn.Module, variables: Mapping[str, Any], *, prefix: str = "") -> None:
    """Write a PyTorch file that loads strictly in the official code of the network. Needs PyTorch.

    Args:
        path: usually ``.pth``, or ``.pth.tar`` for a checkpoint.
        model: as from ``build_model``, or a ``TokenMotion``.
        variables: {"params", "batch_stats"}.
        prefix: before every name. For a network and ``module.base_model.``, the file is a checkpoint of the official
            training code, ``{"epoch", "arch", "state_dict", "best_prec1"}``, with the classifier in the place of its
            wrapper; otherwise it is the state dict alone.

    Raises:
        ValueError: if PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"writing {os.fspath(path)} needs PyTorch: {INSTALL_TORCH}") from error
    arrays = torch_state_dict(model, variables, prefix=prefix)
    content: dict[str, Any] = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    if prefix.endswith("base_model.") and hasattr(model, "backbone"):
        content = {"epoch": 0, "arch": model.backbone.architecture(), "state_dict": content, "best_prec1": 0.0}
    torch.save(content, path)


def torch_state_dict(model: nn.Module, variables: Mapping[str, Any], *, prefix: str = "") -> dict[str, np.ndarray]:
    """Return the state dict of the official network, name -> array: every tensor it has, in its shape, and no other.

    ResNets are those of MotionSqueeze's repository, with its unused ``bn2`` as in a fresh network, and of SELFY's,
    without; MobileNet-V2 is the TSM repository's; I3D that of hassony2/kinetics_i3d_pytorch. Other networks get names
    of the same kind, which ``load_torch`` reads. A ``TokenMotion`` gets the names of the newest code of its module.

    Args:
        model: as from ``build_model``, or a ``TokenMotion``.
        variables: {"params", "batch_stats"}.
        prefix: before every name, such as ``module.base_model.``, with which the classifier of a network with dropout
            is called ``module.new_fc``, as in the official wrapper.
    """
    names = names_of(model)
    tensors = {}
    for path, value in _flat(variables).items():
        short = names.short(path)
        tensors[short] = names.to_torch(path, np.asarray(value))
        if path[-1] == "mean":
            tensors[f"{short.rpartition('.')[0]}.num_batches_tracked"] = np.zeros((), np.int64)
    for layer, channels in names.unused().items():
        for leaf, value in (("weight", 1), ("bias", 0), ("running_mean", 0), ("running_var", 1)):
            tensors[f"{layer}.{leaf}"] = np.full(channels, value, np.float32)
        tensors[f"{layer}.num_batches_tracked"] = np.zeros((), np.int64)
    return {names.full(short, prefix=prefix): np.asarray(array, order="C") for short, array in tensors.items()}


def save_safetensors(path: str | os.PathLike, variables: Mapping[str, Any]) -> None:
    """Write parameters and statistics under our own names, ``params/backbone/conv1/kernel``, bit by bit.

    ``load_torch`` reads them back, and any reader of safetensors does. The metadata hold a CRC-32 of each tensor, which
    ``load_torch`` verifies.
    """
    from safetensors.numpy import save_file

    arrays = {"/".join(names): np.ascontiguousarray(value) for names, value in _flat(variables).items()}
    checksums = json.dumps({name: crc32(array) for name, array in arrays.items()})
    save_file(arrays, os.fspath(path), metadata={**OURS, CHECKSUMS: checksums})


def _flat(variables: Mapping[str, Any]) -> dict[tuple[str, ...], Any]:
    return flax.traverse_util.flatten_dict({key: variables[key] for key in OUR_COLLECTIONS if key in variables})

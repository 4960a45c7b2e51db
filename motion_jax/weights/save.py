"""Our variables as files for others: state dicts of the official PyTorch code, and safetensors with our own names."""

import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import numpy as np

from motion_jax.backbones import InceptionI3D, MobileNetV2, ResNet
from motion_jax.blocks import MotionSqueeze
from motion_jax.weights.files import INSTALL_TORCH
from motion_jax.weights.load import has_only_block
from motion_jax.weights.torch_names import TRANSPOSED, full_name, kernel_rank, torch_name

# Channels of the BN that MotionSqueeze's networks have and do not use.
_UNUSED_BN_CHANNELS = 128
# Our name of each backbone's first layer, by which the naming knows them.
_FIRST_LAYERS = {ResNet: "conv1", MobileNetV2: "stem_conv", InceptionI3D: "conv3d_1a_7x7"}


def save_torch(path: str | os.PathLike, model: nn.Module, variables: Mapping[str, Any], *, prefix: str = "") -> None:
    """Write a PyTorch file that loads strictly in the official code of the network. Needs PyTorch.

    Args:
        path: usually ``.pth``, or ``.pth.tar`` for a checkpoint.
        model: as from ``build_model``.
        variables: {"params", "batch_stats"}.
        prefix: before every name. With ``module.base_model.`` the file is a checkpoint of the official training code,
            ``{"epoch", "arch", "state_dict", "best_prec1"}``, and the classifier stands where its wrapper has it;
            otherwise it is the state dict alone.

    Raises:
        ValueError: if PyTorch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise ValueError(f"writing {os.fspath(path)} needs PyTorch: {INSTALL_TORCH}") from error
    arrays = torch_state_dict(model, variables, prefix=prefix)
    content: dict[str, Any] = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    if prefix.endswith("base_model."):
        content = {"epoch": 0, "arch": architecture(model), "state_dict": content, "best_prec1": 0.0}
    torch.save(content, path)


def torch_state_dict(model: nn.Module, variables: Mapping[str, Any], *, prefix: str = "") -> dict[str, np.ndarray]:
    """The state dict of the official network, name -> array: every tensor it has, in its shape, and no other.

    ResNets are those of MotionSqueeze's repository, with its unused ``bn2`` as in a fresh network, and of SELFY's,
    without; MobileNet-V2 the TSM repository's; I3D that of hassony2/kinetics_i3d_pytorch. Networks nobody has
    published get names of the same kind, which ``load_torch`` reads.

    Args:
        model: as from ``build_model``.
        variables: {"params", "batch_stats"}.
        prefix: before every name, such as ``module.base_model.``, with which the classifier of a network with dropout
            is called ``module.new_fc``, as in the official wrapper.
    """
    flat = flax.traverse_util.flatten_dict({key: variables[key] for key in ("params", "batch_stats")})
    only_block = has_only_block(flat)
    backbone = model.backbone
    first_layer = _FIRST_LAYERS[type(backbone)]
    naming = {
        "first_layer": first_layer,
        "shifted": isinstance(backbone, MobileNetV2) and backbone.fold_div is not None,
        "prefix": prefix,
        "dropout": model.dropout > 0,
    }
    tensors = {}
    for path, value in flat.items():
        short = torch_name(path[1:], only_block=only_block)
        array = np.asarray(value)
        if path[-1] == "kernel":
            array = _to_torch_layout(array, path, kernel_rank(short, first_layer=first_layer, rank=array.ndim - 2))
        tensors[full_name(short, **naming)] = np.ascontiguousarray(array)
        if path[-1] == "mean":
            counter = f"{short.rpartition('.')[0]}.num_batches_tracked"
            tensors[full_name(counter, **naming)] = np.zeros((), np.int64)
    blocks = (backbone.blocks or {}).values()
    if isinstance(backbone, ResNet) and all(isinstance(block, MotionSqueeze) for block in blocks):
        tensors |= {full_name(name, **naming): value for name, value in _unused_bn().items()}
    return tensors


def architecture(model: nn.Module) -> str:
    """What the official training code calls the backbone: ``resnet50``, ``mobilenetv2``, ``i3d``."""
    backbone = model.backbone
    if isinstance(backbone, ResNet):
        return f"resnet{sum(backbone.stage_sizes) * (3 if backbone.bottleneck else 2) + 2}"
    return "mobilenetv2" if isinstance(backbone, MobileNetV2) else "i3d"


def save_safetensors(path: str | os.PathLike, variables: Mapping[str, Any]) -> None:
    """Write parameters and statistics under our own names, ``params/backbone/conv1/kernel``, bit by bit.

    ``load_torch`` reads them back, and any reader of safetensors does.
    """
    from safetensors.numpy import save_file

    flat = flax.traverse_util.flatten_dict({key: variables[key] for key in ("params", "batch_stats")})
    save_file({"/".join(names): np.ascontiguousarray(value) for names, value in flat.items()}, os.fspath(path))


def _to_torch_layout(kernel: np.ndarray, path: tuple[str, ...], rank: int) -> np.ndarray:
    """(*kernel, in, out) to (out, in, *kernel) of so many axes, or (in, out, *kernel) of a transposed convolution."""
    *space, _, _ = kernel.shape
    kernel = np.moveaxis(kernel, (-2, -1) if path[-2] in TRANSPOSED else (-1, -2), (0, 1))
    # Axes come first and go first: our 3x3 is a 1x3x3 there, and our classifier a Conv1d of size 1.
    return kernel.reshape(*kernel.shape[:2], *(1,) * (rank - len(space)), *space)


def _unused_bn() -> dict[str, np.ndarray]:
    """MotionSqueeze's ``bn2`` as in a fresh network."""
    ones, zeros = np.ones(_UNUSED_BN_CHANNELS, np.float32), np.zeros(_UNUSED_BN_CHANNELS, np.float32)
    return {
        "bn2.weight": ones,
        "bn2.bias": zeros,
        "bn2.running_mean": zeros,
        "bn2.running_var": ones,
        "bn2.num_batches_tracked": np.zeros((), np.int64),
    }

"""Official PyTorch checkpoints into our variables, completely or not at all."""

import logging
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.weights.torch_names import UNUSED, strip_prefixes, torch_name

log = logging.getLogger(__name__)


def load_torch(
    source: str | os.PathLike | Mapping[str, Any], model: nn.Module, *, init: Mapping[str, Any] | None = None
) -> dict:
    """Variables of ``model`` with the weights of a PyTorch checkpoint in an official layout.

    Known layouts: MotionSqueeze and SELFY for ResNets, the TSM repository and torchvision for ResNets and MobileNet-V2,
    hassony2/kinetics_i3d_pytorch for I3D, with any prefix or none, the state dict alone or inside a training
    checkpoint, the classifier a convolution or a Linear. I3D on Kinetics has a first kernel of 7x7x7 where ours has
    1x7x7: it loads with ``init`` only, all but that kernel.

    Args:
        source: a file (``.pth``, ``.pth.tar``, ``.pt`` need PyTorch; ``.safetensors``), or a dict name -> array (NumPy
            or PyTorch).
        model: as from ``build_model``.
        init: variables whose values stay where the checkpoint has no tensor, or one of another shape: a new
            classifier, a motion block. Each such tensor is reported in the log. Without it the checkpoint must be
            complete.

    Returns:
        {"params", "batch_stats"}, in the dtypes of the model.

    Raises:
        ValueError: for a file that cannot be read, and naming every tensor that is missing, left over or of another
            shape.
    """
    tensors = _read(source)
    names = strip_prefixes(list(tensors))
    found = {short: tensors[name] for name, short in names.items() if not UNUSED.fullmatch(short)}
    example = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.float32)
    expected = jax.eval_shape(lambda clips: model.init(jax.random.key(0), clips, train=False), example)
    flat = flax.traverse_util.flatten_dict(expected)
    start = flax.traverse_util.flatten_dict(dict(init)) if init is not None else {}
    sites = {key for path in flat for key in path if key.startswith("blocks_")}

    variables, missing, misfits = {}, [], []
    for path, like in flat.items():
        name = torch_name(path[1:], only_block=len(sites) == 1)
        array = found.pop(name, None)
        if array is None:
            missing.append(name)
        else:
            value = _to_our_layout(path, array, like.shape)
            if value is not None:
                variables[path] = jnp.asarray(value, like.dtype)
                continue
            misfits.append(f"{name} is {tuple(array.shape)}, which does not make {like.shape}")
        if init is not None:
            variables[path] = start[path]
    if init is None and (missing or misfits or found):
        parts = {"missing": missing, "left over": sorted(found), "of another shape": misfits}
        listed = "; ".join(f"{kind}: {', '.join(names)}" for kind, names in parts.items() if names)
        raise ValueError(
            f"the checkpoint does not fit the model. {listed}. Build the model it was trained as, "
            "or pass init=variables to keep initial values where it has none"
        )
    for kind, names in (("not in the checkpoint", missing), ("of another shape", misfits)):
        if names:
            log.warning("kept at their initial values, %s: %s", kind, ", ".join(names))
    if found:
        log.warning("in the checkpoint but not in the model: %s", ", ".join(sorted(found)))
    return flax.traverse_util.unflatten_dict(variables)


def _to_our_layout(path: tuple[str, ...], array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Transpose a PyTorch tensor to our axis order; None where it cannot have ``shape``."""
    if path[-1] == "kernel":
        # PyTorch has (out, in, *kernel), a transposed convolution (in, out, *kernel); ours is (*kernel, in, out).
        transposed = path[-2] == "upsample_conv"
        array = np.moveaxis(array, (0, 1), (-2, -1) if transposed else (-1, -2))
        *ours, inputs, outputs = shape
        if array.shape[-2:] != (inputs, outputs):
            return None
        # Axes of length 1 come and go: a 1x3x3 kernel is our 3x3, a Conv1d of size 1 our classifier.
        if [n for n in array.shape[:-2] if n != 1] != [n for n in ours if n != 1]:
            return None
        return array.reshape(shape)
    return array if array.shape == shape else None


def _read(source: str | os.PathLike | Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Name -> NumPy array, from a file or a dict, out of a training checkpoint if it is one."""
    if not isinstance(source, Mapping):
        source = _read_file(os.fspath(source))
    if isinstance(source.get("state_dict"), Mapping):
        source = source["state_dict"]
    return {name: _to_numpy(value) for name, value in source.items() if hasattr(value, "shape")}


def _to_numpy(value: Any) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = value.float() if str(value.dtype) == "torch.bfloat16" else value
        return value.numpy()
    return np.asarray(value)


def _read_file(path: str) -> Mapping[str, Any]:
    if not os.path.isfile(path):
        raise ValueError(f"there is no file {path}")
    if path.endswith(".safetensors"):
        from safetensors.numpy import load_file

        return load_file(path)
    try:
        import torch
    except ImportError as error:
        raise ValueError(
            f"reading {path} needs PyTorch: pip install torch, or convert the file to .safetensors"
        ) from error
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} is not a PyTorch checkpoint of plain tensors: {reason}") from error

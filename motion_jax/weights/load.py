"""Tensors of official PyTorch checkpoints, or of our own files, into the variables of a model."""

import dataclasses
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.weights.files import read_tensors
from motion_jax.weights.torch_names import CLASSIFIER, TRANSPOSED, UNUSED, strip_prefixes, torch_name

log = logging.getLogger(__name__)

# What became of a tensor.
LOADED = "loaded"
ABSENT = "absent"  # the model's alone
MISFIT = "another shape"  # in both, but not the same
LEFT_OVER = "left over"  # the file's alone
UNUSED_BY_ALL = "unused"  # the file's alone, and no network's

OUR_COLLECTIONS = ("params", "batch_stats")


@dataclasses.dataclass(frozen=True)
class Assignment:
    """What became of one tensor.

    Attributes:
        name: in the file; for a tensor that it lacks, the official name without a prefix.
        shape: in the file, None where it lacks the tensor.
        target: path in our variables, such as ``params/backbone/conv1/kernel``; None where the model has none.
        target_shape: of the array at that path.
        outcome: ``loaded``, ``absent``, ``another shape``, ``left over`` or ``unused``.
    """

    name: str
    shape: tuple[int, ...] | None
    target: str | None
    target_shape: tuple[int, ...] | None
    outcome: str


def load_torch(
    source: str | os.PathLike | Mapping[str, Any], model: nn.Module, *, init: Mapping[str, Any] | None = None
) -> dict:
    """Variables of ``model`` with the weights of a PyTorch checkpoint in an official layout.

    Known layouts: MotionSqueeze and SELFY for ResNets, the TSM repository and torchvision for ResNets and MobileNet-V2,
    hassony2/kinetics_i3d_pytorch for I3D, with any prefix or none, the state dict alone or inside a training
    checkpoint, the classifier a convolution or a Linear. I3D on Kinetics has a first kernel of 7x7x7 where ours has
    1x7x7: it loads with ``init`` only, all but that kernel. Our own names, as ``save_safetensors`` writes them, are
    known too.

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
    variables, assignments = assign(read_tensors(source), model, init=init)
    if init is None:
        check_complete(assignments)
    for outcome, reason in ((ABSENT, "not in the checkpoint"), (MISFIT, "of another shape")):
        if found := _listed(assignments, outcome):
            log.warning("kept at their initial values, %s: %s", reason, found)
    if found := _listed(assignments, LEFT_OVER):
        log.warning("in the checkpoint but not in the model: %s", found)
    return variables


def assign(
    tensors: Mapping[str, np.ndarray], model: nn.Module, *, init: Mapping[str, Any] | None = None
) -> tuple[dict, list[Assignment]]:
    """Give every tensor its place in the variables of ``model``, and tell what became of each.

    Args:
        tensors: name -> array, in an official layout or under our own names.
        model: as from ``build_model``.
        init: variables whose values stay where no tensor fits; without it those are left out of the result.

    Returns:
        {"params", "batch_stats"}, and one ``Assignment`` per tensor: those of the model first, in its order.

    Raises:
        ValueError: if two tensors have one place.
    """
    names = _without_prefixes(tensors)
    start = flax.traverse_util.flatten_dict(dict(init)) if init is not None else {}
    variables, rows = {}, []
    expected = variable_shapes(model)
    ours = is_ours(tensors)
    for path, like in expected.items():
        target = "/".join(path)
        short = target if ours else torch_name(path[1:], only_block=has_only_block(expected))
        name = names.pop(short, None)
        array = None if name is None else tensors[name]
        value = None if array is None else array if ours else _to_our_layout(path, array, like.shape)
        if value is not None and value.shape == like.shape:
            outcome = LOADED
            variables[path] = jnp.asarray(value, like.dtype)
        else:
            outcome = ABSENT if array is None else MISFIT
            if path in start:
                variables[path] = start[path]
        rows.append(Assignment(name or short, None if array is None else array.shape, target, like.shape, outcome))
    for short, name in names.items():
        outcome = UNUSED_BY_ALL if UNUSED.fullmatch(short) else LEFT_OVER
        rows.append(Assignment(name, tensors[name].shape, None, None, outcome))
    return flax.traverse_util.unflatten_dict(variables), rows


def check_complete(assignments: Sequence[Assignment]) -> None:
    """Refuse a file that does not fill its model exactly.

    Raises:
        ValueError: naming every tensor that is missing, left over or of another shape.
    """
    parts = {"missing": ABSENT, "left over": LEFT_OVER, "of another shape": MISFIT}
    listed = [f"{kind}: {found}" for kind, outcome in parts.items() if (found := _listed(assignments, outcome))]
    if listed:
        raise ValueError(
            f"the checkpoint does not fit the model. {'; '.join(listed)}. Build the model it was trained as, "
            "or pass init=variables to keep initial values where it has none"
        )


def number_of_classes(tensors: Mapping[str, np.ndarray]) -> int:
    """How many classes the classifier among the tensors tells apart.

    Raises:
        ValueError: if there is none.
    """
    bias = "params/classifier/bias" if is_ours(tensors) else f"{CLASSIFIER}.bias"
    name = _without_prefixes(tensors).get(bias)
    if name is None or tensors[name].ndim != 1:
        raise ValueError("there is no classifier among the tensors, so the number of classes is unknown")
    return len(tensors[name])


def is_ours(tensors: Mapping[str, np.ndarray]) -> bool:
    """Whether the tensors have our own names, as ``save_safetensors`` writes them."""
    return all(name.partition("/")[0] in OUR_COLLECTIONS for name in tensors)


def variable_shapes(model: nn.Module) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Path -> shape and dtype of every parameter and statistic of a model, in the order of its layers."""
    example = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.float32)
    shapes = jax.eval_shape(lambda clips: model.init(jax.random.key(0), clips, train=False), example)
    return flax.traverse_util.flatten_dict(shapes)


def has_only_block(paths: Mapping[tuple[str, ...], Any]) -> bool:
    """Whether the variables are of a network with one motion block."""
    return len({key for path in paths for key in path if key.startswith("blocks_")}) == 1


def _without_prefixes(tensors: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Name without prefix -> name in the file."""
    short_names = {name: name for name in tensors} if is_ours(tensors) else strip_prefixes(list(tensors))
    names: dict[str, str] = {}
    for name, short in short_names.items():
        if short in names:
            raise ValueError(f"{names[short]} and {name} are one tensor of the network, {short}: remove one of them")
        names[short] = name
    return names


def _listed(assignments: Sequence[Assignment], outcome: str) -> str:
    """The tensors of one outcome, in one line."""
    found = [row for row in assignments if row.outcome == outcome]
    if outcome == MISFIT:
        return ", ".join(f"{row.name} is {row.shape}, which does not make {row.target_shape}" for row in found)
    return ", ".join(sorted(row.name for row in found) if outcome == LEFT_OVER else (row.name for row in found))


def _to_our_layout(path: tuple[str, ...], array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray | None:
    """Transpose a PyTorch tensor to our axis order; None where it cannot have ``shape``."""
    if path[-1] == "kernel":
        if array.ndim < 2:
            return None
        # PyTorch has (out, in, *kernel), a transposed convolution (in, out, *kernel); ours is (*kernel, in, out).
        array = np.moveaxis(array, (0, 1), (-2, -1) if path[-2] in TRANSPOSED else (-1, -2))
        *ours, inputs, outputs = shape
        if array.shape[-2:] != (inputs, outputs):
            return None
        # Axes of length 1 come and go: a 1x3x3 kernel is our 3x3, a Conv1d of size 1 our classifier.
        if [n for n in array.shape[:-2] if n != 1] != [n for n in ours if n != 1]:
            return None
        return array.reshape(shape)
    return array if array.shape == shape else None

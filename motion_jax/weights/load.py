"""Tensors of official PyTorch checkpoints, or of our own files, into the variables of a model or block."""

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

from motion_jax.blocks.protocol import declared
from motion_jax.weights.files import read_tensors
from motion_jax.weights.save import OUR_COLLECTIONS
from motion_jax.weights.torch_names import BlockNames, TorchNames, names_of

log = logging.getLogger(__name__)

# Outcomes of an assignment.
LOADED = "loaded"
ABSENT = "absent"  # in the model only
MISFIT = "another shape"  # in both, with shapes that do not fit
LEFT_OVER = "left over"  # in the file only
UNUSED_BY_ALL = "unused"  # in the file only, and used by no network of this kind

# Most tensors that a log line names.
MOST_NAMED = 4


@dataclasses.dataclass(frozen=True)
class Assignment:
    """Outcome for one tensor.

    Attributes:
        name: name in the file; for a tensor that the file lacks, the official name without a prefix.
        shape: shape in the file, None where the file lacks the tensor.
        target: path in our variables, such as ``params/backbone/conv1/kernel``; None where the model has none.
        target_shape: shape of the array at that path.
        outcome: ``loaded``, ``absent``, ``another shape``, ``left over`` or ``unused``.
    """

    name: str
    shape: tuple[int, ...] | None
    target: str | None
    target_shape: tuple[int, ...] | None
    outcome: str


def load_torch(
    source: str | os.PathLike | Mapping[str, Any],
    model: nn.Module,
    *,
    init: Mapping[str, Any] | None = None,
    prefix: str = "",
) -> dict:
    """Load the weights of a PyTorch checkpoint in an official layout into variables of ``model``.

    Known layouts: MotionSqueeze and SELFY for ResNets, the TSM repository and torchvision for ResNets and MobileNet-V2,
    hassony2/kinetics_i3d_pytorch for I3D, with any prefix or none, the state dict alone or inside a training
    checkpoint, the classifier a convolution or a Linear. I3D on Kinetics has a first kernel of 7x7x7 where ours has
    1x7x7: it loads with ``init`` only, without that kernel. Our own names, as ``save_safetensors`` writes them, are
    known too. A ``TokenMotion`` reads the modules of MOSS, with old names too, RLDX-1 and OpenTau.

    Args:
        source: a file, local or ``gs://`` (``.pth``, ``.pth.tar``, ``.pt`` need PyTorch; ``.safetensors``), or a dict
            name -> array (NumPy or PyTorch).
        model: as from ``build_model``, or a ``TokenMotion``, whose width of tokens is that of the checkpoint.
        init: variables that keep their value where the checkpoint has no tensor or one of another shape: a new
            classifier, a motion block. The log counts them. Without ``init`` the checkpoint must be complete.
        prefix: start of the names to read, where the checkpoint holds more than the model. Other names are ignored.

    Returns:
        {"params", "batch_stats"}, in the dtypes of the model; without "batch_stats" for a block without BatchNorm.

    Raises:
        ValueError: for a file that cannot be read, and with every tensor that is missing, left over or of another
            shape.
    """
    variables, assignments = assign(read_tensors(source), model, init=init, prefix=prefix)
    if init is None:
        check_complete(assignments)
    else:
        kept = "keep their initial value"
        groups = {f"{kept}, of another shape": MISFIT, f"{kept}, not in the file": ABSENT, "left over": LEFT_OVER}
        others = {what: _of(assignments, outcome) for what, outcome in groups.items()}
        log.warning("%s", summary(len(_of(assignments, LOADED)), others))
    return variables


def assign(
    tensors: Mapping[str, np.ndarray],
    model: nn.Module,
    *,
    init: Mapping[str, Any] | None = None,
    prefix: str = "",
) -> tuple[dict, list[Assignment]]:
    """Assign every tensor to its place in the variables of ``model``.

    Args:
        tensors: name -> array, in an official layout or under our own names.
        model: as from ``build_model``, or a ``TokenMotion``.
        init: variables that keep their value where no tensor fits; without it, those are left out of the result.
        prefix: start of the names to read.

    Returns:
        {"params", "batch_stats"}, and one ``Assignment`` per tensor: those of the model first, in its order.

    Raises:
        ValueError: if two tensors have one place, no name starts with the prefix, or there are several blocks.
    """
    names = None if is_ours(tensors) else names_of(model)
    left = _by_short_name(tensors, names, prefix=prefix)
    start = flax.traverse_util.flatten_dict(dict(init)) if init is not None else {}
    variables, rows = {}, []
    for path, like in variable_shapes(model, _input_width(model, names, tensors, left, start)).items():
        target = "/".join(path)
        short = names.short(path) if names else target
        name = left.pop(short, None)
        array = None if name is None else tensors[name]
        value = array if array is None or not names else names.from_torch(path, array, like.shape)
        if value is not None and value.shape == like.shape:
            outcome = LOADED
            variables[path] = jnp.asarray(value, like.dtype)
        else:
            outcome = ABSENT if array is None else MISFIT
            if path in start:
                variables[path] = start[path]
        rows.append(Assignment(name or short, None if array is None else array.shape, target, like.shape, outcome))
    for short, name in left.items():
        outcome = UNUSED_BY_ALL if names and names.is_unused(short) else LEFT_OVER
        rows.append(Assignment(name, tensors[name].shape, None, None, outcome))
    return flax.traverse_util.unflatten_dict(variables), rows


def check_complete(assignments: Sequence[Assignment]) -> None:
    """Raise ValueError with every tensor that is missing, left over or of another shape."""
    parts = {"missing": ABSENT, "left over": LEFT_OVER, "of another shape": MISFIT}
    listed = [f"{kind}: {', '.join(found)}" for kind, outcome in parts.items() if (found := _of(assignments, outcome))]
    if listed:
        raise ValueError(
            f"the checkpoint does not fit the model. {'; '.join(listed)}. Build the model it was trained as, "
            "or pass init=variables to keep initial values where it has none"
        )


def summary(loaded: int, others: Mapping[str, Sequence[str]]) -> str:
    """Return a line with the number of loaded tensors, and one per group of others with its number and a few names.

    Args:
        loaded: number of loaded tensors.
        others: what became of the tensors of a group -> their names.

    >>> print(summary(60, {"keep their initial value": ["fc.bias", "fc.weight"], "left over": []}))
    60 tensors loaded
      2 keep their initial value: fc.bias, fc.weight
    """
    lines = [f"{loaded} tensors loaded"]
    for what, names in others.items():
        if names:
            more = ", .." if len(names) > MOST_NAMED else ""
            lines.append(f"{len(names)} {what}: {', '.join(names[:MOST_NAMED])}{more}")
    return "\n  ".join(lines)


def number_of_classes(tensors: Mapping[str, np.ndarray], model: nn.Module) -> int:
    """Return the number of classes of the classifier among the tensors.

    Args:
        tensors: name -> array, in an official layout or under our own names.
        model: a network of the same kind, for any number of classes.

    Raises:
        ValueError: if there is no classifier.
    """
    names = None if is_ours(tensors) else TorchNames.of(model)
    bias = f"{names.backbone.classifier}.bias" if names else "params/classifier/bias"
    name = _by_short_name(tensors, names).get(bias)
    if name is None or tensors[name].ndim != 1:
        raise ValueError(
            f"there is no classifier of a {type(model.backbone).__name__} among the tensors, so that the number of "
            "classes is unknown"
        )
    return len(tensors[name])


def is_ours(tensors: Mapping[str, np.ndarray]) -> bool:
    """Return whether the tensors have our own names, as ``save_safetensors`` writes them."""
    return all(name.partition("/")[0] in OUR_COLLECTIONS for name in tensors)


def variable_shapes(model: nn.Module, channels: int | None = None) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    """Return path -> shape and dtype of every parameter and statistic, in the order of the layers.

    Args:
        model: as from ``build_model``, or a block that stands alone.
        channels: of the input of such a block.
    """
    if hasattr(model, "variable_shapes"):
        shapes = model.variable_shapes(channels)
    else:
        example = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), jnp.float32)
        shapes = jax.eval_shape(lambda clips: model.init(jax.random.key(0), clips, train=False), example)
    return flax.traverse_util.flatten_dict({key: shapes[key] for key in OUR_COLLECTIONS if key in shapes})


def _input_width(
    model: nn.Module,
    names: TorchNames | BlockNames | None,
    tensors: Mapping[str, np.ndarray],
    found: Mapping[str, str],
    start: Mapping[tuple[str, ...], Any],
) -> int | None:
    """Return the channels of the input of a block that stands alone: those of ``start``, else those of the file."""
    for path in getattr(declared(model, "official_names"), "input_width", ()):
        name = found.get(names.short(path) if names else "/".join(path))
        array = start.get(path, tensors.get(name))
        if array is not None:
            return array.size
    return None


def _by_short_name(
    tensors: Mapping[str, np.ndarray], names: TorchNames | BlockNames | None, *, prefix: str = ""
) -> dict[str, str]:
    """Return name without prefix -> name in the file, of the tensors whose names start with ``prefix``."""
    short_names = names.without_prefixes(list(tensors), only=prefix) if names else {name: name for name in tensors}
    if not short_names:
        raise ValueError(f"no tensor's name starts with {prefix!r}; the first name is {next(iter(tensors))}")
    found: dict[str, str] = {}
    for name, short in short_names.items():
        if short in found:
            raise ValueError(f"{found[short]} and {name} are one tensor of the network, {short}: remove one of them")
        found[short] = name
    return found


def _of(assignments: Sequence[Assignment], outcome: str) -> list[str]:
    """Return the tensors with one outcome, with the shapes of those that do not fit."""
    found = [row for row in assignments if row.outcome == outcome]
    if outcome == MISFIT:
        return [f"{row.name} is {row.shape}, which does not make {row.target_shape}" for row in found]
    names = [row.name for row in found]
    return sorted(names) if outcome == LEFT_OVER else names

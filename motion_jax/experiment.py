"""A config as typed sections: unknown, missing and wrong values fail here, before anything compiles."""

import dataclasses
import functools
import logging
import pathlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from motion_jax.data.clips.views import at_full_resolution
from motion_jax.data.pipeline import DataConfig, Dataset, open_dataset
from motion_jax.models import ModelConfig
from motion_jax.training import checkpoints
from motion_jax.training.checkpoints import CheckpointConfig
from motion_jax.training.evaluation import EvalConfig
from motion_jax.training.parallel import ParallelConfig
from motion_jax.training.recipe import TrainConfig
from motion_jax.weights import load_torch

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run is made of, one section of the config each."""

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    parallel: ParallelConfig
    checkpoint: CheckpointConfig
    seed: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Experiment":
        """Read a config, a ConfigDict as a plain dict or what ``config.json`` holds: lists become tuples.

        Raises:
            ValueError: naming the keys that are unknown or missing, or the value that is not allowed.
        """
        _check(cls, config, "")
        sections = {}
        for field in dataclasses.fields(cls):
            value = config[field.name]
            if dataclasses.is_dataclass(field.type):
                _check(field.type, value, f"{field.name}.")
                value = field.type(**_with_tuples(value))
            sections[field.name] = value
        if sections["eval"].full_resolution:
            at_full_resolution(sections["data"])  # Refuses data without a stored size.
        return cls(**sections)


def _check(section: type, values: Mapping[str, Any], prefix: str) -> None:
    """Refuse keys that are unknown or missing, and values of another type than the field's.

    A field with a default may be left out: an option added later must not make older checkpoints unreadable.
    """
    fields = {field.name: field.type for field in dataclasses.fields(section)}
    needed = {field.name for field in dataclasses.fields(section) if field.default is dataclasses.MISSING}
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(
            f"the config has no use for {', '.join(prefix + key for key in unknown)}; "
            f"known are {', '.join(prefix + key for key in sorted(fields))}"
        )
    if missing := sorted(needed - set(values)):
        raise ValueError(f"the config lacks {', '.join(prefix + key for key in missing)}")
    for key, kind in fields.items():
        if key in values and not _fits(values[key], kind):
            named = kind.__name__ if isinstance(kind, type) else str(kind)
            expected = "a section" if dataclasses.is_dataclass(kind) else named
            raise ValueError(f"the config has {prefix}{key} = {values[key]!r}, expected {expected}")


def _fits(value: object, kind: Any) -> bool:
    """Whether a value is of an annotated type. An integer is a number too, a list a tuple, a mapping a section."""
    arguments = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        return any(_fits(value, each) for each in arguments)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(kinds) and all(map(_fits, value, kinds))
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        return isinstance(value, int | float)
    if dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping)
    return isinstance(value, typing.get_origin(kind) or kind)


def _with_tuples(value: Any) -> Any:
    """The value with every list in it a tuple, as configs have them: JSON knows lists alone."""
    if isinstance(value, Mapping):
        return {key: _with_tuples(item) for key, item in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list | tuple) else value


def check_same_model(model: ModelConfig, config: Mapping[str, Any], *, checkpoint: pathlib.Path) -> None:
    """Refuse to evaluate a checkpoint as another model than the one that was trained.

    How it computes (dropout, dtype, batch_norm, remat) may differ. Two models may share all names and shapes: TSN and
    TSM do.

    Raises:
        ValueError: naming the checkpoint and the first difference.
    """
    trained = _with_tuples(config["model"])
    for field in dataclasses.fields(model):
        name, value = field.name, getattr(model, field.name)
        if name not in ("dropout", "dtype", "batch_norm", "remat") and trained.get(name) != value:
            raise ValueError(
                f"the checkpoint {checkpoint} is of another model: its model.{name} is {trained.get(name)!r}, the "
                f"config's {value!r}; leave out --config, or give the one it was trained with"
            )


def open_data(data: DataConfig, workdir: pathlib.Path) -> Dataset:
    """Open the data, prepared first where that is needed: by one process, while the others wait."""
    from jax.experimental import multihost_utils

    default = str(workdir / "data")
    if jax.process_index() == 0:
        dataset = open_dataset(data, default_dir=default)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("data prepared")
        if jax.process_index() > 0:
            dataset = open_dataset(data, default_dir=default)
    return dataset


class VideoIds:
    """Notes which videos evaluation batches hold, on their way to the model."""

    def __init__(self) -> None:
        self._by_index: dict[int, bytes] = {}

    def noted(self, batches: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Mapping[str, np.ndarray]]:
        """The batches, unchanged."""
        for batch in batches:
            true = batch["mask"]
            self._by_index.update(zip(batch["index"][true].tolist(), batch["id"][true].tolist(), strict=True))
            yield batch

    def in_order(self) -> list[str]:
        """The ids of all videos noted, in the order of the split."""
        return [self._by_index[index].decode() for index in sorted(self._by_index)]


def initial_variables(model: nn.Module, source: str, *, seed: int) -> dict[str, Any]:
    """Random variables, replaced by the weights at ``source`` wherever those fit.

    Args:
        model: the model to be trained.
        source: a PyTorch or safetensors file in an official layout, or a checkpoint or workdir of ours.
        seed: of what is not in ``source``, such as a new classifier; the log names it.

    Raises:
        ValueError: if there is nothing at ``source``, or nothing in it fits.
    """
    clips = jax.ShapeDtypeStruct((1, 2, 32, 32, 3), np.float32)
    zeros = np.zeros(clips.shape, clips.dtype)
    init = jax.jit(lambda: model.init(jax.random.key(seed), zeros, train=False))()
    if not pathlib.Path(source).is_dir():
        return load_torch(source, model, init=init)
    given = flax.traverse_util.flatten_dict(checkpoints.restore(source).variables)
    wanted = flax.traverse_util.flatten_dict(init)
    taken = {path: given[path] for path, like in wanted.items() if path in given and given[path].shape == like.shape}
    if not taken:
        raise ValueError(f"train.init_from: no tensor of {source} fits the model")
    if kept := ["/".join(path) for path in wanted if path not in taken]:
        log.warning("kept at their initial values: %s", ", ".join(kept))
    return flax.traverse_util.unflatten_dict({**wanted, **taken})


@dataclasses.dataclass(frozen=True)
class Trained:
    """A checkpoint ready to be used.

    Attributes:
        experiment: what it was trained with.
        model: its network.
        restored: its variables (NumPy), labels, step and folder.
    """

    experiment: Experiment
    model: nn.Module
    restored: checkpoints.Restored

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data it was trained on, opened when first asked for.

        Raises:
            ValueError: if they are gone.
        """
        return open_data(self.experiment.data, workdir_of(self.restored.path))


def load_trained(path: str | pathlib.Path) -> Trained:
    """Open a workdir or a checkpoint in one, with its model.

    Raises:
        ValueError: if there is no checkpoint.
    """
    restored = checkpoints.restore(path)
    experiment = Experiment.from_config(restored.config)
    return Trained(experiment, experiment.model.build(len(restored.labels)), restored)


def workdir_of(checkpoint: pathlib.Path) -> pathlib.Path:
    """The workdir of <workdir>/checkpoints/<latest or best>/<step>.

    Raises:
        ValueError: if the checkpoint lies elsewhere.
    """
    if checkpoint.parent.parent.name != "checkpoints":
        raise ValueError(f"{checkpoint} is not in a workdir: give the workdir it was trained in")
    return checkpoint.parents[2]

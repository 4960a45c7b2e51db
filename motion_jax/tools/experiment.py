"""A config as typed sections: unknown, missing and wrong values fail here, before anything compiles."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from data.pipeline import Data, Dataset, open_dataset
from motion_jax.models import Model
from motion_jax.training import checkpoints
from motion_jax.training.checkpoints import Checkpoint
from motion_jax.training.evaluation import Eval
from motion_jax.training.loop import Train
from motion_jax.training.parallel import Parallel
from motion_jax.weights import load_torch

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """Everything a run is made of, one section of the config each."""

    model: Model
    data: Data
    train: Train
    eval: Eval
    parallel: Parallel
    checkpoint: Checkpoint
    seed: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Experiment":
        """Read a config, a ConfigDict as a plain dict or what ``config.json`` holds.

        Raises:
            ValueError: naming the keys that are unknown or missing, or the value that is not allowed.
        """
        _check_keys(cls, config, "")
        sections = {}
        for field in dataclasses.fields(cls):
            value = config[field.name]
            if dataclasses.is_dataclass(field.type):
                _check_keys(field.type, value, f"{field.name}.")
                value = field.type(**value)
            sections[field.name] = value
        return cls(**sections)


def _check_keys(section: type, values: Mapping[str, Any], prefix: str) -> None:
    known = {field.name for field in dataclasses.fields(section)}
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"the config has no use for {', '.join(prefix + key for key in unknown)}; "
            f"known are {', '.join(prefix + key for key in sorted(known))}"
        )
    if missing := sorted(known - set(values)):
        raise ValueError(f"the config lacks {', '.join(prefix + key for key in missing)}")


def open_data(data: Data, workdir: pathlib.Path) -> Dataset:
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

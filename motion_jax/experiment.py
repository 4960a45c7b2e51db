"""Experiments: a config as typed sections, with the data, checkpoints and weights of its run."""

import dataclasses
import functools
import logging
import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from etils import epath

from motion_jax.data.clips.views import at_full_resolution
from motion_jax.data.pipeline import DataConfig, Dataset, is_prepared, open_dataset
from motion_jax.fields import expected, fits, with_tuples
from motion_jax.models import ModelConfig
from motion_jax.places import data_folder, place
from motion_jax.text import did_you_mean, shown
from motion_jax.training import checkpoints, history, processes
from motion_jax.training.checkpoints import CheckpointConfig, Checkpoints
from motion_jax.training.evaluation import EvalConfig
from motion_jax.training.parallel import ParallelConfig
from motion_jax.training.progress import log_compilation
from motion_jax.training.recipe import TrainConfig, make_optimizer, make_schedule
from motion_jax.training.state import create_state
from motion_jax.training.workdir import describe_workdir
from motion_jax.weights import load_torch
from motion_jax.weights.load import summary

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A config as typed sections.

    Attributes:
        model: the network.
        data: the clips.
        train: the training recipe.
        eval: the protocol of evaluations.
        parallel: the devices.
        checkpoint: when checkpoints are written.
        seed: seed of the initial weights, dropout, sampling and augmentation.
    """

    model: ModelConfig
    data: DataConfig
    train: TrainConfig
    eval: EvalConfig
    parallel: ParallelConfig
    checkpoint: CheckpointConfig
    seed: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Experiment":
        """Read a config from a plain dict, such as ``ConfigDict.to_dict()`` or the content of ``config.json``.

        Raises:
            ValueError: if keys are unknown or missing, or a value is not allowed. The message names them.
        """
        if not isinstance(config, Mapping):
            raise ValueError(f"a config is a dict of sections; got {shown(config)}")
        _check(cls, config, "")
        sections = {}
        for field in dataclasses.fields(cls):
            value = config[field.name]
            if dataclasses.is_dataclass(field.type):
                _check(field.type, value, f"{field.name}.")
                value = field.type(**with_tuples(value))
            sections[field.name] = value
        if sections["eval"].full_resolution:
            at_full_resolution(sections["data"])  # Raises for data without a stored size.
        if not 0 <= sections["seed"] < 2**32:
            raise ValueError(f"the config has seed = {sections['seed']}, expected an integer from 0 to 2**32 - 1")
        if sections["data"].frames < 2 and sections["model"].compares_frames:
            raise ValueError(
                f"data.frames is 1, but the motion block of {sections['model'].name} compares frames: set it to 2 or "
                "more, or take a model without a motion block"
            )
        return cls(**sections)


def keys_of(section: type = Experiment, prefix: str = "") -> dict[str, Any]:
    """Return every key of a config with its type: ``{"model.name": str, ..., "train.steps": int | None, ...}``."""
    keys: dict[str, Any] = {}
    for field in dataclasses.fields(section):
        key = prefix + field.name
        keys |= keys_of(field.type, f"{key}.") if dataclasses.is_dataclass(field.type) else {key: field.type}
    return keys


def _check(section: type, values: Mapping[str, Any], prefix: str) -> None:
    """Refuse unknown keys, missing keys, values of another type than the field's, and numbers that are not finite.

    A field with a default may be absent, so that checkpoints from before the field was added stay readable.
    """
    fields = {field.name: field.type for field in dataclasses.fields(section)}
    needed = {field.name for field in dataclasses.fields(section) if field.default is dataclasses.MISSING}
    if unknown := sorted(set(map(str, values)) - set(fields)):
        known = [prefix + key for key in sorted(fields)]
        meant = did_you_mean(prefix + unknown[0], known, otherwise=f"known are {', '.join(known)}")
        raise ValueError(f"the config has no use for {', '.join(prefix + key[:60] for key in unknown[:5])}; {meant}")
    if missing := sorted(needed - set(values)):
        raise ValueError(f"the config lacks {', '.join(prefix + key for key in missing)}")
    for key, kind in fields.items():
        if key in values and not fits(values[key], kind):
            raise ValueError(f"the config has {prefix}{key} = {shown(values[key])}, expected {expected(kind)}")


def check_same_model(model: ModelConfig, config: Mapping[str, Any], *, checkpoint: epath.Path) -> None:
    """Raise an error if a config describes another model than the one a checkpoint was trained as.

    Names and shapes alone do not tell models apart: TSN and TSM share them. Values that do not change the weights
    (dropout, dtype, batch_norm, remat) may differ.

    Raises:
        ValueError: if the models differ. The message names the checkpoint and the first difference.
    """
    trained = with_tuples(config["model"])
    for field in dataclasses.fields(model):
        name, value = field.name, getattr(model, field.name)
        before = trained.get(name, field.default)
        if name not in ("dropout", "dtype", "batch_norm", "remat") and before != value:
            raise ValueError(
                f"the checkpoint {checkpoint} is of another model: its model.{name} is {shown(before)}, "
                f"the config's {shown(value)}; leave out --config, or give the one it was trained with"
            )


def check_restart(experiment: Experiment, workdir: epath.Path, *, allowed: Collection[str]) -> dict[str, Any]:
    """Compare an experiment with the newest checkpoint in its workdir, and return key -> (old value, new value).

    A checkpoint of step 0, such as one of imported weights, says nothing about the recipe.

    Args:
        experiment: the config of this start.
        workdir: may be new.
        allowed: keys whose change is allowed although it changes the result.

    Raises:
        ValueError: if other values change that change the result. The message names all.
    """
    newest = checkpoints.newest_config(workdir)
    changes = {}
    if newest and newest[0] > 0:
        try:
            stored = Experiment.from_config(newest[1])
        except ValueError as error:
            raise ValueError(f"the config of the checkpoint of step {newest[0]} in {workdir}: {error}") from error
        changes = history.changed_fields(stored, experiment)
        if None in changes.get("data.fingerprint", ()):  # Not known yet, or of a run before there were fingerprints.
            del changes["data.fingerprint"]
        if "model.name" in changes:
            kept, given, _ = changes["model.name"]
            raise ValueError(f"{workdir} holds a run of {kept}, this one is of {given}: choose another workdir")
    history.check_changes(changes, allowed=allowed, keys=keys_of(), workdir=workdir)
    return {key: (old, new) for key, (old, new, _) in changes.items()}


def open_data(data: DataConfig, workdir: epath.Path) -> Dataset:
    """Open the data, and prepare it first if needed.

    Of several processes, each host prepares its own copy. They wait for each other and then compare what they hold.

    Raises:
        ValueError: if the data do not fit, or the processes hold different videos.
    """
    dataset = open_dataset(data, default_dir=data.dir or data_folder(workdir))
    processes.introduce(dataset.contents)
    cure = "give all hosts the same videos, or copies of one prepared folder (--config.data.dir)"
    processes.compare("data", dataset.contents, cure=cure)
    return dataset


def with_root(config: dict[str, Any], root: str) -> dict[str, Any]:
    """Fill in ``data.root`` if a config of videos leaves it open, for work that opens no data."""
    if config["data"]["root"] is None and config["data"]["name"] != "moving_shapes":
        config["data"]["root"] = root
    return config


def random_variables(model: nn.Module, *, seed: int) -> dict[str, Any]:
    """Return the variables a model starts with in training."""
    clips = np.zeros((1, 2, 32, 32, 3), np.float32)
    # Compiled: initialising a network operation by operation takes minutes.
    init = jax.jit(lambda: model.init(jax.random.key(seed), clips, train=False))
    return log_compilation(init, "the initial weights")()


def initial_variables(model: nn.Module, source: str, *, seed: int) -> dict[str, Any]:
    """Return random variables, replaced by the weights at ``source`` where names and shapes agree.

    Args:
        model: the model to train.
        source: a PyTorch or safetensors file in an official layout, or a checkpoint or workdir.
        seed: seed of the variables that ``source`` lacks, such as a new classifier. The log counts them.

    Raises:
        ValueError: if ``source`` does not exist, or none of its tensors fits the model.
    """
    init = random_variables(model, seed=seed)
    if not place(source).is_dir():
        return load_torch(source, model, init=init)
    given = flax.traverse_util.flatten_dict(checkpoints.restore(source).variables)
    wanted = flax.traverse_util.flatten_dict(init)
    taken = {path: given[path] for path, like in wanted.items() if path in given and given[path].shape == like.shape}
    if not taken:
        raise ValueError(f"train.init_from: no tensor of {source} fits the model")
    others = {
        "keep their initial value": ["/".join(path) for path in wanted if path not in taken],
        "left over": ["/".join(path) for path in given if path not in taken and path not in wanted],
    }
    log.warning("%s", summary(len(taken), others))
    return flax.traverse_util.unflatten_dict({**wanted, **taken})


def save_initial(
    workdir: epath.Path, config: Mapping[str, Any], labels: Sequence[str], *, variables: Mapping[str, Any]
) -> None:
    """Write the workdir of a run at step 0, with the given variables as its latest checkpoint."""
    experiment = Experiment.from_config(config)
    train, data = experiment.train, experiment.data
    # The state does not depend on the number of clips.
    optimizer = make_optimizer(train, make_schedule(train, train_size=train.batch_size))
    model, shape = experiment.model.build(len(labels)), (data.frames, data.size, data.size, 3)
    state = create_state(model, optimizer, seed=experiment.seed, clip_shape=shape, variables=variables)
    workdir.mkdir(parents=True, exist_ok=True)
    with Checkpoints(workdir, section=experiment.checkpoint, config=config, labels=labels) as saved:
        saved.save_latest(state)
    describe_workdir(workdir, config, labels)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A restored checkpoint with its model and data.

    Attributes:
        experiment: the config of its run.
        model: the network.
        restored: variables (NumPy), labels, step and folder.
    """

    experiment: Experiment
    model: nn.Module
    restored: checkpoints.Restored

    @property
    def variables(self) -> dict[str, Any]:
        """The weights and statistics: {"params", "batch_stats"}, NumPy."""
        return self.restored.variables

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes in the order of the logits."""
        return self.restored.labels

    @property
    def config(self) -> dict[str, Any]:
        """The config of the run as a plain dict."""
        return self.restored.config

    @property
    def has_data(self) -> bool:
        """Whether the prepared data of its run are there, so that opening them writes nothing."""
        data = self.experiment.data
        return is_prepared(data, default_dir=data.dir or data_folder(workdir_of(self.restored.path)))

    @functools.cached_property
    def dataset(self) -> Dataset:
        """The data of its run, opened on first access.

        Raises:
            ValueError: if the data are gone.
        """
        return open_data(self.experiment.data, workdir_of(self.restored.path))


def load_trained(path: str | os.PathLike) -> Trained:
    """Restore a checkpoint, or the best one of a workdir, and build its model.

    Raises:
        ValueError: if there is no checkpoint.
    """
    restored = checkpoints.restore(path)
    experiment = Experiment.from_config(restored.config)
    return Trained(experiment, experiment.model.build(len(restored.labels)), restored)


def workdir_of(checkpoint: epath.Path, *, strict: bool = True) -> epath.Path:
    """Return the workdir of ``<workdir>/checkpoints/<latest or best>/<step>``.

    Raises:
        ValueError: if the checkpoint lies elsewhere, unless ``strict`` is False; its path is returned then.
    """
    if checkpoint.parent.parent.name != "checkpoints":
        if not strict:
            return checkpoint
        raise ValueError(f"{checkpoint} is not in a workdir: give the workdir it was trained in")
    return checkpoint.parents[2]

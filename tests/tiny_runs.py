"""Test bench of training: a tiny network, random clips, and a run of ``fit`` in this process or in another one."""

import json
import os
import pathlib
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from motion_jax.training.checkpoints import CheckpointConfig
from motion_jax.training.evaluation import EvalConfig
from motion_jax.training.loop import TrainingData, fit
from motion_jax.training.parallel import ParallelConfig
from motion_jax.training.recipe import TrainConfig

ROOT = pathlib.Path(__file__).resolve().parents[1]
CLIPS, CLASSES = 24, 4
CLIP_SHAPE = (2, 4, 4, 3)
LABELS = ("up", "down", "left", "right")
# "train" or "eval", added each time the network is traced.
TRACES: list[str] = []


class TinyNet(nn.Module):
    """Dense layers over whole frames, with optional BatchNorm and dropout. Records each trace in ``TRACES``."""

    num_classes: int = CLASSES
    norm: bool = True
    dropout: float = 0.0
    width: int = 16

    @nn.compact
    def __call__(self, clips, *, train):
        TRACES.append("train" if train else "eval")
        b, t = clips.shape[:2]
        x = clips.astype(jnp.promote_types(jnp.float32, jnp.result_type(float))) / 255 - 0.5
        x = nn.Dense(self.width, name="conv1")(x.reshape(b * t, -1))
        if self.norm:
            x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn1")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(nn.relu(x))
        return nn.Dense(self.num_classes, name="classifier")(x).reshape(b, t, -1).mean(axis=1)


def clip(index):
    """Return the clip and the label of an index."""
    return np.random.default_rng(index).integers(0, 256, CLIP_SHAPE, np.uint8), index % CLASSES


def batch_of(indices):
    """Return a training batch."""
    clips, labels = zip(*map(clip, indices), strict=True)
    return {"clips": np.stack(clips), "label": np.array(labels, np.int32), "index": np.array(indices, np.int64)}


def train_batches(start: int, *, batch_size: int = 8, size: int = CLIPS) -> Iterator[dict[str, np.ndarray]]:
    """Yield batches without end, from a step on."""
    step = start
    while True:
        sys.audit("batch", f"train {step}")  # A moment for the kills of forks.py.
        yield batch_of([(step * batch_size + row) % size for row in range(batch_size)])
        step += 1


def eval_batches(*, batch_size: int = 8, size: int = 13, views: int = 2) -> Iterator[dict[str, np.ndarray]]:
    """Yield a validation split of clips 100.. in batches; masked rows pad the last one."""
    for first in range(0, size, batch_size):
        sys.audit("batch", f"val {first}")
        index = np.arange(first, first + batch_size)
        rows = [clip(100 + min(i, size - 1)) for i in index]
        clips = np.stack([np.stack([pixels, pixels[::-1]][:views]) for pixels, _ in rows])
        label = np.array([label for _, label in rows], np.int32)
        yield {"clips": clips, "label": label, "mask": index < size, "index": index.astype(np.int64)}


def train_config(**changes) -> TrainConfig:
    """Return a short recipe."""
    values = {
        "batch_size": 8,
        "steps": 6,
        "epochs": None,
        "learning_rate": 0.05,
        "schedule": "step",
        "milestones": (1.0,),
        "decay_factor": 0.1,
        "warmup_epochs": 0.0,
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 5e-4,
        "clip_norm": 20.0,
        "groups": "official",
        "classifier_lr": (1.0, 2.0),
        "mixup": 0.0,
        "cutmix": 0.0,
        "label_smoothing": 0.0,
        "init_from": None,
        "log_every": 2,
        "eval_every_epochs": 1.0,
    }
    return TrainConfig(**{**values, **changes})


def run(workdir, *, backend="pmap", devices=8, every_steps=3, model=None, config=None, evaluate=True, **changes):
    """Call ``fit`` on the tiny network. ``changes`` replace values of the recipe, the batches, seed or variables."""
    data = TrainingData(
        train_batches=changes.pop("train_batches", train_batches),
        eval_batches=eval_batches if evaluate else None,
        train_size=CLIPS,
        labels=LABELS,
        clip_shape=CLIP_SHAPE,
    )
    minutes = changes.pop("retry_minutes", 1.0)
    checkpoint = {"every_steps": every_steps, "every_epochs": None, "keep": 2, "asynchronous": True}
    start = {"seed": changes.pop("seed", 3), "variables": changes.pop("variables", None)}
    start |= {name: changes.pop(name, None) for name in ("profile", "changes", "picture")}
    return fit(
        model or TinyNet(dropout=0.5),
        data,
        train=train_config(**changes),
        parallel=ParallelConfig(backend=backend, devices=devices),
        checkpoint=CheckpointConfig(**checkpoint, retry_minutes=minutes),
        evaluation=EvalConfig(batch_size=8, clips=2, crops=1, average="softmax", full_resolution=False),
        workdir=workdir,
        config=config or {"model": {"name": "tiny"}},
        **start,
    )


def environment_of_a_process(**changes) -> dict[str, str]:
    """Return the environment in which another process finds the package and this module."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), **changes}


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    arguments = json.loads(sys.argv[1])
    result = run(**arguments)
    print(json.dumps(result))

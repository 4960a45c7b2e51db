"""A tiny network on made-up clips, for the tests of training; as a script, one run of it in a process of its own."""

import json
import sys
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from motion_jax.training.checkpoints import CheckpointConfig
from motion_jax.training.evaluation import EvalConfig
from motion_jax.training.loop import TrainConfig, fit
from motion_jax.training.parallel import ParallelConfig

CLIPS, CLASSES = 24, 4
LABELS = ("up", "down", "left", "right")
TRACES: list[str] = []


class TinyNet(nn.Module):
    """Dense layers over whole frames, with BatchNorm and dropout on demand; notes each time it is traced."""

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
    """The clip and the label of an index."""
    return np.random.default_rng(index).integers(0, 256, (2, 4, 4, 3), np.uint8), index % CLASSES


def batch_of(indices):
    """A training batch."""
    clips, labels = zip(*map(clip, indices), strict=True)
    return {"clips": np.stack(clips), "label": np.array(labels, np.int32), "index": np.array(indices, np.int64)}


def train_batches(start: int, *, batch_size: int = 8, size: int = CLIPS) -> Iterator[dict[str, np.ndarray]]:
    """Batches without end, from a step on."""
    step = start
    while True:
        yield batch_of([(step * batch_size + row) % size for row in range(batch_size)])
        step += 1


def eval_batches(*, batch_size: int = 8, size: int = 13, views: int = 2) -> Iterator[dict[str, np.ndarray]]:
    """A validation split of clips 100.. in batches, the last one filled up with masked rows."""
    for first in range(0, size, batch_size):
        index = np.arange(first, first + batch_size)
        rows = [clip(100 + min(i, size - 1)) for i in index]
        clips = np.stack([np.stack([pixels, pixels[::-1]][:views]) for pixels, _ in rows])
        label = np.array([label for _, label in rows], np.int32)
        yield {"clips": clips, "label": label, "mask": index < size, "index": index.astype(np.int64)}


def train_section(**changes) -> TrainConfig:
    """A short recipe."""
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
    """Call ``fit`` on the tiny network; whatever is left in ``changes`` goes to the recipe."""
    fit_changes = {name: changes.pop(name) for name in ("train_batches", "seed", "variables") if name in changes}
    return fit(
        model or TinyNet(dropout=0.5),
        train=train_section(**changes),
        parallel=ParallelConfig(backend=backend, devices=devices),
        checkpoint=CheckpointConfig(every_steps=every_steps, every_epochs=None, keep=2, asynchronous=True),
        eval_=EvalConfig(batch_size=8, clips=2, crops=1, average="softmax", full_resolution=False),
        workdir=workdir,
        eval_batches=eval_batches if evaluate else None,
        train_size=CLIPS,
        labels=LABELS,
        config=config or {"model": {"name": "tiny"}},
        **{"train_batches": train_batches, "seed": 3, **fit_changes},
    )


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    arguments = json.loads(sys.argv[1])
    result = run(**arguments)
    print(json.dumps(result))

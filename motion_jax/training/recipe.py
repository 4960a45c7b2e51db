"""The recipe of a training run: its configuration, and the learning rate and optimizer made from it."""

import dataclasses
import math
from typing import ClassVar

import optax

from motion_jax.text import shown
from motion_jax.training.optimizer import GROUPS, sgd
from motion_jax.training.schedules import cosine_schedule, step_schedule

SCHEDULES = ("step", "cosine")
ON_NAN = ("stop", "rollback")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained.

    Attributes:
        batch_size: clips per update, summed over all devices and processes.
        steps: updates of the whole run; if given, ``epochs`` is ignored.
        epochs: passes over the training clips, may be fractional; used if ``steps`` is None.
        learning_rate: highest learning rate of the schedule, for ``base_batch_size`` clips per update.
        schedule: ``"step"`` lowers the rate at ``milestones``; ``"cosine"`` lowers it to 0 along half a cosine.
        milestones: epochs at which the ``"step"`` schedule lowers the rate, in rising order.
        decay_factor: factor on the rate at each milestone.
        warmup_epochs: epochs over which the ``"cosine"`` schedule first raises the rate linearly.
        momentum: momentum of SGD, 0 for none.
        nesterov: whether to use Nesterov momentum, in PyTorch's form.
        weight_decay: multiple of the parameter added to its gradient, for the parameters that ``groups`` decays.
        clip_norm: largest global norm of the gradients; None does not clip.
        groups: ``"official"`` sets rate and decay per kind of parameter as the official code does; ``"plain"`` treats
            all parameters alike.
        classifier_lr: factors on the rate for the weight and the bias of the classifier, with ``"official"`` groups.
        mixup: parameter of the Beta distribution of mixup, 0 for no mixup. If ``cutmix`` is above 0 too, each batch
            uses one of the two, chosen at random.
        cutmix: parameter of the Beta distribution of CutMix, 0 for no CutMix.
        label_smoothing: share of the target probability spread evenly over all classes, 0 for none.
        init_from: weights to start from: a PyTorch or safetensors file, a checkpoint or a workdir; None starts from
            random weights.
        on_nan: ``"stop"`` ends a run whose loss or state is not finite; ``"rollback"`` goes back to its newest
            checkpoint and takes another batch in place of that of the update, up to three times per run.
        log_every: updates between two log lines.
        eval_every_epochs: epochs between two evaluations, may be fractional; 0 evaluates only at the end.
        pictures_every: epochs between two pictures of what the network sees, may be fractional; the last update has one
            too. 0 draws none.
        base_batch_size: if given, the learning rate is multiplied by ``batch_size / base_batch_size``; None does not
            scale it.

    Raises:
        ValueError: if a value is out of range, or both ``steps`` and ``epochs`` are None.
    """

    batch_size: int
    steps: int | None
    epochs: float | None
    learning_rate: float
    schedule: str
    milestones: tuple[float, ...]
    decay_factor: float
    warmup_epochs: float
    momentum: float
    nesterov: bool
    weight_decay: float
    clip_norm: float | None
    groups: str
    classifier_lr: tuple[float, float]
    mixup: float
    cutmix: float
    label_smoothing: float
    init_from: str | None
    log_every: int
    eval_every_epochs: float
    # Checkpoints from before this option lack it.
    on_nan: str = "stop"
    pictures_every: float = 0.0
    base_batch_size: int | None = None

    SAME_RESULT: ClassVar = ("log_every", "eval_every_epochs", "on_nan", "pictures_every")

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        object.__setattr__(self, "classifier_lr", tuple(self.classifier_lr))
        if self.steps is None and self.epochs is None:
            raise ValueError("train.steps and train.epochs are both None: set one of them")
        two = len(self.classifier_lr) == 2 and all(0 <= factor <= 1e4 for factor in self.classifier_lr)
        clip = self.clip_norm
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False))
        base = self.base_batch_size
        for name, valid, expected in (
            ("batch_size", 1 <= self.batch_size <= 2**20, "1 to 2**20"),
            ("steps", self.steps is None or 1 <= self.steps < 2**31, "1 to 2**31 - 1, or None"),
            ("epochs", self.epochs is None or 0 < self.epochs <= 1e6, "a positive number up to a million, or None"),
            ("learning_rate", 0 < self.learning_rate <= 1e38, "a positive number up to 1e38"),
            ("schedule", self.schedule in SCHEDULES, f"one of {SCHEDULES}"),
            ("milestones", rising and max(self.milestones, default=0) <= 1e6, "positive epochs, rising"),
            ("decay_factor", 0 < self.decay_factor <= 1, "above 0, at most 1"),
            ("warmup_epochs", 0 <= self.warmup_epochs <= 1e6, "0 to a million"),
            ("momentum", 0 <= self.momentum < 1, "from 0 to below 1"),
            ("nesterov", self.momentum > 0 or not self.nesterov, "False where train.momentum is 0"),
            ("weight_decay", 0 <= self.weight_decay <= 1e3, "0 to 1000"),
            ("clip_norm", clip is None or 0 < clip <= 1e9, "a positive number up to 1e9, or None for no clipping"),
            ("groups", self.groups in GROUPS, f"one of {GROUPS}"),
            ("classifier_lr", two, "two factors from 0 to 1e4, for weight and bias"),
            ("mixup", 0 <= self.mixup <= 1e3, "0 for none, or a positive number up to 1000"),
            ("cutmix", 0 <= self.cutmix <= 1e3, "0 for none, or a positive number up to 1000"),
            ("label_smoothing", 0 <= self.label_smoothing < 1, "from 0 to below 1"),
            ("on_nan", self.on_nan in ON_NAN, f"one of {ON_NAN}"),
            ("log_every", 1 <= self.log_every < 2**31, "1 to 2**31 - 1"),
            ("eval_every_epochs", 0 <= self.eval_every_epochs <= 1e6, "0 to a million"),
            ("pictures_every", 0 <= self.pictures_every <= 1e6, "0 to a million"),
            ("base_batch_size", base is None or 1 <= base <= 2**20, "1 to 2**20, or None for no scaling"),
        ):
            if not valid:
                raise ValueError(f"train.{name} is {shown(getattr(self, name))}, expected {expected}")

    @property
    def highest_rate(self) -> float:
        """The highest learning rate of the schedule, scaled with the batch if ``base_batch_size`` is given."""
        return self.learning_rate * self.batch_size / (self.base_batch_size or self.batch_size)

    @property
    def mixing(self) -> dict[str, float]:
        """The arguments of ``make_train_step`` that mix clips and labels."""
        return {"mixup": self.mixup, "cutmix": self.cutmix, "label_smoothing": self.label_smoothing}

    def steps_per_epoch(self, train_size: int) -> float:
        """Return the updates per epoch of ``train_size`` clips, a fraction if the batches do not divide the epoch."""
        return train_size / self.batch_size

    def total_steps(self, train_size: int) -> int:
        """Return the updates of the whole run on ``train_size`` clips."""
        if self.steps is not None:
            return self.steps
        return math.ceil(round(self.epochs * self.steps_per_epoch(train_size), 6))


def make_schedule(train: TrainConfig, *, train_size: int) -> optax.Schedule:
    """Make the learning rate of a run on ``train_size`` clips, as a function of the number of completed updates."""
    steps_per_epoch = train.steps_per_epoch(train_size)
    if train.schedule == "step":
        steps = {"milestones": train.milestones, "factor": train.decay_factor}
        return step_schedule(train.highest_rate, steps_per_epoch=steps_per_epoch, **steps)
    steps = {"warmup_epochs": train.warmup_epochs, "total_steps": train.total_steps(train_size)}
    return cosine_schedule(train.highest_rate, steps_per_epoch=steps_per_epoch, **steps)


def make_optimizer(train: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Make the optimizer of a run."""
    names = ("momentum", "nesterov", "weight_decay", "clip_norm", "groups", "classifier_lr")
    return sgd(schedule, **{name: getattr(train, name) for name in names})

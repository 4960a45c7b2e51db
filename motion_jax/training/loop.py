"""The training loop: resumes by itself, saves, evaluates, logs, and stops cleanly when told to."""

import collections
import contextlib
import dataclasses
import itertools
import json
import math
import pathlib
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn

from motion_jax.training import parallel as par
from motion_jax.training.checkpoints import CheckpointConfig, Checkpoints, NonFiniteStateError
from motion_jax.training.evaluation import EvalConfig, evaluate
from motion_jax.training.input_wait import InputWait
from motion_jax.training.metrics import MetricLog, find_logged, write_atomically
from motion_jax.training.optimizer import GROUPS, sgd
from motion_jax.training.progress import bar, log
from motion_jax.training.schedules import cosine_schedule, step_schedule
from motion_jax.training.state import TrainState, create_state
from motion_jax.training.step import make_eval_step, make_train_step

SCHEDULES = ("step", "cosine")
# Batches placed on the devices ahead of the step in progress, and steps whose metrics may still be on the devices.
_AHEAD = 2
_CURES = "lower train.learning_rate, set train.clip_norm, lengthen train.warmup_epochs, or compute in float32"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained. Learning rate times are in epochs.

    Attributes:
        batch_size: clips per update over all devices and processes.
        steps: updates of the whole run; wins over ``epochs``.
        epochs: passes over the training clips; may be fractional.
        learning_rate: the base rate of the schedule.
        schedule: ``"step"`` or ``"cosine"``.
        milestones: epochs after which ``"step"`` lowers the rate.
        decay_factor: by which it does.
        warmup_epochs: linear rise at the start of ``"cosine"``.
        momentum: of SGD.
        nesterov: as in PyTorch.
        weight_decay: added to the gradient times the parameter, where ``groups`` allows it.
        clip_norm: largest global norm of the gradients, or ``None``.
        groups: ``"official"`` or ``"plain"``, see ``optimizer.sgd``.
        classifier_lr: multipliers of the rate for the classifier's weight and bias.
        mixup: parameter of the Beta distribution of mixup, see ``augmentation.mix``; 0 for none.
        cutmix: that of CutMix; 0 for none. Where both are above 0, each batch takes one of the two.
        label_smoothing: share of the target spread evenly over the classes.
        init_from: weights to start from, read by the entry point; ``None`` starts from random ones.
        log_every: updates between two lines of the log.
        eval_every_epochs: epochs between two evaluations; 0 evaluates only at the end.

    Raises:
        ValueError: if a value is out of range, or both ``steps`` and ``epochs`` are ``None``.
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "milestones", tuple(self.milestones))
        object.__setattr__(self, "classifier_lr", tuple(self.classifier_lr))

        def expect(holds: bool, name: str, expected: str) -> None:
            if not holds:
                raise ValueError(f"train.{name} is {getattr(self, name)!r}, expected {expected}")

        expect(self.batch_size >= 1, "batch_size", "at least 1")
        if self.steps is None and self.epochs is None:
            raise ValueError("train.steps and train.epochs are both None: set one of them")
        expect(self.steps is None or self.steps >= 1, "steps", "at least 1, or None")
        expect(self.epochs is None or self.epochs > 0, "epochs", "a positive number, or None")
        expect(self.learning_rate > 0, "learning_rate", "a positive number")
        expect(self.schedule in SCHEDULES, "schedule", f"one of {SCHEDULES}")
        rising = all(a < b for a, b in zip((0, *self.milestones), self.milestones, strict=False))
        expect(rising, "milestones", "positive epochs, rising")
        expect(0 < self.decay_factor <= 1, "decay_factor", "above 0, at most 1")
        expect(self.warmup_epochs >= 0, "warmup_epochs", "0 or more")
        expect(0 <= self.momentum < 1, "momentum", "from 0 to below 1")
        expect(self.momentum > 0 or not self.nesterov, "nesterov", "False where train.momentum is 0")
        expect(self.weight_decay >= 0, "weight_decay", "0 or more")
        expect(self.clip_norm is None or self.clip_norm > 0, "clip_norm", "a positive number, or None for no clipping")
        expect(self.groups in GROUPS, "groups", f"one of {GROUPS}")
        expect(len(self.classifier_lr) == 2, "classifier_lr", "two multipliers, for weight and bias")
        expect(self.mixup >= 0, "mixup", "0 for none, or a positive number")
        expect(self.cutmix >= 0, "cutmix", "0 for none, or a positive number")
        expect(0 <= self.label_smoothing < 1, "label_smoothing", "from 0 to below 1")
        expect(self.log_every >= 1, "log_every", "at least 1")
        expect(self.eval_every_epochs >= 0, "eval_every_epochs", "0 or more")

    def total_steps(self, train_size: int) -> int:
        """Return the updates of the whole run on ``train_size`` clips."""
        if self.steps is not None:
            return self.steps
        return math.ceil(round(self.epochs * train_size / self.batch_size, 6))


def make_schedule(train: TrainConfig, *, train_size: int) -> optax.Schedule:
    """Make the learning rate of a run on ``train_size`` clips, as a function of the completed updates."""
    steps_per_epoch = train_size / train.batch_size
    if train.schedule == "step":
        return step_schedule(
            train.learning_rate,
            milestones=train.milestones,
            factor=train.decay_factor,
            steps_per_epoch=steps_per_epoch,
        )
    return cosine_schedule(
        train.learning_rate,
        warmup_epochs=train.warmup_epochs,
        steps_per_epoch=steps_per_epoch,
        total_steps=train.total_steps(train_size),
    )


def make_optimizer(train: TrainConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    """Make the optimiser of a run."""
    return sgd(
        schedule,
        momentum=train.momentum,
        nesterov=train.nesterov,
        weight_decay=train.weight_decay,
        clip_norm=train.clip_norm,
        groups=train.groups,
        classifier_lr=train.classifier_lr,
    )


def fit(
    model: nn.Module,
    *,
    train: TrainConfig,
    parallel: par.ParallelConfig,
    checkpoint: CheckpointConfig,
    eval_: EvalConfig,
    seed: int,
    workdir: str | pathlib.Path,
    train_batches: Callable[[int], Iterator[Mapping[str, np.ndarray]]],
    eval_batches: Callable[[], Iterable[Mapping[str, np.ndarray]]] | None,
    train_size: int,
    labels: Sequence[str],
    config: Mapping[str, Any],
    variables: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Train a model in a workdir, going on from its newest checkpoint when it has one.

    Stopping and starting again equals never stopping, bit for bit, on the same devices. SIGTERM or SIGINT ends the
    update in progress, saves and returns. A finished workdir returns its metrics at once.

    Writes ``config.json``, ``labels.json``, ``metrics.jsonl``, ``tensorboard/``, ``checkpoints/`` and, unless a
    compilation cache is set already, ``compile_cache/``.

    Args:
        model: takes clips (b, t, h, w, c) and ``train``; returns logits (b, k).
        train: the recipe.
        parallel: the devices.
        checkpoint: when to save.
        eval_: the protocol of the evaluations during training.
        seed: of the initial parameters, of the dropout and of mixing clips.
        workdir: the folder of this run.
        train_batches: from the number of completed updates to the rest of the batches, without end: clips and label,
            the rows of this process.
        eval_batches: one pass over the validation split, see ``evaluate``; ``None`` for no evaluation.
        train_size: clips per epoch.
        labels: class names in the order of the logits.
        config: what to keep beside the weights; must go into JSON, and ``config["model"]["name"]`` names the model.
        variables: initial ``{"params", "batch_stats"}`` of a new run.

    Returns:
        The metrics of the last evaluation (of the last logged update without one), ``step``, and ``finished``, False
        after a signal.

    Raises:
        ValueError: if the batch does not divide over the devices, the workdir belongs to another model, every
            checkpoint is broken, or the loss or the state is no longer finite, which is never saved.
    """
    workdir = pathlib.Path(workdir).absolute()
    if train_size < 1:
        raise ValueError(f"train_size is {train_size}: the training split is empty")
    par.check_batch_size(train.batch_size, parallel)
    _check_mixing(train, parallel)
    if eval_batches is not None:
        par.check_batch_size(eval_.batch_size, parallel, field="eval.batch_size")
    total = train.total_steps(train_size)
    schedule = make_schedule(train, train_size=train_size)
    optimizer = make_optimizer(train, schedule)
    _check_workdir(workdir, config, labels)
    _use_compile_cache(workdir)

    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(workdir, section=checkpoint, config=config, labels=labels))
        saved = checkpoints.latest_step()
        newest = saved or 0
        if newest >= total:
            result = find_logged(workdir, step=newest, split="train" if eval_batches is None else "val")
            if result is not None:
                log(f"{workdir} is finished: {newest} of {total} steps are done (raise train.steps to go on)")
                return {**result, "step": newest, "finished": True}

        stop = stack.enter_context(_StopSignals())
        first, batches = _peek(train_batches(newest))
        clip_shape = first["clips"].shape[1:]

        def create(variables: Mapping[str, Any] | None) -> TrainState:
            return create_state(model, optimizer, seed=seed, clip_shape=clip_shape, variables=variables)

        state = None
        if saved is not None:  # weights brought in from elsewhere are saved as step 0
            template = jax.eval_shape(lambda: create(variables))
            state = checkpoints.restore_latest(template, sharding=par.state_sharding(parallel))
        if state is None:
            state = par.place_state(create(variables), parallel)
        _check_classes(state.params, labels)
        start = int(state.step)
        if start != newest:
            _, batches = _peek(train_batches(start))

        _describe_workdir(workdir, config, labels)
        metric_log = stack.enter_context(contextlib.closing(MetricLog(workdir, start_step=start)))
        run = _Run(
            train=train,
            parallel=parallel,
            checkpoint=checkpoint,
            train_size=train_size,
            total=total,
            workdir=workdir,
            checkpoints=checkpoints,
            log=metric_log,
            stop=stop,
            input_wait=stack.enter_context(contextlib.closing(InputWait())),
            eval_step=par.replicate(
                make_eval_step(model, average=eval_.average), parallel, split=(False, True), donate=False
            ),
            eval_batches=eval_batches,
        )
        train_step = make_train_step(
            model,
            optimizer,
            schedule=schedule,
            seed=seed,
            mixup=train.mixup,
            cutmix=train.cutmix,
            label_smoothing=train.label_smoothing,
        )
        step = par.replicate(train_step, parallel)
        backend = par.backend_in_use(parallel)
        if backend != parallel.backend:
            log(f"parallel.backend: {backend} is used on {jax.process_count()} processes, not {parallel.backend}")
        where = f"{par.make_mesh(parallel).size} device(s) with {backend}"
        log(f"training from step {start} to {total}, {total * train.batch_size / train_size:.4g} epochs, on {where}")
        return run.train_from(state, step, batches)


@dataclasses.dataclass
class _Run:
    """One call of ``fit`` from its first update on: what is due after an update, and when."""

    train: TrainConfig
    parallel: par.ParallelConfig
    checkpoint: CheckpointConfig
    train_size: int
    total: int
    workdir: pathlib.Path
    checkpoints: Checkpoints
    log: MetricLog
    stop: "_StopSignals"
    input_wait: InputWait
    eval_step: Callable
    eval_batches: Callable[[], Iterable[Mapping[str, np.ndarray]]] | None
    # Updates whose metrics may still be on the devices, as (step, metrics), oldest first.
    pending: collections.deque = dataclasses.field(default_factory=collections.deque)
    # Metrics read since the last line of the log, and when that was.
    window: list[dict[str, float]] = dataclasses.field(default_factory=list)
    window_began: float = 0.0
    logged: dict[str, float] = dataclasses.field(default_factory=dict)

    def train_from(
        self, state: TrainState, step_function: Callable, batches: Iterator[Mapping[str, np.ndarray]]
    ) -> dict[str, Any]:
        """Run the updates that are left, and what is due between them."""
        step = int(state.step)
        result = None
        if self.evaluation_due(step):
            # The run ended between saving this step and evaluating it, or right after.
            result = find_logged(self.workdir, step=step, split="val") or self.evaluate(state, step)
        placed = self.input_wait.timed(_place_ahead(batches, self.parallel))
        with bar(total=self.total, initial=step, desc="train", unit="step") as progress:
            self.window_began = time.perf_counter()
            while step < self.total and not self.stop_requested(step):
                batch = next(placed, None)
                if batch is None:
                    raise ValueError(f"train_batches ended after {step} of {self.total} steps: it must never end")
                state, metrics = step_function(state, batch)
                self.input_wait.dispatched(metrics)
                step += 1
                self.pending.append((step, metrics))
                while len(self.pending) > _AHEAD:
                    self.read_oldest(progress)
                progress.update()
                # Saved before it is evaluated: an interruption then costs the evaluation alone.
                if step == self.total or self.evaluation_due(step) or _crosses(step, self.save_period):
                    self.save_latest(state, progress)
                if self.evaluation_due(step):
                    began = time.perf_counter()
                    result = self.evaluate(state, step)
                    # The line of the log that is begun speaks of updates alone.
                    self.window_began += time.perf_counter() - began
            if self.stop_requested(step):
                self.save_latest(state, progress)
        self.checkpoints.wait()
        finished = step >= self.total and (self.eval_batches is None or result is not None)
        if not finished:
            log(f"stopped by {self.stop.name} after step {step}, which is saved; start again to go on")
        return {**(result or self.logged), "step": step, "finished": finished}

    @property
    def save_period(self) -> float:
        """Updates between two checkpoints; 0 for none."""
        if self.checkpoint.every_steps is not None:
            return self.checkpoint.every_steps
        return (self.checkpoint.every_epochs or 0) * self.train_size / self.train.batch_size

    def epoch(self, step: int) -> float:
        """Epochs done after ``step`` updates."""
        return step * self.train.batch_size / self.train_size

    def evaluation_due(self, step: int) -> bool:
        """Say whether the state after ``step`` updates is to be evaluated."""
        if self.eval_batches is None or step == 0:
            return False
        period = self.train.eval_every_epochs * self.train_size / self.train.batch_size
        return step >= self.total or _crosses(step, period)

    def stop_requested(self, step: int) -> bool:
        """Say whether to stop after ``step`` updates; equal on all processes."""
        return self.stop.requested or self.checkpoints.reached_preemption(step)

    def read_oldest(self, progress: Any) -> None:
        """Fetch the metrics of the oldest pending update, check them, and log them when it is time."""
        step, metrics = self.pending.popleft()
        values = {name: float(value) for name, value in jax.device_get(metrics).items()}
        for name in ("loss", "grad_norm"):
            if not math.isfinite(values[name]):
                raise ValueError(self.non_finite(f"{name} is {values[name]} at step {step}"))
        self.window.append(values)
        if step % self.train.log_every and step != self.total:
            return
        now = time.perf_counter()
        mean = {name: float(np.mean([each[name] for each in self.window])) for name in ("loss", "top1", "grad_norm")}
        seconds = now - self.window_began
        speed = len(self.window) * self.train.batch_size / seconds
        # The last fetch of a line may belong to the next one.
        waited = min(1.0, self.input_wait.seconds() / seconds)
        times = {"clips_per_second": round(speed, 2), "input_wait": round(waited, 4)}
        self.logged = {**mean, "lr": values["lr"], **times}
        self.window, self.window_began = [], now
        self.log.write(step=step, epoch=self.epoch(step), split="train", values=self.logged)
        if progress.disable:
            log(f"step {step}/{self.total}: loss {mean['loss']:.4f}, top1 {mean['top1']:.1f}, {speed:.1f} clips/s")
        else:
            progress.set_postfix_str(f"loss {mean['loss']:.4f}, {speed:.1f} clips/s")

    def save_latest(self, state: TrainState, progress: Any) -> None:
        """Save a state whose updates were all finite."""
        while self.pending:
            self.read_oldest(progress)
        try:
            self.checkpoints.save_latest(state)
        except NonFiniteStateError as error:
            raise ValueError(self.non_finite(str(error))) from error

    def evaluate(self, state: TrainState, step: int) -> dict[str, float] | None:
        """Evaluate a state, keep it if it is the best, and log; ``None`` if a signal came meanwhile."""
        try:
            metrics, _, _ = evaluate(
                self.eval_step, state.variables, self.until_stopped(self.eval_batches()), parallel=self.parallel
            )
        except _Stopped:
            return None
        self.checkpoints.save_best(state, top1=metrics["top1"])
        # Logged once the best is on disk: a logged evaluation is not repeated.
        self.checkpoints.wait()
        self.log.write(step=step, epoch=self.epoch(step), split="val", values=metrics)
        log(
            f"step {step}, epoch {self.epoch(step):.4g}: val loss {metrics['loss']:.4f}, top1 {metrics['top1']:.2f}, "
            f"top5 {metrics['top5']:.2f}, mean_class {metrics['mean_class']:.2f} on {metrics['clips']} clips"
        )
        return metrics

    def until_stopped(self, batches: Iterable[Mapping[str, np.ndarray]]) -> Iterator[Mapping[str, np.ndarray]]:
        """Pass batches on until a signal comes."""
        for batch in batches:
            if self.stop.requested:
                raise _Stopped
            yield batch

    def non_finite(self, what: str) -> str:
        """Say what was not finite, what is left, and what helps."""
        self.checkpoints.wait()
        good = self.checkpoints.latest_step()
        left = "no checkpoint was written yet" if good is None else f"the last good checkpoint is step {good}"
        return f"{what}: training stopped, {left}; {_CURES}"


class _Stopped(Exception):
    """A signal came during an evaluation."""


class _StopSignals:
    """Notes the first SIGTERM or SIGINT instead of dying of it; a second one acts as before."""

    def __init__(self) -> None:
        self.requested = False
        self.name = "preemption"
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_StopSignals":
        # Several processes must agree on the step: there JAX's own preemption service listens, see Checkpoints.
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested, self.name = True, signal.Signals(number).name
        self.__exit__()


def _peek(batches: Iterator[Mapping[str, np.ndarray]]) -> tuple[Mapping[str, np.ndarray], Iterator]:
    """Return the first batch, and an iterator that yields it again before the others."""
    batches = iter(batches)
    first = next(batches, None)
    if first is None:
        raise ValueError("train_batches gave no batch: the training split is empty")
    return first, itertools.chain([first], batches)


def _place_ahead(
    batches: Iterator[Mapping[str, np.ndarray]], parallel: par.ParallelConfig
) -> Iterator[dict[str, jax.Array]]:
    """Place the batches of the next updates while the one in progress runs."""
    queue: collections.deque = collections.deque()
    for batch in batches:
        queue.append(par.place_batch({name: batch[name] for name in ("clips", "label")}, parallel))
        if len(queue) == _AHEAD:
            yield queue.popleft()
    yield from queue


def _crosses(step: int, period: float) -> bool:
    """Say whether a multiple of ``period``, which may be fractional, lies within the last update."""
    if not period:
        return False
    # The margin forgives the rounding of the product: 3 * (1 / 3 of an epoch) is one epoch.
    return math.floor(step / period + 1e-9) > math.floor((step - 1) / period + 1e-9)


def _check_mixing(train: TrainConfig, parallel: par.ParallelConfig) -> None:
    """Refuse to mix where no clip has another to be mixed with: nothing would be mixed, silently."""
    devices = par.make_mesh(parallel).size
    if (train.mixup or train.cutmix) and train.batch_size == devices:
        raise ValueError(
            f"train.mixup and train.cutmix mix the clips of one device, and each of {devices} has one: "
            f"set train.batch_size to {2 * devices} or more, or both to 0"
        )


def _check_classes(params: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Refuse a classifier whose size is not the number of labels: a label beyond it would silently be another."""
    if "classifier" in params:
        classes = params["classifier"]["bias"].shape[-1]
        if classes != len(labels):
            raise ValueError(
                f"the model has {classes} classes and the data {len(labels)} labels: set num_classes to match"
            )


def _check_workdir(workdir: pathlib.Path, config: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Refuse a workdir that belongs to a run of another model or of other classes."""

    def name_of(config: Mapping[str, Any]) -> Any:
        return config.get("model", {}).get("name")

    cure = "choose another workdir, or delete this one"
    path = workdir / "config.json"
    if path.exists() and (kept := name_of(json.loads(path.read_text(encoding="utf-8")))) != name_of(config):
        raise ValueError(f"{workdir} holds a run of {kept}, this one is of {name_of(config)}: {cure}")
    path = workdir / "labels.json"
    if path.exists() and (kept := json.loads(path.read_text(encoding="utf-8"))) != list(labels):
        raise ValueError(f"{workdir} holds a run with {len(kept)} other labels than these {len(labels)}: {cure}")


def _describe_workdir(workdir: pathlib.Path, config: Mapping[str, Any], labels: Sequence[str]) -> None:
    if jax.process_index() == 0:
        write_atomically(workdir / "config.json", json.dumps(config, indent=1))
        write_atomically(workdir / "labels.json", json.dumps(list(labels), indent=1, ensure_ascii=False))


def _use_compile_cache(workdir: pathlib.Path) -> None:
    """Keep compiled programs in the workdir, unless a place is set already: a restart then begins at once."""
    if jax.config.jax_compilation_cache_dir is None:
        jax.config.update("jax_compilation_cache_dir", str(workdir / "compile_cache"))

"""The training loop: resumes from a checkpoint, saves, evaluates, logs, and stops cleanly at a signal."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from motion_jax.places import place
from motion_jax.training import parallel as par
from motion_jax.training.checkpoints import CheckpointConfig, Checkpoints
from motion_jax.training.evaluation import EvalConfig, evaluate
from motion_jax.training.history import add_start
from motion_jax.training.meter import Meter, show
from motion_jax.training.metrics import MetricLog, find_logged
from motion_jax.training.owner import own
from motion_jax.training.pictures import MakePicture, Pictures
from motion_jax.training.profile import StepProfile
from motion_jax.training.progress import bar, log, log_compilation
from motion_jax.training.recipe import TrainConfig, make_optimizer, make_schedule
from motion_jax.training.signals import Stopped, StopSignals
from motion_jax.training.skipped_batches import SkippedBatches
from motion_jax.training.state import NonFiniteError, TrainState, create_state
from motion_jax.training.step import make_eval_step, make_train_step
from motion_jax.training.workdir import check_workdir, describe_workdir, use_compile_cache

Batch = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
    """The data of a run.

    Attributes:
        train_batches: function from the number of completed updates to the batches that follow, without end: ``clips``
            (b, t, h, w, c) and ``label`` (b,), the rows of this process.
        eval_batches: function that returns one pass over the validation split, see ``evaluate``; None for none.
        train_size: clips per epoch.
        labels, clip_shape: class names in the order of the logits, and ``(t, h, w, c)`` of a training clip.
    """

    train_batches: Callable[[int], Iterator[Batch]]
    eval_batches: Callable[[], Iterable[Batch]] | None
    train_size: int
    labels: Sequence[str]
    clip_shape: tuple[int, int, int, int]


def fit(
    model: nn.Module,
    data: TrainingData,
    *,
    train: TrainConfig,
    parallel: par.ParallelConfig,
    checkpoint: CheckpointConfig,
    evaluation: EvalConfig,
    seed: int,
    workdir: str | os.PathLike,
    config: Mapping[str, Any],
    variables: Mapping[str, Any] | None = None,
    profile: tuple[int, int] | None = None,
    changes: Mapping[str, tuple[Any, Any]] | None = None,
    picture: MakePicture | None = None,
) -> dict[str, Any]:
    """Train a model in a workdir, from its newest checkpoint if it has one.

    A run that was stopped and resumed ends in the same state as one that was not, bit for bit, on the same devices.
    SIGTERM or SIGINT ends the run after the update in progress, with a checkpoint. A finished workdir returns its
    metrics at once.

    Writes ``config.json``, ``labels.json``, ``history.jsonl``, ``owner.json``, ``metrics.jsonl``, ``tensorboard/``,
    ``checkpoints/``, ``pictures/`` and, unless a compilation cache is set already, ``compile_cache/``.

    Args:
        model: takes clips (b, t, h, w, c) and ``train``; returns logits (b, k).
        data, train, parallel, checkpoint, evaluation: sections of the run, each described by its class.
        seed: seed of the initial parameters, of dropout and of mixing clips.
        workdir: the folder of this run.
        config: JSON object to store in the workdir and with the weights; ``config["model"]["name"]`` names the model.
        variables: initial ``{"params", "batch_stats"}`` of a new run; random if None.
        profile: first and last update to record with JAX's profiler, into ``profile/`` of the workdir.
        changes: key -> (old value, new value) of what a restart changes, for the log and ``history.jsonl``.
        picture: what ``Pictures`` makes pictures with, every ``train.pictures_every`` epochs; None for none.

    Returns:
        The metrics of the last evaluation (of the last log line without one), ``step``, and ``finished``, which is
        False after a signal.

    Raises:
        ValueError: if the batch does not divide over the devices, another run owns the workdir, the workdir belongs to
            another model, its newest checkpoint is beyond the last step, every checkpoint is broken, or the loss or the
            state is not finite; such a state is never saved.
    """
    workdir = place(workdir)
    _check_sizes(data, train, parallel, evaluation)
    use_compile_cache(workdir)
    total = train.total_steps(data.train_size)
    steps_per_epoch = train.steps_per_epoch(data.train_size)
    schedule = make_schedule(train, train_size=data.train_size)
    optimizer = make_optimizer(train, schedule)

    def is_eval_due(step: int) -> bool:
        due = step >= total or _crosses(step, train.eval_every_epochs * steps_per_epoch)
        return due and step > 0 and data.eval_batches is not None

    def is_picture_due(step: int) -> bool:
        period = train.pictures_every * steps_per_epoch
        return picture is not None and period > 0 and (step == total or _crosses(step, period))

    with contextlib.ExitStack() as stack:
        workdir.mkdir(parents=True, exist_ok=True)
        stack.enter_context(own(workdir))
        check_workdir(workdir, config, data.labels)
        checkpoints = stack.enter_context(Checkpoints(workdir, section=checkpoint, config=config, labels=data.labels))
        newest = checkpoints.latest_step() or 0
        if newest > total:
            raise ValueError(
                f"the newest checkpoint in {workdir} is of step {newest}, but the run ends at step {total}: "
                "raise train.steps, or choose another workdir"
            )
        split = "train" if data.eval_batches is None else "val"
        if newest >= total and (result := find_logged(workdir, step=newest, split=split)):
            log(f"{workdir} is finished: {newest} of {total} steps are done (--change=train.steps with more goes on)")
            return {**result, "step": newest, "finished": True}

        stop = stack.enter_context(StopSignals())
        skipped = SkippedBatches(workdir, replaced_from=total)

        def create() -> TrainState:
            return create_state(model, optimizer, seed=seed, clip_shape=data.clip_shape, variables=variables)

        def first_state() -> TrainState:
            """Return the newest saved state, or the initial one."""
            if checkpoints.latest_step() is None:
                return par.place_state(log_compilation(create, "the initial state")(), parallel)
            return checkpoints.restore_latest(jax.eval_shape(create), sharding=par.state_sharding(parallel))

        state = first_state()
        _check_classes(state.params, data.labels)
        describe_workdir(workdir, config, data.labels)
        devices = par.make_mesh(parallel).size
        add_start(workdir, step=int(state.step), devices=devices, batch_size=train.batch_size, changes=changes or {})

        where = f"{devices} device(s) with {par.backend_in_use(parallel)}"
        train_step = make_train_step(model, optimizer, schedule=schedule, seed=seed, **train.mixing)
        update = log_compilation(par.replicate(train_step, parallel), f"the training step for {where}")
        eval_step = make_eval_step(model, average=evaluation.average)
        eval_step = par.replicate(eval_step, parallel, split=(False, True), donate=False)
        eval_step = log_compilation(eval_step, f"the evaluation for {where}")

        def evaluate_and_save_best(state: TrainState, step: int, metric_log: MetricLog) -> dict[str, float] | None:
            """Return the metrics of a state; None if a signal arrived before the end."""
            batches = stop.until_stopped(data.eval_batches())
            try:
                metrics, _, _ = evaluate(eval_step, state.variables, batches, parallel=parallel)
            except Stopped:
                return None
            # A logged evaluation is not repeated after a restart, so the checkpoints must be on disk before.
            checkpoints.save_best(state, top1=metrics["top1"])
            checkpoints.wait(state)
            epoch = step / steps_per_epoch
            metric_log.write(step=step, epoch=epoch, split="val", values=metrics)
            log(
                f"step {step}, epoch {epoch:.4g}: val loss {metrics['loss']:.4f}, top1 {metrics['top1']:.2f}, "
                f"top5 {metrics['top5']:.2f}, mean_class {metrics['mean_class']:.2f} on {metrics['clips']} clips"
            )
            return metrics

        def train_on(state: TrainState) -> tuple[TrainState, dict[str, float] | None, dict[str, float]]:
            """Train to the end or to a signal; return the state, its evaluation and the values last logged."""
            start = step = int(state.step)
            log(f"training from step {start} to {total}, {total / steps_per_epoch:.4g} epochs, on {where}")
            with contextlib.ExitStack() as stack:
                metric_log = stack.enter_context(contextlib.closing(MetricLog(workdir, start_step=start)))
                meter = Meter(metric_log, train=train, train_size=data.train_size)
                stack.enter_context(contextlib.closing(meter))
                pictures = stack.enter_context(contextlib.closing(Pictures(workdir, picture)))
                result = None
                if is_eval_due(start):
                    # The last run ended after it saved this step and before it evaluated it.
                    result = find_logged(workdir, step=start, split="val")
                    result = result or evaluate_and_save_best(state, start, metric_log)

                batches = meter.timed(par.place_ahead(skipped.batches(data.train_batches, start=start), parallel))
                updates = range(start + 1, total + 1)
                steps = stack.enter_context(bar(updates, initial=start, total=total, desc="train", unit="step"))
                profiled = stack.enter_context(StepProfile(profile, workdir / "profile"))
                for step in steps:
                    profiled.before(step)
                    with jax.profiler.StepTraceAnnotation("train", step_num=step):
                        batch = next(batches, None)
                        if batch is None:
                            raise ValueError(
                                f"train_batches ended after {step - 1} of {total} steps: it must never end"
                            )
                        if stop.requested and step == start + 1:  # A signal came before the first update.
                            break
                        with par.no_implicit_transfers():
                            state, metrics = update(state, batch)
                    meter.add(step, metrics)
                    profiled.after(step, metrics)

                    # What is due now, in this order: metrics and log, latest checkpoint, picture, evaluation and best
                    # checkpoint, stop.
                    stopping = stop.requested or checkpoints.reached_preemption(step)
                    evaluating = is_eval_due(step)
                    saving = (
                        stopping or evaluating or step == total or _crosses(step, checkpoint.period(steps_per_epoch))
                    )
                    drawing = is_picture_due(step)
                    # A state is saved and drawn only if all its updates were finite, so their metrics are read before.
                    for line in meter.read(everything=saving or drawing):
                        show(line, steps)
                    # Saved before the evaluation, so that an interruption costs only the evaluation.
                    if saving:
                        with meter.paused("saving"):
                            checkpoints.save_latest(state)
                    if drawing:
                        with meter.paused("evaluation"):
                            pictures.add(state.variables, step=step)
                    if evaluating:
                        with meter.paused("evaluation"):
                            result = evaluate_and_save_best(state, step, metric_log)
                    if stopping or (evaluating and (stop.requested or result is None)):
                        break
                checkpoints.save_latest(state)
                checkpoints.wait(state)
                return state, result, meter.logged

        if par.backend_in_use(parallel) != parallel.backend:
            log(f"parallel.backend: shard_map is used on {jax.process_count()} processes, not {parallel.backend}")
        with checkpoints.explain_non_finite():
            while True:
                try:
                    state, result, logged = train_on(state)
                    break
                except NonFiniteError as error:
                    if train.on_nan == "stop":
                        raise
                    skipped.add(error)
                    state = first_state()
                    log(f"{error}: back to step {int(state.step)}; the batch of step {error.step} is skipped")
        step = int(state.step)
        finished = step >= total and (data.eval_batches is None or result is not None)
        if not finished:
            log(f"stopped by {stop.name} after step {step}, which is saved; start again to go on")
        return {**(result or logged), "step": step, "finished": finished}


def _crosses(step: int, period: float) -> bool:
    """Return whether a multiple of ``period``, which may be fractional, lies within update ``step``; 0 has none."""
    if not period:
        return False
    # The margin absorbs the rounding of the product: 3 * (1 / 3 of an epoch) is one epoch.
    return math.floor(step / period + 1e-9) > math.floor((step - 1) / period + 1e-9)


def _check_sizes(data: TrainingData, train: TrainConfig, parallel: par.ParallelConfig, evaluation: EvalConfig) -> None:
    if data.train_size < 1:
        raise ValueError(f"train_size is {data.train_size}: the training split is empty")
    par.check_batch_size(train.batch_size, parallel)
    if data.eval_batches is not None:
        par.check_batch_size(evaluation.batch_size, parallel, field="eval.batch_size")
    devices = par.make_mesh(parallel).size
    if (train.mixup or train.cutmix) and train.batch_size == devices:
        raise ValueError(
            f"train.mixup and train.cutmix mix the clips of one device, and each of {devices} has one: "
            f"set train.batch_size to {2 * devices} or more, or both to 0"
        )


def _check_classes(params: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Raise an error if the classifier's size is not the number of labels: JAX would silently clip larger labels."""
    if "classifier" in params and (classes := params["classifier"]["bias"].shape[-1]) != len(labels):
        raise ValueError(f"the model has {classes} classes and the data {len(labels)} labels: set num_classes to match")

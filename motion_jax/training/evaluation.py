"""Evaluation of a whole split, in which every clip counts exactly once."""

import collections
import dataclasses
import io
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from etils import epath
from flax import linen as nn
from jax.experimental import multihost_utils

from motion_jax.places import place, write_whole
from motion_jax.text import shown
from motion_jax.training import parallel as par
from motion_jax.training.metrics import summarise
from motion_jax.training.progress import bar, log_compilation
from motion_jax.training.step import AVERAGES, make_eval_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """The protocol of an evaluation.

    Attributes:
        batch_size: videos per batch over all devices; each has ``clips * crops`` views.
        clips: temporal views per video.
        crops: spatial views per clip: 1 (centre) or 3 (along the longer side).
        average: ``"softmax"`` averages the probabilities of the views, ``"logits"`` their logits.
        full_resolution: whether a view is as large as the short side of the stored frames, in place of ``data.size``.

    Raises:
        ValueError: if a value is out of range.
    """

    batch_size: int
    clips: int
    crops: int
    average: str
    full_resolution: bool

    SAME_RESULT: ClassVar = ("batch_size", "clips", "crops", "average", "full_resolution")

    def __post_init__(self) -> None:
        for name, most in (("batch_size", 2**20), ("clips", 2**10)):
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(f"eval.{name} is {shown(getattr(self, name))}, expected 1 to {most}")
        if self.crops not in (1, 3):
            raise ValueError(f"eval.crops is {shown(self.crops)}, expected 1 (centre) or 3 (along the longer side)")
        if self.average not in AVERAGES:
            raise ValueError(f"eval.average is {shown(self.average)}, expected one of {AVERAGES}")


def evaluate(
    eval_step: Callable,
    variables: Mapping[str, Any],
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    parallel: par.ParallelConfig,
    total: int | None = None,
    description: str = "evaluate",
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Run a model over all batches of a split.

    Args:
        eval_step: ``replicate(make_eval_step(...), parallel, split=(False, True), donate=False)``.
        variables: ``{"params", "batch_stats"}``, placed by ``place_state``.
        batches: clips (b, v, t, h, w, c), label, mask (False for rows that only pad the batch) and index (position in
            the split); the rows of this process. Every process needs the same number of batches.
        parallel: the devices of ``eval_step``.
        total, description: number of batches and text for the progress bar.

    Returns:
        ``(metrics, scores, labels)``: the metrics of ``summarise``; the averaged scores (n, k) in float32 or wider and
        the labels (n,), both in the order of the split.

    Raises:
        ValueError: if a clip occurs twice, or there is no clip.
    """
    sums: dict[str, Any] = {}
    rows: list[tuple[np.ndarray, ...]] = []
    # The results of a batch are read after the next two were dispatched, so that the devices do not wait for the host.
    pending: collections.deque = collections.deque()

    def read_oldest() -> None:
        (batch_sums, scores), batch = pending.popleft()
        for name, value in jax.device_get(batch_sums).items():
            sums[name] = sums.get(name, 0) + np.asarray(value, np.float64 if name == "loss" else np.int64)
        mask = np.asarray(batch["mask"])
        rows.append((par.local_rows(scores, parallel), batch["label"], batch["index"], mask))

    for batch in bar(batches, total=total, desc=description, unit="batch", leave=False):
        placed = par.place_batch({name: batch[name] for name in ("clips", "label", "mask")}, parallel)
        kept = {name: batch[name] for name in ("label", "index", "mask")}
        pending.append((eval_step(variables, placed), kept))
        if len(pending) > 2:
            read_oldest()
    while pending:
        read_oldest()
    if not rows:
        raise ValueError("there is no batch to evaluate: the split is empty")
    metrics = summarise(sums)

    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    if jax.process_count() > 1:
        columns = [np.asarray(multihost_utils.process_allgather(column, tiled=True)) for column in columns]
    mask = columns.pop()
    scores, labels, index = (column[mask] for column in columns)
    order = np.argsort(index, kind="stable")
    repeated = index[order][1:][np.diff(index[order]) == 0]
    if repeated.size:
        raise ValueError(f"clip {repeated[0]} of the split came {np.sum(index == repeated[0])} times, expected once")
    return metrics, scores[order], labels[order]


def evaluate_model(
    model: nn.Module,
    variables: Mapping[str, Any],
    batches: Iterable[Mapping[str, np.ndarray]],
    *,
    section: EvalConfig,
    parallel: par.ParallelConfig,
    total: int | None = None,
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Run a model with variables from the host over all batches of a split; see ``evaluate``.

    Raises:
        ValueError: if the batch does not divide over the devices, a clip occurs twice, or there is no clip.
    """
    par.check_batch_size(section.batch_size, parallel, field="eval.batch_size")
    step = par.replicate(make_eval_step(model, average=section.average), parallel, split=(False, True), donate=False)
    step = log_compilation(step, "the evaluation")
    return evaluate(step, par.place_state(variables, parallel), batches, parallel=parallel, total=total)


def write_evaluation(
    workdir: str | os.PathLike,
    *,
    metrics: Mapping[str, float],
    scores: np.ndarray,
    labels: np.ndarray,
    label_names: Sequence[str],
    ids: Sequence[str],
    protocol: Mapping[str, Any],
    suffix: str = "",
) -> epath.Path:
    """Write ``eval.json`` and ``scores.npz`` into a workdir.

    ``eval.json`` holds top1, top5 and mean_class in percent, clips and protocol; ``scores.npz`` holds scores (n, k),
    labels (n,), names (k,), ids (n,) and average, in the order of the split. Each file is replaced as a whole,
    ``eval.json`` last.

    Args:
        workdir: folder to write to; created if absent.
        metrics, scores, labels: as ``evaluate`` returns them.
        label_names, ids: class names in the order of the scores, and names of the videos in the order of the split.
        protocol: JSON object; its ``average`` tells whether the scores are ``"softmax"`` probabilities or ``"logits"``.
        suffix: added to ``eval`` and ``scores`` in the names of the files.

    Returns:
        The path of ``eval.json``.
    """
    folder = place(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    names, ids, average = np.array(label_names, np.str_), np.array(ids, np.str_), np.str_(protocol["average"])
    content = io.BytesIO()
    np.savez(content, scores=scores, labels=labels, names=names, ids=ids, average=average)
    write_whole(folder / f"scores{suffix}.npz", content.getvalue())
    result = {name: metrics[name] for name in ("top1", "top5", "mean_class", "clips")}
    target = folder / f"eval{suffix}.json"
    write_whole(target, json.dumps({**result, "protocol": dict(protocol)}, indent=1) + "\n")
    return target

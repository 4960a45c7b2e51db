"""The page of ``tools.report``: runs on the same data, compared."""

import dataclasses
import datetime
import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from motion_jax.inspection import score_statistics as statistics
from motion_jax.inspection.pages import clip_cards
from motion_jax.inspection.pages.page import packed, render

METRICS = {"top1": "Top-1", "top5": "Top-5", "mean_class": "Mean class"}
# Name of the metric -> title, factor, whether a logarithmic scale is the first choice.
CURVES = {
    "loss": ("Loss", 1, True),
    "top1": ("Top-1, %", 1, False),
    "lr": ("Learning rate", 1, False),
    "grad_norm": ("Gradient norm", 1, True),
    "clips_per_second": ("Clips per second", 1, False),
    "input_wait": ("Waiting for input, %", 100, False),
    "goodput": ("Goodput, %", 100, False),
}
# What an evaluation measures, apart from the network and the data.
VIEWS = ("split", "clips", "crops", "average", "full_resolution", "corruption")


@dataclasses.dataclass(frozen=True, eq=False)
class Evaluation:
    """The evaluation of a run.

    Attributes:
        metrics: top1, top5 and mean_class in percent, and clips.
        protocol: how it was made.
        scores: scores (n, k).
        labels: labels (n,).
        classes: class names (k,).
        ids: names of the clips (n,), or None if the file does not hold them.
        average: ``"softmax"`` or ``"logits"``, or None if the file does not say.
    """

    metrics: Mapping[str, float]
    protocol: Mapping[str, Any]
    scores: np.ndarray
    labels: np.ndarray
    classes: Sequence[str]
    ids: Sequence[str] | None
    average: str | None

    @functools.cached_property
    def predicted(self) -> np.ndarray:
        """Predicted classes (n,)."""
        return self.scores.argmax(axis=1)

    @functools.cached_property
    def right(self) -> np.ndarray:
        """Whether each clip is right (n,)."""
        return self.predicted == self.labels

    @functools.cached_property
    def probabilities(self) -> np.ndarray | None:
        """Probabilities (n, k), or None if the kind of the scores is not known."""
        return statistics.probabilities(self.scores, self.average)


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """What the page shows of a run.

    Attributes:
        name: short name, different for each run.
        workdir: its folder.
        model: name of its network.
        config: its config; may be empty.
        log: lines of metrics.jsonl.
        history: lines of history.jsonl.
        evaluation: None if the run was not evaluated.
        pairs: accuracy within pairs of classes; empty if the classes have no pairs.
        clips: chosen clips, as ``clip_cards.card`` makes them.
        missing: sentences about what is missing, each with the command that makes it, or "".
    """

    name: str
    workdir: str
    model: str
    config: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]]
    history: Sequence[Mapping[str, Any]]
    evaluation: Evaluation | None
    pairs: Mapping[str, float]
    clips: Sequence[Mapping[str, Any]] = ()
    missing: Sequence[tuple[str, str]] = ()


def report_page(runs: Sequence[Run]) -> str:
    """Return the page of runs whose evaluations are of the same clips.

    Args:
        runs: in the order of the page; differences are to the first evaluated one.
    """
    evaluated = [run for run in runs if run.evaluation]
    classes = list(evaluated[0].evaluation.classes) if evaluated else []
    return render(
        "report.html.j2",
        runs=runs,
        evaluated=evaluated,
        headline=headline(runs),
        metrics=[metric_row(run, evaluated[0]) for run in evaluated],
        level=round(100 * statistics.LEVEL),
        differences=differences([flat(run.config) for run in runs]),
        protocol=differences([dict(run.evaluation.protocol) for run in evaluated], equal=True),
        other_views=other_views(evaluated),
        classes=class_rows(evaluated),
        confused={run.name: confused_rows(run.evaluation) for run in evaluated},
        pairs=list(next((run.pairs for run in runs if run.pairs), {})),
        configs=[json.dumps(run.config, indent=1, ensure_ascii=False) for run in runs],
        environments=[environment(run.history) for run in runs],
        histories=[history_rows(run.history) for run in runs],
        legend=clip_cards.legend(),
        data={
            "classes": classes,
            "charts": {name: {"title": title, "log": log} for name, (title, _, log) in CURVES.items()},
            "runs": [run_data(run) for run in runs],
            **(
                {"labels": packed(_smallest(evaluated[0].evaluation.labels)), "ids": _ids(evaluated)} if classes else {}
            ),
        },
    )


def headline(runs: Sequence[Run]) -> dict[str, str]:
    """Return what was compared, on which data, who leads, and whether the difference exceeds its interval."""
    evaluated = sorted((run for run in runs if run.evaluation), key=lambda run: -run.evaluation.metrics["top1"])
    if not evaluated:
        section = runs[0].config.get("data")
        data = section.get("name") if isinstance(section, Mapping) else "data that the run does not name"
        names = ", ".join(run.name for run in runs)
        return {"title": f"Training of {names}", "lead": f"On {data}. No run is evaluated yet."}
    best, *others = evaluated
    evaluation = best.evaluation
    data = f"{evaluation.protocol.get('name', 'data that the run does not name')}, split {_split(evaluation)}"
    where = (
        f"{evaluation.metrics['clips']:,} clips of {data}, {len(evaluation.classes)} classes, "
        f"where chance is {100 / len(evaluation.classes):.3g} %"
    )
    low, high = interval(best, "top1")
    top1 = f"{evaluation.metrics['top1']:.1f} % ({low:.1f} to {high:.1f})"
    if not others:
        return {"title": f"{best.name}: {evaluation.metrics['top1']:.1f} % top-1", "lead": f"{top1} on {where}."}
    second = others[0]
    points, (low, high) = paired_difference(best.evaluation, second.evaluation)
    title = f"{best.name} leads by {points:.1f} points"
    verdict = f"The {100 * statistics.LEVEL:.0f} % interval of their difference, {low:.1f} to {high:.1f} points, "
    if low > 0:
        verdict += "excludes zero."
    else:
        title = f"No clear leader: {best.name} and {second.name} differ by {points:.1f} points"
        verdict += "includes zero: these clips do not decide between them."
    lead = (
        f"{len(evaluated)} runs on {where}. {best.name} reaches {top1} top-1, {second.name} is second with "
        f"{second.evaluation.metrics['top1']:.1f} %. {verdict}"
    )
    return {"title": title, "lead": lead}


def interval(run: Run, metric: str) -> tuple[float, float]:
    """Return the confidence interval of a metric in percent: Wilson's, or the bootstrap's for mean_class."""
    evaluation = run.evaluation
    if metric == "mean_class":
        count = np.bincount(evaluation.labels, minlength=len(evaluation.classes))
        return statistics.bootstrap_mean_class(np.bincount(evaluation.labels, evaluation.right, len(count)), count)
    clips = evaluation.metrics["clips"]
    low, high = statistics.wilson(round(evaluation.metrics[metric] * clips / 100), clips)
    return float(low), float(high)


def paired_difference(one: Evaluation, other: Evaluation) -> tuple[float, tuple[float, float]]:
    """Return how many points of top-1 ``one`` is above ``other`` on the same clips, and the interval."""
    difference = 100 * (one.right.astype(np.int64) - other.right)
    return float(difference.mean()), statistics.bootstrap_mean(difference)


def metric_row(run: Run, first: Run) -> dict[str, Any]:
    """Return the final metrics of a run with their intervals, and the difference to the first run."""
    evaluation = run.evaluation
    row = {
        "run": run,
        "clips": evaluation.metrics["clips"],
        "step": evaluation.protocol.get("step"),
        "values": [(evaluation.metrics[name], *interval(run, name)) for name in METRICS],
        "difference": None if run is first else paired_difference(evaluation, first.evaluation),
        "error": None,
    }
    if evaluation.probabilities is not None:
        row["error"] = 100 * _reliability(evaluation).error
    return row


def _reliability(evaluation: Evaluation) -> statistics.Reliability:
    return statistics.reliability(evaluation.probabilities.max(axis=1), evaluation.right)


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a config as key -> value, with the sections in the keys.

    >>> flat({"seed": 0, "data": {"size": 64}})
    {'seed': 0, 'data.size': 64}
    """
    values = {}
    for key, value in config.items():
        values |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return values


def differences(configs: Sequence[Mapping[str, Any]], *, equal: bool = False) -> list[tuple[str, list[str], bool]]:
    """Return ``(key, value per run, whether they differ)``, those that differ first; with ``equal`` also the others.

    >>> differences([{"a": 1, "b": 2}, {"a": 1, "b": 3}])
    [('b', ['2', '3'], True)]
    """
    rows = []
    for key in dict.fromkeys(itertools.chain(*configs)):
        values = [_shown(config[key]) if key in config else "–" for config in configs]
        rows.append((key, values, len(set(values)) > 1))
    return [row for row in sorted(rows, key=lambda row: not row[2]) if equal or row[2]]


def _shown(value: object) -> str:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | tuple) else str(value)


def other_views(evaluated: Sequence[Run]) -> list[str]:
    """Return the values of the protocol that differ between the runs although they should not."""
    rows = differences([{key: run.evaluation.protocol.get(key) for key in VIEWS} for run in evaluated])
    return [key for key, *_ in rows]


def class_rows(evaluated: Sequence[Run]) -> list[dict[str, Any]]:
    """Return name, number of clips, and per run the accuracy with its interval, for each class."""
    if not evaluated:
        return []
    classes, labels = evaluated[0].evaluation.classes, evaluated[0].evaluation.labels
    count = np.bincount(labels, minlength=len(classes))
    columns = []
    for run in evaluated:
        correct = np.bincount(labels, run.evaluation.right, len(classes))
        columns.append(np.stack([100 * correct / np.maximum(count, 1), *statistics.wilson(correct, count)], axis=1))
    return [
        {"name": name, "clips": int(count[at]), "values": [column[at].tolist() for column in columns]}
        for at, name in enumerate(classes)
    ]


def confused_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the most frequent confusions of a run: numbers and names of both classes, clips, share of the label."""
    matrix = statistics.confusion(evaluation.labels, evaluation.predicted, classes=len(evaluation.classes))
    return [
        {
            "label": label,
            "chosen": chosen,
            "names": (evaluation.classes[label], evaluation.classes[chosen]),
            "clips": clips,
            "share": 100 * clips / int(matrix[label].sum()),
        }
        for label, chosen, clips in statistics.most_confused(matrix)
    ]


def curve(log: Sequence[Mapping[str, Any]], *, name: str, split: str, factor: float = 1) -> list[list[float]]:
    """Return the steps and the values of a curve, thinned, with 6 significant digits."""
    lines = {
        line["step"]: line[name]
        for line in log
        if line["split"] == split and isinstance(line.get(name), int | float) and np.isfinite(line[name])
    }
    steps = sorted(lines)
    some, values = statistics.thinned(np.array(steps, np.int64), np.array([factor * lines[step] for step in steps]))
    return [some.tolist(), [float(f"{value:.6g}") for value in values]]


def run_data(run: Run) -> dict[str, Any]:
    """Return what JavaScript draws of a run."""
    curves = {
        name: {split: curve(run.log, name=name, split=split, factor=factor) for split in ("train", "val")}
        for name, (_, factor, _) in CURVES.items()
    }
    data = {"name": run.name, "curves": curves, "clips": list(run.clips)}
    evaluation = run.evaluation
    if evaluation is None:
        return data
    data["predicted"] = packed(_smallest(evaluation.predicted))
    if evaluation.probabilities is not None:
        result = _reliability(evaluation)
        data["confidence"] = packed(evaluation.probabilities.max(axis=1).astype(np.float32))
        columns = (result.count, result.confidence, result.accuracy)
        data["bins"] = [np.round(column, 5).tolist() for column in columns]
        data["error"] = result.error
    return data


def _smallest(classes: np.ndarray) -> np.ndarray:
    """Return numbers of classes in the smallest type that holds them."""
    return classes.astype(np.min_scalar_type(classes.max(initial=0)))


def _ids(evaluated: Sequence[Run]) -> str | None:
    """Return the names of the clips, packed as UTF-8 lines; None if no run has them."""
    ids = next((run.evaluation.ids for run in evaluated if run.evaluation.ids is not None), None)
    if ids is None:
        return None
    return packed(np.frombuffer("\n".join(ids).encode("utf-8", "replace"), np.uint8))


def _split(evaluation: Evaluation) -> str:
    return str(evaluation.protocol.get("split", "val"))


def environment(history: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return where the last start of a run happened, from the lines of its history."""
    starts = [line for line in history if "devices" in line]
    if not starts:
        return {}
    last = starts[-1]
    versions = last.get("versions")
    return {
        "host": str(last.get("host", "")),
        "devices": f"{last['devices']} × {last.get('kind', 'unknown')}",
        "processes": str(last.get("processes", "")),
        "clips per update": str(last.get("batch_size", "")),
        **({str(name): str(version) for name, version in versions.items()} if isinstance(versions, Mapping) else {}),
    }


def history_rows(history: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, str]]:
    """Return ``(time in UTC, step, what happened)`` of the starts and the skipped batches of a run."""
    rows = []
    for line in history:
        time, step = line.get("time"), line.get("step", line.get("skipped", ""))
        when = ""
        if isinstance(time, int | float) and 0 < time < 1e11:
            when = datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S")
        if "skipped" in line:
            what = f"batch skipped: {line.get('reason', '')}"
        else:
            changes = line.get("changes")
            changes = changes.items() if isinstance(changes, Mapping) else ()
            changed = ", ".join(f"{key} {_change(value)}" for key, value in changes)
            what = f"started on {line.get('devices', '?')} × {line.get('kind', 'unknown')}" + "; changed: " * bool(
                changed
            )
            what += changed
        rows.append((when, str(step), what))
    return rows


def _change(value: object) -> str:
    return " → ".join(map(str, value)) if isinstance(value, list | tuple) and len(value) == 2 else str(value)

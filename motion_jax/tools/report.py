"""Compare evaluated runs: accuracy, chance, and accuracy within pairs of classes that need motion.

Examples:
    python -m motion_jax.tools.report runs/demo/tsn_r18 runs/demo/msnet_tsm_r18
    python -m motion_jax.tools.report runs/demo/* --json

Evaluate every run first: eval.py writes eval.json and scores.npz into the workdir.
Runs of other videos or classes than the first are refused. "input wait %" is the share of the
training time in which the devices waited for clips.
"""

from typing import Any

import numpy as np
from etils import epath

from motion_jax.cli import Parser, add_runs, print_json, run, runs_of, table
from motion_jax.data.sources.moving_shapes import CLASSES as MOVING_SHAPES
from motion_jax.experiment import workdir_of
from motion_jax.training import json_lines
from motion_jax.training.scores import METRICS, Scores, check_comparable, read_result, read_scores


def main() -> None:
    """Print the tables."""
    parser = Parser(__doc__)
    add_runs(parser, help="an evaluated run: its workdir or a checkpoint in it")
    arguments = parser.parse_args()
    workdirs = [workdir_of(epath.Path(run), strict=False) for run in runs_of(parser, arguments)]
    scores = [read_scores(workdir / "scores.npz") for workdir in workdirs]
    check_comparable(scores)
    runs = [_described(workdir, each) for workdir, each in zip(workdirs, scores, strict=True)]
    print(accuracy_table(runs))
    if pairs := pair_table(runs):
        print(f"\nTop-1 within each pair, without the other classes (chance 50):\n{pairs}")
    if arguments.json:
        print_json({"runs": runs})


def read_run(workdir: epath.Path) -> dict[str, Any]:
    """Read the evaluation of a workdir, with the accuracy within pairs for moving_shapes; ValueError without one."""
    return _described(workdir, read_scores(workdir / "scores.npz"))


def _described(workdir: epath.Path, scores: Scores) -> dict[str, Any]:
    result, names = read_result(workdir), tuple(scores.names.tolist())
    return {
        "workdir": str(workdir),
        "model": result["protocol"]["model"],
        **{name: result[name] for name in METRICS},
        "chance": 100 / len(names),
        "input_wait": input_wait(workdir),
        "pairs": within_pairs(scores.scores, scores.labels, names) if names == MOVING_SHAPES else {},
    }


def input_wait(workdir: epath.Path) -> float | None:
    """Return the median share of time that the devices waited for input, in percent; None without a log."""
    shares = [
        value
        for line in json_lines.read(workdir / "metrics.jsonl")
        if isinstance(value := line.get("input_wait"), int | float)
    ]
    return 100 * float(np.median(shares)) if shares else None


def within_pairs(scores: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Return top-1 in percent between labels 2k and 2k + 1, the other classes ignored, by ``"name | name"``."""
    accuracy = {}
    for first in range(0, len(names), 2):
        rows = labels // 2 == first // 2
        chosen = first + scores[rows, first : first + 2].argmax(1)
        accuracy[f"{names[first]} | {names[first + 1]}"] = 100 * float(np.mean(chosen == labels[rows]))
    return accuracy


def accuracy_table(runs: list[dict[str, Any]]) -> str:
    """Format one row per run, and one for chance."""
    rows = [
        (
            run["model"],
            *(round(run[name], 2) for name in ("top1", "top5", "mean_class")),
            run["clips"],
            "" if run["input_wait"] is None else round(run["input_wait"], 2),
            run["workdir"],
        )
        for run in runs
    ]
    chance = round(runs[0]["chance"], 2)
    rows.append(("chance", chance, round(min(100.0, 5 * chance), 2), chance, runs[0]["clips"], "", ""))
    return table(("model", "top1", "top5", "mean_class", "clips", "input wait %", "workdir"), rows)


def pair_table(runs: list[dict[str, Any]]) -> str:
    """Format one row per pair of classes and one column per run; empty if the classes have no pairs."""
    runs = [run for run in runs if run["pairs"]]
    if not runs:
        return ""
    rows = [(pair, *(round(run["pairs"][pair], 2) for run in runs)) for pair in runs[0]["pairs"]]
    return table(("pair", *(run["model"] for run in runs)), rows)


if __name__ == "__main__":
    run(main)

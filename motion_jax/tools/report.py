"""Compare evaluated runs: accuracy against chance, and within each pair of classes that one frame cannot tell apart.

Examples:
    python -m motion_jax.tools.report runs/demo/tsn runs/demo/msnet
    python -m motion_jax.tools.report runs/demo/* --json

Every run must have been evaluated (eval.py writes eval.json and scores.npz into its workdir). "input wait %" is the
share of the training in which the devices waited for clips.
"""

import json
import pathlib
from typing import Any

import numpy as np

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.data.sources.moving_shapes import CLASSES as MOVING_SHAPES


def main() -> None:
    """Workdirs -> tables."""
    parser = Parser(__doc__)
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path, metavar="WORKDIR", help="an evaluated run")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    runs = [read_run(workdir) for workdir in arguments.workdirs]
    print(accuracy_table(runs))
    if pairs := pair_table(runs):
        print(f"\nTop-1 within each pair, the other classes left out (chance 50):\n{pairs}")
    if arguments.json:
        print_json({"runs": runs})


def read_run(workdir: pathlib.Path) -> dict[str, Any]:
    """What ``eval.json`` and ``scores.npz`` of a workdir hold, with the accuracy within pairs where classes have them.

    Raises:
        ValueError: if the workdir was not evaluated.
    """
    if not (workdir / "eval.json").is_file() or not (workdir / "scores.npz").is_file():
        raise ValueError(f"{workdir} has no eval.json: run python eval.py --workdir={workdir}")
    result = json.loads((workdir / "eval.json").read_text())
    with np.load(workdir / "scores.npz") as file:
        scores, labels, names = file["scores"], file["labels"], tuple(file["names"].tolist())
    pairs = within_pairs(scores, labels, names) if names == MOVING_SHAPES else {}
    metrics = {name: result[name] for name in ("top1", "top5", "mean_class", "clips")}
    return {
        "workdir": str(workdir),
        "model": result["protocol"]["model"],
        **metrics,
        "chance": 100 / len(names),
        "input_wait": input_wait(workdir),
        "pairs": pairs,
    }


def input_wait(workdir: pathlib.Path) -> float | None:
    """Median over the lines of the log, in percent, of the time the devices waited for input; None without a log."""
    if not (workdir / "metrics.jsonl").is_file():
        return None
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    shares = [line["input_wait"] for line in lines if "input_wait" in line]
    return 100 * float(np.median(shares)) if shares else None


def within_pairs(scores: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> dict[str, float]:
    """Top-1 in percent of labels 2k and 2k + 1 against each other alone, by "name | name"."""
    accuracy = {}
    for first in range(0, len(names), 2):
        rows = labels // 2 == first // 2
        chosen = first + scores[rows, first : first + 2].argmax(1)
        accuracy[f"{names[first]} | {names[first + 1]}"] = 100 * float(np.mean(chosen == labels[rows]))
    return accuracy


def accuracy_table(runs: list[dict[str, Any]]) -> str:
    """One row per run, and what guessing gets."""
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
    """One row per pair of classes, one column per run; empty where the classes have no pairs."""
    runs = [run for run in runs if run["pairs"]]
    if not runs:
        return ""
    rows = [(pair, *(round(run["pairs"][pair], 2) for run in runs)) for pair in runs[0]["pairs"]]
    return table(("pair", *(run["model"] for run in runs)), rows)


if __name__ == "__main__":
    run(main)

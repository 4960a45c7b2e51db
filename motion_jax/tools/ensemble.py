"""Average the scores of several evaluated runs, such as those with 8 and 16 frames, and print the accuracy.

Examples:
    python -m motion_jax.tools.ensemble runs/demo/msnet_tsm_r18 runs/demo/selfynet_tsm_r18
    python -m motion_jax.tools.ensemble runs/demo/msnet_tsm_r18 runs/demo/selfynet_tsm_r18 --weights 1 2 --json

Evaluate every run first, with the same eval.average on the same videos: eval.py writes scores.npz into the workdir. The
scores are averaged as they are: probabilities for softmax, logits for logits.
"""

import numpy as np
from etils import epath

from motion_jax.cli import Parser, add_runs, print_json, run, runs_of, table
from motion_jax.experiment import workdir_of
from motion_jax.training.metrics import summarise
from motion_jax.training.scores import Scores, check_comparable, read_scores

METRICS = ("top1", "top5", "mean_class")


def main() -> None:
    """Print the accuracy of every run and of their average."""
    parser = Parser(__doc__)
    add_runs(parser, help="an evaluated run: its workdir, a checkpoint in it, or its scores.npz")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="a weight for each run; default: equal")
    arguments = parser.parse_args()
    runs = [read_scores(workdir_of(epath.Path(run), strict=False)) for run in runs_of(parser, arguments)]
    weights = np.array(arguments.weights or [1.0] * len(runs))
    if len(weights) != len(runs) or not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(f"--weights: give {len(runs)} numbers, one for each run, all 0 or more and one above 0")
    weights = weights / weights.sum()
    check_same_average(runs)
    check_comparable(runs)
    single = [accuracy(each.scores, each.labels) for each in runs]
    together = accuracy(sum(weight * each.scores for weight, each in zip(weights, runs, strict=True)), runs[0].labels)
    described = [
        {"run": each.run, "weight": float(weight), **metrics}
        for each, weight, metrics in zip(runs, weights, single, strict=True)
    ]
    shown = [*described, {"run": "ensemble", "weight": 1.0, **together}]
    rows = [(row["run"], round(row["weight"], 3), *(round(row[key], 2) for key in METRICS)) for row in shown]
    print(table(("run", "weight", *METRICS), rows))
    if arguments.json:
        print_json({"runs": described, "ensemble": together, "clips": len(runs[0].labels), "average": runs[0].average})


def check_same_average(runs: list[Scores]) -> None:
    """Raise a ValueError unless all runs say that they hold probabilities, or all that they hold logits."""
    for each in runs:
        if missing := [name for name in ("average", "ids") if getattr(each, name) is None]:
            raise ValueError(f"{each.run} holds no {', '.join(missing)}: evaluate that run again with eval.py")
        if each.average != runs[0].average:
            raise ValueError(
                f"{runs[0].run} and {each.run} hold averages of {runs[0].average} and of {each.average}: "
                "evaluate one again with --average"
            )


def accuracy(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return top1, top5 and mean_class of scores (n, k) in percent. Among equal scores the first class wins."""
    hits = np.argsort(-scores, axis=1, kind="stable")[:, :5] == labels[:, None]
    sums = {
        "loss": np.nan,
        "top1": hits[:, 0].sum(),
        "top5": hits.sum(),
        "count": len(labels),
        "class_correct": np.bincount(labels[hits[:, 0]], minlength=scores.shape[1]),
        "class_count": np.bincount(labels, minlength=scores.shape[1]),
    }
    return {name: summarise(sums)[name] for name in METRICS}


if __name__ == "__main__":
    run(main)

"""Average the scores of several evaluated runs, such as those with 8 and 16 frames, and print the accuracy.

Examples:
    python -m motion_jax.tools.ensemble runs/demo/msnet_tsm_r18 runs/demo/selfynet_tsm_r18
    python -m motion_jax.tools.ensemble runs/demo/msnet_tsm_r18 runs/demo/selfynet_tsm_r18 --weights 1 2 --json

Evaluate every run first, with the same eval.average on the same videos: eval.py writes scores.npz into the workdir. The
scores are averaged as they are: probabilities for softmax, logits for logits.
"""

import dataclasses

import numpy as np
from etils import epath

from motion_jax.cli import Parser, add_runs, print_json, run, runs_of, table
from motion_jax.experiment import workdir_of
from motion_jax.training.metrics import summarise

METRICS = ("top1", "top5", "mean_class")


@dataclasses.dataclass(frozen=True)
class Scores:
    """The content of ``scores.npz`` of a run.

    Attributes:
        run: the workdir.
        scores: scores (n, k), averaged over the views of each video.
        labels: labels (n,).
        names: names of the classes (k,).
        ids: ids of the videos (n,).
        average: ``"softmax"`` if the scores are probabilities, or ``"logits"``.
    """

    run: str
    scores: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    ids: np.ndarray
    average: str


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


def read_scores(workdir: epath.Path) -> Scores:
    """Read the scores of an evaluated run from its workdir or a file; ValueError if there are none, or without ids."""
    path = workdir / "scores.npz" if workdir.is_dir() else workdir
    if not path.is_file():
        raise ValueError(f"there is no {path}: run python eval.py --workdir={workdir}")
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            held = dict(file)
    # NumPy raises many kinds of exceptions for a file that is cut off or of another kind.
    except Exception as error:
        raise ValueError(f"{path} is not what eval.py writes ({error}): evaluate that run again") from error
    if missing := {"scores", "labels", "names", "ids", "average"} - set(held):
        raise ValueError(f"{path} holds no {', '.join(sorted(missing))}: evaluate that run again with eval.py")
    return Scores(str(workdir), held["scores"], held["labels"], held["names"], held["ids"], str(held["average"].item()))


def check_comparable(runs: list[Scores]) -> None:
    """Raise a ValueError with the first difference of runs in their kind of average, classes, videos or labels."""
    first = runs[0]
    for other in runs[1:]:
        pair = f"{first.run} and {other.run}"
        if first.average != other.average:
            raise ValueError(
                f"{pair} hold averages of {first.average} and of {other.average}: evaluate one again with --average"
            )
        for what, field in (("classes", "names"), ("videos", "ids"), ("labels", "labels")):
            one, two = getattr(first, field), getattr(other, field)
            if len(one) != len(two):
                raise ValueError(f"{pair} have {len(one)} and {len(two)} {what}: evaluate both on the same split")
            if (different := np.flatnonzero(one != two)).size:
                at = different[0]
                raise ValueError(f"{pair} differ in their {what}: number {at} is {one[at]!s} and {two[at]!s}")


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

"""Average the scores of several evaluated runs, such as those of 8 and of 16 frames, and count their accuracy.

Examples:
    python -m motion_jax.tools.ensemble runs/msnet_8 runs/msnet_16
    python -m motion_jax.tools.ensemble runs/msnet_8 runs/msnet_16 --weights 1 2 --json

Every run must have been evaluated with the same eval.average on the same videos (eval.py writes scores.npz into its
workdir). Of softmax the probabilities are averaged, of logits the logits. Nothing is computed but the average.
"""

import dataclasses
import pathlib

import numpy as np

from motion_jax.cli import Parser, print_json, run, table

METRICS = ("top1", "top5", "mean_class")


@dataclasses.dataclass(frozen=True)
class Scores:
    """What ``scores.npz`` of a run holds.

    Attributes:
        run: the workdir.
        scores: (n, k), averaged over the views of each video.
        labels: (n,).
        names: of the classes (k,).
        ids: of the videos (n,).
        average: ``"softmax"``, the scores are probabilities, or ``"logits"``.
    """

    run: str
    scores: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    ids: np.ndarray
    average: str


def main() -> None:
    """Workdirs -> table."""
    parser = Parser(__doc__)
    parser.add_argument("runs", nargs="+", type=pathlib.Path, metavar="RUN", help="an evaluated run")
    parser.add_argument("--weights", nargs="+", type=float, metavar="W", help="one for each run; equal where left out")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    runs = [read_scores(workdir) for workdir in arguments.runs]
    weights = np.array(arguments.weights or [1.0] * len(runs))
    if len(weights) != len(runs) or not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(f"--weights: give {len(runs)} numbers, one for each run, none below 0 and one above")
    weights = weights / weights.sum()
    check_comparable(runs)
    single = [accuracy(each.scores, each.labels) for each in runs]
    together = accuracy(sum(weight * each.scores for weight, each in zip(weights, runs, strict=True)), runs[0].labels)
    rows = [
        (name, round(float(weight), 3), *(round(metrics[key], 2) for key in METRICS))
        for name, weight, metrics in zip(
            [*(each.run for each in runs), "ensemble"], [*weights, 1.0], [*single, together], strict=True
        )
    ]
    print(table(("run", "weight", *METRICS), rows))
    if arguments.json:
        described = [
            {"run": each.run, "weight": float(weight), **metrics}
            for each, weight, metrics in zip(runs, weights, single, strict=True)
        ]
        print_json(
            {"runs": described, "ensemble": together, "clips": len(runs[0].labels), "average": runs[0].average},
        )


def read_scores(workdir: pathlib.Path) -> Scores:
    """The scores of an evaluated run, from its workdir or a file of scores itself.

    Raises:
        ValueError: if there are none, or they do not say which videos they belong to.
    """
    path = workdir / "scores.npz" if workdir.is_dir() else workdir
    if not path.is_file():
        raise ValueError(f"there is no {path}: run python eval.py --workdir={workdir}")
    try:
        with path.open("rb") as stream, np.load(stream) as file:
            held = dict(file)
    # A file that is cut off, or another kind of file, surfaces as whatever the reader raises.
    except Exception as error:
        raise ValueError(f"{path} is not what eval.py writes ({error}): evaluate that run again") from error
    if missing := {"scores", "labels", "names", "ids", "average"} - set(held):
        raise ValueError(f"{path} holds no {', '.join(sorted(missing))}: evaluate that run again with eval.py")
    return Scores(str(workdir), held["scores"], held["labels"], held["names"], held["ids"], str(held["average"].item()))


def check_comparable(runs: list[Scores]) -> None:
    """Refuse scores that do not belong to the same classes and videos, in the same order, or are of two kinds.

    Raises:
        ValueError: naming the first difference.
    """
    first = runs[0]
    for other in runs[1:]:
        pair = f"{first.run} and {other.run}"
        if first.average != other.average:
            raise ValueError(
                f"{pair} hold averages of {first.average} and of {other.average}: evaluate one again with --average"
            )
        for what, one, two in (
            ("classes", first.names, other.names),
            ("videos", first.ids, other.ids),
            ("labels", first.labels, other.labels),
        ):
            if len(one) != len(two):
                raise ValueError(f"{pair} have {len(one)} and {len(two)} {what}: evaluate both on the same split")
            if (different := np.flatnonzero(one != two)).size:
                at = different[0]
                raise ValueError(f"{pair} differ in their {what}: number {at} is {one[at]!s} and {two[at]!s}")


def accuracy(scores: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """top1, top5 (label among the best ``min(5, k)``) and mean_class in percent; of equal scores the first class wins.

    Args:
        scores: (n, k).
        labels: (n,).
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :5]
    hits = best == labels[:, None]
    per_class = [hits[labels == label, 0].mean() for label in np.unique(labels)]
    return {
        "top1": 100 * float(hits[:, 0].mean()),
        "top5": 100 * float(hits.any(1).mean()),
        "mean_class": 100 * float(np.mean(per_class)),
    }


if __name__ == "__main__":
    run(main)

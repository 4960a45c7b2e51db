"""Reading evaluations: ``eval.json`` and ``scores.npz`` of a workdir, checked."""

import dataclasses
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from motion_jax.places import first_line

METRICS = ("top1", "top5", "mean_class", "clips")


@dataclasses.dataclass(frozen=True)
class Scores:
    """The content of ``scores.npz`` of a run.

    Attributes:
        run: the workdir.
        scores: scores (n, k), finite, averaged over the views of each video.
        labels: labels (n,), 0 to k - 1.
        names: names of the classes (k,).
        ids: ids of the videos (n,); None in files of older versions.
        average: ``"softmax"`` if the scores are probabilities, or ``"logits"``; None in files of older versions.
    """

    run: str
    scores: np.ndarray
    labels: np.ndarray
    names: np.ndarray
    ids: np.ndarray | None
    average: str | None


def read_scores(workdir: epath.Path) -> Scores:
    """Read the scores of an evaluated run from its workdir or its file.

    Raises:
        ValueError: if there is no such file, it is damaged, or its scores are not finite. The message names the file.
    """
    path = workdir / "scores.npz" if workdir.is_dir() else workdir
    if not path.is_file():
        raise ValueError(f"there is no {path}: run python eval.py --workdir={workdir}")
    again = "evaluate that run again with eval.py"
    try:
        with np.load(io.BytesIO(path.read_bytes())) as file:
            held = dict(file)
    # NumPy raises many kinds of exceptions for a file that is cut off or of another kind.
    except Exception as error:
        raise ValueError(f"{path} is not what eval.py writes ({first_line(error)}): {again}") from error
    if missing := {"scores", "labels", "names"} - set(held):
        raise ValueError(f"{path} holds no {', '.join(sorted(missing))}: {again}")
    scores, labels, names, ids, average = (held.get(name) for name in ("scores", "labels", "names", "ids", "average"))
    count, classes = labels.size, names.size
    sound = (
        scores.shape == (count, classes)
        and labels.shape == (count,)
        and names.shape == (classes,)
        and (ids is None or ids.shape == (count,))
        and (average is None or average.shape == ())
        and min(count, classes) > 0
        and np.issubdtype(scores.dtype, np.floating)
        and np.issubdtype(labels.dtype, np.integer)
    )
    if not sound:
        raise ValueError(f"{path} is not what eval.py writes (its shapes or types do not fit): {again}")
    if not np.isfinite(scores).all():
        raise ValueError(f"{path} holds scores that are not finite: train that run again from a sound state")
    return Scores(str(workdir), scores, labels, names, ids, None if average is None else str(average.item()))


def read_result(workdir: epath.Path) -> dict[str, Any]:
    """Read ``eval.json`` of a workdir: top1, top5, mean_class and clips as finite numbers, and protocol.

    Raises:
        ValueError: if there is no such file, or it is damaged. The message names the file.
    """
    path = workdir / "eval.json"
    if not path.is_file():
        raise ValueError(f"{workdir} has no eval.json: run python eval.py --workdir={workdir}")
    try:
        result = json.loads(path.read_bytes())
        numbers = [float(result[name]) for name in METRICS]
        if not all(map(math.isfinite, numbers)) or not isinstance(result["protocol"]["model"], str):
            raise ValueError("a value is not finite, or the model has no name")
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{path} is not what eval.py writes ({first_line(error)}): evaluate that run again with eval.py"
        ) from error
    return result


def check_comparable(runs: Sequence[Scores]) -> None:
    """Check that runs were evaluated on the same videos, whose labels are numbers of classes.

    Raises:
        ValueError: with the first difference in classes, videos or labels, or a label that is no class.
    """
    first = runs[0]
    for other in runs[1:]:
        pair = f"{first.run} and {other.run}"
        for what, field in (("classes", "names"), ("videos", "ids"), ("labels", "labels")):
            one, two = getattr(first, field), getattr(other, field)
            if one is None or two is None:
                continue
            if len(one) != len(two):
                raise ValueError(f"{pair} have {len(one)} and {len(two)} {what}: evaluate both on the same split")
            if (different := np.flatnonzero(one != two)).size:
                at = different[0]
                raise ValueError(f"{pair} differ in their {what}: number {at} is {one[at]!s} and {two[at]!s}")
    if first.labels.min() < 0 or first.labels.max() >= len(first.names):
        raise ValueError(f"{first.run}: scores.npz holds labels that are none of its {len(first.names)} classes")

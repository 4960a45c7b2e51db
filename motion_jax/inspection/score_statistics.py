"""Statistics of an evaluation: confidence intervals, calibration and confusion of classes."""

import dataclasses
import math
import statistics

import numpy as np

LEVEL = 0.95
"""Coverage of every confidence interval."""
_Z = statistics.NormalDist().inv_cdf((1 + LEVEL) / 2)
_DRAWS = 10_000


def wilson(correct: np.ndarray | int, count: np.ndarray | int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower and the upper end of Wilson's interval of an accuracy, in percent; 0 and 100 without clips.

    Args:
        correct: numbers of clips that are right.
        count: numbers of clips.

    Source: Wilson, Probable inference, the law of succession, and statistical inference (JASA 1927).

    >>> [round(float(end), 2) for end in wilson(8, 10)]
    [49.02, 94.33]
    """
    correct, count = np.asarray(correct, np.float64), np.asarray(count, np.float64)
    n = np.maximum(count, 1)
    share = correct / n
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2))
    low, high = np.where(count > 0, centre - half, 0), np.where(count > 0, centre + half, 1)
    return 100 * np.clip(low, 0, 1), 100 * np.clip(high, 0, 1)


def bootstrap_mean(values: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Return the interval of a mean over clips, by the percentile bootstrap with 10,000 draws.

    For a paired difference, give one difference per clip.

    Args:
        values: (n,), of few different values, such as -1, 0 and 1.
        seed: seed of the draws.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 13.3.

    >>> bootstrap_mean(np.array([1, 1, 1]))
    (1.0, 1.0)
    """
    levels, counts = np.unique(values, return_counts=True)
    # The numbers of times that each level is drawn with replacement are multinomial.
    drawn = np.random.default_rng(seed).multinomial(counts.sum(), counts / counts.sum(), size=_DRAWS)
    return _ends(drawn @ levels.astype(np.float64) / counts.sum())


def bootstrap_mean_class(correct: np.ndarray, count: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Return the interval of the mean-class accuracy in percent, with clips drawn within each class.

    Args:
        correct, count: numbers of clips per class (k,); classes without clips do not count.
        seed: seed of the draws.
    """
    correct, count = np.asarray(correct)[np.asarray(count) > 0], np.asarray(count)[np.asarray(count) > 0]
    drawn = np.random.default_rng(seed).binomial(count, correct / count, size=(_DRAWS, len(count)))
    return _ends(100 * (drawn / count).mean(axis=1))


def _ends(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def probabilities(scores: np.ndarray, average: str | None) -> np.ndarray | None:
    """Return scores (n, k) as probabilities in float64, or None if their kind is not known.

    Args:
        scores: averaged over the views of each clip.
        average: ``"softmax"`` if they are probabilities, ``"logits"``, or None for files that do not say.
    """
    scores = np.asarray(scores, np.float64)
    if average == "softmax":
        return scores
    if average == "logits":
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)
    return None


@dataclasses.dataclass(frozen=True)
class Reliability:
    """Calibration of the most probable class, in bins of equal width.

    Attributes:
        count: clips per bin (bins,).
        confidence: mean probability of the chosen class per bin (bins,); the middle of an empty bin.
        accuracy: share of right clips per bin (bins,); 0 in an empty bin.
        error: expected calibration error, the mean of ``|accuracy - confidence|`` over the clips.
    """

    count: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def reliability(confidence: np.ndarray, right: np.ndarray, *, bins: int = 15) -> Reliability:
    """Sort clips into bins ``(i / bins, (i + 1) / bins]`` of confidence and compare with their accuracy.

    Args:
        confidence: probability of the chosen class (n,).
        right: whether the chosen class is right (n,).
        bins: number of bins.

    Source: Guo et al., On Calibration of Modern Neural Networks (ICML 2017), equations 2 to 5.

    >>> round(reliability(np.array([0.9, 0.8]), np.array([True, False]), bins=1).error, 2)
    0.35
    """
    at = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(at, minlength=bins)
    some = np.maximum(count, 1)
    means = np.where(count, np.bincount(at, confidence, bins) / some, (np.arange(bins) + 0.5) / bins)
    accuracy = np.bincount(at, right, bins) / some
    return Reliability(count, means, accuracy, float(count @ abs(accuracy - means) / max(count.sum(), 1)))


def confusion(labels: np.ndarray, predicted: np.ndarray, *, classes: int) -> np.ndarray:
    """Count clips by label and predicted class: (k, k) with the label first.

    >>> confusion(np.array([0, 0, 1]), np.array([0, 1, 1]), classes=2).tolist()
    [[1, 1], [0, 1]]
    """
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes)


def most_confused(matrix: np.ndarray, *, most: int = 10) -> list[tuple[int, int, int]]:
    """Return up to ``most`` pairs ``(label, predicted, clips)`` off the diagonal, most frequent first.

    >>> most_confused(np.array([[5, 1, 0], [3, 2, 0], [0, 0, 9]]))
    [(1, 0, 3), (0, 1, 1)]
    """
    wrong = matrix * (1 - np.eye(len(matrix), dtype=matrix.dtype))
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [(int(label), int(chosen), int(wrong[label, chosen])) for label, chosen in pairs if wrong[label, chosen]]


def thinned(steps: np.ndarray, values: np.ndarray, *, most: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """Return at most ``most`` points of a curve, with the lowest and the highest of each group of neighbours.

    The first and the last point are kept. A curve of no more points is returned as it is.

    >>> steps, values = thinned(np.arange(1000), np.where(np.arange(1000) == 501, 9, 0), most=20)
    >>> len(steps) <= 20, int(values.max()), steps[[0, -1]].tolist()
    (True, 9, [0, 999])
    """
    if len(steps) <= most:
        return steps, values
    groups = np.array_split(np.arange(len(steps)), max(1, math.floor((most - 2) / 2)))
    chosen = {0, len(steps) - 1}
    for group in groups:
        chosen |= {int(group[values[group].argmin()]), int(group[values[group].argmax()])}
    kept = np.array(sorted(chosen))
    return steps[kept], values[kept]

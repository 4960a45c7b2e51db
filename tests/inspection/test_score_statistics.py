"""Statistics of evaluations against slow twins."""

import math

import numpy as np
import pytest

from motion_jax.inspection import score_statistics as found


def wilson_by_bisection(correct, count, *, upper):
    """Find the accuracy p whose normal interval around p ends at the measured share."""
    share, inside = correct / count, correct / count
    outside = 1.0 if upper else 0.0
    for _ in range(200):
        p = (inside + outside) / 2
        if abs(share - p) <= found._Z * math.sqrt(p * (1 - p) / count):
            inside = p
        else:
            outside = p
    return 100 * inside


@pytest.mark.parametrize(("correct", "count"), [(0, 5), (5, 5), (8, 10), (500, 1200), (1, 1)])
def test_wilson_solves_its_equation(correct, count):
    low, high = found.wilson(correct, count)
    assert low == pytest.approx(wilson_by_bisection(correct, count, upper=False), abs=1e-6)
    assert high == pytest.approx(wilson_by_bisection(correct, count, upper=True), abs=1e-6)


def test_wilson_of_classes_without_clips():
    low, high = found.wilson(np.array([0, 3]), np.array([0, 4]))
    assert (low[0], high[0]) == (0, 100)
    assert 0 < low[1] < 75 < high[1] < 100


@pytest.mark.parametrize("shares", [(0.1, 0.6, 0.3), (0.0, 0.5, 0.5)])
def test_the_bootstrap_draws_clips_with_replacement(shares):
    rng = np.random.default_rng(1)
    values = rng.choice([-1, 0, 1], size=120, p=shares)
    means = [values[rng.integers(0, 120, 120)].mean() for _ in range(20_000)]
    slow = np.quantile(means, (0.025, 0.975))
    assert found.bootstrap_mean(values) == pytest.approx(slow, abs=1 / 120)
    assert found.bootstrap_mean(values) == found.bootstrap_mean(values, seed=0)
    low, high = found.bootstrap_mean(values)
    assert low < values.mean() < high


def test_the_bootstrap_of_mean_class_draws_within_classes():
    rng = np.random.default_rng(2)
    right = [rng.random(count) < share for count, share in ((40, 0.9), (8, 0.4), (90, 0.7))]
    correct, count = [each.sum() for each in right], [len(each) for each in right]
    means = [
        100 * np.mean([each[rng.integers(0, len(each), len(each))].mean() for each in right]) for _ in range(10_000)
    ]
    found_ends = found.bootstrap_mean_class([*correct, 0], [*count, 0])
    assert found_ends == pytest.approx(np.quantile(means, (0.025, 0.975)), abs=1.0)


def test_probabilities_of_each_kind_of_scores(rng):
    logits = rng.standard_normal((5, 3)) * 300
    softmax = found.probabilities(logits, "logits")
    np.testing.assert_allclose(softmax.sum(1), 1)
    assert (softmax.argmax(1) == logits.argmax(1)).all()
    np.testing.assert_array_equal(found.probabilities(softmax, "softmax"), softmax)
    assert found.probabilities(logits, None) is None


def test_reliability_clip_by_clip(rng):
    confidence = np.concatenate([rng.uniform(0.2, 1, 200), [0.5, 1.0, 0.2]])
    right = rng.random(203) < confidence**2
    result = found.reliability(confidence, right, bins=5)
    bins = [[] for _ in range(5)]
    for value, hit in zip(confidence, right, strict=True):
        bins[next(i for i in range(5) if value <= (i + 1) / 5)].append((value, hit))
    error = 0.0
    for i, inside in enumerate(bins):
        assert result.count[i] == len(inside)
        if not inside:
            assert (result.confidence[i], result.accuracy[i]) == ((i + 0.5) / 5, 0)
            continue
        means = np.mean([value for value, _ in inside]), np.mean([hit for _, hit in inside])
        assert (result.confidence[i], result.accuracy[i]) == pytest.approx(means)
        error += len(inside) / 203 * abs(means[0] - means[1])
    assert result.error == pytest.approx(error)


def test_confusion_clip_by_clip(rng):
    labels, predicted = rng.integers(0, 7, (2, 300))
    slow = np.zeros((7, 7), int)
    for label, chosen in zip(labels, predicted, strict=True):
        slow[label, chosen] += 1
    matrix = found.confusion(labels, predicted, classes=7)
    np.testing.assert_array_equal(matrix, slow)
    pairs = found.most_confused(matrix, most=50)
    assert len(pairs) == 42
    assert [count for *_, count in pairs] == sorted(slow[i, j] for i in range(7) for j in range(7) if i != j)[::-1]
    assert all(slow[label, chosen] == count for label, chosen, count in pairs)


def test_thinned_curves_keep_their_extremes(rng):
    steps, values = np.arange(100_000) * 10, rng.standard_normal(100_000)
    some, kept = found.thinned(steps, values, most=400)
    assert len(some) <= 400
    assert (np.diff(some) > 0).all()
    assert (kept.min(), kept.max(), kept[0], kept[-1]) == (values.min(), values.max(), values[0], values[-1])
    np.testing.assert_array_equal(values[some // 10], kept)
    assert len(found.thinned(steps[:400], values[:400])[0]) == 400

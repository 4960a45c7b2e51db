"""tools.ensemble: averages by hand, and errors for runs that do not match."""

import re

import numpy as np
import pytest
from bench import call, error_of, last_json

from motion_jax.tools import ensemble
from motion_jax.training.evaluation import write_evaluation

NAMES = ("a", "b", "c")
LABELS = np.array([0, 1, 2, 2])
# The first run is right on videos 0 and 1, the second on 1 and 2, their mean on 0, 1 and 2.
ONE = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.5, 0.1, 0.4], [0.8, 0.1, 0.1]], np.float32)
TWO = np.array([[0.3, 0.6, 0.1], [0.0, 1.0, 0.0], [0.0, 0.1, 0.9], [0.9, 0.0, 0.1]], np.float32)


def run_of(workdir, scores, *, labels=LABELS, names=NAMES, ids=("v0", "v1", "v2", "v3"), average="softmax"):
    metrics = {"top1": 0.0, "top5": 0.0, "mean_class": 0.0, "clips": len(labels)}
    protocol = {"average": average}
    write_evaluation(
        workdir, metrics=metrics, scores=scores, labels=labels, label_names=names, ids=ids, protocol=protocol
    )
    return workdir


@pytest.fixture
def two(tmp_path):
    return run_of(tmp_path / "one", ONE), run_of(tmp_path / "two", TWO)


def averaged(*arguments):
    done = call("ensemble", *arguments, "--json")
    return done.stdout.splitlines()[:-1], last_json(done)


def test_by_hand(two):
    table, result = averaged(*two)
    assert [each["top1"] for each in result["runs"]] == [50, 50]
    # Classes 0, 1 and 2 have 1, 1 and 2 videos.
    assert [each["mean_class"] for each in result["runs"]] == pytest.approx([200 / 3, 50])
    assert result["ensemble"] == {"top1": 75, "top5": 100, "mean_class": pytest.approx(250 / 3)}
    assert (result["clips"], result["average"]) == (4, "softmax")
    assert [each["weight"] for each in result["runs"]] == [0.5, 0.5]
    assert len(table) == 5
    assert table[-1].split() == ["ensemble", "1.0", "75.0", "100.0", "83.33"]


def test_weights(two):
    _, result = averaged(*two, "--weights", 1, 3)
    assert [each["weight"] for each in result["runs"]] == [0.25, 0.75]
    # Video 0: .25 * .9 + .75 * .3 < .25 * .1 + .75 * .6.
    assert result["ensemble"]["top1"] == 50
    _, result = averaged(*two, "--weights", 1, 0)
    assert result["ensemble"] == {key: result["runs"][0][key] for key in ensemble.METRICS}


def test_a_run_with_itself_is_itself(two):
    _, result = averaged(two[0], two[0], f"--checkpoint={two[0]}")
    assert result["ensemble"] == {key: result["runs"][0][key] for key in ensemble.METRICS}


def test_accuracy_counts_the_best_five(rng):
    scores, labels = rng.normal(size=(200, 9)), rng.integers(0, 9, 200)
    got = ensemble.accuracy(scores, labels)
    rank = (scores > scores[np.arange(200), labels][:, None]).sum(1)
    assert got["top1"] == pytest.approx(100 * np.mean(rank < 1))
    assert got["top5"] == pytest.approx(100 * np.mean(rank < 5))
    assert got["mean_class"] == pytest.approx(100 * np.mean([np.mean(rank[labels == k] < 1) for k in range(9)]))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"average": "logits"}, r"hold averages of softmax and of logits: evaluate one again with --average"),
        ({"names": ("a", "c", "b")}, r"differ in their classes: number 1 is b and c"),
        ({"ids": ("v0", "v2", "v1", "v3")}, r"differ in their videos: number 1 is v1 and v2"),
        ({"labels": np.array([0, 1, 2, 1])}, r"differ in their labels: number 3 is 2 and 1"),
        (
            {"scores": TWO[:3], "labels": LABELS[:3], "ids": ("v0", "v1", "v2")},
            r"have 4 and 3 videos: evaluate both on the same split",
        ),
        ({"scores": TWO[:, :2], "names": ("a", "b")}, r"have 3 and 2 classes"),
    ],
)
def test_runs_that_do_not_match(tmp_path, changes, says):
    one = run_of(tmp_path / "one", ONE)
    two = run_of(tmp_path / "two", **{"scores": TWO, **changes})
    assert re.search(rf"one and .*two {says}", error_of(call("ensemble", one, two)))


@pytest.mark.parametrize("weights", [(1,), (1, 2, 3), (0, 0), (1, -1), (1, "nan")])
def test_wrong_weights(two, weights):
    assert "--weights: give 2 numbers" in error_of(call("ensemble", *two, "--weights", *weights))


def test_runs_that_were_not_evaluated(tmp_path, two):
    assert "give one or more runs" in error_of(call("ensemble"))
    says = r"there is no .*scores\.npz: run python eval\.py --workdir="
    assert re.search(says, error_of(call("ensemble", tmp_path, two[0])))
    np.savez(tmp_path / "old.npz", scores=ONE, labels=LABELS, names=NAMES)
    says = "old.npz holds no average, ids: evaluate that run again"
    assert says in error_of(call("ensemble", two[0], tmp_path / "old.npz"))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "old.npz").read_bytes()[:100])
    np.save(tmp_path / "other.npy", ONE)
    for name in ("cut.npz", "other.npy"):
        assert f"{name} is not what eval.py writes" in error_of(call("ensemble", two[0], tmp_path / name))

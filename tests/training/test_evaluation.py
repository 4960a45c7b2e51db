"""Evaluation of a split: order, masks, repeated clips, files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from motion_jax.training import parallel as par
from motion_jax.training.evaluation import EvalConfig, evaluate_model, write_evaluation


class Pixels(nn.Module):
    """Network whose logits are the first row of pixels."""

    @nn.compact
    def __call__(self, clips, *, train):
        del train
        return clips[:, 0, 0, :, 0].astype(jnp.float32)


def split(rng, n=11, k=6):
    return rng.normal(size=(n, 2, 1, 1, k, 1)).astype(np.float32), rng.integers(0, k, n).astype(np.int32)


def batches(clips, labels, order, batch_size=4):
    for first in range(0, len(order), batch_size):
        index = np.array(order[first : first + batch_size])
        rows = np.concatenate([index, np.zeros(batch_size - len(index), np.int64)])
        mask = np.arange(batch_size) < len(index)
        yield {"clips": clips[rows], "label": labels[rows], "mask": mask, "index": rows}


def run(clips, labels, order, backend="pmap"):
    return evaluate_model(
        Pixels(),
        {"params": {}, "batch_stats": {}},
        batches(clips, labels, order),
        section=EvalConfig(batch_size=4, clips=2, crops=1, average="logits", full_resolution=False),
        parallel=par.ParallelConfig(backend=backend, devices=4),
    )


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_every_clip_counts_once_in_order_of_index(rng, backend):
    clips, labels = split(rng)
    metrics, scores, got_labels = run(clips, labels, rng.permutation(11).tolist(), backend)
    np.testing.assert_array_equal(got_labels, labels)
    logits = clips[:, :, 0, 0, :, 0].mean(1)
    np.testing.assert_allclose(scores, logits, rtol=1e-6)
    assert metrics["clips"] == 11
    assert metrics["top1"] == pytest.approx(100 * np.mean(logits.argmax(1) == labels))
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(11), labels]
    assert metrics["loss"] == pytest.approx(losses.mean(), rel=1e-5)
    per_class = [np.mean(logits.argmax(1)[labels == c] == c) for c in np.unique(labels)]
    assert metrics["mean_class"] == pytest.approx(100 * np.mean(per_class))


def test_a_repeated_clip_is_an_error(rng):
    clips, labels = split(rng)
    with pytest.raises(ValueError, match="clip 3 of the split came 2 times"):
        run(clips, labels, [0, 1, 2, 3, 3])


def test_an_empty_split_is_an_error(rng):
    with pytest.raises(ValueError, match="the split is empty"):
        run(*split(rng), [])


def test_an_indivisible_batch_is_an_error():
    section = EvalConfig(batch_size=6, clips=2, crops=1, average="logits", full_resolution=False)
    with pytest.raises(ValueError, match=r"eval.batch_size is 6, .* set it to 4 or 8"):
        evaluate_model(Pixels(), {}, [], section=section, parallel=par.ParallelConfig(backend="pmap", devices=4))


def test_files(tmp_path, rng):
    metrics = {"loss": 1.0, "top1": 50.0, "top5": 75.0, "mean_class": 40.0, "clips": 4}
    scores = rng.normal(size=(4, 2)).astype(np.float32)
    protocol = {"clips": 2, "crops": 1, "average": "softmax"}
    path = write_evaluation(
        tmp_path / "new",
        metrics=metrics,
        scores=scores,
        labels=np.array([0, 1, 1, 0]),
        label_names=("up", "down"),
        ids=["b/2", "a/1", "ä", "c"],
        protocol=protocol,
    )
    assert json.loads(path.read_text()) == {
        "top1": 50.0,
        "top5": 75.0,
        "mean_class": 40.0,
        "clips": 4,
        "protocol": protocol,
    }
    with np.load(path.parent / "scores.npz") as file:
        np.testing.assert_array_equal(file["scores"], scores)
        assert file["names"].tolist() == ["up", "down"]
        assert file["ids"].tolist() == ["b/2", "a/1", "ä", "c"]
        assert file["average"].item() == "softmax"
    assert sorted(p.name for p in path.parent.iterdir()) == ["eval.json", "scores.npz"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clips": 0}, "eval.clips is 0"),
        ({"crops": 2}, r"eval.crops is 2, expected 1 \(centre\) or 3"),
        ({"average": "max"}, "eval.average is 'max'"),
        ({"batch_size": 0}, "batch_size"),
    ],
)
def test_section_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        EvalConfig(
            **{"batch_size": 4, "clips": 1, "crops": 1, "average": "softmax", "full_resolution": False, **changes}
        )


def test_scores_are_numpy(rng):
    _, scores, labels = run(*split(rng), list(range(11)))
    assert not isinstance(scores, jax.Array)
    assert not isinstance(labels, jax.Array)

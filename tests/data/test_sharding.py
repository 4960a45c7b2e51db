"""Who reads which clip: shares of several processes, stopping and resuming, by the clips' own numbers."""

import numpy as np
import pytest

from motion_jax.configs.moving_shapes import get_config
from motion_jax.data.pipeline import DataConfig, eval_batches, open_dataset, train_batches

TRAIN, VAL = 24, 7


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("prepared"))
    section = {**get_config().data, "size": 32, "clips": (TRAIN, VAL), "crop": "multi_scale"}
    return lambda **changes: open_dataset(DataConfig(**{**section, **changes}), default_dir=folder)


def shares(make, count: int, *, steps: int | None = None) -> list[list[dict]]:
    """The batches of each of ``count`` processes."""
    taken = []
    for process in range(count):
        batches = make(process_index=process, process_count=count)
        taken.append([next(batches) for _ in range(steps)] if steps else list(batches))
        batches.close()
    return taken


def joined(parts: list[list[dict]]) -> list[dict]:
    """The global batches of which processes hold shares."""
    return [
        {name: np.concatenate([part[name] for part in step]) for name in step[0]} for step in zip(*parts, strict=True)
    ]


def order(batches: list[dict]) -> list[int]:
    return [int(index) for batch in batches for index in batch["index"]]


@pytest.mark.parametrize("count", [2, 4])
def test_training_shares_are_disjoint_and_complete(opened, count):
    dataset = opened()
    parts = shares(lambda **share: train_batches(dataset, batch_size=8, seed=5, **share), count, steps=6)
    for epoch in (slice(0, 3), slice(3, 6)):  # 24 clips in batches of 8.
        seen = [set(order(part[epoch])) for part in parts]
        assert sum(len(own) for own in seen) == len(set.union(*seen)) == TRAIN


@pytest.mark.parametrize("count", [2, 4])
def test_evaluation_is_the_same_however_many_processes(opened, count):
    """Seven clips in batches of four: the last is filled up, in the share of the last process alone."""
    dataset = opened()
    parts = shares(lambda **share: eval_batches(dataset, batch_size=4, clips=2, **share), count)
    (whole,) = shares(lambda **share: eval_batches(dataset, batch_size=4, clips=2, **share), 1)
    assert len(whole) == 2
    for ours, theirs in zip(joined(parts), whole, strict=True):
        assert set(ours) == set(theirs)
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    seen = [set(order(part)) - {-1} for part in parts]
    assert sum(len(own) for own in seen) == len(set.union(*seen)) == VAL


@pytest.mark.parametrize("stop", [1, 2, 3, 5])
@pytest.mark.parametrize(("batch_size", "steps"), [(8, 9), (20, 6)])
@pytest.mark.parametrize(("before", "after"), [(1, 1), (2, 4), (4, 2)])
def test_stopped_and_resumed_every_epoch_is_whole(opened, stop, batch_size, steps, before, after):
    """Stopped within epochs of 24 clips and at their ends, by batches that fit and others; processes may change."""
    dataset = opened()

    def part(start: int, end: int, count: int) -> list[dict]:
        def make(**share):
            return train_batches(dataset, batch_size=batch_size, seed=1, start_step=start, **share)

        return joined(shares(make, count, steps=end - start))

    stream = order(part(0, stop, before) + part(stop, steps, after))
    for epoch in np.reshape(stream, (-1, TRAIN)):
        assert sorted(epoch) == list(range(TRAIN))


def test_worker_processes_resume_where_others_stopped(opened):
    """Two worker processes go on from threads, across the end of an epoch; each clip is the same, pixel by pixel."""
    whole = train_batches(opened(), batch_size=10, seed=2)
    expected = [next(whole) for _ in range(6)]
    whole.close()
    (rest,) = shares(
        lambda **share: train_batches(opened(processes=2, threads=1), batch_size=10, seed=2, start_step=1, **share),
        1,
        steps=5,
    )
    for ours, theirs in zip(rest, expected[1:], strict=True):
        for name in theirs:
            np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name)
    stream = order(expected[:1] + rest)
    assert sorted(stream[:TRAIN]) == sorted(stream[TRAIN : 2 * TRAIN]) == list(range(TRAIN))

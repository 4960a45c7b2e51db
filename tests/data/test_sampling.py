import json

import numpy as np
import pytest

from motion_jax.data.clips import sampling


@pytest.fixture(scope="module")
def golden(request) -> dict:
    folder = request.path.parent.parent / "goldens"
    return json.loads((folder / "sampling.json").read_text())


def _official(num_frames: int):
    """The goldens' draws: NumPy's old generator, seeded with the number of frames."""
    return np.random.RandomState(num_frames).randint


@pytest.mark.parametrize("segments", [8, 16])
@pytest.mark.parametrize(
    ("mode", "split", "sample"),
    [
        ("mode1", "train_npseed_eq_num_frames", lambda n, s: sampling.segment_train(n, s, draw=_official(n))),
        ("mode1", "test", lambda n, s: sampling.segment_test(n, s, clips=1)[0]),
        ("mode0", "train_npseed_eq_num_frames", lambda n, s: sampling.dense_train(n, s, draw=_official(n))),
        ("mode0", "val", lambda n, s: sampling.dense_train(n, s, draw=lambda k: 0)),
        ("mode0", "test", lambda n, s: sampling.dense_test(n, s, clips=10).ravel()),
    ],
)
def test_official_indices(golden, mode, split, sample, segments):
    lists = golden[f"{mode}_seg{segments}"][split]
    assert len(lists) >= 65
    for num_frames, expected in lists.items():
        # The goldens count from 1.
        assert (sample(int(num_frames), segments) + 1).tolist() == expected, num_frames


def test_segment_test_by_hand():
    assert sampling.segment_test(40, 8, clips=1).tolist() == [[2, 7, 12, 17, 22, 27, 32, 37]]
    assert sampling.segment_test(40, 8, clips=2).tolist() == [
        [2, 7, 12, 17, 22, 27, 32, 37],
        [0, 5, 10, 15, 20, 25, 30, 35],
    ]
    assert sampling.segment_test(3, 8, clips=1).tolist() == [[0, 0, 0, 1, 1, 2, 2, 2]]
    assert sampling.segment_test(8, 8, clips=1).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_segment_train_by_hand():
    assert sampling.segment_train(8, 8, draw=lambda k: k - 1).tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    assert sampling.segment_train(31, 8, draw=lambda k: k - 1).tolist() == [2, 5, 8, 11, 14, 17, 20, 23]
    assert sampling.segment_train(7, 8, draw=lambda k: k - 1).tolist() == [0] * 8


def test_dense_by_hand():
    assert sampling.dense_train(64, 8, draw=lambda k: 1 / 0).tolist() == [0, 8, 16, 24, 32, 40, 48, 56]
    assert sampling.dense_train(20, 8, draw=lambda k: 1 / 0).tolist() == [0, 8, 16, 4, 12, 0, 8, 16]
    assert sampling.dense_test(84, 4, clips=1).tolist() == [[10, 26, 42, 58]]
    assert sampling.dense_test(84, 4, clips=3)[:, 0].tolist() == [0, 10, 20]


def test_draws_cover_the_video(rng):
    seen = {int(i) for _ in range(200) for i in sampling.segment_train(16, 4, draw=rng.integers)}
    assert seen == set(range(16))
    starts = {int(sampling.dense_train(70, 8, draw=rng.integers)[0]) for _ in range(200)}
    assert starts == set(range(6))


@pytest.mark.parametrize(("frames", "segments"), [(0, 8), (9, 0)])
def test_impossible_requests(frames, segments):
    with pytest.raises(ValueError, match=r"cannot be sampled|at least 1"):
        sampling.segment_test(frames, segments, clips=1)


def test_more_frames_than_the_window():
    with pytest.raises(ValueError, match=r"at most 64"):
        sampling.dense_test(100, 65, clips=1)

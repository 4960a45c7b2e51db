"""A network's displacement beside the truth and beside optical flow: known answers."""

import dataclasses

import numpy as np
import pytest
from drawn_clips import comparison

from motion_jax.inspection import motion_errors
from motion_jax.inspection.motion_errors import agreement, agreement_verdict, beside_flow, beside_truth, verdict

GRID = (4, 6)
CLIP = np.zeros((4, 32, 48, 3), np.uint8)


def moved(right, *, frames=4):
    """Noise of large patches that moves to the right."""
    rng = np.random.default_rng(0)
    frame = np.kron(rng.integers(0, 256, (16, 24, 1)), np.ones((4, 4, 3))).astype(np.uint8)
    return np.stack([np.roll(frame, right * t, axis=1) for t in range(frames)])


def test_errors_beside_the_truth():
    motion = comparison(offsets=(-1, 0, 1))
    motion.expected[...] = (3, 0)
    moving = np.zeros((3, *GRID), bool)
    moving[:, 1] = True
    row = beside_truth(motion, CLIP, displacement=np.full((3, *GRID, 2), (3.0, 4.0)), moving=moving)
    assert row["found"].shape == row["dis"].shape == (3, *GRID, 2)
    found = motion_errors.errors([row, row])
    assert found["clips"] == 2
    assert (found["epe"], found["motion"], found["ratio"]) == pytest.approx((4, 5, 0.8))
    assert found["dis"] == pytest.approx(5)  # Nothing moves in the frames.


def test_a_block_that_looks_back_is_compared_with_the_motion_back():
    motion = comparison(offsets=(-1,))
    motion.expected[...] = (-3, 0)
    moving = np.ones((3, *GRID), bool)
    moving[2, 0] = False
    truth = np.zeros((3, *GRID, 2))
    truth[..., 0] = np.array([3, 3, 7])[:, None, None]
    row = beside_truth(motion, moved(2)[:, :32, :48], displacement=truth, moving=moving)
    assert row["found"].shape == (2, *GRID, 2)  # Frames 1 and 2.
    assert motion_errors.errors([row])["epe"] == 0
    assert not row["moving"][1, 0].any()
    assert np.median(row["dis"][..., 0]) == pytest.approx(-2, abs=0.1)


def test_confidence_of_any_size_weighs_cells():
    motion = comparison(offsets=(0, 1), size=(8, 12))
    motion = dataclasses.replace(motion, confidence=1000 * motion.confidence)
    known = {"displacement": np.zeros((3, *GRID, 2)), "moving": np.ones((3, *GRID), bool)}
    assert np.isfinite(beside_truth(motion, CLIP, flows=(), **known)["found"]).all()


def test_a_map_with_fewer_frames_has_no_error():
    motion = dataclasses.replace(comparison(), frames=np.array([0, 4]))
    known = {"displacement": np.zeros((3, *GRID, 2)), "moving": np.ones((3, *GRID), bool)}
    with pytest.raises(ValueError, match="compares 2 frames of a clip of 4"):
        beside_truth(motion, CLIP, **known)


def row_of(error, *, zero=2.0):
    truth = np.full((1, 1, 1, 2), (zero, 0.0))
    return {"found": truth + np.array([error, 0]), "truth": truth, "moving": np.ones((1, 1, 1), bool)}


def test_better_than_none_is_beyond_chance():
    assert motion_errors.is_better_than_none([row_of(0.5), row_of(1.0), row_of(0.7)])
    assert not motion_errors.is_better_than_none([row_of(3.0), row_of(2.5)])
    # Better on average, but not beyond twice the standard error.
    assert not motion_errors.is_better_than_none([row_of(0.1), row_of(3.8), row_of(0.2), row_of(3.6)])


def ratios(*values):
    return {cells: {"ratio": ratio} for cells, ratio in enumerate(values, start=1)}


@pytest.mark.parametrize(
    ("by_cells", "says"),
    [
        (ratios(0.2, 0.3, 0.4, 0.8), "follows speeds up to 3 cells, the reach of its window."),
        (ratios(0.2, 0.6, 0.4), "follows speeds up to 1 cell; its window reaches 3 cells."),
        (ratios(0.2, 0.3), "follows speeds up to 2 cells; the fastest that was measured."),
        ({}, "The map has too few cells to measure speeds."),
        (ratios(0.9, 0.3), "follows no speed, not even 1 cell; its window reaches 3 cells."),
    ],
)
def test_the_verdict_tells_which_speeds_are_followed(by_cells, says):
    levels = [{"epe": 4.0}, {"epe": 0.5}]
    text = verdict({"translations": True, "zooms": True, "rotations": False}, by_cells, reach=3, levels=levels)
    assert text.startswith("The displacement is better than none on translations and zooms, not on rotations. ")
    assert says in text
    assert text.endswith("The most confident cells err by 0.5 px, the least confident by 4.0 px.")
    assert "not better than none on any" in verdict({"zooms": False}, by_cells, reach=3, levels=levels)


@pytest.mark.parametrize("offsets", [(-1, 0, 1), (-1,)])
def test_agreement_with_flow_on_video(offsets):
    clip = moved(3)
    sign = 1 if 1 in offsets else -1
    motion = comparison(offsets=offsets, size=(8, 12))
    motion.expected[...] = (3 * sign, 0)
    row = beside_flow(motion, clip)
    assert 0.5 < row["passes"] < 1  # Not where patches leave the frame.
    inner = row["flow"][:, 2:6, 3:9]
    np.testing.assert_allclose(inner, np.broadcast_to((3 * sign, 0), inner.shape), atol=0.2)
    found = agreement([row])
    assert found["pairs"] == 3
    assert found["moving"]["found"]["distance"] < 0.5
    assert found["moving"]["found"]["angle"] < 5
    assert found["moving"]["zero"]["distance"] == pytest.approx(3, abs=0.3)
    assert found["moving"]["zero"]["angle"] is None


def test_shuffled_pairs_do_not_agree():
    rng = np.random.default_rng(0)
    flow = rng.normal(0, 4, (40, 4, 6, 2))
    valid = np.ones(flow.shape[:3], bool)
    rows = [
        {"found": each + 0.5, "flow": each, "valid": mask, "passes": np.array(0.8)}
        for each, mask in zip(np.split(flow, 4), np.split(valid, 4), strict=True)
    ]
    found = agreement(rows)
    assert (found["clips"], found["pairs"], found["passes"]) == (4, 40, pytest.approx(0.8))
    assert found["all"]["cells"] == valid.size
    assert found["moving"]["cells"] == (np.linalg.norm(flow, axis=-1) >= 1).sum()
    moving = found["moving"]
    assert moving["found"]["correlation"] > 0.98
    assert abs(moving["shuffled"]["correlation"]) < 0.1
    assert 80 < moving["shuffled"]["angle"] < 100
    assert "depends on the motion of its own frames" in agreement_verdict(found)
    assert "is nearer to the flow than no motion" in agreement_verdict(found)
    still = agreement([{**rows[0], "flow": 0 * rows[0]["flow"]}])
    assert still["moving"]["found"]["distance"] is None
    assert "no agreement to judge" in agreement_verdict(still)

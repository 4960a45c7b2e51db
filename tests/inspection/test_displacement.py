"""Displacement fields on grids and against the truth: known answers."""

import numpy as np
import pytest

from motion_jax.inspection.displacement import calibration, end_point_error, on_grid

FIELD = np.arange(2 * 4 * 2, dtype=np.float64).reshape(2, 4, 2)  # rows, columns, (dx, dy)


@pytest.mark.parametrize(
    ("grid", "dx"),
    [
        ((2, 4), [[0, 2, 4, 6], [8, 10, 12, 14]]),
        ((1, 2), [[5, 9]]),
        ((4, 4), [[0, 2, 4, 6], [0, 2, 4, 6], [8, 10, 12, 14], [8, 10, 12, 14]]),
        ((4, 1), [[3], [3], [11], [11]]),
    ],
    ids=["same", "coarser", "finer", "finer_and_coarser"],
)
def test_on_grid(grid, dx):
    expected = np.stack([dx, np.array(dx) + 1], axis=-1)
    np.testing.assert_array_equal(on_grid(FIELD, grid=grid), expected)
    np.testing.assert_array_equal(on_grid(np.stack([FIELD, -FIELD]), grid=grid), np.stack([expected, -expected]))


def test_confident_cells_have_more_weight_on_a_coarser_grid():
    confidence = np.array([[0.9, 0.9, 0.8, 0.9], [0.9, 0.9, 0.9, 0.9]])
    found = on_grid(FIELD, grid=(2, 2), confidence=confidence)
    np.testing.assert_allclose(found[0, 0], [1, 2])
    share = 1 / (1 + np.exp(2))  # of the less confident cell
    np.testing.assert_allclose(found[0, 1, 0], 4 * share + 6 * (1 - share))
    both = on_grid(np.stack([FIELD, FIELD]), grid=(2, 2), confidence=np.stack([confidence, confidence - 0.5]))
    np.testing.assert_allclose(both, np.stack([found, found]))


def test_a_grid_that_does_not_fit():
    with pytest.raises(ValueError, match=r"a displacement field of \(2, 4\) cells does not fit a grid of \(2, 3\)"):
        on_grid(FIELD, grid=(2, 3))


def test_end_point_error_is_the_distance_where_something_moves():
    truth = np.zeros((2, 2, 2))
    estimate = np.array([[[3, 4], [100, 100]], [[0, 0], [0, -1]]])
    moving = np.array([[1, 0], [1, 1]], np.uint8)
    assert end_point_error(estimate, truth, moving) == pytest.approx((5 + 0 + 1) / 3)
    assert end_point_error(truth + estimate, estimate, moving) == 0


def test_calibration_sorts_cells_by_confidence():
    confidence = np.array([0.9, 0.1, 0.5, 0.7])
    groups = calibration(confidence, error=np.array([1.0, 8.0, 4.0, 2.0]), groups=2)
    assert groups == [
        {"confidence": pytest.approx(0.3), "epe": pytest.approx(6.0)},
        {"confidence": pytest.approx(0.8), "epe": pytest.approx(1.5)},
    ]


def test_no_end_point_error_where_nothing_moves():
    with pytest.raises(ValueError, match="nothing moves"):
        end_point_error(np.zeros((1, 1, 2)), np.zeros((1, 1, 2)), np.zeros((1, 1)))

"""Displacement in pixels, on grids, against the truth and as pictures: known answers."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import numpy as np
import pytest

from motion_jax.blocks import MotionSqueeze
from motion_jax.inspection.displacement import (
    calibration,
    colours,
    displacement_figure,
    end_point_error,
    in_pixels,
    make_estimator,
    on_grid,
    scale_of,
)
from motion_jax.layers import Conv
from motion_jax.models import VideoClassifier

CELL = 4


class Patches(nn.Module):
    """Patches of 4x4 pixels as the only stage, so that a frame moved by whole cells has the same features."""

    blocks: Mapping[str, nn.Module]

    @nn.compact
    def __call__(self, x, *, train):
        x = Conv(32, (CELL, CELL), (CELL, CELL), name="patches")(x)
        stages = {"patches": x}
        if "patches" in self.blocks:
            stages["patches_motion"] = self.blocks["patches"](x, train=train)
        return stages


def moving_clips(*, down: int, right: int) -> np.ndarray:
    """Two clips (2, 3, 40, 48, 3) of noise that moves by so many pixels per frame."""
    frames = np.random.default_rng(0).normal(size=(2, 40, 48, 3)).astype(np.float32)
    return np.stack([np.roll(frames, (down * t, right * t), axis=(1, 2)) for t in range(3)], axis=1)


def estimator(blocks: Mapping[str, nn.Module]):
    model = VideoClassifier(backbone=Patches(blocks), num_classes=2)
    return make_estimator(model, model.init(jax.random.key(0), moving_clips(down=0, right=0), train=False))


@pytest.mark.parametrize(
    ("fields", "down", "right"),
    [
        ({"radius": 2}, 0, 0),
        ({"radius": 2}, CELL, -2 * CELL),
        ({"radius": 1, "dilation": 2}, -2 * CELL, 2 * CELL),
        ({"radius": 2, "directions": "forward_and_backward"}, 0, CELL),
    ],
)
def test_the_estimator_gives_the_motion_in_pixels(fields, down, right):
    estimate = estimator({"patches": MotionSqueeze(reduction=None, **fields)})
    displacement, confidence = estimate(moving_clips(down=down, right=right))
    assert displacement.shape == (2, 2, 10, 12, 2)
    assert confidence.shape == (2, 2, 10, 12)
    inner = np.s_[:, :, 2:-2, 2:-2]  # whose match is in the frame
    np.testing.assert_allclose(displacement[inner], np.broadcast_to((right, down), (2, 2, 6, 8, 2)), atol=0.02)
    np.testing.assert_allclose(confidence[inner], 1, atol=1e-4)


def test_a_network_without_displacement():
    with pytest.raises(ValueError, match=r"no displacement: choose one with a MotionSqueeze block \(msnet_"):
        estimator({})(moving_clips(down=0, right=0))


def test_in_pixels_knows_radius_and_both_sides_of_a_cell():
    # 4 rows of 6 pixels, 5 columns of 20 pixels: (1, -0.5) of a radius of 3 cells.
    field = np.broadcast_to(np.array([1, -0.5], np.float32), (2, 4, 5, 2))
    pixels = in_pixels(field, radius=3, image_size=(24, 100))
    assert pixels.dtype == np.float64
    np.testing.assert_array_equal(pixels, np.broadcast_to([60.0, -9.0], (2, 4, 5, 2)))


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


@pytest.mark.parametrize(
    ("vector", "rgb"),
    [
        ((0, 0), (1, 1, 1)),
        ((4, 0), (1, 0, 0)),
        ((0, 4), (0.5, 1, 0)),
        ((-4, 0), (0, 1, 1)),
        ((0, -4), (0.5, 0, 1)),
        ((2, 0), (1, 0.5, 0.5)),
        ((40, 0), (1, 0, 0)),
    ],
    ids=["still", "right", "down", "left", "up", "half", "longer"],
)
def test_colours(vector, rgb):
    np.testing.assert_allclose(colours(np.array([[vector]], np.float64), longest=4), [[rgb]], atol=1e-12)


def picture(*, truths: bool):
    frames = [np.full((8, 12, 3), value, np.uint8) for value in (10, 20)]
    estimates = [np.zeros((2, 3, 2)), np.zeros((2, 3, 2))]
    estimates[0][0, 1] = (2, 0)
    true = [np.zeros((2, 3, 2)), np.full((2, 3, 2), (-4.0, 0))] if truths else None
    figure = displacement_figure(frames, estimates, [np.full((2, 3), 0.25), np.ones((2, 3))], true, ["one", "two"])
    return np.array(figure.axes).reshape(2, -1)


def test_the_figure_without_truth():
    axes = picture(truths=False)
    assert [axis.get_title() for axis in axes[0]] == ["frame", "displacement", "confidence"]
    assert [axis.get_ylabel() for axis in axes[:, 0]] == ["one", "two"]
    frame, field, confidence = axes[0]
    assert (frame.images[0].get_array() == 10).all()
    assert (confidence.images[0].get_array() == 0.25).all()
    # The longest vector of all pictures, here this one, is fully coloured: red.
    np.testing.assert_allclose(field.images[0].get_array()[0], [[1, 1, 1], [1, 0, 0], [1, 1, 1]], atol=1e-12)


def test_the_figure_with_truth_has_one_scale_and_arrows_in_the_cells():
    axes = picture(truths=True)
    assert [axis.get_title() for axis in axes[0]] == ["frame", "displacement", "truth", "confidence"]
    # Half as long as the truth of the other clip.
    np.testing.assert_allclose(axes[0, 1].images[0].get_array()[0, 1], [1, 0.5, 0.5], atol=1e-12)
    np.testing.assert_allclose(axes[1, 2].images[0].get_array(), np.broadcast_to([0.0, 1, 1], (2, 3, 3)), atol=1e-12)
    arrows = axes[0, 1].collections[0]
    np.testing.assert_array_equal(arrows.get_offsets()[:3], [[2, 2], [6, 2], [10, 2]])
    np.testing.assert_array_equal(arrows.U, [0, 2, 0, 0, 0, 0])
    assert axes[0, 1].get_ylim() == (8, 0)


def test_colours_and_arrows_fade_where_the_confidence_is_low():
    field = np.broadcast_to([4.0, 0.0], (2, 10, 2))
    confidence = np.linspace(0, 1, 20).reshape(2, 10)
    figure = displacement_figure([np.zeros((8, 40, 3), np.uint8)], [field], [confidence], None, ["fading"])
    drawn = figure.axes[1]
    blue = drawn.images[0].get_array()[..., 2]  # 1 where the red of a motion to the right has faded to white
    assert blue[0, 0] == 1
    assert blue[1, -1] == 0
    assert (np.diff(blue.ravel()) <= 0).all()
    opacity = drawn.collections[0].get_facecolor()[:, 3]
    assert len(opacity) == 5  # every second column of one row
    assert (np.diff(opacity) > 0).all()


def test_long_outliers_do_not_wash_out_the_scale():
    field = np.full((10, 10, 2), [3.0, 4.0])
    field[0, 0] = (300, 400)
    assert scale_of([field, np.zeros((10, 10, 2))]) == 5
    assert scale_of([np.zeros((2, 2, 2))]) == 1


def test_a_figure_of_stillness():
    still = [np.zeros((1, 1, 2))]
    figure = displacement_figure([np.zeros((4, 4, 3), np.uint8)], still, [np.ones((1, 1))], still, [""])
    assert (figure.axes[1].images[0].get_array() == 1).all()

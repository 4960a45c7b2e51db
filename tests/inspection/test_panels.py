"""Panels of a picture: colours at known cells, and where arrows stand."""

import numpy as np
import pytest
from drawn_clips import clip, comparison
from matplotlib import colormaps

from motion_jax.inspection.colours import flow_colours
from motion_jax.inspection.panels import (
    OPACITY,
    Painter,
    marked_cell,
    overlay,
    similarity_map,
    thinned,
)


def at(image, row, column, size):
    """The pixel in the middle of a cell."""
    height, width = image.shape[:2]
    return image[int((row + 0.5) * height / size[0]), int((column + 0.5) * width / size[1])]


def test_displacement_has_the_colours_of_the_wheel_on_a_white_frame():
    drawn = clip(comparison(estimated=True))
    painter = Painter([drawn])
    assert painter.names == ["frame", "displacement", "confidence", "class activation"]
    assert painter.longest == pytest.approx(8)
    panel = painter.panel("displacement", drawn, 0)
    assert panel.image.shape == (256, 384, 3)  # a whole multiple of the frame
    assert at(panel.image, 1, 2, (4, 6)).tolist() == [255, 0, 0]  # right
    assert at(panel.image, 3, 3, (4, 6)).tolist() == [255, 255, 255]  # no motion
    np.testing.assert_allclose(panel.arrows, [[2.5 / 6, 1.5 / 4, 8 / 48, 0]])
    assert painter.panel("displacement", drawn, 3) is None  # The last frame has no next one.


def test_displacement_keeps_the_frame_in_sight():
    drawn = clip(comparison(estimated=True), level=0)
    panel = Painter([drawn]).panel("displacement", drawn, 0)
    gray = at(panel.image, 3, 3, (4, 6))
    assert len(set(gray.tolist())) == 1
    assert 150 < gray[0] < 200
    red = at(panel.image, 1, 2, (4, 6))
    assert (red[0], red[1], red[2]) == (gray[0], 0, 0)


def test_colours_and_arrows_fade_where_the_confidence_is_low():
    motion = comparison(estimated=True)
    motion.expected[...] = (6.0, 0.0)
    motion.confidence[..., :] = np.linspace(0, 1, 24).reshape(1, 4, 6, 1)
    drawn = clip(motion)
    panel = Painter([drawn]).panel("displacement", drawn, 0)
    blue = [int(at(panel.image, row, column, (4, 6))[2]) for row in range(4) for column in range(6)]
    assert blue[0] == 255
    assert blue[-1] == 0
    assert blue == sorted(blue, reverse=True)
    assert panel.strength.min() >= 0.15
    assert panel.strength.max() == 1


def test_the_truth_sets_the_scale():
    truth = np.zeros((3, 4, 6, 2), np.float32)
    truth[0, 0, 0] = (0, 4)
    drawn = clip(comparison(estimated=True), truth=truth)
    painter = Painter([drawn])
    assert painter.longest == pytest.approx(4)
    assert painter.names[2] == "true displacement"
    panel = painter.panel("true displacement", drawn, 0)
    expected = flow_colours(np.array([0.0, 4.0]), longest=4)
    assert at(panel.image, 0, 0, (4, 6)).tolist() == expected.tolist()
    assert panel.arrows[0, 2:].tolist() == [0, 4 / 32]
    # Twice as long as the scale: darker than red.
    longer = painter.panel("displacement", drawn, 0)
    assert at(longer.image, 1, 2, (4, 6)).tolist() == [191, 0, 0]


def test_derived_displacements_are_called_so():
    assert Painter([clip(comparison())]).names[1] == "expected displacement"
    backward = clip(comparison(offsets=(-1,)))
    painter = Painter([backward])
    assert painter.names[1] == "backward displacement"
    assert painter.panel("confidence", backward, 0) is None
    assert painter.panel("confidence", backward, 3) is not None


def test_confidence_is_a_colour_map():
    drawn = clip(comparison())
    painter = Painter([drawn])
    image = painter.panel("confidence", drawn, 1).image
    lowest, highest = (np.round(255 * np.array(colormaps["viridis"](value)[:3])) for value in (0.0, 1.0))
    np.testing.assert_allclose(at(image, 0, 0, (4, 6)), lowest, atol=1)
    np.testing.assert_allclose(at(image, 1, 2, (4, 6)), highest, atol=1)


def test_activation_lies_over_the_dimmed_frame_of_its_class():
    drawn = clip(level=0)
    hot = 0.75 * np.array(colormaps["inferno"](1.0)[:3]) * 255 + 0.25 * 0.1 * 255
    image = Painter([drawn]).panel("class activation", drawn, 1).image
    np.testing.assert_allclose(image[0, 0], hot, atol=1.5)
    assert OPACITY == 0.75
    others = Painter([drawn], label=1).panel("class activation", drawn, 1).image
    assert (others == round(0.1 * 255)).all()


def test_an_overlay_of_nothing_shows_the_frame():
    frame = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    image = overlay(frame, np.zeros((2, 2)), colours="inferno")
    assert (image[..., 0] == image[..., 2]).all()
    assert image.std() > 10


def test_the_similarities_of_a_cell_stand_where_they_point():
    motion = comparison()
    drawn = clip(motion)
    found = similarity_map(motion, at=1, offset=1, cell=(1, 2))
    assert np.isnan(found[:, 5]).all()
    values = motion.similarities[1, 1, 2, 2]
    np.testing.assert_array_equal(found[1, 2], values[2, 2])
    np.testing.assert_array_equal(found[3, 4], values[4, 4])
    np.testing.assert_array_equal(found[0, 0], values[1, 0])
    painter = Painter([drawn])
    panel = painter.similarity(drawn, 2, query=1, cell=(1, 2))
    assert panel.box is None
    value = values[4, 4] / motion.similarities[1, 1, 2].max()
    expected = OPACITY * value * np.array(colormaps["inferno"](value)[:3]) + (1 - OPACITY * value) * 0.75
    np.testing.assert_allclose(at(panel.image, 3, 4, (4, 6)) / 255, expected, atol=0.01)
    assert painter.similarity(drawn, 1, query=1, cell=(1, 2)).box == (2 / 6, 1 / 4, 1 / 6, 1 / 4)
    assert painter.similarity(drawn, 3, query=1, cell=(1, 2)) is None


def test_the_marked_cell_moves_most():
    assert marked_cell(comparison()) == (1, (1, 2))


def test_thinned_arrows_keep_their_distance():
    rng = np.random.default_rng(0)
    arrows = np.concatenate([rng.uniform(0, 1, (400, 2)), rng.normal(0, 0.1, (400, 2))], axis=1)
    chosen = arrows[thinned(arrows, np.ones(400), gap=0.05, shortest=0.02)]
    assert 20 < len(chosen) < 200
    points = chosen[:, None, :2] + np.linspace(0, 1, 41)[:, None] * chosen[:, None, 2:]
    apart = np.linalg.norm(points[:, None, :, None] - points[None, :, None], axis=-1).min(axis=(2, 3))
    np.fill_diagonal(apart, 1)
    assert apart.min() > 0.049
    crossing = np.array([[0.2, 0.5, 0.6, 0.0], [0.5, 0.2, 0.0, 0.5]])
    assert thinned(crossing, np.ones(2), gap=0.01, shortest=0.02).tolist() == [0]
    assert thinned(crossing, np.array([1.0, 0.1]), gap=0.01, shortest=0.02).tolist() == [0]
    assert not len(thinned(np.zeros((2, 4)), np.ones(2), gap=0.01, shortest=0.02))

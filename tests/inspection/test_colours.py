"""The Middlebury colours."""

import numpy as np
import pytest

from motion_jax.inspection.colours import flow_colours, length_scale, middlebury_wheel, wheel_picture

HALF = np.sqrt(0.5)
# Computed by hand from the benchmark's colour code: the wheel has 15, 6, 4, 11, 13 and 6 steps, 54 of them per turn
# from right over down. The eighth part of a turn is 6.75 steps.
DIRECTIONS = {
    (1, 0): (255, 0, 0),  # step 0
    (HALF, HALF): (255, 114, 0),  # step 6.75 of 15 from red to yellow
    (0, 1): (255, 229, 0),  # step 13.5
    (-HALF, HALF): (31, 255, 0),  # step 20.25: 5.25 of 6 from yellow to green
    (-1, 0): (0, 208, 255),  # step 27: 2 of 11 from cyan to blue
    (-HALF, -HALF): (0, 52, 255),  # step 33.75
    (0, -1): (88, 0, 255),  # step 40.5: 4.5 of 13 from blue to magenta
    (HALF, -HALF): (220, 0, 255),  # step 47.25
}


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_eight_directions(direction):
    colour = flow_colours(np.array([direction]), longest=1 + 1e-9)[0]
    np.testing.assert_allclose(colour, DIRECTIONS[direction], atol=1)


def test_the_centre_is_white_and_half_a_length_half_as_saturated():
    assert flow_colours(np.zeros((1, 2)), longest=3).tolist() == [[255, 255, 255]]
    assert flow_colours(np.array([[1.5, -0.0], [1.5, 0.0]]), longest=3).tolist() == [[255, 127, 127]] * 2


def test_longer_displacements_are_darker():
    assert flow_colours(np.array([[3.0, 0]]), longest=2).tolist() == [[191, 0, 0]]


def test_the_wheel_has_55_saturated_colours():
    wheel = middlebury_wheel()
    assert wheel.shape == (55, 3)
    assert (wheel.max(axis=1) == 1).all()
    assert (wheel.min(axis=1) == 0).all()
    assert len(np.unique(wheel, axis=0)) == 55


def test_the_picture_of_the_wheel():
    picture = wheel_picture(101)
    assert picture[50, 50].tolist() == [255, 255, 255, 255]
    assert picture[0, 0, 3] == 0
    np.testing.assert_allclose(picture[50, 100, :3], (255, 0, 0), atol=4)


def test_the_scale_is_the_95th_percentile_of_what_moves():
    lengths = np.concatenate([np.zeros(100), np.arange(1, 101)])
    assert length_scale(np.stack([lengths, 0 * lengths], -1)) == pytest.approx(np.percentile(np.arange(1, 101), 95))
    assert length_scale(np.zeros((3, 2))) == 1

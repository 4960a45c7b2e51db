"""The drawn scene of a bouncing ball, and its picture of the displacement."""

import numpy as np

from benchmarks.bouncing_ball import FRAMES, LONGEST, SCALE, SIZE, draw_panels, draw_scene
from motion_jax.inspection.colours import flow_colours


def test_only_the_ball_and_the_car_move():
    frames = draw_scene()
    assert frames.shape == (FRAMES, SIZE, SIZE, 3)
    assert frames.dtype == np.uint8
    moved = np.any(frames[1:] != frames[:-1], axis=-1)
    assert not moved[:, : SIZE // 4].any()
    assert np.all(moved.mean(axis=(1, 2)) > 0.005)


def test_the_right_panel_is_the_displacement():
    displacement = np.zeros((SIZE // 4, SIZE // 4, 2))
    displacement[30, 20] = 5, -3
    panels = draw_panels(np.zeros((SIZE, SIZE, 3), np.uint8), displacement, np.ones(displacement.shape[:2]))
    side, cell = SIZE * SCALE, 4 * SCALE
    assert panels.shape == (side, 2 * side + 8, 3)
    colour = flow_colours(displacement[30, 20], longest=LONGEST)
    shown = panels[30 * cell : 31 * cell, side + 8 + 20 * cell : side + 8 + 21 * cell]
    np.testing.assert_array_equal(shown, np.broadcast_to(colour, shown.shape))

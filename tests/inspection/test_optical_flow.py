"""OpenCV's optical flow in the conventions of the displacement: to the next frame, (dx, dy) in pixels."""

import cv2
import numpy as np
import pytest

from motion_jax.inspection.optical_flow import backward, dis, farneback, in_cells, passes_check


@pytest.mark.parametrize("flow", [dis, farneback])
def test_flow_of_a_translated_texture(flow):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    clip = np.stack([np.roll(texture, (-2 * t, 3 * t), axis=(0, 1)) for t in range(3)])
    found = flow(clip)
    assert found.shape == (2, 64, 64, 2)
    np.testing.assert_allclose(found[:, 16:-16, 16:-16].mean(axis=(0, 1, 2)), (3, -2), atol=0.2)


def test_the_check_refuses_flows_that_do_not_cancel():
    flow = np.zeros((1, 20, 30, 2), np.float32)
    flow[..., 0] = 4
    back = -flow
    back[0, :10, :, 0] = -1
    passes = passes_check(flow, back)[0]
    assert not passes[:9].any()
    assert passes[11:, :26].all()
    assert not passes[:, 26:].any()  # The match is outside of the frame.
    # An error of 2 px over 4 px: 4 > 0.01 * (16 + 4) + 0.5. An error of 0.8 px passes.
    assert not passes_check(flow, -0.5 * flow).any()
    assert passes_check(flow, -0.8 * flow)[:, :, :26].all()


def test_cells_average_the_pixels_that_pass():
    flow = np.zeros((1, 8, 8, 2))
    flow[0, :, :4] = (2, 1)
    passes = np.ones((1, 8, 8), bool)
    passes[0, :4, 4:] = False
    flow[0, 0, 0] = (100, 100)
    passes[0, 0, 0] = False
    cells, valid = in_cells(flow, passes, grid=(2, 2))
    np.testing.assert_allclose(cells[0, :, 0], [(2, 1), (2, 1)], rtol=1e-5)
    assert valid[0].tolist() == [[True, False], [True, True]]


def test_backward_flow_starts_at_the_later_frame():
    clip = np.stack([np.roll(np.random.default_rng(0).integers(0, 256, (8, 8)), 0)] * 2).astype(np.uint8)
    clip = np.kron(clip[..., None], np.ones((1, 8, 8, 3))).astype(np.uint8)
    clip[1] = np.roll(clip[0], 3, axis=1)
    assert np.median(dis(clip)[0, ..., 0]) == pytest.approx(3, abs=0.1)
    assert np.median(backward(dis, clip)[0, ..., 0]) == pytest.approx(-3, abs=0.1)

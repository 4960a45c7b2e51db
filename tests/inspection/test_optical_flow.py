"""OpenCV's optical flow in the conventions of the displacement: to the next frame, (dx, dy) in pixels."""

import cv2
import numpy as np
import pytest

from motion_jax.inspection.optical_flow import dis, farneback


@pytest.mark.parametrize("flow", [dis, farneback])
def test_flow_of_a_translated_texture(flow):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    texture = cv2.GaussianBlur(noise, (0, 0), 2)
    clip = np.stack([np.roll(texture, (-2 * t, 3 * t), axis=(0, 1)) for t in range(3)])
    found = flow(clip)
    assert found.shape == (2, 64, 64, 2)
    np.testing.assert_allclose(found[:, 16:-16, 16:-16].mean(axis=(0, 1, 2)), (3, -2), atol=0.2)

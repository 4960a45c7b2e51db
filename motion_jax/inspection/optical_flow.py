"""Optical flow by OpenCV, to compare a network's displacement with."""

import itertools
from collections.abc import Callable

import cv2
import numpy as np


def dis(clip: np.ndarray) -> np.ndarray:
    """Return the flow of every frame (t, H, W, 3) uint8 to the next by DIS: (t-1, H, W, 2) in pixels, (dx, dy).

    Source: Kroeger et al., Fast Optical Flow using Dense Inverse Search (ECCV 2016); OpenCV's preset "medium".
    """
    flow = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    return _of_pairs(clip, lambda frame, following: flow.calc(frame, following, None))


def farneback(clip: np.ndarray) -> np.ndarray:
    """Return the flow of every frame (t, H, W, 3) uint8 to the next by Farneback's method: (t-1, H, W, 2), (dx, dy).

    Source: Farneback, Two-Frame Motion Estimation Based on Polynomial Expansion (SCIA 2003); the options of OpenCV's
    tutorial.
    """
    options = {"pyr_scale": 0.5, "levels": 3, "winsize": 15, "iterations": 3, "poly_n": 5, "poly_sigma": 1.2}
    return _of_pairs(clip, lambda *pair: cv2.calcOpticalFlowFarneback(*pair, None, flags=0, **options))


def _of_pairs(clip: np.ndarray, flow_of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    return np.stack([flow_of(*pair) for pair in itertools.pairwise(gray)])

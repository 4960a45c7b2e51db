"""Optical flow by OpenCV, to compare a network's displacement with."""

import itertools
from collections.abc import Callable

import cv2
import numpy as np

# The threshold of the forward-backward check: |w + w'|^2 < SHARE * (|w|^2 + |w'|^2) + PIXELS.
CHECK_SHARE, CHECK_PIXELS = 0.01, 0.5


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


def backward(flow_of: Callable[[np.ndarray], np.ndarray], clip: np.ndarray) -> np.ndarray:
    """Return the flow of every frame but the first to the one before, by one of the methods above: (t-1, H, W, 2)."""
    return flow_of(clip[::-1])[::-1]


def passes_check(flow: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return where a flow and the flow back cancel: bool (n, H, W).

    A pixel x passes if ``|w + w'|^2 < 0.01 (|w|^2 + |w'|^2) + 0.5`` with w the flow at x and w' the flow back at x + w.
    Pixels that leave the frame do not pass.

    Args:
        flow: (n, H, W, 2) in pixels.
        back: flow between the same frames in the other direction (n, H, W, 2).

    Source: Sundaram et al., Dense Point Trajectories by GPU-accelerated Large Displacement Optical Flow (ECCV 2010),
    equation 5.
    """
    passes = np.zeros(flow.shape[:3], bool)
    height, width = flow.shape[1:3]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    for at, (there, returned) in enumerate(zip(flow.astype(np.float32), back.astype(np.float32), strict=True)):
        to_x, to_y = x + there[..., 0], y + there[..., 1]
        found = cv2.remap(returned, to_x, to_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        error = ((there + found) ** 2).sum(-1)
        allowed = CHECK_SHARE * ((there**2).sum(-1) + (found**2).sum(-1)) + CHECK_PIXELS
        inside = (to_x >= 0) & (to_x <= width - 1) & (to_y >= 0) & (to_y <= height - 1)
        passes[at] = inside & (error < allowed)
    return passes


def in_cells(flow: np.ndarray, passes: np.ndarray, *, grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Average a flow (n, H, W, 2) over the pixels of each cell that pass a check (n, H, W).

    Returns:
        The flow of each cell (n, h, w, 2), and whether at least half of its pixels pass (n, h, w).
    """
    size = (grid[1], grid[0])
    flows, valid = [], []
    for each, mask in zip(flow.astype(np.float32), passes.astype(np.float32), strict=True):
        share = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        total = cv2.resize(each * mask[..., None], size, interpolation=cv2.INTER_AREA)
        flows.append(total / np.maximum(share, 1e-6)[..., None])
        valid.append(share >= 0.5)
    return np.stack(flows), np.stack(valid)


def _of_pairs(clip: np.ndarray, flow_of: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> np.ndarray:
    gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip]
    return np.stack([flow_of(*pair) for pair in itertools.pairwise(gray)])

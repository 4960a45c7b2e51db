"""Displacement fields on other grids, and their errors."""

import numpy as np

WEIGHT_OF_CONFIDENCE = 20.0


def on_grid(field: np.ndarray, *, grid: tuple[int, int], confidence: np.ndarray | None = None) -> np.ndarray:
    """Average (..., h, w, 2) over the cells of a coarser grid (rows, columns), or repeat it on a finer one.

    With the ``confidence`` (..., h, w), a cell with 0.1 more confidence has ``exp(2)`` times the weight in an average.

    Raises:
        ValueError: if the number of rows or columns of one grid is no multiple of that of the other.
    """
    if confidence is not None:
        weight = np.exp(WEIGHT_OF_CONFIDENCE * (confidence - confidence.max()))[..., None]
        return on_grid(field * weight, grid=grid) / on_grid(weight, grid=grid)
    *lead, height, width, _ = field.shape
    for axis, (have, want) in enumerate(zip((height, width), grid, strict=True), start=len(lead)):
        if have % want == 0:
            shape = field.shape
            field = field.reshape(*shape[:axis], want, have // want, *shape[axis + 1 :]).mean(axis + 1)
        elif want % have == 0:
            field = np.repeat(field, want // have, axis)
        else:
            raise ValueError(f"a displacement field of {(height, width)} cells does not fit a grid of {grid}")
    return field


def end_point_error(estimate: np.ndarray, truth: np.ndarray, moving: np.ndarray) -> float:
    """Return the mean distance in pixels between two fields (..., h, w, 2) over the cells ``moving`` (..., h, w).

    Raises:
        ValueError: if nothing moves.
    """
    if not np.any(moving):
        raise ValueError("nothing moves in these clips: there is no end-point error")
    return float(np.linalg.norm(estimate - truth, axis=-1)[np.asarray(moving, bool)].mean())


def calibration(confidence: np.ndarray, error: np.ndarray, *, groups: int = 5) -> list[dict[str, float]]:
    """Return the mean confidence and the mean end-point error of cells in groups of equal size, least confident first.

    Args:
        confidence: (cells,).
        error: end-point error of the same cells, (cells,).
        groups: number of groups.

    >>> calibration(np.array([0.2, 0.9, 0.8, 0.1]), np.array([5.0, 1.0, 3.0, 7.0]), groups=2)[0]["epe"]
    6.0
    """
    parts = np.array_split(np.argsort(confidence, kind="stable"), groups)
    return [{"confidence": float(confidence[part].mean()), "epe": float(error[part].mean())} for part in parts]

"""What tests of several rooms share: made videos and a small `data` section."""

import pathlib
from collections.abc import Iterable
from typing import Any

import cv2
import numpy as np

from motion_jax.data.config import DataConfig

_COMMON = {
    "version": None,
    "dir": None,
    "sampling": "segment",
    "quality": 95,
    "color_jitter": None,
    "rand_augment": None,
    "threads": 0,
    "processes": 0,
}
_MOVING_SHAPES = {
    **_COMMON,
    "name": "moving_shapes",
    "root": None,
    "frames": 8,
    "size": 32,
    "resize": None,
    "crop": "multi_scale",
    "flip": "swap",
    "clips": (24, 7),
    "max_bad_fraction": 0.1,
}
_VIDEO_FOLDER = {
    **_COMMON,
    "name": "video_folder",
    "root": "videos",
    "frames": 4,
    "size": 16,
    "resize": (24, 32),
    "crop": "center",
    "flip": "skip",
    "clips": None,
    "max_bad_fraction": 0.1,
}


def data_section(**changes: Any) -> dict[str, Any]:
    """Return the fields of a small `DataConfig`: moving_shapes, or 16-pixel clips of videos if ``name`` is another."""
    made = changes.get("name", "moving_shapes") == "moving_shapes"
    return {**(_MOVING_SHAPES if made else _VIDEO_FOLDER), **changes}


def data_config(**changes: Any) -> DataConfig:
    """Return a small `DataConfig`; see :func:`data_section`."""
    return DataConfig(**data_section(**changes))


def write_video(
    path: pathlib.Path, frames: Iterable[int | np.ndarray], *, size: tuple[int, int] = (48, 64), fps: float = 10.0
) -> None:
    """Write a Motion JPEG video, which OpenCV reads whatever the extension of ``path``.

    Args:
        path: the file; its folder is made.
        frames: RGB uint8 (h, w, 3), or gray levels of uniform frames; levels are taken modulo 256.
        size: (height, width).
        fps: frames per second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made = path.with_name(f"{path.name}.avi")
    writer = cv2.VideoWriter(str(made), cv2.VideoWriter_fourcc(*"MJPG"), fps, size[::-1])
    for frame in frames:
        if not isinstance(frame, np.ndarray):
            frame = np.full((*size, 3), frame % 256, np.uint8)
        writer.write(cv2.cvtColor(frame.astype(np.uint8), cv2.COLOR_RGB2BGR))
    writer.release()
    made.rename(path)

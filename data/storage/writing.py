"""Frames to video files, with OpenCV."""

import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np


def write_video(path: str | os.PathLike, frames: Iterable[np.ndarray], *, fps: float) -> int:
    """Write RGB uint8 frames (h, w, 3), all of one size, as MPEG-4 video; returns how many there were.

    Args:
        path: of the file, ``.mp4``; its folder must exist.
        frames: at least one.
        fps: frames per second.

    Raises:
        ValueError: if there is no frame, or this OpenCV cannot write such a file.
    """
    writer = None
    count = 0
    try:
        for frame in frames:
            if writer is None:
                size = frame.shape[1::-1]
                writer = cv2.VideoWriter(str(Path(path).absolute()), cv2.VideoWriter_fourcc(*"mp4v"), fps, size)
                if not writer.isOpened():
                    raise ValueError(
                        f"{path} cannot be written: give a path ending in .mp4 in a folder you may write to"
                    )
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        if writer is not None:
            writer.release()
    if count == 0:
        raise ValueError(f"{path}: no frame came, and a video has at least one")
    return count

"""Frames of a video or a camera as it plays, for networks that take one frame at a time."""

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from motion_jax.data.clips.views import eval_views
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.frames import resize, scaled_size
from motion_jax.data.storage.video_files import read_video

# Frame rate of a folder of frames, which has none.
UNKNOWN_FPS = 10.0


def play(
    source: Path | int, section: DataConfig, *, every: int = 1
) -> tuple[float, Iterator[tuple[float, np.ndarray]]]:
    """Open a video file, a folder of frames or a camera, and return its frame rate and its frames with their times.

    Frames are decoded one at a time. They are RGB uint8 (h, w, 3); times are seconds since the first frame, for a
    camera those at which it gave the frame.

    Args:
        source: a file or folder, or the index of a camera as OpenCV counts them.
        section: its ``max_pixels`` limits the frames of files.
        every: take every n-th frame.

    Raises:
        ValueError: if the source cannot be opened, or, while it plays, if it has no frame.
    """
    if isinstance(source, int):
        fps, frames = _play_camera(source)
    else:
        video = read_video(source, max_pixels=section.max_pixels)
        fps = video.fps or UNKNOWN_FPS
        frames = ((number / fps, frame) for number, frame in enumerate(video))
    return fps / every, itertools.islice(frames, 0, None, every)


def view_of(frame: np.ndarray, section: DataConfig) -> np.ndarray:
    """Resize and crop a frame (h, w, 3) as the centre view of evaluation: (size, size, 3).

    Unlike the frames of a data set it does not pass through a JPEG.
    """
    if section.resize is not None:
        height, width = scaled_size(*frame.shape[:2], resize=section.resize)
        frame = resize(frame, height=height, width=width)
    return eval_views(*frame.shape[:2], section, crops=1)[0](frame)


def _play_camera(index: int) -> tuple[float, Iterator[tuple[float, np.ndarray]]]:
    capture = cv2.VideoCapture(index)
    if not capture.isOpened():
        raise ValueError(f"there is no camera {index}, or another program uses it: give another index or a video file")
    fps = capture.get(cv2.CAP_PROP_FPS)

    def frames() -> Iterator[tuple[float, np.ndarray]]:
        start = None
        try:
            while True:
                done, frame = capture.read()
                if not done:
                    break
                now = time.monotonic()
                start = now if start is None else start
                yield now - start, cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        if start is None:
            raise ValueError(f"camera {index} gives no frame: check that it is connected and permitted")

    return fps if np.isfinite(fps) and fps > 0 else UNKNOWN_FPS, frames()

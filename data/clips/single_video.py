"""Single videos, treated as evaluation treats the videos of a data set: stored first, then sampled and cropped."""

import os
from collections.abc import Iterator, Sequence

import numpy as np

from motion_jax.data.clips import sampling
from motion_jax.data.clips.views import eval_views, write_views
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.decoder import decode
from motion_jax.data.storage.frames import decode_jpeg
from motion_jax.data.storage.video_files import StoredFrames, stored_frame


def read_single(path: str | os.PathLike, section: DataConfig) -> StoredFrames:
    """Read a video file or a folder of frames as the data set of ``section`` would store it.

    All frames are kept in memory as JPEG bytes. The file is decoded in a process of its own.

    Raises:
        VideoError: if no frame can be read.
    """
    return decode(path, resize_to=section.resize, quality=section.quality, max_pixels=section.max_pixels)


def store_array(frames: np.ndarray, section: DataConfig) -> StoredFrames:
    """Store the frames of a video that is an array, as the data set of ``section`` would store its file.

    Args:
        frames: uint8 (t, h, w, 3), RGB.
        section: the size and quality of stored frames.

    Raises:
        ValueError: if the array has another shape or dtype.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 (t, h, w, 3), RGB in 0..255; got {frames.dtype} {frames.shape}")
    jpegs = [stored_frame(frame, resize_to=section.resize, quality=section.quality) for frame in frames]
    return StoredFrames(jpegs, fps=0.0, remark="")


def views_of(frames: Sequence[bytes], section: DataConfig, *, clips: int, crops: int) -> np.ndarray:
    """Return the evaluation views of a stored video: uint8 (clips * crops, t, h, w, 3).

    They equal one row of the ``clips`` of ``eval_batches``.
    """
    views = np.empty((clips * crops, section.frames, section.size, section.size, 3), np.uint8)
    write_views(views, frames, section, clips=clips, crops=crops)
    return views


def whole_view(frames: Sequence[bytes], section: DataConfig) -> Iterator[np.ndarray]:
    """Yield every frame of a stored video, resized and cropped as the centre view: uint8 (size, size, 3) each."""
    view = None
    for data in frames:
        frame = decode_jpeg(data)
        view = view or eval_views(*frame.shape[:2], section, crops=1)[0]
        yield view(frame)


def sampled_frames(count: int, section: DataConfig) -> np.ndarray:
    """Return the frames of a video of ``count`` frames that the single clip of evaluation holds: int64 (t,)."""
    sample = sampling.segment_test if section.sampling == "segment" else sampling.dense_test
    return sample(count, section.frames, clips=1)[0]


def shown_pair(count: int, section: DataConfig) -> np.ndarray:
    """Return for each of ``count`` frames the pair of sampled frames around it: int64 (count,), 0 to t - 2.

    Pair k holds sampled frames k and k + 1 of the single clip of evaluation. Frames before the first sampled frame
    belong to the first pair, frames after the last to the last pair.
    """
    starts = np.maximum.accumulate(sampled_frames(count, section)[:-1])
    return np.maximum(np.searchsorted(starts, np.arange(count), side="right") - 1, 0)

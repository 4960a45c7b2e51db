"""Single videos, seen exactly as evaluation sees the videos of a data set: stored first, then sampled and cropped."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from motion_jax.data.clips import sampling
from motion_jax.data.config import DataConfig
from motion_jax.data.pipeline import eval_views, write_views
from motion_jax.data.sources.layout import VIDEO_SUFFIXES
from motion_jax.data.storage.decoding import decode_jpeg, frame_files, natural_order
from motion_jax.data.storage.stored_frames import StoredFrames, store_frames


def find_videos(folder: str | os.PathLike) -> list[Path]:
    """All videos below a folder in natural order: files with a video's extension, and folders of images.

    A folder that holds images and no video files is one video; ``folder`` itself may be one. Hidden files and folders
    are passed over.

    Raises:
        ValueError: if there are none.
    """
    videos: list[Path] = []
    for place, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES]
        if files:
            videos += [Path(place, name) for name in files]
        elif frame_files(Path(place)):
            videos.append(Path(place))
    if not videos:
        raise ValueError(f"{folder} holds neither videos nor frames of one: give files or a folder with some below it")
    return sorted(videos, key=lambda path: (natural_order(str(path)), str(path)))


def read_single(path: str | os.PathLike, section: DataConfig) -> StoredFrames:
    """A video file or a folder of frames as the data set of ``section`` would store it.

    Every frame is kept, as a data set keeps it, so memory grows with the length of the video.

    Raises:
        ValueError: (:class:`VideoError`) if no frame can be read.
    """
    return store_frames(path, resize=section.resize, quality=section.quality)


def views_of(frames: Sequence[bytes], section: DataConfig, *, clips: int, crops: int) -> np.ndarray:
    """What evaluation shows a network of a stored video: uint8 (clips * crops, t, h, w, 3).

    Row for row the ``clips`` of :func:`eval_batches`.
    """
    views = np.empty((clips * crops, section.frames, section.size, section.size, 3), np.uint8)
    write_views(views, frames, section, clips=clips, crops=crops)
    return views


def whole_view(frames: Sequence[bytes], section: DataConfig) -> Iterator[np.ndarray]:
    """Every frame of a stored video, resized and cropped as evaluation's centre view: uint8 (size, size, 3) each."""
    view = None
    for data in frames:
        frame = decode_jpeg(data)
        view = view or eval_views(*frame.shape[:2], section, crops=1)[0]
        yield view(frame)


def shown_pair(count: int, section: DataConfig) -> np.ndarray:
    """For each of ``count`` frames, the pair of sampled frames it lies in: int64 (count,), 0 to t - 2.

    Pair k is sampled frame k and the one after it, of evaluation's single clip. A frame before the first belongs to
    the first pair, one after the last to the last.
    """
    sample = sampling.segment_test if section.sampling == "segment" else sampling.dense_test
    starts = np.maximum.accumulate(sample(count, section.frames, clips=1)[0][:-1])
    return np.maximum(np.searchsorted(starts, np.arange(count), side="right") - 1, 0)

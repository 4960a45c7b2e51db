"""Clips to show: the frames of the single view of evaluation, with their times and what is known about them."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from motion_jax.data.clips.single_video import read_single, sampled_frames, views_of
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class ShownClip:
    """A clip as evaluation shows it to a network.

    Attributes:
        frames: uint8 (t, size, size, 3).
        times: seconds of each frame (t,), or None if the frame rate is not known.
        title: name of the video.
        label: its class, or None if it is not known.
        displacement: true displacement in pixels, or None if it is not known; see ``truth`` of moving_shapes.
        moving: where objects move, or None with ``displacement``.
    """

    frames: np.ndarray
    times: np.ndarray | None
    title: str
    label: int | None = None
    displacement: np.ndarray | None = None
    moving: np.ndarray | None = None


def clip_of_file(path: str | os.PathLike, section: DataConfig) -> ShownClip:
    """Return the clip of a video file or a folder of frames.

    Raises:
        VideoError: if no frame can be read.
    """
    stored = read_single(path, section)
    return ShownClip(*clip_of_frames(stored.frames, stored.fps, section), os.path.basename(os.fspath(path)))


def clip_of_example(dataset: Dataset, split: str, index: int) -> ShownClip:
    """Return the clip of an example of a split.

    Raises:
        UnreadableError: if a frame does not decode.
    """
    known = dataset.example(split, index)
    clip = clip_of_frames(dataset.record(split, index)["frames"], known["fps"], dataset.section)
    return ShownClip(*clip, known["id"], known["label"], known.get("displacement"), known.get("moving"))


def clip_of_frames(frames: Sequence[bytes], fps: float, section: DataConfig) -> tuple[np.ndarray, np.ndarray | None]:
    """Return the sampled frames (t, size, size, 3) of stored ones, and their times in seconds (None without a rate)."""
    clip = views_of(frames, section, clips=1, crops=1)[0]
    return clip, sampled_frames(len(frames), section) / fps if fps > 0 else None

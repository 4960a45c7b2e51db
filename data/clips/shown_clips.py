"""Clips to show: the frames of the single view of evaluation, with their times and what is known about them."""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from motion_jax.data.clips.given_videos import list_videos, try_read
from motion_jax.data.clips.single_video import sampled_frames, views_of
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.dataset import Dataset
from motion_jax.text import printable

_log = logging.getLogger(__name__)


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


def clips_of_files(given: Iterable[Path], section: DataConfig) -> list[ShownClip]:
    """Return the clips of files, folders and lists of videos; a warning names those that cannot be read.

    Raises:
        ValueError: if no video can be read.
    """
    clips, reasons = [], []
    for file in list_videos(given):
        stored = try_read(file, section)
        if isinstance(stored, str):
            reasons.append(f"{file}: {stored}")
        else:
            clips.append(ShownClip(*clip_of_frames(stored.frames, stored.fps, section), printable(file.name)))
    if not clips:
        raise ValueError(reasons[0] if len(reasons) == 1 else f"none of the {len(reasons)} videos can be read")
    for reason in reasons:
        _log.warning("%s", reason)
    return clips


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

"""Open a data set by its configuration section, preparing it when absent, and read its records at random."""

import logging
import threading
from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

from motion_jax.data.config import DataConfig
from motion_jax.data.storage.decoding import decode_jpeg

_log = logging.getLogger(__name__)


class Dataset:
    """A prepared data set with random access.

    Attributes:
        section: the choices it was opened with.
        labels: class names in label order.
    """

    def __init__(self, section: DataConfig, builder: Any) -> None:
        self.section = section
        self.labels: tuple[str, ...] = tuple(builder.info.features["label"].names)
        self._folder = str(builder.data_path)
        self._sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
        self._broken: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def size(self, split: str) -> int:
        """Number of examples of a split.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._sizes:
            have = ", ".join(self._sizes)
            raise ValueError(f"there is no split {split!r}, only {have}; add videos to it or choose another")
        return self._sizes[split]

    def example(self, split: str, index: int) -> dict[str, Any]:
        """All that is stored of one example.

        Returns:
            id (str), label (int), num_frames (int), fps (float, 0.0 where unknown), frames (uint8 (n, h, w, 3)); of
            moving_shapes also displacement (float32 (n-1, h/8, w/8, 2)) and moving (bool (n-1, h/8, w/8)), see
            :func:`motion_jax.data.sources.moving_shapes.truth`.

        Raises:
            ValueError: if a frame does not decode.
        """
        record = self._records(split, index).whole(index)
        record["id"] = record["id"].decode()
        record["frames"] = np.stack([decode_jpeg(frame) for frame in record["frames"]])
        record.update(label=int(record["label"]), num_frames=int(record["num_frames"]), fps=float(record["fps"]))
        return record

    def readable(self, split: str, index: int, make: Callable[[dict[str, Any]], Any]) -> Any:
        """``make`` of the record at ``index``, or of the next record that can be read.

        An unreadable record is counted and named in the log once.

        Raises:
            ValueError: if more than ``data.max_bad_fraction`` of the split is unreadable.
        """
        size = self.size(split)
        for at in range(index, index + size):
            try:
                return make(self._records(split, at % size)[at % size])
            # Damaged bytes surface as whatever the reader, the parser or the decoder raises.
            except Exception as error:
                self._note(split, at % size, error)
        raise ValueError(
            f"no record of split {split} in {self._folder} can be read; delete that folder and start again"
        )

    @property
    def broken(self) -> int:
        """Number of records found unreadable by this process until now."""
        return len(self._broken)

    def _note(self, split: str, index: int, error: Exception) -> None:
        with self._lock:
            if (split, index) in self._broken:
                return
            self._broken.add((split, index))
            broken = sorted(at for name, at in self._broken if name == split)
        _log.warning("record %d of split %s is unreadable and replaced by the next: %s", index, split, error)
        if len(broken) > self.section.max_bad_fraction * self.size(split):
            raise ValueError(
                f"{len(broken)} of {self.size(split)} records of split {split} in {self._folder} are unreadable, more "
                f"than data.max_bad_fraction = {self.section.max_bad_fraction}: {broken}; delete that folder to "
                "prepare it again"
            ) from error

    def _records(self, split: str, index: int) -> Any:
        if not 0 <= index < self.size(split):
            raise ValueError(f"split {split} has {self.size(split)} examples, so index {index} does not exist")
        return self._sources[split]

    @cached_property
    def _sources(self) -> dict[str, Any]:
        from motion_jax.data.storage.records import open_sources

        return open_sources(self._folder)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes open their own files and hold their own lock.
        return {name: value for name, value in vars(self).items() if name not in ("_sources", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())


def open_dataset(section: DataConfig, *, default_dir: str) -> Dataset:
    """Open a data set; where its records are absent they are prepared first, with a progress bar.

    Args:
        section: which data set.
        default_dir: where prepared records lie when ``section.dir`` is None.

    Raises:
        ValueError: if the videos are not laid out as they should be, or too many of them are unreadable.
    """
    from motion_jax.data.storage.preparation import prepare

    return Dataset(section, prepare(section, default_dir=default_dir))

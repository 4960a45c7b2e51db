"""Random access to the records of a prepared data set."""

import hashlib
import logging
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from motion_jax.data.config import DataConfig
from motion_jax.data.storage.fingerprint import read_fingerprint, record_checksum
from motion_jax.data.storage.frames import UnreadableError, decode_jpeg

_log = logging.getLogger(__name__)


class Dataset:
    """A prepared data set with random access.

    Attributes:
        section: its config.
        labels: the class names in label order.
        contents: numbers and digests of its labels and videos, equal for copies and for data made of equal videos.
    """

    def __init__(self, section: DataConfig, builder: Any) -> None:
        self.section = section
        self.labels: tuple[str, ...] = tuple(builder.info.features["label"].names)
        self._folder = str(builder.data_path)
        self._written = read_fingerprint(Path(self._folder), self.labels)
        if self._written is None:
            _log.warning(
                "the records in %s were prepared by an earlier version, so that a change in them goes unseen; delete "
                "that folder to prepare them again",
                self._folder,
            )
        self._sizes = {name: split.num_examples for name, split in builder.info.splits.items()}
        self.contents: dict[str, Any] = {
            "labels": len(self.labels),
            **{f"clips of {name}": size for name, size in self._sizes.items()},
            "names of labels": hashlib.sha256(repr(self.labels).encode()).hexdigest()[:8],
            "ids": self.fingerprint,
        }
        self._unreadable: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that depend on class names, ids, labels and frame numbers, not on folder and machine.

        For records of an earlier version, "unchecked-" and digits that depend on class names and counts alone.
        """
        if self._written:
            return self._written.text
        return f"unchecked-{hashlib.sha256(repr((self.labels, self._sizes)).encode()).hexdigest()[:16]}"

    def size(self, split: str) -> int:
        """Return the number of examples of a split.

        Raises:
            ValueError: if there is no such split.
        """
        if split not in self._sizes:
            have = ", ".join(self._sizes)
            raise ValueError(f"there is no split {split!r}, only {have}; add videos to it or choose another")
        return self._sizes[split]

    def example(self, split: str, index: int) -> dict[str, Any]:
        """Return all that is stored of one example.

        Returns:
            id (str), label (int), num_frames (int), fps (float, 0.0 where unknown), frames (uint8 (n, h, w, 3)); for
            moving_shapes also displacement (float32 (n-1, h/8, w/8, 2)) and moving (bool (n-1, h/8, w/8)), see
            ``truth`` in data/sources/moving_shapes.py.

        Raises:
            UnreadableError: if a frame does not decode.
        """
        record = self._records(split, index).whole(index)
        record["id"] = record["id"].decode()
        record["frames"] = np.stack([decode_jpeg(frame) for frame in record["frames"]])
        record.update(label=int(record["label"]), num_frames=int(record["num_frames"]), fps=float(record["fps"]))
        return record

    def record(self, split: str, index: int) -> dict[str, Any]:
        """Return what clips need of one example: id (UTF-8 bytes), frames (a sequence of JPEG bytes) and label (int).

        Raises:
            UnreadableError: if the record is damaged.
        """
        records = self._records(split, index)
        try:
            record = records[index]
            if not len(record["frames"]):
                raise ValueError("it holds no frames")
            if self._written:
                found = record_checksum(record["id"], record["label"], len(record["frames"]))
                if found != self._written.records[split][index]:
                    raise ValueError(f"it is another record, {record['id']!r}, than the one that was written there")
        # The reader and the parser raise errors of many types on damaged bytes.
        except Exception as error:
            raise UnreadableError(f"{type(error).__name__}: {error}") from error
        return record

    def report_unreadable(self, split: str, index: int, error: UnreadableError) -> None:
        """Count an unreadable record, and name it in the log the first time.

        Raises:
            ValueError: if more than ``data.max_bad_fraction`` of the split is unreadable.
        """
        with self._lock:
            if (split, index) in self._unreadable:
                return
            self._unreadable.add((split, index))
            found = sorted(at for name, at in self._unreadable if name == split)
        _log.warning("record %d of split %s is unreadable and replaced by the next: %s", index, split, error)
        if len(found) > self.section.max_bad_fraction * self.size(split):
            raise ValueError(
                f"{len(found)} of {self.size(split)} records of split {split} in {self._folder} are unreadable, more "
                f"than data.max_bad_fraction = {self.section.max_bad_fraction}: {found}; delete that folder to "
                "prepare it again"
            ) from error

    @property
    def broken(self) -> int:
        """Number of records that this process has found unreadable."""
        return len(self._unreadable)

    def _records(self, split: str, index: int) -> Any:
        if not 0 <= index < self.size(split):
            raise ValueError(f"split {split} has {self.size(split)} examples, so index {index} does not exist")
        return self._sources[split]

    @cached_property
    def _sources(self) -> dict[str, Any]:
        # Importing TFDS takes half a second.
        from motion_jax.data.storage.records import open_sources

        return open_sources(self._folder)

    def __getstate__(self) -> dict[str, Any]:
        # Worker processes open their own files and hold their own lock.
        return {name: value for name, value in vars(self).items() if name not in ("_sources", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

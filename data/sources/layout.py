"""The videos of a data set with their classes and splits, as read from a folder and its annotations."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from motion_jax.data.storage.parts import Entry
from motion_jax.text import printable, shown

SPLITS = ("train", "val", "test")
MOST_CLASSES = 100_000
"""The largest number of classes of a data set."""
# On a network disk, each file status costs a round trip: ask for many at a time.
_THREADS, _CHUNK = 16, 256


@dataclass(frozen=True)
class Layout:
    """The videos below a root folder, in the order in which they are stored, and the class names in label order.

    Attributes:
        root: the folder.
        classes: class names; the position is the label.
        entries: the videos, split by split.
        class_order: the order of the names in words, for comparing labels with other lists.
        missing: annotated videos that are absent, where that is usual (web videos get deleted).
        remarks: warnings for the person who prepares the data.

    Raises:
        ValueError: if there are more than ``MOST_CLASSES`` classes, a class name or a name in a split is repeated, a
            label has no class, a path leads out of the root, all videos of train or val are missing, or the train split
            is empty.

    Names of classes and videos are stored as :func:`motion_jax.text.printable` gives them; paths keep every byte.
    """

    root: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    class_order: str
    missing: tuple[Entry, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.classes) > MOST_CLASSES:
            found = f"{self.root} has {len(self.classes)} classes"
            raise ValueError(f"data.root: {found}, expected at most {MOST_CLASSES}; correct the list of class names")
        object.__setattr__(self, "classes", tuple(map(printable, self.classes)))
        for name in ("entries", "missing"):
            object.__setattr__(self, name, tuple(map(_checked, getattr(self, name))))
        if repeated := _first_repeated(self.classes):
            raise ValueError(f"data.root: the class {repeated!r} of {self.root} appears twice; names must differ")
        for entry in self.entries:
            if not 0 <= entry.label < len(self.classes):
                given = f"{entry.id} of {self.root} has the label {entry.label}"
                raise ValueError(f"data.root: {given}, but there are {len(self.classes)} classes; labels count from 0")
        if repeated := _first_repeated((entry.split, entry.id) for entry in self.entries):
            raise ValueError(f"data.root: split {repeated[0]} of {self.root} names {repeated[1]} twice; keep one")
        found = {entry.split for entry in self.entries}
        for entry in self.missing:
            # The test split is optional.
            if entry.split not in found and entry.split != "test":
                raise ValueError(
                    f"data.root: {self.root} holds none of the videos of split {entry.split}; the first would be "
                    f"{entry.path}: see data/README.md for the expected folders"
                )
        if "train" not in found:
            raise ValueError(f"data.root: no video of {self.root} is in the train split; mark some as train")

    def splits(self) -> tuple[str, ...]:
        """Return the splits that hold videos, train first."""
        held = {entry.split for entry in self.entries}
        return tuple(split for split in SPLITS if split in held)

    def digest(self, *options: object) -> str:
        """Return 16 hexadecimal digits that depend on classes, entries, sizes and times of files, and ``options``."""
        digest = hashlib.sha256(repr((self.classes, options)).encode())
        pieces = (self.entries[start : start + _CHUNK] for start in range(0, len(self.entries), _CHUNK))
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="digest") as pool:
            for status in pool.map(self._file_status, pieces):
                digest.update(status)
        return digest.hexdigest()[:16]

    def _file_status(self, entries: tuple[Entry, ...]) -> bytes:
        """Return the entries, each with the name, size and time of its files, as bytes."""
        return repr([(entry, list(_files(os.path.join(self.root, entry.path)))) for entry in entries]).encode()


def _checked(entry: Entry) -> Entry:
    """Return an entry with a name that can be stored; raise a ValueError if its path leads out of the root."""
    if entry.path.startswith("/") or ".." in entry.path.split("/") or "\0" in entry.path:
        raise ValueError(f"data.root: the video {shown(entry.path)} is not below the root; correct the annotations")
    name = printable(entry.id)
    return entry if name == entry.id else replace(entry, id=name)


def _files(path: str) -> Iterator[tuple[str, int, int]]:
    found = [path] if os.path.isfile(path) else []
    if os.path.isdir(path):
        with os.scandir(path) as files:
            # The second question is for links, also for those that lead to themselves.
            found = sorted(
                file.path for file in files if file.is_file(follow_symlinks=False) or os.path.isfile(file.path)
            )
    for file in found:
        stat = os.stat(file)
        yield os.path.basename(file), stat.st_size, stat.st_mtime_ns


def _first_repeated(items: Iterable[object]) -> object | None:
    seen = set()
    return next((item for item in items if item in seen or seen.add(item)), None)

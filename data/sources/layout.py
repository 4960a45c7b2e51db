"""Which videos a data set holds, of which class and split: what a builder reads from a folder and its annotations."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

SPLITS = ("train", "val", "test")
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on
# So many files are looked at together: on a network disk each costs a round trip, and most of it is waiting.
_LOOKERS, _LOOK = 16, 256


@dataclass(frozen=True)
class Entry:
    """One video.

    Attributes:
        split: one of :data:`SPLITS`.
        id: its name in the data set.
        path: below the root, with "/": a file or a folder of frames.
        label: position of its class.
        seconds: (start, end) of the part of the file that is meant; None is all of it.
    """

    split: str
    id: str
    path: str
    label: int
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Layout:
    """The videos below a root folder, in the order in which they are stored, and the class names in label order.

    Attributes:
        root: the folder.
        classes: names; their position is the label.
        entries: the videos, split by split.
        class_order: how the names are ordered, in words, for whoever compares labels with others' lists.
        missing: videos the annotations name and the folder lacks, where that is usual (videos of the web vanish).
        remarks: what else whoever prepares the data should know.

    Raises:
        ValueError: if class names repeat, a label has no class, a name is given twice in a split, all of train or
            val is missing, or nothing is in the train split.
    """

    root: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]
    class_order: str
    missing: tuple[Entry, ...] = ()
    remarks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if repeated := _first_repeated(self.classes):
            raise ValueError(f"data.root: the class {repeated!r} of {self.root} comes twice; names must differ")
        for entry in self.entries:
            if not 0 <= entry.label < len(self.classes):
                raise ValueError(
                    f"data.root: {entry.id} of {self.root} has the label {entry.label}, but there are "
                    f"{len(self.classes)} classes; labels count from 0"
                )
        if repeated := _first_repeated((entry.split, entry.id) for entry in self.entries):
            raise ValueError(f"data.root: split {repeated[0]} of {self.root} names {repeated[1]} twice; keep one")
        found = {entry.split for entry in self.entries}
        for entry in self.missing:
            # Who has no use for the test split leaves its videos out.
            if entry.split not in found and entry.split != "test":
                raise ValueError(
                    f"data.root: {self.root} holds none of the videos of split {entry.split}; the first would be "
                    f"{entry.path}: see data/README.md for where they go"
                )
        if "train" not in found:
            raise ValueError(f"data.root: no video of {self.root} is in the train split; mark some as train")

    def splits(self) -> tuple[str, ...]:
        """The splits that hold videos, train first."""
        held = {entry.split for entry in self.entries}
        return tuple(split for split in SPLITS if split in held)

    def digest(self, *options: object) -> str:
        """16 hexadecimal digits that change with a class, an entry, a file's size or time, and with ``options``."""
        digest = hashlib.sha256(repr((self.classes, options)).encode())
        pieces = (self.entries[start : start + _LOOK] for start in range(0, len(self.entries), _LOOK))
        with ThreadPoolExecutor(_LOOKERS, thread_name_prefix="digest") as pool:
            for seen in pool.map(self._look, pieces):
                digest.update(seen)
        return digest.hexdigest()[:16]

    def _look(self, entries: tuple[Entry, ...]) -> bytes:
        """The entries, each with the name, size and time of its files."""
        return repr([(entry, list(_files(os.path.join(self.root, entry.path)))) for entry in entries]).encode()


def _files(path: str) -> Iterator[tuple[str, int, int]]:
    if os.path.isdir(path):
        with os.scandir(path) as files:
            named = sorted((file.name, file) for file in files if file.is_file())
    elif os.path.isfile(path):
        named = [(os.path.basename(path), Path(path))]
    else:
        named = []
    for name, file in named:
        stat = file.stat()
        yield name, stat.st_size, stat.st_mtime_ns


def _first_repeated(items: Iterable[object]) -> object | None:
    seen = set()
    return next((item for item in items if item in seen or seen.add(item)), None)

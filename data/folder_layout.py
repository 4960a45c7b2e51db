"""Which videos a folder holds, of which class and split."""

import csv
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from data.decoding import frame_files, natural_order

SPLITS = ("train", "val", "test")
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on
_VAL_FRACTION = 0.2

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """One video: its split, its path below the root with "/" (a file or a folder of frames), and its label."""

    split: str
    path: str
    label: int


@dataclass(frozen=True)
class Layout:
    """The videos of a root folder and the class names in label order (alphabetical)."""

    root: Path
    classes: tuple[str, ...]
    entries: tuple[Entry, ...]

    def splits(self) -> tuple[str, ...]:
        """The splits that hold videos, train first."""
        return tuple(split for split in SPLITS if any(entry.split == split for entry in self.entries))

    def digest(self, *options: object) -> str:
        """16 hexadecimal digits that change with any file's path, size or time, with a split, and with ``options``."""
        digest = hashlib.sha256(repr(options).encode())
        for entry in self.entries:
            digest.update(repr(entry).encode())
            path = self.root / entry.path
            for file in frame_files(path) if path.is_dir() else [path]:
                if file.is_file():
                    stat = file.stat()
                    digest.update(repr((file.name, stat.st_size, stat.st_mtime_ns)).encode())
        return digest.hexdigest()[:16]


def read_layout(root: str | Path) -> Layout:
    """Find the videos below a folder.

    Either ``root/<split>/<class>/<video>`` with the splits train, val and test, or ``root/<class>/<video>``, whose
    splits come from ``root/manifest.csv`` (columns path and split; others are ignored) and, without one, from a hash
    of each path: a fifth of each class becomes val, with a warning. A video is a file with a video's extension or a
    folder of images. Hidden files and other files are passed over. A manifest rules: what it does not list is left
    out, what it lists and is absent counts as unreadable.

    Raises:
        ValueError: if the root is absent, holds no classes or an empty class, has no train split, or its manifest is
            wrong.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(
            f"data.root: there is no folder {root}; give the folder that holds one folder of videos per class"
        )
    present = [split for split in SPLITS if (root / split).is_dir()]
    if present:
        if "train" not in present:
            raise ValueError(
                f"data.root: {root} holds {', '.join(present)} but no train folder; add train/<class>/<video>"
            )
        found = [(split, folder) for split in present for folder in _class_folders(root / split)]
        classes = sorted({folder.name for _, folder in found})
        entries = [
            Entry(split, path, classes.index(folder.name))
            for split, folder in found
            for path in _videos(root, folder, split)
        ]
    elif (root / "manifest.csv").is_file():
        rows = _read_manifest(root)
        classes = sorted({PurePosixPath(path).parts[0] for path in rows})
        entries = [Entry(split, path, classes.index(PurePosixPath(path).parts[0])) for path, split in rows.items()]
        _warn_unlisted(root, classes, rows)
    else:
        folders = _class_folders(root)
        classes = [folder.name for folder in folders]
        entries = [
            Entry(split, path, label)
            for label, folder in enumerate(folders)
            for path, split in _hashed_splits(list(_videos(root, folder, "")))
        ]
        _log.warning(
            "%s has neither train and val folders nor a manifest.csv: a fifth of each class, by a hash of the path, is "
            "taken for validation. Where clips share a source, write a manifest.csv (path,split) keeping them together",
            root,
        )
    if not any(entry.split == "train" for entry in entries):
        raise ValueError(f"data.root: no video of {root} is in the train split; mark some as train")
    entries.sort(key=lambda entry: (SPLITS.index(entry.split), natural_order(entry.path), entry.path))
    return Layout(root, tuple(classes), tuple(entries))


def _class_folders(folder: Path) -> list[Path]:
    folders = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"data.root: {folder} holds no class folders; put videos into {folder}/<class>/")
    return folders


def _is_video(path: Path) -> bool:
    return not path.name.startswith(".") and (path.is_dir() or path.suffix.lower() in VIDEO_SUFFIXES)


def _videos(root: Path, folder: Path, split: str) -> Iterator[str]:
    videos = [path for path in folder.iterdir() if _is_video(path)]
    if not videos:
        where = f"class folder {folder.name!r} of split {split}" if split else f"class folder {folder.name!r}"
        raise ValueError(f"data.root: the {where} ({folder}) holds no videos; put some there or remove it")
    return (path.relative_to(root).as_posix() for path in sorted(videos))


def _read_manifest(root: Path) -> dict[str, str]:
    """Path -> split."""
    manifest = root / "manifest.csv"
    with manifest.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        columns = reader.fieldnames or []
        if not {"path", "split"} <= set(columns):
            raise ValueError(
                f"data.root: {manifest} has the columns {', '.join(columns) or '(none)'}; it needs path and split"
            )
        rows: dict[str, str] = {}
        for row in reader:
            where = f"data.root: {manifest} line {reader.line_num}"
            path, split = PurePosixPath(row["path"] or ""), row["split"]
            if len(path.parts) < 2 or path.is_absolute() or ".." in path.parts:
                raise ValueError(f"{where}: path {row['path']!r}; expected <class>/<video> below the root")
            if split not in SPLITS:
                raise ValueError(f"{where}: split {split!r}; expected one of {', '.join(SPLITS)}")
            if rows.setdefault(str(path), split) != split:
                raise ValueError(f"{where}: {path} is in {rows[str(path)]} and in {split}; keep one of the lines")
    if not rows:
        raise ValueError(f"data.root: {manifest} lists no videos; add lines, or remove it to split by hash")
    return rows


def _warn_unlisted(root: Path, classes: list[str], rows: dict[str, str]) -> None:
    unlisted = [
        path.relative_to(root).as_posix()
        for name in classes
        if (root / name).is_dir()
        for path in sorted((root / name).iterdir())
        if _is_video(path)
        and not any(row == (at := path.relative_to(root).as_posix()) or row.startswith(at + "/") for row in rows)
    ]
    if unlisted:
        _log.warning(
            "%s does not list %d videos, which are left out: %s",
            root / "manifest.csv",
            len(unlisted),
            ", ".join(unlisted[:5]),
        )


def _hashed_splits(paths: list[str]) -> list[tuple[str, str]]:
    ranked = sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())
    # At least one for validation, and never all.
    count = min(max(1, round(len(ranked) * _VAL_FRACTION)), len(ranked) - 1)
    return [(path, "val" if rank < count else "train") for rank, path in enumerate(ranked)]

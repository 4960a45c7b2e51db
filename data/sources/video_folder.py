"""Any folder of videos, one folder per class."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from motion_jax.data.sources.annotations import named_file, read_csv
from motion_jax.data.sources.layout import SPLITS, Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.data.storage.video_files import VIDEO_SUFFIXES, natural_order
from motion_jax.text import shown

_VAL_FRACTION = 0.2
_HASHED = (
    "there are neither train and val folders nor a manifest.csv: a fifth of each class, chosen by a hash of the path, "
    "becomes the val split. If clips share a source, write a manifest.csv (path,split) that keeps them together"
)


class VideoFolder(Videos):
    """Videos in class folders."""

    name = "video_folder"

    @staticmethod
    def read_layout(root: Path, version: str | None = None) -> Layout:
        """Find the videos below a folder.

        Either ``root/<split>/<class>/<video>`` with the splits train, val and test, or ``root/<class>/<video>``, whose
        splits come from ``root/manifest.csv`` (columns path and split; others are ignored) and, without one, from a
        hash of each path: a fifth of each class becomes val, with a remark. A video is a file with a video extension
        or a folder of images. Other files and hidden files are ignored. A manifest takes precedence: videos that it
        does not list are left out, and listed videos that are absent count as unreadable. Classes and videos are in
        alphabetical order.
        """
        if not root.is_dir():
            raise ValueError(f"data.root: there is no folder {root}; give one that holds a folder of videos per class")
        remarks: tuple[str, ...] = ()
        present = [split for split in SPLITS if (root / split).is_dir()]
        if present:
            if "train" not in present:
                raise ValueError(f"data.root: {root} holds {', '.join(present)} but no train folder; add one")
            found = [
                (split, path, folder.name)
                for split in present
                for folder in _class_folders(root / split)
                for path in _videos(root, folder, split)
            ]
        elif (root / "manifest.csv").is_file():
            rows = _read_manifest(root)
            found = [(split, path, PurePosixPath(path).parts[0]) for path, split in rows.items()]
            remarks = _unlisted(root, rows)
        else:
            found = [
                (split, path, folder.name)
                for folder in _class_folders(root)
                for path, split in _hashed_splits(list(_videos(root, folder, "")))
            ]
            remarks = (_HASHED,)
        found.sort(key=lambda video: (SPLITS.index(video[0]), natural_order(video[1]), video[1]))
        classes = sorted({name for _, _, name in found})
        position = {name: label for label, name in enumerate(classes)}
        entries = [Entry(split, path, path, position[name]) for split, path, name in found]
        return Layout(root, tuple(classes), tuple(entries), "alphabetical", remarks=remarks)


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
    """Map paths to splits."""
    manifest = root / "manifest.csv"
    rows: dict[str, str] = {}
    for number, row in read_csv(manifest, ("path", "split"), any_bytes=True):
        where = f"data.root: {manifest} line {number}"
        path, split = PurePosixPath(named_file(root, row["path"], f"{manifest} line {number}")), row["split"]
        if len(path.parts) < 2 or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{where}: path {shown(row['path'])}; expected <class>/<video> below the root")
        if split not in SPLITS:
            raise ValueError(f"{where}: split {shown(split)}; expected one of {', '.join(SPLITS)}")
        if rows.setdefault(str(path), split) != split:
            raise ValueError(f"{where}: {path} is in {rows[str(path)]} and in {split}; keep one of the lines")
    if not rows:
        raise ValueError(f"data.root: {manifest} lists no videos; add lines, or remove it to split by hash")
    return rows


def _unlisted(root: Path, rows: dict[str, str]) -> tuple[str, ...]:
    """Return a remark if class folders hold videos that the manifest does not list."""
    unlisted = [
        path.relative_to(root).as_posix()
        for name in sorted({PurePosixPath(row).parts[0] for row in rows})
        if (root / name).is_dir()
        for path in sorted((root / name).iterdir())
        if _is_video(path)
        and not any(row == (at := path.relative_to(root).as_posix()) or row.startswith(at + "/") for row in rows)
    ]
    if not unlisted:
        return ()
    return (f"manifest.csv does not list {len(unlisted)} videos, which are left out: {', '.join(unlisted[:5])}",)


def _hashed_splits(paths: list[str]) -> list[tuple[str, str]]:
    ranked = sorted(paths, key=lambda path: hashlib.sha256(os.fsencode(path)).digest())
    # At least one video for validation, but not all.
    count = min(max(1, round(len(ranked) * _VAL_FRACTION)), len(ranked) - 1)
    return [(path, "val" if rank < count else "train") for rank, path in enumerate(ranked)]

"""Helpers that read annotation files and find the videos that they name."""

import glob
import json
import os
from pathlib import Path
from typing import Any

from motion_jax.data.storage.video_files import VIDEO_SUFFIXES


def find(root: Path, *names: str) -> Path:
    """Return the first of ``names`` below the root that exists, or raise a ValueError that names all of them."""
    for name in names:
        if (root / name).exists():
            return root / name
    if not root.is_dir():
        raise ValueError(f"data.root: there is no folder {root}; data/README.md describes its contents")
    raise ValueError(f"data.root: {root} holds no {' nor '.join(names)}; data/README.md says where to get and put it")


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped; raise a ValueError if it is not UTF-8 or empty."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError as error:
        raise ValueError(f"data.root: {path} is not a text in UTF-8 ({error}); fetch it again") from error
    lines = [line for line in lines if line]
    if not lines:
        raise ValueError(f"data.root: {path} holds no lines; fetch it again")
    return lines


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a list or a dict, or raise a ValueError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"data.root: {path} is not JSON ({error}); fetch it again") from error
    if not isinstance(value, kind):
        raise ValueError(f"data.root: {path} holds a {type(value).__name__}, expected a {kind.__name__}")
    return value


def field(row: Any, name: str, where: str) -> Any:
    """Return a value of one annotation, or raise a ValueError that says where it is missing."""
    if not isinstance(row, dict) or name not in row:
        raise ValueError(f"data.root: {where} has no {name!r}: {row}")
    return row[name]


def label_of(name: str, position: dict[str, int], where: str) -> int:
    """Return the label of a class name, or raise a ValueError that says where the class is unknown."""
    if name not in position:
        raise ValueError(f"data.root: {where} has the class {name!r}, which is not among the {len(position)} classes")
    return position[name]


def videos_by_stem(root: Path, folder: str) -> dict[str, str]:
    """Map names without extension to paths below the root, for the videos in a folder and in its subfolders."""
    names = [*glob.glob("*", root_dir=root / folder), *glob.glob("*/*", root_dir=root / folder)]
    found: dict[str, str] = {}
    for name in sorted(names, key=lambda name: name.split("/")):
        stem, suffix = os.path.splitext(os.path.basename(name))
        if suffix.lower() in VIDEO_SUFFIXES:
            found.setdefault(stem, f"{folder}/{name}")
    return found


def class_count(classes: tuple[str, ...], published: int) -> tuple[str, ...]:
    """Return a remark if the number of classes is not the published one."""
    if len(classes) == published:
        return ()
    return (f"there are {len(classes)} classes, but the published data have {published}: is this a part of them?",)

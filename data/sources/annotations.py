"""Helpers that read annotation files and find the videos that they name."""

import csv
import glob
import io
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from motion_jax.data.storage.video_files import VIDEO_SUFFIXES
from motion_jax.text import did_you_mean, shown

MOST_BYTES = 2**30
"""Size of the largest annotation file that is read; the largest known one has a tenth of it."""


def find(root: Path, *names: str) -> Path:
    """Return the first of ``names`` below the root that exists, or raise a ValueError that names all of them."""
    for name in names:
        if (root / name).exists():
            return root / name
    if not root.is_dir():
        raise ValueError(f"data.root: there is no folder {root}; data/README.md describes its contents")
    raise ValueError(f"data.root: {root} holds no {' nor '.join(names)}; data/README.md says where to get and put it")


def read_text(path: Path, *, any_bytes: bool = False) -> str:
    """Read a text file in UTF-8.

    With ``any_bytes``, bytes that are not UTF-8 become lone surrogates, as in the names of files that Python lists.

    Raises:
        ValueError: if it is no file or larger than ``MOST_BYTES``, or not UTF-8; the message has the line.
    """
    if not path.is_file():
        raise ValueError(f"data.root: {path} is not a file; replace it by the annotation file")
    if (size := path.stat().st_size) > MOST_BYTES:
        raise ValueError(f"data.root: {path} has {size} bytes, expected at most {MOST_BYTES}; fetch it again")
    data = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode(errors="surrogateescape" if any_bytes else "strict")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"data.root: {path} line {line} is not UTF-8 (byte {data[error.start]:#04x}); save the file as UTF-8, or "
            "fetch it again"
        ) from error


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file that are not blank, stripped; raise a ValueError if it is not UTF-8 or empty."""
    return [line for _, line in numbered_lines(path)]


def numbered_lines(path: Path, *, any_bytes: bool = False) -> list[tuple[int, str]]:
    """Return the lines that are not blank, stripped and with their numbers, of a text as in :func:`read_text`.

    Raises:
        ValueError: if the text cannot be read, or there are none.
    """
    # Only a line feed ends a line: file names may hold the other characters at which str.splitlines splits.
    lines = enumerate(read_text(path, any_bytes=any_bytes).split("\n"), start=1)
    lines = [(number, line.strip()) for number, line in lines if line.strip()]
    if not lines:
        raise ValueError(f"data.root: {path} holds no lines; fetch it again")
    return lines


def read_csv(path: Path, columns: tuple[str, ...], *, any_bytes: bool = False) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a csv file with a header, each with the number of its last line. Absent fields are empty.

    Raises:
        ValueError: if the file cannot be read, or lacks one of ``columns``.
    """
    reader = csv.DictReader(io.StringIO(read_text(path, any_bytes=any_bytes), newline=""), restval="")
    try:
        given = [name or "" for name in reader.fieldnames or []]
        if missing := [name for name in columns if name not in given]:
            have, needed = ", ".join(given) or "(none)", " and ".join(columns)
            raise ValueError(
                f"data.root: {path} has the columns {have[:200]}; expected {needed}: it lacks {', '.join(missing)}"
            )
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ValueError(f"data.root: {path} line {reader.line_num + 1} is not csv ({error}); mend it") from error


def read_json(path: Path, kind: type) -> Any:
    """Read a JSON file that holds a list or a dict, or raise a ValueError."""
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"data.root: {path} is not JSON ({error}); fetch it again") from error
    except RecursionError as error:
        raise ValueError(f"data.root: {path} nests too many lists or objects; fetch it again") from error
    if not isinstance(value, kind):
        raise ValueError(f"data.root: {path} holds a {type(value).__name__}, expected a {kind.__name__}")
    return value


def field(row: Any, name: str, where: str) -> Any:
    """Return a value of one annotation, or raise a ValueError that says where it is missing."""
    if not isinstance(row, dict) or name not in row:
        raise ValueError(f"data.root: {where} has no {name!r}: {shown(row)}")
    return row[name]


def label_of(name: str, position: dict[str, int], where: str) -> int:
    """Return the label of a class name, or raise a ValueError that says where the class is unknown."""
    if name not in position:
        meant = did_you_mean(name, position, otherwise="correct one of the lists")
        raise ValueError(
            f"data.root: {where} has the class {shown(name)}, which is not among the {len(position)} classes; {meant}"
        )
    return position[name]


def named_file(root: Path, path: str, where: str) -> str:
    """Return a path of a list that was read with ``any_bytes``; it may break UTF-8 only if there is such a file.

    Raises:
        ValueError: if the list is in another encoding.
    """
    if re.search("[\udc80-\udcff]", path) and not os.path.lexists(root / path):
        raise ValueError(
            f"data.root: {where} is not UTF-8, and no file has these bytes as its name: {path}; save the list as UTF-8"
        )
    return path


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

"""Any videos, named by the list files of the official repositories: ``path frames label``."""

import re
from pathlib import Path

from motion_jax.data.sources.annotations import find, named_file, numbered_lines, read_lines
from motion_jax.data.sources.layout import SPLITS, Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.text import shown


class ListFiles(Videos):
    """Videos named by lists of ``path frames label``."""

    name = "list_files"
    HOMEPAGE = "https://github.com/mit-han-lab/temporal-shift-module"

    @staticmethod
    def read_layout(root: Path, version: str | None = None) -> Layout:
        """Find the videos of ``root/train.txt``, ``root/val.txt`` and, if it exists, ``root/test.txt``.

        A line is ``path frames label``: a file or a folder of frames below the root (spaces are allowed, and bytes that
        are not UTF-8), the number of its frames, which is ignored, and its label. ``root/labels.txt`` names the classes
        in label order, one per line. Without it, classes are named by number, every number up to the largest label must
        occur, and no class has a direction.
        """
        entries, first = [], {}
        for split in SPLITS:
            if split == "test" and not (root / "test.txt").is_file():
                continue
            path = find(root, f"{split}.txt")
            for number, line in numbered_lines(path, any_bytes=True):
                where = f"{path} line {number}"
                matched = re.fullmatch(r"(.+?)\s+(-?\d+)\s+(\d{1,9})", line)
                if not matched:
                    raise ValueError(f"data.root: {where} is {shown(line)}; expected path frames label")
                if Path(matched[1]).is_absolute() or ".." in Path(matched[1]).parts:
                    raise ValueError(f"data.root: {where} has the path {matched[1]!r}; expected one below {root}")
                entries.append(Entry(split, matched[1], named_file(root, matched[1], where), int(matched[3])))
                first.setdefault(entries[-1].label, where)
        if (root / "labels.txt").is_file():
            return Layout(root, tuple(read_lines(root / "labels.txt")), tuple(entries), "as in labels.txt")
        # Before a name is made for every number.
        absent = next((label for label in range(len(first)) if label not in first), None)
        if absent is not None:
            raise ValueError(
                f"data.root: {first[max(first)]} has the label {max(first)}, but no video of {root} has the label "
                f"{absent}; correct the labels, or name all classes in labels.txt"
            )
        remark = "there is no labels.txt, so directional classes are unknown: leave data.flip at none"
        return Layout(root, tuple(map(str, range(len(first)))), tuple(entries), "numbers", remarks=(remark,))

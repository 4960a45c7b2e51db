"""Any videos, named by the list files of the official repositories: ``path frames label``."""

import re
from pathlib import Path

from motion_jax.data.sources.annotations import find, read_lines
from motion_jax.data.sources.layout import SPLITS, Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry


class ListFiles(Videos):
    """Videos named by lists of ``path frames label``."""

    name = "list_files"
    HOMEPAGE = "https://github.com/mit-han-lab/temporal-shift-module"

    @staticmethod
    def read_layout(root: Path, version: str | None = None) -> Layout:
        """Find the videos of ``root/train.txt``, ``root/val.txt`` and, if it exists, ``root/test.txt``.

        A line is ``path frames label``: a file or a folder of frames below the root (spaces are allowed), the number
        of its frames, which is ignored, and its label. ``root/labels.txt`` names the classes in label order, one per
        line. Without it, classes are named by number, and none has a direction.
        """
        entries = []
        for split in SPLITS:
            if split == "test" and not (root / "test.txt").is_file():
                continue
            path = find(root, f"{split}.txt")
            for line in read_lines(path):
                matched = re.fullmatch(r"(.+?)\s+(-?\d+)\s+(\d+)", line)
                if not matched:
                    raise ValueError(f"data.root: {path} has the line {line!r}; expected path frames label")
                if Path(matched[1]).is_absolute() or ".." in Path(matched[1]).parts:
                    raise ValueError(f"data.root: {path} has the path {matched[1]!r}; expected one below {root}")
                entries.append(Entry(split, matched[1], matched[1], int(matched[3])))
        if (root / "labels.txt").is_file():
            return Layout(root, tuple(read_lines(root / "labels.txt")), tuple(entries), "as in labels.txt")
        count = 1 + max(entry.label for entry in entries)
        remark = "there is no labels.txt, so directional classes are unknown: leave data.flip at none"
        return Layout(root, tuple(map(str, range(count))), tuple(entries), "numbers", remarks=(remark,))

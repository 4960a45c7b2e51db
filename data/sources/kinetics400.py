"""Kinetics-400: clips of ten seconds from YouTube and csv lists."""

import re
from pathlib import Path

from motion_jax.data.sources.annotations import class_count, find, label_of, read_csv, videos_by_stem
from motion_jax.data.sources.layout import Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.text import shown

_FOLDERS = {"train": ("train",), "val": ("val", "validate", "validation"), "test": ("test",)}


class Kinetics400(Videos):
    """Kinetics-400: clips of ten seconds of human actions, 400 classes, some 240,000 for training."""

    name = "kinetics400"
    HOMEPAGE = "https://github.com/cvdfoundation/kinetics-dataset"
    CITATION = "Kay et al., The Kinetics human action video dataset, arXiv:1705.06950, 2017"

    @staticmethod
    def read_layout(root: Path, version: str | None = None) -> Layout:
        """Find the clips ``<youtube id>_<start>_<end>`` of the csv lists; start and end are seconds with six digits.

        Lists are ``train.csv`` and ``val.csv`` (or ``validate.csv``) in the root or in ``annotations/``, with the
        columns ``label, youtube_id, time_start, time_end``; a ``test.csv`` is used if it has labels. Clips lie in
        ``<split>/`` or in any subfolder, with any video extension. Listed clips that are absent are left out, because
        web videos get deleted. Classes are in alphabetical order.
        """
        rows = {split: _read_list(root, split) for split in ("train", "val")}
        if any((root / name).is_file() for name in ("test.csv", "annotations/test.csv")):
            rows["test"] = _read_list(root, "test")
        classes = tuple(sorted({row["label"] for split in ("train", "val") for row in rows[split]}))
        position = {name: label for label, name in enumerate(classes)}
        entries, missing = [], []
        for split, listed in rows.items():
            present = {stem: path for folder in _FOLDERS[split] for stem, path in videos_by_stem(root, folder).items()}
            for row in listed:
                start, end = (int(float(row[name])) for name in ("time_start", "time_end"))
                clip = f"{row['youtube_id']}_{start:06d}_{end:06d}"
                path = present.get(clip, f"{_FOLDERS[split][0]}/{clip}.mp4")
                entry = Entry(split, clip, path, label_of(row["label"], position, f"the {split} list, clip {clip},"))
                (entries if clip in present else missing).append(entry)
        return Layout(root, classes, tuple(entries), "alphabetical", tuple(missing), remarks=class_count(classes, 400))


def _read_list(root: Path, split: str) -> list[dict[str, str]]:
    """Read the labelled rows of a list; underscores in class names become spaces."""
    path = find(root, *(f"{folder}{name}.csv" for name in _FOLDERS[split] for folder in ("", "annotations/")))
    columns = ("youtube_id", "time_start", "time_end", *(["label"] if split != "test" else []))
    rows = []
    for number, row in read_csv(path, columns):
        if not all(re.fullmatch(r"\d{1,6}(\.\d*)?", row[name]) for name in ("time_start", "time_end")):
            raise ValueError(f"data.root: {path} line {number} has times that are not numbers: {shown(row)}")
        row["label"] = row.get("label", "").replace("_", " ").strip()
        if row["label"]:
            rows.append(row)
    return rows

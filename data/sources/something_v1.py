"""Something-Something V1: frame folders and lists of ``id;label``."""

import re
from pathlib import Path

from motion_jax.data.sources.annotations import class_count, find, label_of, read_lines
from motion_jax.data.sources.layout import Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.text import shown

_FOLDER = "20bn-something-something-v1"
_LISTS = {"train": "train", "val": "validation"}


class SomethingV1(Videos):
    """Something-Something V1: 108,499 clips of people handling things, 174 classes, frames at 12 per second."""

    name = "something_v1"
    HOMEPAGE = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
    CITATION = "Goyal et al., The 'something something' video database for learning and evaluating ..., ICCV 2017"

    @staticmethod
    def read_layout(root: Path, version: str | None = None) -> Layout:
        """Find the clips ``root/20bn-something-something-v1/<id>/00001.jpg``.

        Splits and labels come from the official code's ``train_videofolder.txt`` and ``val_videofolder.txt`` (lines
        ``path frames label``) if these lie in the root, otherwise from ``something-something-v1-train.csv`` and
        ``-validation.csv`` (lines ``id;label``). The test clips have no public labels and are left out.

        Two orders of the classes are in use: the order of the released ``something-something-v1-labels.csv``, and the
        alphabetical order of the official code. The order of lists of the official code is inferred from the labels of
        the csv files, or read from ``category.txt`` if there are none. Without such lists it is alphabetical.
        """
        lists = {split: root / f"{split}_videofolder.txt" for split in _LISTS}
        if all(path.is_file() for path in lists.values()):
            entries = [entry for split, path in lists.items() for entry in _read_list(path, split)]
            classes, order = _order_of_lists(root, entries)
        else:
            classes = tuple(sorted(_released_labels(root)))
            order = "alphabetical, as in the official codes"
            position = {name: label for label, name in enumerate(classes)}
            entries = []
            for split in _LISTS:
                path, named = _read_csv(root, split)
                for clip, name in named:
                    label = label_of(name, position, f"{path}, clip {clip},")
                    entries.append(Entry(split, clip, f"{_FOLDER}/{clip}", label))
        return Layout(root, classes, tuple(entries), order, remarks=class_count(classes, 174))


def _released_labels(root: Path) -> list[str]:
    return read_lines(find(root, "something-something-v1-labels.csv"))


def _read_csv(root: Path, split: str) -> tuple[Path, list[tuple[str, str]]]:
    """Read a list of the release: its file, and clips with their class names."""
    path = find(root, f"something-something-v1-{_LISTS[split]}.csv")
    named = []
    for line in read_lines(path):
        clip, separator, name = line.partition(";")
        if not separator:
            raise ValueError(f"data.root: {path} has the line {shown(line)}; expected id;label")
        named.append((clip, name))
    return path, named


def _read_list(path: Path, split: str) -> list[Entry]:
    """Read a list of the official code; the last part of each path is the clip."""
    entries = []
    for line in read_lines(path):
        matched = re.fullmatch(r"(.+) (\d+) (\d{1,6})", line)
        if not matched:
            raise ValueError(f"data.root: {path} has the line {shown(line)}; expected path frames label")
        clip = matched[1].rsplit("/", 1)[-1]
        entries.append(Entry(split, clip, f"{_FOLDER}/{clip}", int(matched[3])))
    return entries


def _order_of_lists(root: Path, entries: list[Entry]) -> tuple[tuple[str, ...], str]:
    """Return the class names in the order of the official lists, and that order in words."""
    category = root / "category.txt"
    if category.is_file() and not (root / "something-something-v1-labels.csv").is_file():
        given = read_lines(category)
        return tuple(given), "as in category.txt" + (", alphabetical" if given == sorted(given) else "")
    # A category.txt may belong to other lists. The csv files name the class of each clip.
    released = _released_labels(root)
    named = {clip: name for split in _LISTS for clip, name in _read_csv(root, split)[1]}
    fitting = [
        (tuple(names), order)
        for names, order in (
            (sorted(released), "alphabetical, as the list files number"),
            (released, "as in the released labels.csv"),
        )
        if all(entry.label < len(names) and named.get(entry.id) == names[entry.label] for entry in entries)
    ]
    if not fitting:
        raise ValueError(
            f"data.root: the labels of train_videofolder.txt and val_videofolder.txt in {root} follow neither the "
            "alphabetical order nor that of something-something-v1-labels.csv; take lists and csv files of one "
            "release, or remove the csv files and add the category.txt the lists were made with"
        )
    return fitting[0]

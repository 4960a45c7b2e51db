"""HMDB-51: videos in class folders and three splits."""

from pathlib import Path

from motion_jax.data.sources.annotations import class_count, find, read_lines, videos_by_stem
from motion_jax.data.sources.layout import Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.text import shown

_LISTS = "testTrainMulti_7030_splits"
# Meaning of the number after a clip; clips with 0 are left out of this split.
_SPLITS = {"1": "train", "2": "val", "0": None}


class HMDB51(Videos):
    """HMDB-51: 6,766 clips of human actions, mostly from films, 51 classes, three splits."""

    name = "hmdb51"
    HOMEPAGE = "https://serre-lab.clps.brown.edu/resource/hmdb-a-large-human-motion-database/"
    CITATION = "Kuehne et al., HMDB: A large video database for human motion recognition, ICCV 2011"

    @staticmethod
    def read_layout(root: Path, version: str | None) -> Layout:
        """Find the clips ``root/<class>/<clip>.avi``.

        The lists of a class, in ``testTrainMulti_7030_splits/`` or beside the class folders, have lines ``clip.avi 1``
        for training, 2 for testing, which is the split val, and 0 for neither. Classes are in alphabetical order.
        """
        ending = f"_test_{version}.txt"
        folder = root / _LISTS if (root / _LISTS).is_dir() else root
        lists = sorted(folder.glob(f"*{ending}"))
        if not lists:
            find(root, f"{_LISTS}/<class>{ending}")
        classes = tuple(path.name.removesuffix(ending) for path in lists)
        entries = []
        for label, (name, path) in enumerate(zip(classes, lists, strict=True)):
            present = videos_by_stem(root, name)
            for line in read_lines(path):
                file, _, number = line.rpartition(" ")
                if not file or number not in _SPLITS:
                    raise ValueError(f"data.root: {path} has the line {shown(line)}; expected clip.avi and 0, 1 or 2")
                clip = Path(file.strip()).stem
                if split := _SPLITS[number]:
                    path_of_clip = present.get(clip, f"{name}/{file.strip()}")
                    entries.append(Entry(split, f"{name}/{clip}", path_of_clip, label))
        entries.sort(key=lambda entry: entry.split != "train")  # Stable: classes stay in order.
        return Layout(root, classes, tuple(entries), "alphabetical", remarks=class_count(classes, 51))

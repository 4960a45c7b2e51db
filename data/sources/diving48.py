"""Diving-48: one file per dive and JSON lists, in two versions of the labels."""

from pathlib import Path

from motion_jax.data.sources.annotations import class_count, field, find, read_json, videos_by_stem
from motion_jax.data.sources.layout import Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.text import shown

_PREFIX = {"v1": "Diving48", "v2": "Diving48_V2"}


class Diving48(Videos):
    """Diving-48: about 18,000 competitive dives, 48 classes distinguished by motion alone."""

    name = "diving48"
    HOMEPAGE = "http://www.svcl.ucsd.edu/projects/resound/dataset.html"
    CITATION = "Li, Li, Vasconcelos, RESOUND: Towards action recognition without representation bias, ECCV 2018"

    @staticmethod
    def read_layout(root: Path, version: str | None) -> Layout:
        """Find the dives ``root/rgb/<vid_name>.mp4``.

        Lists are ``Diving48_V2_{train,test}.json`` for ``version`` "v2" (labels corrected in 2020) and
        ``Diving48_{train,test}.json`` for "v1"; ``Diving48_vocab.json`` names the classes by take-off, somersaults,
        twists and position. The test list is the split val. Each file is one dive, with ``start_frame`` 0.
        """
        vocabulary = find(root, "Diving48_vocab.json")
        classes = []
        for parts in read_json(vocabulary, list):
            if not isinstance(parts, list):
                raise ValueError(f"data.root: {vocabulary} names a class {shown(parts)}; expected a list of its parts")
            classes.append(" ".join(map(str, parts)))
        present = videos_by_stem(root, "rgb")
        entries = []
        for split, name in (("train", "train"), ("val", "test")):
            path = find(root, f"{_PREFIX[version]}_{name}.json")
            for row in read_json(path, list):
                dive = str(field(row, "vid_name", str(path)))
                where = f"{path}, dive {dive},"
                label = field(row, "label", where)
                if not isinstance(label, int):
                    raise ValueError(f"data.root: {where} has the label {shown(label)}; expected an integer")
                if row.get("start_frame", 0) != 0:
                    raise ValueError(f"data.root: {where} starts at frame {shown(row['start_frame'])}; expected 0")
                entries.append(Entry(split, dive, present.get(dive, f"rgb/{dive}.mp4"), label))
        classes = tuple(classes)
        return Layout(root, classes, tuple(entries), f"as in {vocabulary.name}", remarks=class_count(classes, 48))

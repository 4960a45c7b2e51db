"""Something-Something V2: webm videos and JSON lists."""

from pathlib import Path

from motion_jax.data.sources.annotations import class_count, field, find, label_of, read_json, videos_by_stem
from motion_jax.data.sources.layout import Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry

_FOLDER = "20bn-something-something-v2"


class SomethingV2(Videos):
    """Something-Something V2: 220,847 clips of people handling things, 174 classes."""

    name = "something_v2"
    HOMEPAGE = "https://www.qualcomm.com/developer/software/something-something-v-2-dataset"
    CITATION = "Goyal et al., The 'something something' video database for learning and evaluating ..., ICCV 2017"

    @staticmethod
    def read_layout(root: Path, version: str | None = None) -> Layout:
        """Find the clips ``root/20bn-something-something-v2/<id>.webm``.

        Lists are ``something-something-v2-{labels,train,validation}.json``, or ``labels/{labels,..}.json`` in newer
        archives. The class of a clip is its template without brackets. Classes are in the order of the labels file,
        which is alphabetical. The test clips have no labels there and are left out.
        """
        files = {
            name: find(root, f"something-something-v2-{name}.json", f"labels/{name}.json")
            for name in ("labels", "train", "validation")
        }
        numbers = read_json(files["labels"], dict)
        if {str(number) for number in numbers.values()} != {str(label) for label in range(len(numbers))}:
            raise ValueError(f"data.root: {files['labels']} does not number its classes 0 to {len(numbers) - 1}")
        position = {name: int(number) for name, number in numbers.items()}
        classes = tuple(sorted(position, key=position.__getitem__))
        present = videos_by_stem(root, _FOLDER)
        entries = []
        for split, name in (("train", "train"), ("val", "validation")):
            for row in read_json(files[name], list):
                clip = str(field(row, "id", str(files[name])))
                where = f"{files[name]}, clip {clip},"
                template = str(field(row, "template", where)).replace("[", "").replace("]", "")
                path = present.get(clip, f"{_FOLDER}/{clip}.webm")
                entries.append(Entry(split, clip, path, label_of(template, position, where)))
        order = f"as in {files['labels'].name}" + (", alphabetical" if list(classes) == sorted(classes) else "")
        return Layout(root, classes, tuple(entries), order, remarks=class_count(classes, 174))

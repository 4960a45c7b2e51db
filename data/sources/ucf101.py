"""UCF-101: videos in class folders and three splits."""

from pathlib import Path

from motion_jax.data.sources.annotations import class_count, find, label_of, read_lines, videos_by_stem
from motion_jax.data.sources.layout import Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.text import shown

_FOLDER, _LISTS = "UCF-101", "ucfTrainTestlist"


class UCF101(Videos):
    """UCF-101: 13,320 clips of human actions from YouTube, 101 classes, three splits."""

    name = "ucf101"
    HOMEPAGE = "https://www.crcv.ucf.edu/data/UCF101.php"
    CITATION = "Soomro et al., UCF101: A dataset of 101 human actions classes from videos in the wild, CRCV-TR-12-01"

    @staticmethod
    def read_layout(root: Path, version: str | None) -> Layout:
        """Find the clips ``root/UCF-101/<class>/v_*.avi``.

        ``ucfTrainTestlist/`` holds ``classInd.txt`` (lines ``number class``, numbers from 1),
        ``trainlist01.txt`` (``class/clip number``) and ``testlist01.txt`` (``class/clip``), 01 for ``version``
        "split1" and so on. The test list is the split val.
        """
        index = find(root, f"{_LISTS}/classInd.txt")
        numbered = [line.split(maxsplit=1) for line in read_lines(index)]
        named = all(len(parts) == 2 for parts in numbered)
        if not named or [number for number, _ in numbered] != [str(number) for number in range(1, len(numbered) + 1)]:
            raise ValueError(f"data.root: {index} does not number its classes 1 to {len(numbered)}")
        classes = tuple(parts[1] for parts in numbered)
        position = {name: label for label, name in enumerate(classes)}
        present = videos_by_stem(root, _FOLDER)
        entries = []
        for split, name in (("train", "trainlist"), ("val", "testlist")):
            path = find(root, f"{_LISTS}/{name}0{version.removeprefix('split')}.txt")
            for line in read_lines(path):
                file, _, number = line.partition(" ")
                label = label_of(file.partition("/")[0], position, f"{path}, line {shown(line)},")
                if number and number.strip() != str(label + 1):
                    raise ValueError(
                        f"data.root: {path} has the line {shown(line)}, but {index} numbers it {label + 1}"
                    )
                clip = Path(file).stem
                entries.append(Entry(split, clip, present.get(clip, f"{_FOLDER}/{file}"), label))
        return Layout(root, classes, tuple(entries), "as in classInd.txt", remarks=class_count(classes, 101))

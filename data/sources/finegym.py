"""FineGym: elements of gymnastics, cut out of competition videos by time."""

import math
import re
from pathlib import Path
from typing import Any

from motion_jax.data.sources.annotations import class_count, find, read_json, read_lines, videos_by_stem
from motion_jax.data.sources.layout import Layout
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.parts import Entry
from motion_jax.text import shown

_CLASSES = {"gym99": 99, "gym288": 288}
_VERSIONS = ("v1.1", "v1.0", "v1.2")
_ACTION = re.compile(r"(?P<video>.+)_(?P<event>E_\d+_\d+)_(?P<action>A_\d+_\d+)")


class FineGym(Videos):
    """FineGym: elements of competitions in gymnastics, 99 balanced classes (gym99) or 288 (gym288)."""

    name = "finegym"
    HOMEPAGE = "https://sdolivia.github.io/FineGym/"
    CITATION = "Shao et al., FineGym: A hierarchical video dataset for fine-grained action understanding, CVPR 2020"

    @staticmethod
    def read_layout(root: Path, version: str | None) -> Layout:
        """Find the elements ``<video>_E_<event>_A_<action>`` of the lists.

        The names of lists may end in ``_v1.x`` or not; their lines are ``element label``. An element is
        ``subactions/<element>.mp4`` if that exists; otherwise it is cut out of ``videos/<video>.mp4`` from the start
        of its first stage to the end of its last. Elements whose video is absent are left out.
        """
        categories = _annotation(root, f"{version}_categories.txt")
        classes = _read_categories(categories)
        cut, whole = videos_by_stem(root, "subactions"), videos_by_stem(root, "videos")
        times = None
        entries, missing = [], []
        for split in ("train", "val"):
            path = _annotation(root, *(f"{version}_{split}_element{v and '_' + v}.txt" for v in (*_VERSIONS, "")))
            for line in read_lines(path):
                name, _, label = line.rpartition(" ")
                matched = _ACTION.fullmatch(name.strip())
                if not matched or not re.fullmatch(r"\d{1,6}", label):
                    raise ValueError(f"data.root: {path} has the line {shown(line)}; expected <video>_E_.._A_.. label")
                element, video = matched[0], matched["video"]
                if element in cut:
                    entries.append(Entry(split, element, cut[element], int(label)))
                    continue
                if times is None:
                    info = _annotation(root, *(f"finegym_annotation_info_{v}.json" for v in _VERSIONS))
                    times = read_json(info, dict)
                path_of_video = whole.get(video, f"videos/{video}.mp4")
                entry = Entry(split, element, path_of_video, int(label), _seconds(times, matched))
                (entries if video in whole else missing).append(entry)
        order, remarks = f"as in {categories.name}", class_count(classes, _CLASSES[version])
        return Layout(root, classes, tuple(entries), order, tuple(missing), remarks)


def _annotation(root: Path, *names: str) -> Path:
    return find(root, *(folder + name for name in names for folder in ("", "annotations/")))


def _read_categories(path: Path) -> tuple[str, ...]:
    """Read the names of lines ``Clabel: 0; set: 1; Glabel: 1; (VT) round-off, ...``."""
    names: dict[int, str] = {}
    for line in read_lines(path):
        matched = re.fullmatch(r"Clabel:\s*(\d{1,6});\s*set:\s*\d+;\s*(?:Glabel:\s*\d+;\s*)?(.+)", line)
        if not matched:
            raise ValueError(
                f"data.root: {path} has the line {shown(line)}; expected Clabel: .; set: .; Glabel: .; name"
            )
        names[int(matched[1])] = matched[2]
    if sorted(names) != list(range(len(names))):
        raise ValueError(f"data.root: {path} does not number its classes 0 to {len(names) - 1}")
    return tuple(names[label] for label in range(len(names)))


def _seconds(times: dict[str, Any], element: re.Match) -> tuple[float, float]:
    """Return start and end in the whole video; times of an element count from the start of its event."""
    try:
        event = times[element["video"]][element["event"]]
        stages = event["segments"][element["action"]]["timestamps"]
        offset = event["timestamps"][0][0]
        start, end = float(offset + stages[0][0]), float(offset + stages[-1][1])
        if not 0 <= start < end < math.inf:
            raise ValueError
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        cure = "take lists and info of one release"
        raise ValueError(f"data.root: the annotation info has no times of {element[0]}; {cure}") from error
    return start, end

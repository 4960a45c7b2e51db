"""Convert videos to record files, part by part, so that a killed preparation continues where it stopped.

The entries of each split are cut into parts; the same entries always give the same parts. A part becomes one record
file, which is written under a temporary name and renamed when it is complete. Then a summary is written beside it: a
part with a summary is done. Parts are independent, so any number of machines that share the folder can write them.
"""

import dataclasses
import hashlib
import itertools
import json
import os
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from motion_jax.data.config import MAX_PIXELS
from motion_jax.data.storage.decoder import decode
from motion_jax.data.storage.video_files import VideoError
from motion_jax.data.storage.work import parallel_map, progress_bar

# Readers keep every record file open: at most this many per split, and no file for fewer videos.
_MOST_PARTS, _LEAST_VIDEOS = 256, 32


@dataclass(frozen=True)
class Entry:
    """One video of a data set: its split, name and label.

    ``path`` is a file or a folder of frames, relative to the root, with "/". ``seconds`` is the (start, end) of the
    part of the file that is used; None uses all of it.
    """

    split: str
    id: str
    path: str
    label: int
    seconds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Part:
    """Consecutive videos of a split: its record file number ``index`` of ``count``."""

    split: str
    index: int
    count: int
    entries: tuple[Entry, ...]

    @property
    def name(self) -> str:
        """Name of its files, without extension."""
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"


class Kept(NamedTuple):
    """A record: id, label, number of frames, uncompressed size in bytes, and a digest of its frames."""

    id: str
    label: int
    frames: int
    bytes: int
    content: str


@dataclass(frozen=True)
class Summary:
    """Result of a part: its records in order.

    ``unreadable`` is the (path, reason) of each video left out, ``remarks`` the (path, remark) of each unusual video
    that is kept.
    """

    kept: tuple[Kept, ...]
    unreadable: tuple[tuple[str, str], ...]
    remarks: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Encoded:
    """One video as a record with the number and a digest of its frames, or the reason why there is no record."""

    record: bytes | None
    frames: int
    content: str = ""
    reason: str = ""
    remark: str = ""


@dataclass(frozen=True)
class Encoder:
    """Function from an entry to its record; can be pickled. The last three fields are as in ``DataConfig``."""

    root: Path
    classes: tuple[str, ...]
    resize: tuple[int, int] | int | None
    quality: int
    max_pixels: int = MAX_PIXELS

    def __call__(self, entry: Entry) -> Encoded:
        try:
            path = self.root / entry.path
            options = {"resize_to": self.resize, "quality": self.quality, "seconds": entry.seconds}
            stored = decode(path, max_pixels=self.max_pixels, **options)
        except VideoError as error:
            return Encoded(None, 0, reason=error.reason)
        except OSError as error:
            return Encoded(None, 0, reason=error.strerror or str(error))
        frames, count = stored.frames, len(stored.frames)
        example = {"id": entry.id, "frames": frames, "label": entry.label, "num_frames": count, "fps": stored.fps}
        features, serializer = self._features
        record = serializer.serialize_example(features.encode_example(example))
        content = hashlib.sha1(usedforsecurity=False)
        for frame in frames:
            content.update(frame)
        return Encoded(record, count, content.hexdigest(), remark=stored.remark)

    @cached_property
    def _features(self) -> tuple[tfds.features.FeaturesDict, tfds.core.ExampleSerializer]:
        features = video_features(self.classes)
        return features, tfds.core.ExampleSerializer(features.get_serialized_info())


def video_features(classes: Sequence[str], **more: Any) -> tfds.features.FeaturesDict:
    """Return the features of a stored video, and ``more``; frames are JPEG bytes."""
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "frames": tfds.features.Sequence(tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")),
            "label": tfds.features.ClassLabel(names=list(classes)),
            "num_frames": np.int32,
            "fps": np.float32,
            **more,
        }
    )


def make_parts(entries: Iterable[Entry], split: str) -> list[Part]:
    """Cut the entries of a split into parts."""
    held = tuple(entry for entry in entries if entry.split == split)
    size = max(_LEAST_VIDEOS, -(-len(held) // _MOST_PARTS))
    pieces = [held[start : start + size] for start in range(0, len(held), size)]
    return [Part(split, index, len(pieces), piece) for index, piece in enumerate(pieces)]


def record_file(part: Part, folder: Path) -> Path:
    """Return the path of the records of a part; there is no file if none of its videos can be read."""
    return folder / f"{part.name}.array_record"


def read_summary(part: Part, folder: Path) -> Summary | None:
    """Return the result of a part, or None while it is not done."""
    try:
        values = json.loads((folder / f"{part.name}.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    if "kept" not in values:  # A part of an earlier version.
        return None
    pairs = (tuple(map(tuple, values[name])) for name in ("unreadable", "remarks"))
    return Summary(tuple(Kept(*kept) for kept in values["kept"]), *pairs)


def write_part(part: Part, folder: Path, results: Iterable[Encoded]) -> Summary:
    """Write the records of a part and then its summary. ``results`` are in the order of its entries."""
    # Beam may give one part to two workers: each writes its own file, and the last rename wins.
    temporary = folder / f"{part.name}.{uuid.uuid4().hex}"
    kept, unreadable, remarks = [], [], []
    writer = array_record_module.ArrayRecordWriter(str(temporary), "group_size:1")
    try:
        for entry, result in zip(part.entries, results, strict=True):
            if result.record is None:
                unreadable.append((entry.path, result.reason))
                continue
            writer.write(result.record)
            kept.append(Kept(entry.id, entry.label, result.frames, len(result.record), result.content))
            if result.remark:
                remarks.append((entry.path, result.remark))
    finally:
        writer.close()
    summary = Summary(tuple(kept), tuple(unreadable), tuple(remarks))
    if kept:
        _to_disk(temporary)
        os.replace(temporary, record_file(part, folder))
    else:
        temporary.unlink()  # A file without records cannot be opened.
    temporary.write_text(json.dumps(dataclasses.asdict(summary)))
    _to_disk(temporary)
    os.replace(temporary, folder / f"{part.name}.json")
    return summary


def _to_disk(path: Path) -> None:
    """Flush a file to the disk, so that a power failure cannot leave half a file under its final name."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_parts(parts: Sequence[Part], folder: Path, encode: Encoder) -> None:
    """Write the parts that are not done, on all cores of this machine, with a progress bar."""
    todo = [part for part in parts if read_summary(part, folder) is None]
    results = parallel_map(encode, (entry for part in todo for entry in part.entries))
    with _bar(parts, todo) as bar:

        def counted() -> Iterator[Encoded]:
            for result in results:
                bar.update()
                yield result

        following = counted()
        for part in todo:
            write_part(part, folder, itertools.islice(following, len(part.entries)))


def write_parts_with_beam(
    parts: Sequence[Part], folder: Path, encode: Encoder, *, runner: Any, options: Any = None
) -> None:
    """Write the parts that are not done on a Beam runner, whose workers share the folder and the videos.

    ``runner`` and ``options`` are those of ``beam.Pipeline``.
    """
    import apache_beam as beam

    todo = [part for part in parts if read_summary(part, folder) is None]

    def work() -> None:
        with beam.Pipeline(runner=runner, options=options) as pipeline:
            make = beam.Map(_make_part, folder=folder.absolute(), encode=encode)
            _ = pipeline | beam.Create(todo) | beam.Reshuffle() | make

    with _bar(parts, todo) as bar, ThreadPoolExecutor(1) as pool:
        running = pool.submit(work)
        while not running.done():
            time.sleep(0.5)
            done = [part for part in todo if read_summary(part, folder) is not None]
            bar.update(sum(len(part.entries) for part in done) + bar.initial - bar.n)
        running.result()


def _make_part(part: Part, *, folder: Path, encode: Encoder) -> None:
    # Serial: the runner keeps the cores busy with other parts.
    write_part(part, folder, map(encode, part.entries))


def _bar(parts: Sequence[Part], todo: Sequence[Part]) -> Any:
    whole, left = (sum(len(part.entries) for part in some) for some in (parts, todo))
    return progress_bar(whole, label="videos", done=whole - left)

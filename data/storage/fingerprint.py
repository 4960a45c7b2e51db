"""The fingerprint of prepared records: what was written, to compare with what is opened and read.

``fingerprint.json`` lies beside ``dataset_info.json``. Per split it holds a checksum of each record's id, label and
number of frames, and per shard its number of records, its size and a checksum of its end, which is the index of its
records. The bytes of a record need no further checksum: array_record stores one with each and compares it on reading.
"""

import contextlib
import hashlib
import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = "fingerprint.json"
# The index takes 10 bytes per record, and array_record pads to blocks of 64 KiB.
_INDEX_BYTES = 2**17
# On a network disk, each file costs several round trips: check many at a time.
_THREADS = 16


class Shard(NamedTuple):
    """A record file: its name, its number of records, its size in bytes and a checksum of the index at its end."""

    file: str
    records: int
    bytes: int
    index: int


@dataclass(frozen=True)
class Fingerprint:
    """What identifies a prepared data set, whatever its folder and the machine.

    Attributes:
        labels: class names in label order.
        records: checksum of each record per split, see :func:`record_checksum`.
        shards: the record files per split.
    """

    labels: tuple[str, ...]
    records: Mapping[str, np.ndarray]
    shards: Mapping[str, tuple[Shard, ...]]

    @cached_property
    def text(self) -> str:
        """16 hexadecimal digits that depend on class names, and on ids, labels and frame numbers in their order."""
        digest = hashlib.sha256(repr(self.labels).encode())
        for split, checksums in sorted(self.records.items()):
            digest.update(repr((split, len(checksums))).encode() + checksums.tobytes())
        return digest.hexdigest()[:16]

    def write(self, folder: Path) -> None:
        """Write ``fingerprint.json`` into a folder."""
        splits = {
            split: {"shards": self.shards[split], "records": checksums.tolist()}
            for split, checksums in self.records.items()
        }
        (folder / FILE).write_text(json.dumps({"fingerprint": self.text, "splits": splits}))


def record_checksum(name: bytes, label: int, frames: int) -> int:
    """Return a checksum of the identity of a record: its id in UTF-8, its label and its number of frames."""
    return zlib.crc32(b"%d %d %b" % (label, frames, name))


def describe_shard(path: Path, records: int) -> Shard:
    """Return what the fingerprint holds of a record file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - _INDEX_BYTES))
        return Shard(path.name, records, size, zlib.crc32(file.read()))


def read_fingerprint(folder: Path, labels: Sequence[str]) -> Fingerprint | None:
    """Read the fingerprint of a prepared folder; None if it was prepared before there were fingerprints.

    Raises:
        ValueError: if it cannot be read, or belongs to other class names than ``labels``.
    """
    if not (folder / FILE).exists():
        return None
    try:
        stored = json.loads((folder / FILE).read_text())
        splits = stored["splits"]
        found = Fingerprint(
            tuple(labels),
            {split: np.array(values["records"], "<u4") for split, values in splits.items()},
            {split: tuple(Shard(*shard) for shard in values["shards"]) for split, values in splits.items()},
        )
        text = stored["fingerprint"]
    # JSON of another form raises errors of many types.
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        raise damaged(folder, f"{FILE} cannot be read") from error
    if text != found.text:
        raise damaged(folder, f"{FILE} belongs to other class names or other records")
    return found


def check_records(folder: Path, info: Any) -> None:
    """Raise an error unless a prepared folder holds what was written, as far as this shows without reading records.

    Args:
        folder: holds the records.
        info: the ``DatasetInfo`` that TFDS read there.

    Raises:
        ValueError: if a file is absent, damaged, or of another data set or split. The message names it.
    """
    if not (folder / "dataset_info.json").is_file():
        raise damaged(folder, "dataset_info.json is absent")
    try:
        json.loads((folder / "metadata.json").read_text())
    except FileNotFoundError:
        pass
    except ValueError as error:
        raise damaged(folder, "metadata.json cannot be read") from error
    fingerprint = read_fingerprint(folder, info.features["label"].names)
    if fingerprint is None:
        return
    given = {split: list(of_split.shard_lengths) for split, of_split in info.splits.items()}
    expected = {split: [shard.records for shard in shards] for split, shards in fingerprint.shards.items()}
    if given != expected:
        given, expected = ({split: sum(of) for split, of in counts.items()} for counts in (given, expected))
        raise damaged(folder, f"dataset_info.json counts {given} records, but {expected} were written")
    shards = [shard for of_split in fingerprint.shards.values() for shard in of_split]
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="fingerprint") as pool:
        for found, shard in zip(pool.map(lambda shard: _described(folder, shard), shards), shards, strict=True):
            if found != shard:
                absent = found is None
                raise damaged(folder, f"{shard.file} {'cannot be read' if absent else 'is not the file written'}")


def damaged(folder: Path | str, what: str) -> ValueError:
    """Return the error for a prepared folder that cannot be used."""
    return ValueError(f"the prepared records are damaged: {what}; delete the folder {folder} to prepare it again")


@contextlib.contextmanager
def naming_folder(folder: Path | Callable[[], str]) -> Iterator[None]:
    """Turn what TFDS raises while it makes the builder of a damaged folder into one line.

    ``folder`` is the folder, or a function that is called for it afterwards.
    """
    try:
        yield
    # Its parsers raise errors of many types.
    except Exception as error:
        folder = folder if isinstance(folder, Path) else Path(folder())
        if not (folder / "dataset_info.json").exists():
            raise
        reason = " ".join(str(error).split())
        raise damaged(folder, f"dataset_info.json or a file beside it cannot be read ({reason[:100]})") from error


def _described(folder: Path, shard: Shard) -> Shard | None:
    try:
        return describe_shard(folder / shard.file, shard.records)
    except OSError:
        return None

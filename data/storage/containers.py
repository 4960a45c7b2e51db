"""How many video streams a file holds, which OpenCV does not say: it reads the first."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT, _TRACKS, _TRACK_ENTRY, _TRACK_TYPE = 0x1A45DFA3, 0x18538067, 0x1654AE6B, 0xAE, 0x83
_CLUSTER = 0x1F43B675


def video_streams(path: str | os.PathLike) -> int | None:
    """The number of video streams a file declares.

    Only the index is read, no picture.

    Returns:
        None where the container is neither MP4 or QuickTime nor Matroska or WebM, or is damaged.

    Source: ISO/IEC 14496-12, boxes moov/trak/mdia/hdlr; RFC 9559 (Matroska), Segment/Tracks/TrackEntry/TrackType.
    """
    with Path(path).open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            start = file.read(8)
            if start[:4] == _EBML.to_bytes(4, "big"):
                return _matroska(file, size)
            if start[4:] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
                return _mp4(file, size)
        except (struct.error, IndexError):
            pass  # Cut off.
    return None


def _mp4(file: BinaryIO, size: int) -> int | None:
    handlers = [
        _handler(file, hdlr)
        for moov in _boxes(file, (0, size), b"moov")
        for trak in _boxes(file, moov, b"trak")
        for mdia in _boxes(file, trak, b"mdia")
        for hdlr in _boxes(file, mdia, b"hdlr")
    ]
    return handlers.count(b"vide") if handlers else None


def _handler(file: BinaryIO, span: tuple[int, int]) -> bytes:
    file.seek(span[0] + 8)
    return file.read(4)


def _boxes(file: BinaryIO, span: tuple[int, int], kind: bytes) -> Iterator[tuple[int, int]]:
    """The contents of the boxes of a kind between two positions."""
    at, end = span
    while at + 8 <= end:
        file.seek(at)
        length, name = struct.unpack(">I4s", file.read(8))
        head = 8
        if length == 1:
            (length,), head = struct.unpack(">Q", file.read(8)), 16
        elif length == 0:
            length = end - at
        if length < head:
            return
        if name == kind:
            yield at + head, min(at + length, end)
        at += length


def _matroska(file: BinaryIO, size: int) -> int | None:
    for segment in _elements(file, (0, size), _SEGMENT):
        for tracks in _elements(file, segment, _TRACKS):
            types = [
                _number(file, kind)
                for entry in _elements(file, tracks, _TRACK_ENTRY)
                for kind in _elements(file, entry, _TRACK_TYPE)
            ]
            return types.count(1) if types else None
    return None


def _number(file: BinaryIO, span: tuple[int, int]) -> int:
    file.seek(span[0])
    return int.from_bytes(file.read(span[1] - span[0]), "big")


def _elements(file: BinaryIO, span: tuple[int, int], kind: int) -> Iterator[tuple[int, int]]:
    """The contents of the elements of a kind between two positions; pictures (clusters) end the search."""
    at, end = span
    while at < end:
        file.seek(at)
        identity, _ = _variable(file)
        length, unknown = _variable(file, drop_marker=True)
        content = file.tell()
        if identity == kind:
            yield content, end if unknown else min(content + length, end)
        if identity == _CLUSTER or unknown:
            return
        at = content + length


def _variable(file: BinaryIO, *, drop_marker: bool = False) -> tuple[int, bool]:
    """A number of 1 to 8 bytes whose leading zeros say how many follow, and whether all its bits are ones."""
    first = file.read(1)[0]
    width = 9 - first.bit_length()
    value = int.from_bytes(bytes([first]) + file.read(width - 1), "big")
    plain = value & ((1 << 7 * width) - 1)
    return plain if drop_marker else value, plain == (1 << 7 * width) - 1

import struct

import pytest

from motion_jax.data.storage.containers import video_streams


def box(kind: bytes, content: bytes, *, wide: bool = False) -> bytes:
    if wide:
        return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content
    return struct.pack(">I4s", 8 + len(content), kind) + content


def track(handler: bytes) -> bytes:
    hdlr = box(b"hdlr", bytes(8) + handler + bytes(12))
    return box(b"trak", box(b"tkhd", bytes(84)) + box(b"mdia", box(b"mdhd", bytes(24)) + hdlr))


def element(identity: bytes, content: bytes, *, unknown: bool = False) -> bytes:
    size = b"\x01" + b"\xff" * 7 if unknown else (len(content) | 1 << 56).to_bytes(8, "big")
    return identity + size + content


SEGMENT, TRACKS, ENTRY, TYPE, CLUSTER = (
    bytes.fromhex(identity) for identity in ("18538067", "1654ae6b", "ae", "83", "1f43b675")
)
HEAD = element(bytes.fromhex("1a45dfa3"), bytes(20))


def entries(*types: int) -> bytes:
    return element(
        TRACKS, b"".join(element(ENTRY, element(b"\xd7", b"\x01") + element(TYPE, bytes([t]))) for t in types)
    )


FTYP = box(b"ftyp", b"isom")
FILES = {
    "one": (FTYP + box(b"moov", track(b"vide") + track(b"soun")), 1),
    "index at the end, behind a box of 64-bit size": (
        FTYP + box(b"mdat", bytes(50), wide=True) + box(b"moov", track(b"soun") + track(b"vide") + track(b"vide")),
        2,
    ),
    "sound only": (FTYP + box(b"moov", track(b"soun")), 0),
    "no index": (FTYP + box(b"mdat", bytes(50)), None),
    "cut off": ((FTYP + box(b"moov", track(b"vide")))[:-90], None),
    "a size of nonsense": (FTYP + struct.pack(">I4s", 3, b"moov"), None),
    "matroska": (HEAD + element(SEGMENT, entries(1, 2, 1) + element(CLUSTER, bytes(9))), 2),
    "matroska being streamed": (
        HEAD + element(SEGMENT, entries(1) + element(CLUSTER, b"", unknown=True), unknown=True),
        1,
    ),
    "matroska without tracks": (HEAD + element(SEGMENT, element(CLUSTER, bytes(9)) + entries(1)), None),
    "matroska cut off": ((HEAD + element(SEGMENT, entries(1)))[:60], None),
    "empty": (b"", None),
    "text": (b"no video at all", None),
}


@pytest.mark.parametrize(("content", "expected"), FILES.values(), ids=FILES)
def test_number_of_video_streams(tmp_path, content, expected):
    (tmp_path / "file").write_bytes(content)
    assert video_streams(tmp_path / "file") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("torchcodec_two_video_streams.mp4", 2),
        ("derived_vp9.webm", 1),
        ("derived_gray_ffv1.mkv", 1),
        ("decord_rotate90.mov", 1),
        ("small_audio_only.mp4", 0),
        ("text_file.mp4", None),
    ],
)
def test_real_files(shared_data, name, expected):
    assert video_streams(shared_data / "odd_videos" / name) == expected

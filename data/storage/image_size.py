"""The declared size of an image, read from its header."""

import struct
from collections.abc import Callable


def image_size(data: bytes) -> tuple[int, int] | None:
    """Return the (width, height) that an image declares; None if the header is of no known format, or cut off.

    Formats: JPEG, PNG, BMP, WebP, TIFF, PNM and GIF.

    >>> image_size(b"P6 640 480 255 ...")
    (640, 480)
    """
    for start, read in _READERS.items():
        if data.startswith(start):
            try:
                return read(data)
            except (struct.error, ValueError, IndexError):
                return None
    return None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    at = 2
    while True:
        # Markers may be preceded by any number of fill bytes.
        at = data.index(b"\xff", at)
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 4)
            return width, height
        if marker == 0xDA:
            return None
        # Restart markers and the start of the image have no length.
        at += 1 if 0xD0 <= marker <= 0xD8 or marker in (0x00, 0x01) else 1 + struct.unpack_from(">H", data, at + 1)[0]


def _png(data: bytes) -> tuple[int, int]:
    return struct.unpack_from(">II", data, 16)


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        return struct.unpack_from("<HH", data, 18)
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)  # A negative height means that the rows run from the top.


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    return None


def _tiff(data: bytes) -> tuple[int, int]:
    order = "<" if data[:2] == b"II" else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    sizes = {}
    for entry in range(struct.unpack_from(order + "H", data, at)[0]):
        tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * entry)
        if tag in (256, 257):
            sizes[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * entry)[0]
    if len(sizes) < 2:
        raise ValueError
    return sizes[256], sizes[257]


def _pnm(data: bytes) -> tuple[int, int]:
    lines = [line.partition(b"#")[0] for line in data[2:4096].split(b"\n")]
    words = b" ".join(lines).split()
    return int(words[0][:20]), int(words[1][:20])


def _gif(data: bytes) -> tuple[int, int]:
    return struct.unpack_from("<HH", data, 6)


_READERS: dict[bytes, Callable[[bytes], tuple[int, int] | None]] = {
    b"\xff\xd8": _jpeg,
    b"\x89PNG\r\n\x1a\n": _png,
    b"BM": _bmp,
    b"RIFF": _webp,
    b"II*\x00": _tiff,
    b"MM\x00*": _tiff,
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), _pnm),
    b"GIF8": _gif,
}

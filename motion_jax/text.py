"""Text from outside (names of files and classes, values of a config) as part of a message."""

import difflib
import os
import re
from collections.abc import Iterable, Sequence

# Control characters, line and paragraph separators, marks that change the direction of writing, and lone surrogates.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str | os.PathLike) -> str:
    r"""Escape every character that could change the terminal or the line, as Python does in a string literal.

    Bytes of a file name that are not UTF-8, which Python holds as lone surrogates, become ``\xNN``.

    >>> print(printable("a\x1b[31m\nb"), printable(os.fsdecode(b"caf\xe9.mp4")), printable("café.mp4"))
    a\x1b[31m\nb caf\xe9.mp4 café.mp4
    """
    return _UNSAFE.sub(_escaped, os.fspath(text))


def shown(value: object, *, most: int = 60) -> str:
    """Return the ``repr`` of a value on one line, cut to ``most`` characters.

    >>> shown("x" * 3000, most=10)
    "'xxxxxx..."
    """
    # Half a million digits take seconds to convert, and Python refuses to.
    text = "a huge integer" if isinstance(value, int) and value.bit_length() > 10_000 else printable(repr(value))
    return text if len(text) <= most else f"{text[: most - 3]}..."


def did_you_mean(name: str, names: Iterable[str], *, otherwise: str) -> str:
    """Ask for the one or two of ``names`` that resemble a wrong name, or return ``otherwise`` if none does.

    >>> did_you_mean("msnet_r18", ["msnet_tsm_r18", "i3d"], otherwise="see the list")
    'did you mean msnet_tsm_r18?'
    """
    near = difflib.get_close_matches(name[:200], names, n=2)
    return f"did you mean {' or '.join(near)}?" if near else otherwise


def _escaped(match: re.Match) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:
        return f"\\x{code - 0xDC00:02x}"
    return match[0].encode("unicode_escape", "surrogatepass").decode() if code < 0xD800 else f"\\u{code:04x}"


def short_names(models: Sequence[str], workdirs: Sequence[str]) -> list[str]:
    """Return a name per run: its model, and the end of its folder where several runs have the model.

    >>> short_names(["tsn", "msnet", "msnet"], ["runs/tsn", "runs/msnet/1/a", "runs/msnet/2/a"])
    ['tsn', 'msnet 1/a', 'msnet 2/a']
    """
    names = []
    for model, workdir in zip(models, workdirs, strict=True):
        same = [other.split("/") for name, other in zip(models, workdirs, strict=True) if name == model]
        parts = workdir.split("/")
        length = next(
            (n for n in range(1, len(parts) + 1) if [each[-n:] for each in same].count(parts[-n:]) == 1), len(parts)
        )
        names.append(model if len(same) == 1 else f"{model} {'/'.join(parts[-length:])}")
    return names

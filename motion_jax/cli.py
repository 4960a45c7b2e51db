"""The manner all commands share: exit 0 on success and for --help, 2 on bad input with one clear line.

absl alone exits 1 for ``--help`` and for an unknown flag, and shows a traceback for an unknown config key.
"""

import argparse
import itertools
import json
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from motion_jax.kernels import cpu_flags

BAD_INPUT = 2

# What Python and absl say of a value that does not parse, and what would.
_EXPECTED = {
    "invalid literal for int()": "an integer",
    "could not convert string to float": "a number",
    "Non-boolean argument": "true or false",
}


def run(main: Callable[[], dict[str, Any] | None]) -> None:
    """Call ``main`` and leave the process as every command does.

    A ValueError, or a file that cannot be read or written, becomes one line on stderr and exit status 2; anything else
    is a mistake of ours and keeps its traceback.
    """
    cpu_flags.use()
    # Ours speak up; libraries only when something is wrong.
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True)
    for room in ("motion_jax", "data"):
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output, such as head, has had enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        sys.exit(130)


def fail(error: object) -> None:
    """Print one line and exit as for bad input."""
    text = " ".join(str(error).split())
    print(f"{program()}: error: {text}", file=sys.stderr)
    sys.exit(BAD_INPUT)


def program() -> str:
    """What the user calls this command: ``train.py``, or ``python -m motion_jax.tools.models``."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return f"python -m {spec.name}" if spec else os.path.basename(sys.argv[0])


def run_with_flags(main: Callable[[], None], *, description: str) -> None:
    """``run`` for a command whose options are absl flags, among them a config.

    Args:
        main: called after the flags are parsed; takes nothing.
        description: printed for ``--help`` before the flags; its examples show how to call the command.
    """
    from absl import flags

    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(f"{description.strip()}\n\nOptions:\n{flags.FLAGS.main_module_help()}")
        sys.exit(0)
    for flag, following in itertools.pairwise([*sys.argv[1:], ""]):
        name, equals, value = flag.lstrip("-").partition("=")
        path = (value if equals else following).partition(":")[0]
        if name == "config" and not os.path.isfile(path):
            fail(f"there is no config file {path!r}; the ones that come with this project are in configs/")
    # What is wrong surfaces as whatever reading it raises: absl's, ml_collections', the config file's own errors.
    try:
        rest = flags.FLAGS(sys.argv)[1:]
    except Exception as error:
        fail(_reason(error))
    if rest:
        fail(f"unexpected argument {rest[0]!r}; options are written --name=value, see --help")
    run(main)


def _reason(error: Exception) -> str:
    """One sentence for an error of absl, of ml_collections or of the config file."""
    from absl import flags

    text = str(error).strip()
    if isinstance(error, KeyError | AttributeError) and (unknown := re.match(r"[\"'\\]+(\w+)", text)):
        hint = re.search(r"Did you mean \W*(\w+)", text)
        return f"the config has no key {unknown[1]!r}; " + (
            f"did you mean {hint[1]!r}?" if hint else "see the config file for its keys"
        )
    if "Traceback" in text:
        # The config file itself refused its arguments: its own words are the last line.
        return text.splitlines()[-1].partition(": ")[2]
    if isinstance(error, flags.UnrecognizedFlagError) and text.find("'config.") > 0:
        return f"{text}: values of a config are changed beside --config=FILE"
    if fixed := re.search(r"of field (\S+) is not supported for overriding", text):
        return f"{fixed[1]} is None in this config and no option can change it: edit the config file"
    for said, expected in _EXPECTED.items():
        if said in text:
            return f"{text.partition(': ')[0]}: expected {expected}"
    if isinstance(error, flags.Error | ValueError):
        return text
    return f"the config file cannot be used: {type(error).__name__}: {text}"


def print_json(result: dict[str, Any]) -> None:
    """One object on one line, as ``--json`` promises; call it last."""
    print(json.dumps(result, ensure_ascii=False))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Rows under a header in columns, words to the left and numbers to the right.

    >>> print(table(("model", "top1"), [("tsn", 8.5), ("msnet", 95.25)]))
    model   top1
    -----  -----
    tsn      8.5
    msnet  95.25
    """
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def positive(text: str) -> int:
    """The ``type`` of an option that takes an integer of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer, 1 or more; got {text!r}")
    return int(text)


class Parser(argparse.ArgumentParser):
    """argparse in our manner: the module's docstring as help, one line and exit 2 for bad usage."""

    def __init__(self, description: str | None) -> None:
        super().__init__(prog=program(), description=description, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        """Leave as for any bad input."""
        fail(f"{message}; see --help")

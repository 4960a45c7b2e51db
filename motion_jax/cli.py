"""The command line: one manner for all commands, and configs with overrides.

A command exits with 0 on success and for ``--help``, and with 2 on bad input, after one line on stderr.
"""

import argparse
import ast
import dataclasses
import difflib
import importlib
import inspect
import json
import logging
import os
import pathlib
import re
import runpy
import sys
import traceback
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import ml_collections
from etils import epath

from motion_jax.configs import something_v1
from motion_jax.experiment import Experiment, keys_of, with_root
from motion_jax.fields import expected
from motion_jax.kernels import cpu_flags
from motion_jax.places import is_bucket_error, local_place, place
from motion_jax.text import printable
from motion_jax.training import processes

_BOOLEANS = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def run(main: Callable[[], Any]) -> None:
    """Call the main function of a command and exit in the manner of all commands.

    A ValueError, an OSError or a missing device becomes one line on stderr and exit status 2. Any other exception is a
    bug and keeps its traceback. On several processes, each of these ends all of them.
    """
    cpu_flags.use()
    # Libraries log warnings only.
    logging.basicConfig(level=logging.WARNING, force=True)
    logging.getLogger().handlers[0].setFormatter(_Printable())
    logging.getLogger("motion_jax").setLevel(logging.INFO)
    try:
        main()
        sys.stdout.flush()
        processes.leave()
    except BrokenPipeError:
        # The reader of the output, such as head, is gone.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, OSError) as error:
        fail(error)
    except KeyboardInterrupt:
        if processes.several():
            processes.abandon("interrupted")
        sys.exit(130)
    except Exception as error:
        if is_bucket_error(error):
            fail(f"{type(error).__name__} from Google Cloud Storage: {error}")
        if not _is_without_device(error):
            _fail_with_traceback(error)
        fail(
            f"JAX finds no device for JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}: unset it, or install JAX "
            f'for that device, such as pip install "jax[cuda13]" or "jax[tpu]" {error}'
        )


def _is_without_device(error: Exception) -> bool:
    """Return whether JAX raised an error when it started, because JAX_PLATFORMS names a platform that is not there."""
    if not isinstance(error, RuntimeError | AssertionError):
        return False
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return "Unable to initialize backend" in str(error) or raised_in.endswith("xla_bridge.py")


def fail(error: BaseException | str) -> NoReturn:
    """Print one line and exit as for bad input. Several processes all exit with this line."""
    if processes.several():
        processes.abandon(error)
    text = " ".join(str(error).split())
    print(printable(f"{program()}: error: {text}"), file=sys.stderr)
    sys.exit(2)


def _fail_with_traceback(error: Exception) -> NoReturn:
    if processes.several():
        processes.abandon(error, bug=True)
    raise error


class _Printable(logging.Formatter):
    """Format of the log: the lines of a message, without characters that a terminal would act on."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return "\n".join(map(printable, record.message.split("\n")))


def program() -> str:
    """Return the command as the user typed it: ``train.py``, or ``python -m motion_jax.tools.models``."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec and sys.argv[0] == spec.origin:
        return f"python -m {spec.name.removesuffix('.__main__')}"
    return os.path.basename(sys.argv[0])


class Parser(argparse.ArgumentParser):
    """argparse for a command: its docstring as help, ``--json``, one line for bad usage, and overrides of a config.

    Args:
        description: the docstring of the command.
        configurable: accept ``--config.KEY=VALUE``. The overrides are in ``changes`` of the parsed arguments, and
            ``--help`` beside a config lists its keys.
    """

    def __init__(self, description: str | None, *, configurable: bool = False) -> None:
        super().__init__(
            prog=program(),
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._configurable = configurable
        self.add_argument("--json", action="store_true", help="print one JSON object on one line, last")
        if configurable:
            self.epilog = (
                "--config.KEY=VALUE sets a value of the config, such as --config.train.learning_rate=0.02.\n"
                "--help together with a config lists all its keys."
            )

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Take the overrides of the config out of the arguments and parse the rest."""
        rest, changes = [], {}
        words = iter(sys.argv[1:] if args is None else args)
        for word in words:
            if self._configurable and word.startswith("--config."):
                key, equals, value = word.removeprefix("--config.").partition("=")
                value = value if equals else next(words, "--")
                if value.startswith("--"):
                    self.error(f"--config.{key} needs a value: --config.{key}=VALUE")
                changes[key] = value
            else:
                rest += self._without_boolean(word)
        if self._configurable and {"-h", "--help"} & set(rest):
            sources = [re.fullmatch(r"(?:--config=)?([^=]+\.py(?::.*)?)", word) for word in rest]
            if source := next(filter(None, sources), None):
                self._list_keys(source[1], changes)
        namespace, unknown = super().parse_known_args(rest, namespace)
        if self._configurable:
            namespace.changes = changes
        return namespace, unknown

    def parse_args(
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse all arguments; exit for an unknown one, with the option it resembles."""
        namespace, unknown = self.parse_known_args(args, namespace)
        if unknown:
            if unknown[0].partition("=")[0] in ("--distributed", "--coordinator", "--processes", "--process_id"):
                self.error("this command runs in one process; only train.py and eval.py run on several")
            close = difflib.get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            hint = f"; did you mean {close[0]}?" if close else ""
            self.error(f"unrecognized arguments: {' '.join(unknown)}{hint}")
        if "distributed" not in namespace:
            processes.refuse_tasks(self.prog, able=False)
        return namespace

    def error(self, message: str) -> NoReturn:
        """Exit as for any bad input."""
        fail(message if message.endswith("?") else f"{message}; see --help")

    def _without_boolean(self, word: str) -> list[str]:
        """Turn ``--json=true`` into ``--json``, and ``--json=false`` into its absence or ``--no-json``."""
        name, equals, value = word.partition("=")
        action = self._option_string_actions.get(name)
        if not equals or action is None or action.nargs != 0:
            return [word]
        if value.lower() not in _BOOLEANS:
            self.error(f"{word}: expected true or false")
        if _BOOLEANS[value.lower()]:
            return [name]
        return [option for option in action.option_strings if option == f"--no-{name.removeprefix('--')}"]

    def _list_keys(self, source: str, changes: Mapping[str, str]) -> None:
        """Add every key of a config to the help, with its value and its meaning."""
        self.usage = self.format_usage().removeprefix("usage: ")
        group = self.add_argument_group(f"values of {source}")
        for key, value, meaning in describe(read_config(source, changes)):
            text = ",".join(map(str, value)) or "()" if isinstance(value, list | tuple) else str(value)
            group.add_argument(f"--config.{key}={text}", action="store_true", help=meaning.replace("%", "%%"))


def add_runs(parser: Parser, *, metavar: str = "RUN", help: str) -> None:
    """Add runs as positional arguments, or as ``--checkpoint``, once for each; :func:`runs_of` returns them."""
    parser.add_argument("runs", nargs="*", metavar=metavar, help=help)
    parser.add_argument("--checkpoint", action="append", default=[], metavar="PATH", help=f"the same as {metavar}")


def runs_of(parser: Parser, arguments: argparse.Namespace) -> list[str]:
    """Return the runs given, in order and as typed, ``~`` expanded; exit if there is none, ValueError for a scheme."""
    if not (runs := [*arguments.runs, *arguments.checkpoint]):
        parser.error("give one or more runs")
    for each in runs:
        place(each)
    return list(map(os.path.expanduser, runs))


def read_config(source: str, changes: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Read a config file and apply overrides.

    Args:
        source: ``FILE[:ARGUMENTS]``. A file ``configs/NAME.py`` that the current folder lacks is taken from
            ``motion_jax.configs``.
        changes: key -> text, as ``--config.KEY=TEXT`` gives them.

    Raises:
        ValueError: if there is no such file, it cannot be used, or an override does not fit.
    """
    path, _, arguments = source.partition(":")
    if match := re.fullmatch(r"([^,]+\.py),(.*)", path):
        raise ValueError(f"--config={source}: use a colon: {match[1]}:{match[2]}")
    try:
        config = _get_config(path)(arguments)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"the config file {path} cannot be used: {type(error).__name__}: {error}") from error
    return change(config, changes or {})


def read_experiment(name_or_config: str, changes: Mapping[str, str] | None = None) -> Experiment:
    """Read the experiment of a config or of a named model, for work that opens no data.

    A named model stands for ``configs/something_v1.py:NAME,8``.

    Raises:
        ValueError: if there is no such config or model.
    """
    if re.match(r"[^:]*\.py\b", name_or_config):
        config = read_config(name_or_config, changes)
    else:
        config = change(something_v1.get_config(f"{name_or_config},8"), changes or {})
    return Experiment.from_config(with_root(config, "."))


def _get_config(path: str) -> Callable[[str], ml_collections.ConfigDict]:
    """Import the ``get_config`` of a config file."""
    package = pathlib.Path(something_v1.__file__).parent
    ours = package / pathlib.Path(path).name
    file = pathlib.Path(path)
    if not file.is_file() and pathlib.Path(path).parent == pathlib.Path("configs"):
        file = ours
    if not file.is_file():
        names = sorted(each.stem for each in package.glob("*.py") if "\ndef get_config(" in each.read_text("utf-8"))
        raise ValueError(f"there is no config file {path!r}; motion_jax brings configs/NAME.py of {', '.join(names)}")
    if ours.is_file() and file.samefile(ours):
        # By its own name, so that no module is loaded under two.
        return importlib.import_module(f"motion_jax.configs.{ours.stem}").get_config
    return runpy.run_path(str(file))["get_config"]


def change(config: Mapping[str, Any], changes: Mapping[str, str]) -> dict[str, Any]:
    """Apply overrides to a config and return it as a plain dict.

    Args:
        config: as ``get_config`` returns it, or as a plain dict.
        changes: key -> text. The type of the key parses the text.

    Raises:
        ValueError: if there is no such key, or the text does not parse.
    """
    if not isinstance(config, ml_collections.ConfigDict):
        config = ml_collections.ConfigDict(config)
    kinds = keys_of()
    with config.unlocked(), config.ignore_type():
        for key, text in changes.items():
            section, _, name = key.rpartition(".")
            if section == "model.block":
                config.model.block[name] = _like(text, config.model.block.get(name), key)
            elif key in kinds and (not section or section in config):
                (config[section] if section else config)[name] = parse_value(text, kinds[key], key)
            else:
                raise ValueError(f"the config has no key {key}; {_did_you_mean(key, [*kinds])}")
    return config.to_dict()


def _did_you_mean(key: str, keys: Sequence[str]) -> str:
    """Name the key that a wrong one stands for: misspelt, abbreviated to its initials, or in another section."""
    section, _, name = key.rpartition(".")
    if inside := [other for other in keys if other.startswith(f"{key}.")]:
        return f"it is a section: set one of its keys, such as --config.{inside[0]}"
    # Of two keys that fit, take the one in the section given.
    ranked = sorted(keys, key=lambda other: not other.startswith(f"{section}."))
    for other in ranked:
        last = other.rpartition(".")[2]
        if name in (last, "".join(word[0] for word in last.split("_"))):
            return f"did you mean {other}?"
    close = difflib.get_close_matches(key, keys, 1)
    return f"did you mean {close[0]}?" if close else "--help together with --config=FILE lists the keys"


def parse_value(text: str, kind: Any, key: str) -> Any:
    """Parse the text of an override by the type of its key.

    >>> parse_value("240,320", tuple[int, int] | int | None, "data.resize")
    (240, 320)

    Raises:
        ValueError: if the text is not of that type.
    """
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    if types.NoneType in kinds and text in ("", "None"):
        return None
    for each in kinds:
        try:
            return _parse(text.strip(), each)
        except (ValueError, KeyError):
            continue
    raise ValueError(f"--config.{key}={text[:60]}{'...' * (len(text) > 60)}: expected {expected(kind)}")


def _parse(text: str, kind: Any) -> Any:
    if typing.get_origin(kind) is tuple:
        kinds = typing.get_args(kind)
        inner = text[1:-1] if text[:1] + text[-1:] in ("()", "[]") else text
        items = inner.strip().removesuffix(",").split(",") if inner.strip() else []
        kinds = kinds[:1] * len(items) if kinds[-1] is ... else kinds
        return tuple(_parse(item.strip(), each) for item, each in zip(items, kinds, strict=True))
    if kind is bool:
        return _BOOLEANS[text.lower()]
    if kind is str:
        return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    if kind in (int, float):
        return kind(text)
    raise ValueError  # a section, or None


def _like(text: str, value: Any, key: str) -> Any:
    """Parse the text of a field of the motion block: as the value it replaces, or as a Python literal."""
    if isinstance(value, bool | int | float | str):
        return parse_value(text, type(value), key)
    try:
        parsed = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    parsed = tuple(parsed) if isinstance(parsed, list) else parsed
    return (parsed,) if isinstance(value, tuple) and isinstance(parsed, int | float) else parsed


def describe(config: Mapping[str, Any]) -> list[tuple[str, Any, str]]:
    """Return every key of a config with its value and its meaning, from the docstrings of the sections."""
    rows = []
    for field in dataclasses.fields(Experiment):
        value = config[field.name]
        if not dataclasses.is_dataclass(field.type):
            rows.append((field.name, value, meanings(Experiment)[field.name]))
            continue
        for key, meaning in meanings(field.type).items():
            if isinstance(value.get(key), Mapping):
                rows += [(f"{field.name}.{key}.{name}", item, meaning) for name, item in value[key].items()]
            elif key in value:
                rows.append((f"{field.name}.{key}", value[key], meaning))
    return rows


def meanings(section: type) -> dict[str, str]:
    """Read the section ``Attributes`` of a docstring: field -> text, in order, without markup."""
    _, _, block = inspect.getdoc(section).partition("Attributes:\n")
    block = re.split(r"\n(?=\S)", block)[0]
    entries = re.findall(r"^    (\w+): (.*(?:\n {6,}.*)*)", block, flags=re.MULTILINE)
    return {name: re.sub(r":\w+:|``?", "", " ".join(text.split())) for name, text in entries}


def print_json(result: dict[str, Any]) -> None:
    """Print one object on one line, as ``--json`` promises. Call it last.

    Bytes of file names that are not UTF-8 are lone surrogates in JSON; ``os.fsencode`` of what is read gives the bytes.
    """
    text = json.dumps(result, ensure_ascii=False)
    # JSON has its own escapes for the characters below 32 only.
    print("".join(char if printable(char) == char else f"\\u{ord(char):04x}" for char in text))


def table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Format rows under a header, text aligned left and numbers aligned right.

    >>> print(table(("model", "top1"), [("tsn", 8.5), ("msnet", 95.25)]))
    model   top1
    -----  -----
    tsn      8.5
    msnet  95.25
    """
    cells = [[printable(str(cell)) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    right = [all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)).rstrip()
        for row in cells
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def any_place(text: str) -> epath.Path:
    """Parse a path of this machine or gs://BUCKET/PATH, as the ``type`` of an option."""
    try:
        return place(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def this_machine(text: str) -> pathlib.Path:
    """Parse a path of this machine, as the ``type`` of an option."""
    try:
        return local_place(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(text: str) -> int:
    """Parse an integer of 1 or more, as the ``type`` of an option."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected an integer, 1 or more; got {text!r}")
    return int(text)

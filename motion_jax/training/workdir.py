"""Files that describe the run in a workdir, and its compilation cache."""

import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import jax
from etils import epath

from motion_jax.places import clear_way, entries_of, first_line, is_bucket, write_whole

Kind = TypeVar("Kind", dict, list)
_log = logging.getLogger(__name__)


def check_workdir(workdir: epath.Path, config: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Raise an error if a workdir belongs to a run of another model or of other classes.

    Raises:
        ValueError: naming both models, or both numbers of labels.
    """
    cure = "choose another workdir, or delete this one"
    stored = read_json(workdir / "config.json", dict)
    if stored:
        try:
            kept, given = stored["model"]["name"], config.get("model", {}).get("name")
        except (KeyError, TypeError):
            _log.warning("%s is damaged (it names no model) and is ignored", workdir / "config.json")
        else:
            if kept != given:
                raise ValueError(f"{workdir} holds a run of {kept}, this one is of {given}: {cure}")
    if (kept := read_json(workdir / "labels.json", list)) and kept != list(labels):
        raise ValueError(f"{workdir} holds a run with {len(kept)} other labels than these {len(labels)}: {cure}")


def read_json(path: epath.Path, kind: type[Kind]) -> Kind:
    """Return the content of a JSON file beside the checkpoints; an empty one if it is absent or damaged.

    These files repeat what the checkpoints hold, so damage never stops a run. A warning names the file.
    """
    if not path.exists():
        return kind()
    try:
        content = json.loads(path.read_bytes())
        if isinstance(content, kind) and content:
            return content
        reason = f"expected a JSON {'object' if kind is dict else 'list'} with content"
    except (OSError, ValueError) as error:
        reason = first_line(error)
    _log.warning("%s is damaged (%s) and is ignored", path, reason)
    return kind()


def describe_workdir(workdir: epath.Path, config: Mapping[str, Any], labels: Sequence[str]) -> None:
    """Write ``config.json`` and ``labels.json``, on the first process only."""
    if jax.process_index() == 0:
        for name, content in (("config.json", config), ("labels.json", list(labels))):
            write_whole(workdir / name, json.dumps(content, indent=1, ensure_ascii=False))


def use_compile_cache(workdir: epath.Path) -> None:
    """Store compiled programs in the workdir, so that a restart need not compile; keep a cache that is already set."""
    if jax.config.jax_compilation_cache_dir is None:
        folder = workdir / "compile_cache"
        if not is_bucket(folder):
            clear_way(folder, folder=True)
            _delete_damaged(folder)
        jax.config.update("jax_compilation_cache_dir", str(folder))


def _delete_damaged(folder: epath.Path) -> None:
    """Delete compiled programs that were cut off by a kill: JAX would compile at every start and never replace them."""
    for path in entries_of(folder):
        if not path.name.endswith("-cache"):
            continue
        content = path.read_bytes()
        # JAX compresses by zstandard where it is installed, and else by zlib, whose streams begin with "x".
        if content[:1] in (b"", b"x"):
            try:
                zlib.decompress(content)
            except zlib.error:
                _log.warning("%s is damaged and is deleted: its program is compiled again", path)
                path.unlink()

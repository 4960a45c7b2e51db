"""What a restart may change, and the history of a run."""

import dataclasses
import difflib
import json
import os
import socket
import time
from collections.abc import Collection, Mapping
from typing import Any

import flax
import jax

from motion_jax.places import append, place
from motion_jax.training import json_lines
from motion_jax.training.progress import log

NAME = "history.jsonl"


def changed_fields(stored: Any, given: Any, prefix: str = "") -> dict[str, tuple[Any, Any, bool]]:
    """Compare two configs field by field.

    Args:
        stored, given: dataclasses of one type, whose fields may be dataclasses. The class attribute ``SAME_RESULT``
            names the fields of a class that do not change the result of a run.
        prefix: put before the name of each field.

    Returns:
        key -> (stored value, given value, whether it changes the result), for the fields that differ.
    """
    changes = {}
    for field in dataclasses.fields(stored):
        key, old, new = prefix + field.name, getattr(stored, field.name), getattr(given, field.name)
        if dataclasses.is_dataclass(old):
            changes |= changed_fields(old, new, f"{key}.")
        elif isinstance(old, Mapping) and isinstance(new, Mapping):
            names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            changes |= {f"{key}.{name}": (old.get(name), new.get(name), True) for name in names}
        elif old != new:
            changes[key] = (old, new, field.name not in getattr(stored, "SAME_RESULT", ()))
    return changes


def check_changes(
    changes: Mapping[str, tuple[Any, Any, bool]], *, allowed: Collection[str], keys: Collection[str], workdir: object
) -> None:
    """Raise an error if a restart changes the result of its run without being told to.

    Args:
        changes: as returned by ``changed_fields``.
        allowed: keys that the user allows to change.
        keys: all keys of the config.
        workdir: named in the message.

    Raises:
        ValueError: naming each value, or an allowed key that does not exist.
    """
    for key in allowed:
        if key not in keys and key not in changes:
            near = difflib.get_close_matches(key, [*keys, *changes], n=1)
            raise ValueError(f"--change: the config has no {key}" + (f"; did you mean {near[0]}?" if near else ""))
    refused = {key: (old, new) for key, (old, new, matters) in changes.items() if matters and key not in allowed}
    if refused:
        raise ValueError(
            f"the run in {workdir} has other values: {describe_changes(refused)}. They change its result. Give the "
            f"old values, another workdir, or allow this with --change={','.join(refused)}"
        )


def add_start(
    workdir: str | os.PathLike, *, step: int, devices: int, batch_size: int, changes: Mapping[str, tuple[Any, Any]]
) -> None:
    """Append this start to ``history.jsonl``, and log the changes since the last one.

    The line holds the time in seconds since 1970, the step it starts from, the host, the numbers of processes and
    devices, the clips per update, the versions, and key -> (old value, new value) of what the restart changes.
    """
    line = {
        "step": step,
        "host": socket.gethostname(),
        "processes": jax.process_count(),
        "devices": devices,
        "batch_size": batch_size,
        "kind": jax.devices()[0].device_kind,
        "versions": {"jax": jax.__version__, "flax": flax.__version__},
        "changes": changes,
    }
    if changes:
        log(f"changed since the last start: {describe_changes(changes)}")
    starts = [earlier for earlier in read_lines(workdir) if "devices" in earlier]
    if starts and (text := describe_devices(starts[-1], line)):
        log(text)
    add_line(workdir, line)


def describe_devices(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Return what differs in the devices of two starts and what it means; empty if nothing does."""
    names = [name for name in ("processes", "devices") if before[name] != now[name]]
    if not names:
        return ""
    changed = ", ".join(f"{before[name]} -> {now[name]} {name}" for name in names)
    share_before, share = (line["batch_size"] // line["devices"] for line in (before, now))
    meaning = "BatchNorm sees as many clips per device as before"
    if share != share_before:
        meaning = f"per-device BatchNorm now sees {share} clips, {share_before} before"
    return f"{changed}: {meaning}; the clips and their order stay the same"


def add_line(workdir: str | os.PathLike, line: Mapping[str, Any]) -> None:
    """Append an object, with the ``time``, to ``history.jsonl``, on the first process only."""
    if jax.process_index() == 0:
        append(place(workdir) / NAME, json.dumps({"time": round(time.time(), 3), **line}) + "\n")


def read_lines(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the objects in ``history.jsonl``; a warning counts damaged lines."""
    return json_lines.read(place(workdir) / NAME)


def describe_changes(changes: Mapping[str, tuple[Any, Any]]) -> str:
    """Return changes as text, such as ``train.steps 6 -> 12, data.threads 2 -> 4``."""
    return ", ".join(f"{key} {_short(old)} -> {_short(new)}" for key, (old, new) in changes.items())


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."

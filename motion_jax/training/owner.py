"""The process that trains in a workdir: one at a time."""

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import TextIO

import jax

NAME = "owner.json"


@contextlib.contextmanager
def own(workdir: str | os.PathLike) -> Iterator[None]:
    """Return a context in which no other run can own the workdir.

    The first process of a run locks ``owner.json``, which names it. The operating system releases the lock when the
    process ends, also by SIGKILL. The file is deleted at the end.

    Raises:
        ValueError: if another run owns the workdir. The message names its host, its process and its age.
    """
    if jax.process_index() != 0:
        yield
        return
    path = os.path.join(workdir, NAME)
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(_open(path))
        while not _is_at(file, path):  # The last owner deleted it after it was opened here.
            file = stack.enter_context(_open(path))
        file.truncate(0)
        json.dump({"host": socket.gethostname(), "process": os.getpid(), "since": round(time.time(), 3)}, file)
        file.flush()
        try:
            yield
        finally:
            os.unlink(path)


def _open(path: str) -> TextIO:
    """Open and lock a file; raise an error if another process holds the lock."""
    # Not truncated: it names the owner if there is one.
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        with file:
            raise ValueError(
                f"{os.path.dirname(path)} is in use by {_describe(file.read())}: "
                "wait for it, stop it, or choose another workdir"
            ) from error
    return file


def _is_at(file: TextIO, path: str) -> bool:
    """Return whether a path still leads to an open file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


def _describe(text: str) -> str:
    """Describe an owner from the content of its file, which may be empty while it is written."""
    try:
        owner = json.loads(text)
        minutes = (time.time() - owner["since"]) / 60
        return f"process {owner['process']} on {owner['host']}, which began {minutes:.0f} min ago"
    except (ValueError, KeyError, TypeError):
        return "another run"

"""The process that trains in a workdir: one at a time."""

import contextlib
import fcntl
import json
import logging
import os
import pathlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import TextIO

import jax

from motion_jax.places import first_line, is_bucket

NAME = "owner.json"
RENEWED, EXPIRES = 10.0, 35.0
"""Seconds between two renewals of a lease in a bucket, and until one that is not renewed expires."""
_log = logging.getLogger(__name__)


@contextlib.contextmanager
def own(workdir: str | os.PathLike) -> Iterator[None]:
    """Return a context in which no other run can own the workdir.

    The first process of a run locks ``owner.json``, which names it. The operating system releases the lock when the
    process ends, also by SIGKILL. In a bucket, the file is a lease that the process renews; a file that is not renewed
    for ``EXPIRES`` seconds has no owner any more. The file is deleted at the end.

    Raises:
        ValueError: if another run owns the workdir. The message names its host, its process and its age.
    """
    if jax.process_index() != 0:
        yield
        return
    path = os.path.join(workdir, NAME)
    with contextlib.ExitStack() as stack:
        if is_bucket(path):
            stack.enter_context(_Lease(path))
            yield
            return
        file = stack.enter_context(_open(path))
        while not _is_at(file, path):  # The last owner deleted it after it was opened here.
            file = stack.enter_context(_open(path))
        file.truncate(0)
        file.write(_this_process())
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
            raise _in_use(path, file.read()) from error
    return file


def _is_at(file: TextIO, path: str) -> bool:
    """Return whether a path still leads to an open file."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    return False


class _Lease:
    """Context that holds an object in a bucket, which it renews from a thread."""

    def __init__(self, path: str) -> None:
        # An extra, so that it is imported only where it is needed.
        from google.api_core import exceptions
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY

        self._path, self._exceptions = path, exceptions
        # While the bucket is out of order, the end of a run must not wait for long.
        self._retry = DEFAULT_RETRY.with_timeout(EXPIRES - RENEWED)
        bucket, _, name = path.removeprefix("gs://").partition("/")
        self._blob = storage.Client().bucket(bucket).blob(name)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._renew_until_done, daemon=True, name="lease of the workdir")

    def __enter__(self) -> None:
        # The generation of an object is its version, and 0 that of none: another run cannot write the same one.
        generation, content = self._read()
        began = time.monotonic()
        if generation and not _has_ended(content):
            _log.info("waiting for the lease of %s, at most %.0f s", _describe(content), EXPIRES)
        while generation and not _has_ended(content) and time.monotonic() < began + EXPIRES:
            time.sleep(min(1.0, RENEWED / 4))
            renewed, content = self._read()
            if renewed not in (0, generation):
                raise _in_use(self._path, content)
            generation = renewed
        try:
            self._generation = self._write(generation)
        except self._exceptions.PreconditionFailed as error:
            raise _in_use(self._path, self._read()[1]) from error
        self._thread.start()

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()
        with contextlib.suppress(self._exceptions.GoogleAPIError):
            self._blob.delete(if_generation_match=self._generation, retry=None)

    def _read(self) -> tuple[int, str]:
        """Return the generation and the content of the object, (0, "") without one."""
        try:
            content = self._blob.download_as_bytes().decode(errors="replace")
            self._blob.reload()
        except self._exceptions.NotFound:
            return 0, ""
        return int(self._blob.generation), content

    def _write(self, generation: int) -> int:
        """Replace the object of a generation, and return the new generation."""
        self._blob.upload_from_string(_this_process(), if_generation_match=generation, retry=self._retry)
        return int(self._blob.generation)

    def _renew_until_done(self) -> None:
        while not self._done.wait(RENEWED):
            try:
                self._generation = self._write(self._generation)
            except self._exceptions.PreconditionFailed:
                _log.warning("%s: another run has taken this workdir; stop one of the two", self._path)
                return
            # The bucket is out of order: the next renewal may succeed, and a save that fails says so.
            except Exception as error:
                _log.debug("%s is not renewed: %s", self._path, first_line(error))


def _this_process() -> str:
    since = round(time.time(), 3)
    return json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since, "machine": _machine()})


def _machine() -> str:
    """Identify the space in which numbers of processes have a meaning: a boot of a machine, and a container in it."""
    with contextlib.suppress(OSError):
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    return ""


def _has_ended(content: str) -> bool:
    """Return whether an owner is a process of this machine that has ended."""
    try:
        owner = json.loads(content)
        if owner["machine"] and owner["machine"] == _machine():
            os.kill(owner["process"], 0)
    except ProcessLookupError:
        return True
    except (ValueError, KeyError, TypeError, OSError):
        return False
    return False


def _in_use(path: str, content: str) -> ValueError:
    return ValueError(
        f"{os.path.dirname(path)} is in use by {_describe(content)}: wait for it, stop it, or choose another workdir"
    )


def _describe(text: str) -> str:
    """Describe an owner from the content of its file, which may be empty while it is written."""
    try:
        owner = json.loads(text)
        minutes = (time.time() - owner["since"]) / 60
        return f"process {owner['process']} on {owner['host']}, which began {minutes:.0f} min ago"
    except (ValueError, KeyError, TypeError):
        return "another run"

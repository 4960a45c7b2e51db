"""Places of files: folders of this machine and of Google Cloud Storage buckets.

A bucket is no file system. A file appears there as a whole when it is closed, cannot be appended to, and is renamed by
a copy; folders are prefixes of names, so that making one does nothing. The functions here hide these differences.
"""

import contextlib
import importlib.util
import logging
import os
import pathlib
import re
import threading
import time
from collections.abc import Iterator

from etils import epath

# epath would use TensorFlow for buckets where it is installed, whose exceptions and retries differ from those of gcsfs.
os.environ.setdefault("EPATH_USE_TF", "false")

_log = logging.getLogger(__name__)
# A single letter is a drive, and pathlib turns gs:// into gs:/.
_SCHEME = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]+):/")
# Seconds until a wait is logged, and between two lines of it.
FIRST_LINE, NEXT_LINES = 5.0, 60.0


def place(path: str | os.PathLike) -> epath.Path:
    """Return a path that a user typed as an absolute local path, or as a path in a bucket for ``gs://BUCKET/PATH``.

    ``~`` stands for the home folder.

    Raises:
        ValueError: for another scheme, an incomplete ``gs://``, an unknown user after ``~``, or if the packages for
            buckets are not installed.
    """
    text = os.fspath(path)
    if not (scheme := _scheme(text)):
        return epath.Path(os.path.abspath(_expanded(text)))
    if scheme != "gs":
        raise ValueError(f"{text}: {scheme}:// is not supported; give a local folder or gs://BUCKET/PATH")
    if not re.match(r"gs://[^/]+/+[^/]", text):
        raise ValueError(f"{text} is incomplete; give a local folder or gs://BUCKET/PATH")
    if not importlib.util.find_spec("gcsfs"):
        raise ValueError(f"{text} needs packages that are not installed: pip install motion-jax[gcs]")
    _set_up_buckets()
    return epath.Path(text)


def local_place(path: str | os.PathLike) -> pathlib.Path:
    """Return a path that a user typed as a path of this machine, with ``~`` expanded.

    Raises:
        ValueError: for a path with a scheme, gs:// included, or an unknown user after ``~``.
    """
    text = os.fspath(path)
    if scheme := _scheme(text):
        raise ValueError(f"{text}: {scheme}:// is not supported here; give a path on this machine")
    return _expanded(text)


def is_bucket(path: str | os.PathLike) -> bool:
    """Return whether a path lies in a bucket."""
    return os.fspath(path).startswith("gs://")


def data_folder(workdir: str | os.PathLike) -> str:
    """Return the local folder of the prepared records of a run whose config names none.

    This is ``<workdir>/data``. Records are read at random and therefore never lie in a bucket: for a workdir in one,
    the folder is ``~/.cache/motion_jax/data``, which all runs of a machine share and which every host has. The name of
    a prepared data set carries a digest of its options and videos, so that different ones do not mix.
    """
    workdir = place(workdir)
    if not is_bucket(workdir):
        return str(workdir / "data")
    folder = os.path.join(os.path.expanduser("~"), ".cache", "motion_jax", "data")
    _log.info("the workdir is in a bucket: prepared records are in %s of each host (set data.dir to change it)", folder)
    return folder


def write_whole(path: epath.Path, content: str | bytes) -> None:
    """Replace a file as a whole, so that a reader never finds a part of it, even after a crash.

    Raises:
        OSError: if the file cannot be written. A bucket that is out of order for a while is tried again, for half a
            minute.
    """
    data = content.encode() if isinstance(content, str) else content
    if is_bucket(path):
        try:
            with waiting(f"{path} to be written"):
                path.write_bytes(data)
        except Exception as error:
            problem = "there is no such bucket" if isinstance(error, FileNotFoundError) else first_line(error)
            raise OSError(f"{path} cannot be written: {problem}") from error
        return
    clear_way(path)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def clear_way(path: epath.Path, *, folder: bool = False) -> None:
    """Move what is in the place of a file, or of a folder, and is not one to ``<name>.moved``, with a warning."""
    if not is_bucket(path) and path.exists() and path.is_dir() != folder:
        moved = path.with_name(f"{path.name}.moved")
        _log.warning("%s is %s and is moved to %s", path, "no folder" if folder else "a folder", moved.name)
        moved.rmtree(missing_ok=True) if moved.is_dir() else moved.unlink(missing_ok=True)
        os.replace(path, moved)


def append(path: epath.Path, text: str) -> None:
    """Append text to a file. In a bucket, the file is replaced as a whole."""
    if is_bucket(path):
        write_whole(path, (path.read_text() if path.exists() else "") + text)
    else:
        clear_way(path)
        with path.open("a", encoding="utf-8") as file:
            file.write(text)


def check_writable(folder: epath.Path) -> None:
    """Raise an OSError if a folder of a bucket cannot be written to, such as for a misspelt name of the bucket."""
    if is_bucket(folder):
        write_whole(folder / "writable", "")
        (folder / "writable").unlink()


def move_folder(source: epath.Path, target: epath.Path) -> None:
    """Move a folder with its files, in place of what ``target`` holds."""
    target.rmtree(missing_ok=True)
    if not is_bucket(source):
        target.parent.mkdir(exist_ok=True)
        os.replace(source, target)
        return
    for file in files_below(source):
        file.copy(target / file.relative_to(source))
    source.rmtree()


def files_below(folder: epath.Path) -> list[epath.Path]:
    """Return all files in a folder and in the folders below it, in order."""
    if is_bucket(folder):
        import fsspec

        return [epath.Path(f"gs://{name}") for name in fsspec.filesystem("gs").find(os.fspath(folder))]
    return sorted(epath.Path(path) for path in pathlib.Path(folder).rglob("*") if path.is_file())


def entries_of(folder: epath.Path) -> list[epath.Path]:
    """Return what a folder holds; empty if there is no such folder."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


@contextlib.contextmanager
def waiting(what: str) -> Iterator[None]:
    """Return a context that logs ``waiting for <what>`` if its work takes longer than ``FIRST_LINE`` seconds."""
    began, done = time.monotonic(), threading.Event()

    def report() -> None:
        period = FIRST_LINE
        while not done.wait(period):
            _log.info("waiting for %s, %.0f s so far", what, time.monotonic() - began)
            period = NEXT_LINES

    thread = threading.Thread(target=report, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def is_bucket_error(error: Exception) -> bool:
    """Return whether an exception was raised by the packages that reach buckets."""
    return type(error).__module__.partition(".")[0] in ("gcsfs", "aiohttp", "google", "requests")


def first_line(error: Exception) -> str:
    """Return the first line of an error, cut to 200 characters: Orbax quotes whole storage specifications."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if lines[0].startswith("Forbidden: ") and lines[1:]:
        # gcsfs: the address, and the reason below it.
        return f"access denied: {lines[1]}"[:200]
    return lines[0][:200]


def _scheme(text: str) -> str:
    match = _SCHEME.match(text)
    return match[1] if match else ""


def _expanded(text: str) -> pathlib.Path:
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text}: there is no home folder of that user; give the folder itself") from error


def _set_up_buckets() -> None:
    import fsspec

    # Other processes and TensorStore write to the bucket too, so that a kept listing would be wrong.
    for protocol in ("gs", "gcs"):
        fsspec.config.conf.setdefault(protocol, {}).setdefault("use_listings_cache", False)
    # gcsfs logs each exception with its traceback before it raises it.
    logging.getLogger("gcsfs").addFilter(_has_no_traceback)


def _has_no_traceback(record: logging.LogRecord) -> bool:
    return not record.exc_info

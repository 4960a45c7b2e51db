"""Prepare a TFDS data set once, so that a half-written one is never taken for whole."""

import contextlib
import fcntl
import io
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import tensorflow_datasets as tfds
from absl import logging


def prepared(make_builder: Callable[[], tfds.core.DatasetBuilder]) -> tfds.core.DatasetBuilder:
    """A builder whose records lie ready on disk; they are written now where absent.

    TFDS writes to a folder named incomplete and renames it when all is there, so a killed preparation leaves nothing
    that looks complete. Its leftovers are removed by the next one. Processes of one machine wait for the first that
    prepares; processes of several machines must not prepare into one shared folder at the same time.

    Args:
        make_builder: makes the builder; called again after waiting, since a builder looks for its records when it is
            made.
    """
    builder = _quietly(make_builder)
    if builder.data_path.exists():
        return builder
    with _lock(Path(builder.data_path).parent):
        builder = _quietly(make_builder)
        if not builder.data_path.exists():
            for leftover in Path(builder.data_path).parent.glob("incomplete.*"):
                shutil.rmtree(leftover)
            tfds.disable_progress_bar()
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    builder.download_and_prepare()
            finally:
                tfds.enable_progress_bar()
    return builder


def _quietly(make_builder: Callable[[], tfds.core.DatasetBuilder]) -> tfds.core.DatasetBuilder:
    # TFDS warns of every configuration that is not in its list; ours are made for the occasion.
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        return make_builder()
    finally:
        logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold the folder against other processes of this machine; a killed holder lets go by itself."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

"""Preparation of a data set: write its records once, never leave a partial result, and report the outcome."""

import contextlib
import fcntl
import io
import logging
import re
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from absl import logging as absl_logging

from motion_jax.data.config import DataConfig
from motion_jax.data.sources import BUILDERS
from motion_jax.data.sources.moving_shapes import CLASSES, MovingShapes
from motion_jax.data.sources.videos import Videos
from motion_jax.data.storage.fingerprint import check_records, naming_folder
from motion_jax.text import shown

_log = logging.getLogger(__name__)
# Seconds between two log lines about a wait.
PERIOD = 60


def prepare(
    section: DataConfig, *, default_dir: str, beam_runner: str | None = None, beam_options: Sequence[str] = ()
) -> tfds.core.DatasetBuilder:
    """Return the builder of a data set, after its records are written if they are absent.

    ``default_dir`` is the folder of the prepared records if ``section.dir`` is None. The records are written by the
    named Beam runner with its options, such as ``"--direct_num_workers=4"``, or on the cores of this machine if it is
    None. Workers of the runner must see ``section.root`` and the prepared records under the same paths. Where
    ``section.root`` is absent, prepared records are opened without the videos.

    Raises:
        ValueError: if the videos are not laid out as expected, too many of them are unreadable, the records are not
            those that were written, the folder's name is not UTF-8, or Beam is requested and not installed.
    """
    folder = Path(section.dir or default_dir)
    if re.search("[\ud800-\udfff]", str(folder)):
        raise ValueError(f"data.dir is {shown(str(folder))}, expected a name in UTF-8: array_record writes to no other")
    if section.name == "moving_shapes":
        if beam_runner:
            raise ValueError("moving_shapes is generated on one machine in minutes; leave the Beam runner out")
        return prepared(_maker(section, folder))

    builder = None
    if _lacks_videos(section):
        builder = _open_without_videos(section, folder)
    if builder is None:
        builder = prepared(_maker(section, folder), _beam(beam_runner, beam_options) if beam_runner else None)
    unreadable = builder.info.metadata["unreadable"]
    count = len(unreadable) + sum(split.num_examples for split in builder.info.splits.values())
    if len(unreadable) > section.max_bad_fraction * count:
        raise ValueError(
            f"data.root: {len(unreadable)} of {count} videos of {section.root} cannot be read, more than "
            f"data.max_bad_fraction = {section.max_bad_fraction}; repair or remove them, raise that fraction, or, if "
            f"the disk failed, delete {builder.data_path} to read them again: "
            + "; ".join(f"{path}: {reason}" for path, reason in unreadable)
        )
    return builder


def is_prepared(section: DataConfig, *, default_dir: str) -> bool:
    """Return whether the records of a data set are there, so that ``prepare`` writes nothing.

    Raises:
        ValueError: if the videos are not laid out as expected, or the records are damaged.
    """
    folder = Path(section.dir or default_dir)
    if section.name != "moving_shapes" and _lacks_videos(section):
        return _open_without_videos(section, folder) is not None
    return _quietly(_maker(section, folder)).data_path.exists()


def prepared(
    make_builder: Callable[[], tfds.core.DatasetBuilder], download_config: tfds.download.DownloadConfig | None = None
) -> tfds.core.DatasetBuilder:
    """Return a builder after its records are written if they are absent.

    TFDS writes to a folder named incomplete and renames it at the end, so a killed preparation never looks complete.
    The next preparation removes what it left. Processes of one machine, or of several that share the folder,
    wait for the first one that prepares.

    ``make_builder`` is called again after waiting, because a builder looks for its records when it is made.

    Raises:
        ValueError: if the records are not those that were written, see :func:`check_records`.
    """
    builder = _quietly(make_builder)
    if builder.data_path.exists():
        check_records(Path(builder.data_path), builder.info)
        return builder
    with _lock(Path(builder.data_path).parent):
        builder = _quietly(make_builder)
        if not builder.data_path.exists():
            for leftover in Path(builder.data_path).parent.glob("incomplete.*"):
                shutil.rmtree(leftover)
            tfds.disable_progress_bar()
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    builder.download_and_prepare(download_config=download_config)
            finally:
                tfds.enable_progress_bar()
    return builder


def class_names(section: DataConfig) -> tuple[str, ...]:
    """Return the class names of a data set in label order, from its annotations alone.

    Raises:
        ValueError: if the videos are not laid out as expected.
    """
    if section.name == "moving_shapes":
        return CLASSES
    return BUILDERS[section.name].read_layout(_root(section), section.version).classes


def _maker(section: DataConfig, folder: Path) -> Callable[[], tfds.core.DatasetBuilder]:
    """Return the function that makes the builder of a data set with its records in ``folder``."""
    if section.name == "moving_shapes":
        options = {name: getattr(section, name) for name in ("size", "frames", "clips", "drift")}
        return partial(MovingShapes, data_dir=folder, **options)
    options = {name: getattr(section, name) for name in ("version", "resize", "quality", "max_pixels")}
    return partial(BUILDERS[section.name], root=_root(section), data_dir=folder, **options)


def _lacks_videos(section: DataConfig) -> bool:
    return section.root is None or not Path(section.root).is_dir()


def _root(section: DataConfig) -> Path:
    if section.root is None:
        raise ValueError(
            f"data.root is None, expected the folder of {section.name}, because {section.dir} holds no records of it: "
            "set --config.data.root=DIR, or --root=DIR for tools.prepare"
        )
    return Path(section.root)


def _open_without_videos(section: DataConfig, folder: Path) -> tfds.core.DatasetBuilder | None:
    """Return the builder of the only prepared records that fit, such as a copy of those of another host; else None.

    Raises:
        ValueError: if several fit, because their names hold digests of the videos, which are absent; or if one of them
            is damaged, see :func:`check_records`.
    """
    found = []
    for info in sorted((folder / section.name).glob(f"*/{Videos.VERSION}/dataset_info.json")):
        with naming_folder(info.parent):
            builder = _quietly(partial(tfds.builder_from_directory, info.parent))
        check_records(info.parent, builder.info)
        metadata = builder.info.metadata or {}
        resize = list(section.resize) if isinstance(section.resize, tuple) else section.resize
        wanted = {"version": section.version, "resize": resize, "quality": section.quality}
        # Records from before the last two were noted lack them.
        if all(metadata.get(name, value) == value for name, value in wanted.items()):
            found.append(builder)
    if len(found) > 1:
        names = ", ".join(Path(builder.data_path).parent.name for builder in found)
        raise ValueError(
            f"data.dir: {folder / section.name} holds {len(found)} sets of records that fit ({names}), and the videos "
            f"that would choose one are absent (data.root is {section.root}): keep one of them"
        )
    return found[0] if found else None


def report(builder: tfds.core.DatasetBuilder) -> dict[str, Any]:
    """Return the contents of a prepared data set.

    Returns:
        name, version (None if there is only one), folder, classes (their number), class_order (in words), splits (name
        -> videos, frames, bytes), unreadable (cause -> paths of videos that are left out), missing (split -> names of
        annotated videos that are absent) and remarks (path -> what is unusual about a video that is kept).
    """
    metadata = builder.info.metadata or {}
    frames = metadata.get("frames", {})
    unreadable, missing = defaultdict(list), defaultdict(list)
    for path, reason in metadata.get("unreadable", ()):
        unreadable[reason].append(path)
    for split, name in metadata.get("missing", ()):
        missing[split].append(name)
    return {
        "name": builder.name,
        "version": metadata.get("version"),
        "folder": str(builder.data_path),
        "classes": builder.info.features["label"].num_classes,
        "class_order": metadata.get("class_order"),
        "splits": {
            name: {"videos": split.num_examples, "frames": frames.get(name), "bytes": int(split.num_bytes)}
            for name, split in builder.info.splits.items()
        },
        "unreadable": dict(unreadable),
        "missing": dict(missing),
        "remarks": dict(metadata.get("remarks", ())),
    }


def _beam(runner: str, options: Sequence[str]) -> tfds.download.DownloadConfig:
    try:
        from apache_beam.options.pipeline_options import PipelineOptions
    except ImportError as error:
        raise ValueError("Beam is not installed: pip install apache-beam, or leave the runner out") from error
    return tfds.download.DownloadConfig(beam_runner=runner, beam_options=PipelineOptions(list(options)))


def _quietly(make_builder: Callable[[], tfds.core.DatasetBuilder]) -> tfds.core.DatasetBuilder:
    # TFDS warns about every configuration that is not in its list.
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        return make_builder()
    finally:
        absl_logging.set_verbosity(verbosity)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Lock a folder against other processes, also of other hosts where its disk is shared.

    The lock of a killed process is released. A wait of more than a minute is logged once a minute.

    Raises:
        ValueError: if the disk has no file locks.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        began = said = time.monotonic()
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.2)
            except OSError as error:
                raise ValueError(
                    f"data.dir: {folder} cannot be locked ({error.strerror}): choose a folder on another disk"
                ) from error
            if time.monotonic() - said >= PERIOD:
                said = time.monotonic()
                _log.warning("waiting for another process to prepare %s, %.0f s", folder, said - began)
        yield

"""Batches of training and evaluation clips, prefetched by Grain.

A training batch is a pure function of (seed, step), so a run resumes from its step::

    dataset = open_dataset(DataConfig(**config.data), default_dir=f"{workdir}/data")
    for batch in train_batches(dataset, batch_size=64, seed=0, start_step=step): ...
"""

import atexit
import contextlib
import gc
import logging
import math
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from functools import cache, partial
from typing import Any, TypeVar

import numpy as np

from motion_jax.data.clips.corruption import Corruption
from motion_jax.data.clips.labels import flipped_labels
from motion_jax.data.clips.views import at_full_resolution, write_training_clip, write_views
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.buffers import Buffers
from motion_jax.data.storage.dataset import Dataset
from motion_jax.data.storage.frames import UnreadableError

__all__ = ["DataConfig", "Dataset", "eval_batches", "open_dataset", "train_batches"]

Batch = dict[str, np.ndarray]
Made = TypeVar("Made")

_log = logging.getLogger(__name__)
# Opening a data set warns when the centre crop of evaluation keeps less than this fraction of the stored frame.
_NARROW = 0.6
_open: weakref.WeakSet = weakref.WeakSet()


def open_dataset(section: DataConfig, *, default_dir: str) -> Dataset:
    """Open a data set. If its records are absent they are prepared first, with a progress bar.

    ``default_dir`` is the folder of the prepared records if ``section.dir`` is None.

    Raises:
        ValueError: if the videos are not laid out as expected, or too many of them are unreadable.
    """
    # Importing TFDS takes half a second.
    from motion_jax.data.sources.preparation import prepare

    if section.resize is not None and section.crop != "none":
        _warn_of_narrow_views(section.size, section.resize)
    return Dataset(section, prepare(section, default_dir=default_dir))


def is_prepared(section: DataConfig, *, default_dir: str) -> bool:
    """Return whether the records of a data set are there, so that ``open_dataset`` prepares nothing."""
    from motion_jax.data.sources import preparation

    return preparation.is_prepared(section, default_dir=default_dir)


@cache
def _warn_of_narrow_views(size: int, resize: tuple[int, int] | int) -> None:
    """Warn if evaluation shows a small part of the stored frame; cached, so that a process warns once."""
    stored = (resize, resize) if isinstance(resize, int) else resize
    shown = size**2 / math.prod(stored)
    if shown < _NARROW:
        _log.warning(
            "evaluation shows the centre %dx%d of the stored %dx%d pixels, %.0f %% of the frame: reduce data.resize "
            "together with data.size, or set data.crop to none",
            *(size, size, *stored, 100 * shown),
        )


def train_batches(
    dataset: Dataset, *, batch_size: int, seed: int, start_step: int = 0, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Return endless training batches from ``start_step`` on.

    Clip ``step * batch_size + row`` of the stream belongs to epoch ``(step * batch_size + row) // n``. Each epoch is a
    new order of all n examples, and batches continue across its end, so no clip is dropped. Process k takes an equal
    share of consecutive rows of each batch, so the global batch does not depend on the number of processes. Frames,
    crop, flip and colors of a clip depend on (seed, example, epoch) alone.

    Args:
        dataset: its split "train" is read.
        batch_size: clips per step of all processes together; a multiple of ``process_count``.
        seed: 0 or more, below 2**32.
        start_step: the step of the first batch.
        process_index, process_count: index of this process, and number of processes.

    Returns:
        Iterator of clips (uint8 (b, t, h, w, 3)), label (int32 (b,)) and index (int64 (b,), position in the split),
        where b is this process's share of the batch.

    Raises:
        ValueError: if an argument does not fit, or too many records are unreadable.
    """
    _check_share(batch_size, process_index, process_count)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed is {seed}, expected an integer from 0 to 2**32 - 1")
    if start_step < 0:
        raise ValueError(f"start_step is {start_step}, expected 0 or more")
    import grain

    count = dataset.size("train")
    flipped = flipped_labels(dataset.labels, policy=dataset.section.flip)
    make = partial(_train_batch, dataset=dataset, seed=seed, flipped=flipped, buffers=Buffers())
    order = grain.MapDataset.range(count).shuffle(seed=seed).repeat()
    # Not `random_map`: its draws depend on the position in the stream, not on the example.
    batches = order.map_with_index(partial(_with_epoch, count=count)).batch(batch_size // process_count, batch_fn=make)
    return _prefetch(batches[process_index::process_count][start_step:], dataset.section)


def eval_batches(
    dataset: Dataset,
    *,
    split: str = "val",
    batch_size: int,
    clips: int = 1,
    crops: int = 1,
    full_resolution: bool = False,
    corruption: Corruption | None = None,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Return every example of a split once, in order, with the last batch padded.

    Args:
        dataset, split: the examples.
        batch_size: examples per step of all processes together; a multiple of ``process_count``.
        clips: clips per example: see ``segment_test`` and ``dense_test`` in data/clips/sampling.py.
        crops: 1 (centre), or 3 (along the longer side, after the shorter side is resized to ``data.size``).
        full_resolution: views have the size of the short side of the stored frames instead of ``data.size``.
        corruption: applied to every view after the crop.
        process_index, process_count: index of this process, and number of processes. Each gets as many batches.

    Returns:
        Iterator of clips (uint8 (b, v, t, h, w, 3), v = clips * crops views, the crops of a clip adjacent), label
        (int32 (b,)), mask (bool (b,), False for padding), index (int64 (b,), position in the split, -1 for padding)
        and id (UTF-8 bytes (b,), empty for padding), where b is this process's share of the batch.

    Raises:
        ValueError: if an argument does not fit, or too many records are unreadable.
    """
    _check_share(batch_size, process_index, process_count)
    if crops not in (1, 3):
        raise ValueError(f"crops is {crops}, expected 1 (centre) or 3 (along the longer side)")
    if clips < 1:
        raise ValueError(f"clips is {clips}, expected an integer of 1 or more")
    section = at_full_resolution(dataset.section) if full_resolution else dataset.section
    if corruption is not None:
        corruption.frames(section.frames)
    import grain

    options = {"section": section, "clips": clips, "crops": crops, "corruption": corruption}
    make = partial(_eval_batch, dataset=dataset, split=split, **options)
    steps = -(-dataset.size(split) // batch_size)
    batches = grain.MapDataset.range(steps * batch_size).batch(batch_size // process_count, batch_fn=make)
    return _prefetch(batches[process_index::process_count], dataset.section)


def _check_share(batch_size: int, process_index: int, process_count: int) -> None:
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(f"batch_size {batch_size} does not divide over processes: give a multiple of {process_count}")
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index is {process_index}, expected 0 to {process_count - 1}")


def _with_epoch(position: int, index: int, *, count: int) -> tuple[int, int]:
    return int(index), position // count


# Grain batches the examples, and `batch_fn` decodes them into their rows. If Grain maps and stacks whole clips, the
# pipeline takes 3 % more CPU time than this for batches of 16 clips and 30 % more for batches of 64.


def _train_batch(
    examples: Sequence[tuple[int, int]], *, dataset: Dataset, seed: int, flipped: np.ndarray, buffers: Buffers
) -> Batch:
    section = dataset.section
    batch = {
        "clips": buffers.empty((len(examples), section.frames, section.size, section.size, 3)),
        "label": np.empty(len(examples), np.int32),
        "index": np.array([index for index, _ in examples], np.int64),
    }

    def clip(record: dict[str, Any], *, out: np.ndarray, key: list[int]) -> int:
        label = int(record["label"])
        rng = np.random.default_rng(key)
        mirrored = write_training_clip(out, record["frames"], section, may_flip=flipped[label] >= 0, rng=rng)
        return flipped[label] if mirrored else label

    for row, (index, epoch) in enumerate(examples):
        make = partial(clip, out=batch["clips"][row], key=[seed, index, epoch])
        batch["label"][row] = _from_readable(dataset, "train", index, make)
    return batch


def _eval_batch(
    indices: Sequence[int],
    *,
    dataset: Dataset,
    split: str,
    section: DataConfig,
    clips: int,
    crops: int,
    corruption: Corruption | None,
) -> Batch:
    count = len(indices)
    batch = {
        "clips": np.zeros((count, clips * crops, section.frames, section.size, section.size, 3), np.uint8),
        "label": np.zeros(count, np.int32),
        "mask": np.array(indices) < dataset.size(split),
        "index": np.full(count, -1, np.int64),
    }
    ids = [b""] * count

    def views(record: dict[str, Any], *, out: np.ndarray, index: int) -> tuple[int, bytes]:
        write_views(out, record["frames"], section, clips=clips, crops=crops)
        if corruption is not None:
            for view in out:
                view[...] = corruption(view, index=index)
        return int(record["label"]), record["id"]

    for row, index in enumerate(indices[: batch["mask"].sum()]):
        make = partial(views, out=batch["clips"][row], index=index)
        batch["label"][row], ids[row] = _from_readable(dataset, split, index, make)
        batch["index"][row] = index
    return {**batch, "id": np.array(ids)}


def _from_readable(dataset: Dataset, split: str, index: int, make: Callable[[dict[str, Any]], Made]) -> Made:
    """Return ``make`` of the record at ``index``, or of the next record that can be read.

    Raises:
        ValueError: if too many records of the split are unreadable.
    """
    size = dataset.size(split)
    for at in range(index, index + size):
        try:
            return make(dataset.record(split, at % size))
        except UnreadableError as error:
            dataset.report_unreadable(split, at % size, error)
    raise ValueError(f"no record of split {split} can be read: delete the prepared records and start again")


def _prefetch(batches: Any, section: DataConfig) -> Iterator[Batch]:
    """Return an iterator over a ``grain.MapDataset`` of batches, made ahead by Grain's threads or worker processes."""
    made = _made_ahead(batches, section)
    _open.add(made)
    return made


def _made_ahead(batches: Any, section: DataConfig) -> Generator[Batch, None, None]:
    import grain
    from absl import flags

    # One batch in progress per thread, and one ready.
    options = grain.ReadOptions(num_threads=section.threads, prefetch_buffer_size=section.threads + 1)
    ahead = batches.to_iter_dataset(options)
    if section.processes:
        # Grain's workers read absl flags, which are parsed only in programs that use absl.app.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        ahead = ahead.mp_prefetch(grain.MultiprocessingOptions(num_workers=section.processes))
    iterator = iter(ahead)
    # Hooks run in reverse order: register this one after that of multiprocessing, which ends the workers.
    atexit.unregister(_close_all)
    atexit.register(_close_all)
    try:
        for batch in iterator:
            # Workers send batches in shared memory, which must be freed even if the caller keeps the batches.
            yield {name: np.array(value) for name, value in batch.items()} if section.processes else batch
    finally:
        iterator.close()


def _close_all() -> None:
    """Free all iterators before the interpreter removes the modules that Grain's destructors use."""
    for batches in list(_open):
        # A generator that is running in another thread cannot be closed.
        with contextlib.suppress(ValueError):
            batches.close()
    gc.collect()

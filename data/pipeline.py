"""Batches of training and evaluation clips, made ahead by Grain.

A training batch is a pure function of (seed, step), so a run resumes by asking for the steps it lacks::

    dataset = open_dataset(Data(**config.data), default_dir=f"{workdir}/data")
    for batch in train_batches(dataset, batch_size=64, seed=0, start_step=step): ...
"""

import atexit
import contextlib
import gc
import time
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np

from motion_jax.data.buffers import Buffers
from motion_jax.data.clips import augmentation, labels, sampling, transforms
from motion_jax.data.clips.corruption import Corruption
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.dataset import Dataset, open_dataset
from motion_jax.data.storage.decoding import decode_jpeg

__all__ = ["DataConfig", "Dataset", "eval_batches", "open_dataset", "train_batches"]

Batch = dict[str, np.ndarray]

# More steps than any run takes.
_FOREVER = 2**40

_open: weakref.WeakSet = weakref.WeakSet()


def train_batches(
    dataset: Dataset, *, batch_size: int, seed: int, start_step: int = 0, process_index: int = 0, process_count: int = 1
) -> Iterator[Batch]:
    """Endless training batches from ``start_step`` on.

    Clip ``p = step * batch_size + row`` of the stream belongs to epoch ``p // n``; each epoch is a new order of all n
    examples, and batches run across its end, so no clip is dropped. Process k takes an equal share of consecutive
    rows of each batch: the whole batch is the same however many processes there are. Frames, crop, flip and colours of
    a clip depend on (seed, example, epoch) alone.

    Args:
        dataset: its split "train" is read.
        batch_size: clips per step of all processes together.
        seed: 0 or more, below 2**32.
        start_step: the step of the first batch.
        process_index: this process.
        process_count: number of processes; must divide ``batch_size``.

    Returns:
        clips (uint8 (b, t, h, w, 3)), label (int32 (b,)) and index (int64 (b,), position in the split), b being this
        process's share of the batch.

    Raises:
        ValueError: if an argument does not fit, or too many records are unreadable.
    """
    rows = _rows(batch_size, process_index, process_count)
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed {seed} does not fit: give an integer from 0 to 2**32 - 1")
    if start_step < 0:
        raise ValueError(f"start_step {start_step} does not fit: steps count from 0")
    make = _TrainBatches(dataset, batch_size, rows, seed)
    return _iterate(make, range(start_step, _FOREVER), dataset.section)


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
    """Every example of a split once, in order, the last batch filled up.

    Args:
        dataset: what to read.
        split: the split.
        batch_size: examples per step of all processes together.
        clips: clips per example: see :func:`segment_test` and :func:`dense_test`.
        crops: 1 (centre) or 3 (along the longer side, whose shorter one is brought to ``data.size``).
        full_resolution: views are as large as the short side of the stored frames, in place of ``data.size``.
        corruption: what every view undergoes once it is cropped.
        process_index: this process.
        process_count: number of processes; must divide ``batch_size``. Each gets the same number of batches.

    Returns:
        clips (uint8 (b, v, t, h, w, 3), v = clips * crops views, the crops of a clip beside each other), label (int32
        (b,)), mask (bool (b,), False where a row only fills up), index (int64 (b,), position in the split, -1 where it
        fills up) and id (UTF-8 bytes (b,), empty where it fills up), b being this process's share of the batch.

    Raises:
        ValueError: if an argument does not fit, or too many records are unreadable.
    """
    rows = _rows(batch_size, process_index, process_count)
    if crops not in (1, 3):
        raise ValueError(f"crops = {crops}: choose 1 (centre) or 3 (along the longer side)")
    if clips < 1:
        raise ValueError(f"clips = {clips}: give an integer of 1 or more")
    section = at_full_resolution(dataset.section) if full_resolution else dataset.section
    if corruption is not None:
        corruption.frames(section.frames)
    make = _EvalBatches(dataset, section, split, batch_size, rows, clips, crops, corruption)
    return _iterate(make, range(-(-dataset.size(split) // batch_size)), dataset.section)


@dataclass(frozen=True)
class _TrainBatches:
    """Step -> this process's part of the training batch."""

    dataset: Dataset
    batch_size: int
    rows: range
    seed: int

    def __call__(self, step: int) -> Batch:
        section = self.dataset.section
        count = self.dataset.size("train")
        shape = (len(self.rows), section.frames, section.size, section.size, 3)
        batch = {
            "clips": self._buffers.empty(shape),
            "label": np.empty(shape[0], np.int32),
            "index": np.empty(shape[0], np.int64),
        }
        for row, global_row in enumerate(self.rows):
            position = step * self.batch_size + global_row
            index = int(self._order[position])
            make = partial(self._clip, batch["clips"][row], key=[self.seed, index, position // count])
            batch["label"][row] = self.dataset.readable("train", index, make)
            batch["index"][row] = index
        return batch

    def _clip(self, out: np.ndarray, record: dict[str, Any], *, key: list[int]) -> int:
        """Write the clip into ``out`` and return its label."""
        section = self.dataset.section
        rng = np.random.default_rng(key)
        draw = rng.integers
        frames = record["frames"]
        sample = sampling.segment_train if section.sampling == "segment" else sampling.dense_train
        indices = sample(len(frames), section.frames, draw=draw)
        (height, width), images = _decode(frames, indices)
        if section.crop in ("multi_scale", "random_resized"):
            if section.crop == "multi_scale":
                box = transforms.multi_scale_crop(height, width, size=section.size, draw=draw)
            else:
                box = transforms.random_resized_crop(height, width, rng=rng)
            view = partial(transforms.resize, height=section.size, width=section.size, box=box)
        else:
            view = eval_views(height, width, section, crops=1)[0]
        label = int(record["label"])
        flipped = int(self._flipped[label])
        mirror = flipped >= 0 and int(draw(2)) == 1
        for places, image in images:
            shown = view(image)
            out[places] = transforms.flip(shown) if mirror else shown
        if section.color_jitter is not None:
            out[...] = augmentation.color_jitter(out, strengths=section.color_jitter, rng=rng)
        if section.rand_augment is not None:
            operations, magnitude = section.rand_augment
            out[...] = augmentation.rand_augment(out, operations=operations, magnitude=magnitude, rng=rng)
        return flipped if mirror else label

    @cached_property
    def _buffers(self) -> Buffers:
        return Buffers()

    @cached_property
    def _order(self) -> Any:
        """Position in the stream -> example."""
        import grain

        return grain.MapDataset.range(self.dataset.size("train")).shuffle(seed=self.seed).repeat()

    @cached_property
    def _flipped(self) -> np.ndarray:
        return labels.flipped_labels(self.dataset.labels, policy=self.dataset.section.flip)


@dataclass(frozen=True)
class _EvalBatches:
    """Step -> this process's part of the evaluation batch."""

    dataset: Dataset
    section: DataConfig
    split: str
    batch_size: int
    rows: range
    clips: int
    crops: int
    corruption: Corruption | None

    def __call__(self, step: int) -> Batch:
        section = self.section
        shape = (len(self.rows), self.clips * self.crops, section.frames, section.size, section.size, 3)
        batch = {
            "clips": np.zeros(shape, np.uint8),
            "label": np.zeros(shape[0], np.int32),
            "mask": np.zeros(shape[0], np.bool_),
            "index": np.full(shape[0], -1, np.int64),
        }
        ids = [b""] * shape[0]
        for row, global_row in enumerate(self.rows):
            index = step * self.batch_size + global_row
            if index >= self.dataset.size(self.split):
                break
            make = partial(self._views, batch["clips"][row], index=index)
            batch["label"][row], ids[row] = self.dataset.readable(self.split, index, make)
            batch["mask"][row] = True
            batch["index"][row] = index
        return {**batch, "id": np.array(ids)}

    def _views(self, out: np.ndarray, record: dict[str, Any], *, index: int) -> tuple[int, bytes]:
        """Write all views into ``out`` and return label and id."""
        write_views(out, record["frames"], self.section, clips=self.clips, crops=self.crops)
        if self.corruption is not None:
            for view in out:
                view[...] = self.corruption(view, index=index)
        return int(record["label"]), record["id"]


def write_views(out: np.ndarray, frames: Sequence[bytes], section: DataConfig, *, clips: int, crops: int) -> None:
    """Fill ``out``, uint8 (clips * crops, t, h, w, 3), with the views evaluation takes of a stored video.

    Args:
        out: is written to; the crops of a clip lie beside each other.
        frames: of the video, as JPEG bytes.
        section: how clips are made.
        clips: as in :func:`eval_batches`.
        crops: likewise.

    Raises:
        ValueError: if a frame does not decode.
    """
    sample = sampling.segment_test if section.sampling == "segment" else sampling.dense_test
    indices = sample(len(frames), section.frames, clips=clips)
    (height, width), images = _decode(frames, indices)
    views = eval_views(height, width, section, crops=crops)
    for places, image in images:
        for crop, view in enumerate(views):
            out[crop::crops][places] = view(image)


def _decode(
    frames: Sequence[bytes], indices: np.ndarray
) -> tuple[tuple[int, int], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Height and width of the frames, and each chosen one with its places: a mask of the shape of ``indices``.

    A frame is decoded once, when its turn comes: one stays in the processor's cache until it is used, all would not.
    """
    chosen = np.unique(indices)
    first = decode_jpeg(frames[chosen[0]])

    def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield indices == chosen[0], first
        for index in chosen[1:]:
            yield indices == index, decode_jpeg(frames[index])

    return first.shape[:2], images()


def eval_views(height: int, width: int, section: DataConfig, *, crops: int) -> list[Callable[[np.ndarray], np.ndarray]]:
    """One function per crop, from a frame (height, width, 3) to (size, size, 3).

    Centre crops are taken from the frame as stored when ``data.resize`` set its size. Frames of any size, and frames
    of which three crops are taken, are first brought to a short side of ``size``.
    """
    size = section.size
    if section.crop == "none" and crops == 1:
        return [partial(transforms.resize, height=size, width=size)]
    if section.resize is None or crops == 3:
        height, width = transforms.scaled_size(height, width, resize=size)
    boxes = (
        transforms.three_crops(height, width, size=size)
        if crops == 3
        else [transforms.center_crop(height, width, size=size)]
    )

    def view(box: transforms.Box) -> Callable[[np.ndarray], np.ndarray]:
        def crop(frame: np.ndarray) -> np.ndarray:
            frame = transforms.resize(frame, height=height, width=width)
            return frame[box.y : box.y + box.height, box.x : box.x + box.width]

        return crop

    return [view(box) for box in boxes]


def at_full_resolution(section: DataConfig) -> DataConfig:
    """The section with views as large as the short side of the stored frames.

    Raises:
        ValueError: if the frames are stored as filmed.
    """
    if section.name == "moving_shapes":
        return section
    if section.resize is None:
        raise ValueError("full_resolution needs frames stored at one size, but data.resize is None (as filmed)")
    return replace(section, size=section.resize if isinstance(section.resize, int) else min(section.resize))


def _iterate(make: Callable[[int], Batch], steps: range, section: DataConfig) -> Iterator[Batch]:
    """``make`` of each step, in order, made ahead by Grain's threads or processes."""
    batches = _generate(make, steps, section)
    _open.add(batches)
    return batches


def _generate(make: Callable[[int], Batch], steps: range, section: DataConfig) -> Generator[Batch, None, None]:
    import grain
    from absl import flags

    # A batch in the making per thread and one ready.
    options = grain.ReadOptions(num_threads=section.threads, prefetch_buffer_size=section.threads + 1)
    batches = grain.MapDataset.range(steps.start, steps.stop).map(make).to_iter_dataset(options)
    if section.processes:
        # Grain's workers read absl flags, which a program without absl.app never parses.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        batches = batches.mp_prefetch(grain.MultiprocessingOptions(num_workers=section.processes))
    iterator = iter(batches)
    # What is registered last runs first: before multiprocessing ends the workers.
    for clean_up in (_free_shared_memory, _close_all) if section.processes else (_close_all,):
        atexit.unregister(clean_up)
        atexit.register(clean_up)
    try:
        for batch in iterator:
            # What workers send lies in shared memory, which a caller that keeps batches would hold open.
            yield {name: np.array(value) for name, value in batch.items()} if section.processes else batch
    finally:
        iterator.close()


def _close_all() -> None:
    """Close what the program left open while Grain's modules still stand; later its clean-up fails noisily."""
    for batches in list(_open):
        # A generator that another thread is in cannot be closed.
        with contextlib.suppress(ValueError):
            batches.close()


def _free_shared_memory() -> None:
    """Closed iterators are cycles that hold shared memory; what Grain has not freed at exit is reported as leaked."""
    gc.collect()
    time.sleep(0.2)


def _rows(batch_size: int, process_index: int, process_count: int) -> range:
    """The rows of a global batch that belong to a process."""
    if batch_size < 1 or batch_size % process_count:
        raise ValueError(
            f"batch_size {batch_size} cannot be shared among {process_count} processes: "
            f"give a multiple of {process_count}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index {process_index} does not fit {process_count} processes")
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)

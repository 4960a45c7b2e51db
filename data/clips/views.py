"""Clips of a stored video: the random clip of training and the fixed views of evaluation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from motion_jax.data.clips import augmentation, sampling, transforms
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.frames import UnreadableError, decode_jpeg, resize, scaled_size


def write_training_clip(
    out: np.ndarray, frames: Sequence[bytes], section: DataConfig, *, may_flip: bool, rng: np.random.Generator
) -> bool:
    """Fill ``out``, uint8 (t, size, size, 3), with a random clip and return whether it is mirrored.

    ``frames`` is the video as JPEG bytes. With ``may_flip`` the clip is mirrored with probability 1/2. ``rng`` draws
    frames, crop, flip and augmentation, in this order.

    Raises:
        UnreadableError: if a frame does not decode.
    """
    sample = sampling.segment_train if section.sampling == "segment" else sampling.dense_train
    indices = sample(len(frames), section.frames, draw=rng.integers)
    (height, width), images = _decode(frames, indices)
    if section.crop == "multi_scale":
        box = transforms.multi_scale_crop(height, width, size=section.size, draw=rng.integers)
        view = partial(transforms.crop_and_resize, box=box, size=section.size)
    elif section.crop == "random_resized":
        box = transforms.random_resized_crop(height, width, rng=rng)
        view = partial(transforms.crop_and_resize, box=box, size=section.size)
    else:
        view = eval_views(height, width, section, crops=1)[0]
    mirror = may_flip and int(rng.integers(2)) == 1
    for places, image in images:
        shown = view(image)
        out[places] = transforms.flip(shown) if mirror else shown
    if section.color_jitter is not None:
        out[...] = augmentation.color_jitter(out, strengths=section.color_jitter, rng=rng)
    if section.rand_augment is not None:
        operations, magnitude = section.rand_augment
        out[...] = augmentation.rand_augment(out, operations=operations, magnitude=magnitude, rng=rng)
    return mirror


def write_views(out: np.ndarray, frames: Sequence[bytes], section: DataConfig, *, clips: int, crops: int) -> None:
    """Fill ``out``, uint8 (clips * crops, t, size, size, 3), with the views of evaluation.

    ``frames`` is the video as JPEG bytes; ``clips`` and ``crops`` are as in ``eval_batches``. The crops of a clip are
    adjacent.

    Raises:
        UnreadableError: if a frame does not decode.
    """
    sample = sampling.segment_test if section.sampling == "segment" else sampling.dense_test
    indices = sample(len(frames), section.frames, clips=clips)
    (height, width), images = _decode(frames, indices)
    views = eval_views(height, width, section, crops=crops)
    for places, image in images:
        for crop, view in enumerate(views):
            out[crop::crops][places] = view(image)


def eval_views(height: int, width: int, section: DataConfig, *, crops: int) -> list[Callable[[np.ndarray], np.ndarray]]:
    """Return one function per crop, from a frame (height, width, 3) to (size, size, 3).

    A single centre crop is cut out of the stored frame if ``data.resize`` set the size of all frames. Otherwise, and
    for three crops, the frame is first resized to a short side of ``size``.
    """
    size = section.size
    if section.crop == "none" and crops == 1:
        return [partial(resize, height=size, width=size)]
    if section.resize is None or crops == 3:
        height, width = scaled_size(height, width, resize=size)
    three, one = transforms.three_crops, transforms.center_crop
    boxes = three(height, width, size=size) if crops == 3 else [one(height, width, size=size)]

    def view(frame: np.ndarray, *, box: transforms.Box) -> np.ndarray:
        frame = resize(frame, height=height, width=width)
        return frame[box.y : box.y + box.height, box.x : box.x + box.width]

    return [partial(view, box=box) for box in boxes]


def at_full_resolution(section: DataConfig) -> DataConfig:
    """Return the section with ``size`` set to the short side of the stored frames.

    Raises:
        ValueError: if the stored frames have the sizes of the videos.
    """
    if section.name == "moving_shapes":
        return section
    if section.resize is None:
        raise ValueError("full_resolution needs frames stored at one size, but data.resize is None: set data.resize")
    return replace(section, size=section.resize if isinstance(section.resize, int) else min(section.resize))


def _decode(
    frames: Sequence[bytes], indices: np.ndarray
) -> tuple[tuple[int, int], Iterator[tuple[np.ndarray, np.ndarray]]]:
    """Return (height, width) of the frames, and each chosen frame with a mask of its places in ``indices``.

    Frames are decoded one at a time, so that each stays in the processor's cache until it is used.
    """
    chosen = np.unique(indices)
    first = decode_jpeg(frames[chosen[0]])

    def images() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        yield indices == chosen[0], first
        for index in chosen[1:]:
            image = decode_jpeg(frames[index])
            if image.shape != first.shape:
                raise UnreadableError(f"frames of {first.shape[:2]} and {image.shape[:2]} in one record")
            yield indices == index, image

    return first.shape[:2], images()

"""Spatio-temporal self-similarity (STSS): every position against its neighbourhood in space and time."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from motion_jax import kernels
from motion_jax.ops.correlation import local_correlation

TEMPORAL_PADDINGS = ("zero", "edge", "replicate")


def temporal_offsets(length: int) -> tuple[int, ...]:
    """Return the temporal offsets of a window of odd ``length``: ``-(length // 2) .. length // 2``.

    Raises:
        ValueError: if the length is even or not positive.

    >>> temporal_offsets(5)
    (-2, -1, 0, 1, 2)
    """
    if length < 1 or length % 2 == 0:
        raise ValueError(f"the temporal window must be odd and positive; got {length}")
    return tuple(range(-(length // 2), length // 2 + 1))


def self_similarity(
    x: Float[Array, "b t h w c"],
    other: Float[Array, "b t h w c"] | None = None,
    past: Float[Array, "b n h w c"] | None = None,
    *,
    window: tuple[int, int, int] = (5, 9, 9),
    offsets: Sequence[int] | None = None,
    temporal_padding: str = "zero",
    cosine: bool = False,
    dtype: DTypeLike | None = None,
    implementation: kernels.Implementation | None = None,
) -> Float[Array, "b t h w l u v"]:
    """Inner products of each position with the positions of a window in space and time.

    Entry ``[b, t, y, x, l, i, j]`` is ``x[b, t, y, x] . x[b, t + offsets[l], y + i - U // 2, x + j - V // 2]``, and 0
    where that position lies outside the frame: ``u`` is vertical, ``v`` horizontal. float32 at least.

    Args:
        x: features of whole clips.
        other: the features to compare with; None for ``x`` itself.
        past: the features to compare with of n frames before the clip, for negative offsets; None for none.
        window: (L, U, V), all odd.
        offsets: the temporal offsets to compare with, in frames, in place of the L of ``window``.
        temporal_padding: for frames where ``t + offsets[l]`` lies outside the clip: ``zero``; ``edge`` to repeat the
            similarities of the nearest frame that has a partner (as MotionSqueeze repeats its last pair), where offsets
            for which no frame has one stay 0; or ``replicate`` to compare with the first or the last frame.
        cosine: divide by the lengths of the two features (see ``l2_normalize``).
        dtype: to round the products to; None keeps them as they are summed.
        implementation: None for the fast form of ``local_correlation``, with a gradient that keeps the features alone
            and not their copies for every offset; ``reference`` for the equation.

    Raises:
        ValueError: if a side of the window is even or not positive, there is no offset, the padding is unknown, or
            ``other`` is unlike ``x``.

    Source: SELFY, section 3.1; the official code's ``STSSTransformation``.

    >>> x = jnp.ones((1, 2, 1, 1, 1))
    >>> self_similarity(x, window=(3, 1, 1))[0, :, 0, 0, :, 0, 0].tolist()
    [[0.0, 1.0, 1.0], [1.0, 1.0, 0.0]]
    """
    length, height, width = window
    offsets = temporal_offsets(length) if offsets is None else tuple(offsets)
    if not offsets:
        raise ValueError("offsets must name at least one frame, such as (1,)")
    if min(height, width) < 1 or height % 2 == 0 or width % 2 == 0:
        raise ValueError(f"the spatial window (U, V) must be odd and positive; got {(height, width)}")
    if temporal_padding not in TEMPORAL_PADDINGS:
        raise ValueError(f"temporal_padding must be one of {', '.join(TEMPORAL_PADDINGS)}; got {temporal_padding!r}")
    if other is not None and other.shape != x.shape:
        raise ValueError(f"the features to compare must have one shape; got {x.shape} and {other.shape}")
    if past is not None and temporal_padding == "edge":
        raise ValueError("temporal_padding='edge' repeats frames of the clip: it does not go with frames before it")
    compare = functools.partial(
        _compare,
        space=(height, width),
        offsets=offsets,
        temporal_padding=temporal_padding,
        cosine=cosine,
        dtype=dtype,
        implementation=implementation,
    )
    return (compare if kernels.is_reference(implementation) else kernels.recompute(compare))(x, other, past)


def _compare(
    x: jax.Array,
    other: jax.Array | None,
    past: jax.Array | None,
    *,
    space: tuple[int, int],
    offsets: Sequence[int],
    temporal_padding: str,
    **options: bool | str | DTypeLike | None,
) -> jax.Array:
    """Correlate each frame with the frames at the temporal ``offsets``, one pair of frames per offset."""
    other = x if other is None else other
    batch, frames, *size, channels = x.shape
    # Flat positions until the pairs are made: rows of few cells would be padded on a TPU, and copied to be joined.
    x, other = (z.reshape(batch, frames, -1, channels) for z in (x, other))
    reach = max(abs(offset) for offset in offsets)
    if past is not None:
        known = past.reshape(*past.shape[:2], -1, channels)[:, max(past.shape[1] - reach, 0) :]
        other = jnp.concatenate([known, other], axis=1)
    padded = jnp.pad(other, [(0, 0), (reach + frames - other.shape[1], reach), (0, 0), (0, 0)])
    if temporal_padding == "zero":
        neighbours = jnp.stack([padded[:, reach + offset : reach + offset + frames] for offset in offsets], axis=2)
        source = jnp.broadcast_to(x[:, :, None], neighbours.shape)
    elif temporal_padding == "replicate":
        neighbours = other[:, _nearest_frames(frames, offsets)]
        source = jnp.broadcast_to(x[:, :, None], neighbours.shape)
    else:
        nearest = np.stack([_nearest_with_partner(frames, offset) for offset in offsets], axis=1)
        source, neighbours = x[:, nearest], padded[:, reach + nearest + np.array(offsets)[None]]
    radius = max(space) // 2
    pairs = (source.reshape(-1, *size, channels), neighbours.reshape(-1, *size, channels))
    similarities = local_correlation(*pairs, radius=radius, **options)
    similarities = similarities.reshape(batch, frames, len(offsets), *similarities.shape[1:])
    similarities = jnp.moveaxis(similarities, 2, 4)
    u, v = (radius - side // 2 for side in space)
    return similarities[..., u : u + space[0], v : v + space[1]]


def window_exists(
    frames: int,
    height: int,
    width: int,
    *,
    window: tuple[int, int, int],
    offsets: Sequence[int] | None = None,
    temporal_padding: str = "zero",
) -> Bool[Array, "t h w l u v"]:
    """Mask of ``self_similarity``: False where the compared cell lies outside the clip or the frame.

    >>> window_exists(2, 1, 1, window=(3, 1, 1))[:, 0, 0, :, 0, 0].tolist()
    [[False, True, True], [True, True, False]]
    """
    length, *sides = window
    offsets = temporal_offsets(length) if offsets is None else tuple(offsets)
    neighbours = [np.arange(frames)[:, None] + np.array(offsets)[None]]
    if temporal_padding == "edge":
        neighbours[0] = np.stack([_nearest_with_partner(frames, offset) + offset for offset in offsets], axis=1)
    elif temporal_padding == "replicate":
        neighbours[0] = _nearest_frames(frames, offsets)
    for size, side in zip((height, width), sides, strict=True):
        neighbours.append(np.arange(size)[:, None] + np.arange(side)[None] - side // 2)
    t, y, x = (
        jnp.asarray((index >= 0) & (index < size))
        for index, size in zip(neighbours, (frames, height, width), strict=True)
    )
    return t[:, None, None, :, None, None] & y[None, :, None, None, :, None] & x[None, None, :, None, None, :]


def _nearest_with_partner(frames: int, offset: int) -> np.ndarray:
    """Return for every frame the nearest one whose partner at ``offset`` lies in the clip; itself where none does."""
    frame = np.arange(frames)
    return np.clip(frame, max(0, -offset), frames - 1 - max(0, offset)) if abs(offset) < frames else frame


def _nearest_frames(frames: int, offsets: Sequence[int]) -> np.ndarray:
    """Return for every frame and offset the frame of the clip that is nearest to the frame at that offset."""
    return np.clip(np.arange(frames)[:, None] + np.array(offsets)[None], 0, frames - 1)

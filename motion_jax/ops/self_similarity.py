"""Spatio-temporal self-similarity (STSS): every position against its neighbourhood in space and time."""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.ops.correlation import local_correlation


def temporal_offsets(length: int) -> tuple[int, ...]:
    """The frames a window of odd ``length`` looks at: ``-length // 2 .. length // 2``.

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
    *,
    window: tuple[int, int, int] = (5, 9, 9),
    offsets: Sequence[int] | None = None,
) -> Float[Array, "b t h w l u v"]:
    """Inner products of each position with the positions of a window in space and time.

    Entry ``[b, t, y, x, l, i, j]`` is ``x[b, t, y, x] . x[b, t + offsets[l], y + i - U // 2, x + j - V // 2]``, and 0
    where that position lies outside the clip or the frame: ``u`` is vertical, ``v`` horizontal. Normalise the
    features first for cosine similarity. float32 at least.

    Args:
        x: features of whole clips.
        window: (L, U, V), all odd.
        offsets: the temporal offsets to compare with, in frames, in place of the L of ``window``.

    Raises:
        ValueError: if a side of the window is even or not positive, or there is no offset.

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
    batch, frames, *space_and_channels = x.shape
    reach = max(abs(offset) for offset in offsets)
    padded = jnp.pad(x, [(0, 0), (reach, reach), (0, 0), (0, 0), (0, 0)])
    neighbours = jnp.stack([padded[:, reach + offset : reach + offset + frames] for offset in offsets], axis=2)
    source = jnp.broadcast_to(x[:, :, None], neighbours.shape)
    radius = max(height, width) // 2
    similarities = local_correlation(
        source.reshape(-1, *space_and_channels), neighbours.reshape(-1, *space_and_channels), radius=radius
    )
    similarities = similarities.reshape(batch, frames, len(offsets), *similarities.shape[1:])
    similarities = jnp.moveaxis(similarities, 2, 4)
    u, v = radius - height // 2, radius - width // 2
    return similarities[..., u : u + height, v : v + width]

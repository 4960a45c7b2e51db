"""Losses on the motion in features."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from motion_jax.ops import self_similarity
from motion_jax.ops.self_similarity import window_exists


def stss_alignment(
    student: Float[Array, "b t h w c"],
    teacher: Float[Array, "b t h w d"],
    *,
    window: tuple[int, int, int] = (5, 9, 9),
    temperature: float = 0.1,
    mask: Bool[Array, "b t h w"] | None = None,
) -> Float[Array, ""]:
    """KL divergence of the self-similarities of one clip's features from those of another's.

    With S the cosine similarities of a position with the cells of its window in one frame, ``p = softmax(S_teacher /
    temperature)`` and ``q = softmax(S_student / temperature)`` say where the position is found in that frame. The loss
    is the mean of ``sum(p * (log p - log q))`` over all positions and all frames of the window that lie in the clip.
    Cells outside the map have no weight. Computed in float32 at least.

    The features may come from other networks and have other widths, since only their relations are compared. Both have
    a gradient: pass the teacher's through ``jax.lax.stop_gradient`` if its network has parameters that are trained.

    Args:
        student: features to align: of a smaller network, or of a network that generates clips.
        teacher: features to align with, on the same grid.
        window: (L, U, V) of the self-similarity, odd.
        temperature: divisor of the similarities; a smaller one gives more weight to the best match.
        mask: True for the positions that count, such as those that move; None for all. Without any, the loss is 0.

    Raises:
        ValueError: if the grids differ, the mask is not of their shape or not bool, or the temperature is not positive.

    Source: Kim et al., Tempered Self-Similarity Alignment (arXiv 2605.24962), and its masked form. Window, mean and the
    softmax over one frame at a time are ours.

    >>> clip = jnp.arange(24.0).reshape(1, 2, 2, 3, 2)
    >>> float(stss_alignment(clip, clip, window=(3, 3, 3)))
    0.0
    """
    if student.shape[:-1] != teacher.shape[:-1] or student.ndim != 5:
        raise ValueError(
            f"student and teacher must be features (b, t, h, w, c) of one grid; got {student.shape} and {teacher.shape}"
        )
    if mask is not None and (mask.shape != student.shape[:-1] or mask.dtype != bool):
        raise ValueError(
            f"mask must be (b, t, h, w) bool, {student.shape[:-1]}, True for positions that count; "
            f"got {mask.shape} {mask.dtype}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be positive; got {temperature}")
    # (t, h, w, l, u, v)
    exists = window_exists(*student.shape[1:4], window=window)
    log_p, log_q = (
        _log_softmax(self_similarity(x, window=window, cosine=True) / temperature, exists) for x in (teacher, student)
    )
    divergence = jnp.sum(jnp.where(exists[None], jnp.exp(log_p) * (log_p - log_q), 0), axis=(-2, -1))
    # A frame of the window lies in the clip if its centre does.
    counted = exists[None, ..., exists.shape[-2] // 2, exists.shape[-1] // 2]
    if mask is not None:
        counted = counted & mask[..., None]
    counted = jnp.broadcast_to(counted, divergence.shape)
    return jnp.sum(jnp.where(counted, divergence, 0)) / jnp.maximum(jnp.sum(counted), 1)


def _log_softmax(scores: jax.Array, exists: jax.Array) -> jax.Array:
    """Logarithm of a softmax over the cells (u, v) that exist; 0 for other cells."""
    # Finite, because frames outside the clip have no cell at all.
    scores = jnp.where(exists[None], scores, jnp.finfo(scores.dtype).min)
    return jnp.where(exists[None], jax.nn.log_softmax(scores, axis=(-2, -1)), 0)

"""Attention scores that depend on the distance of two positions."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def relative_scores(query: Float[Array, "*lead n d"], table: Float[Array, "m d"]) -> Float[Array, "*lead n n"]:
    """Inner products of each query along an axis with the embedding of its distance to every position of that axis.

    Entry ``[..., i, j]`` is ``query[..., i] . table[r + clip(j - i, -r, r)]`` with ``m = 2 * r + 1``: positions further
    apart than ``r`` share the last embedding, so that one table serves axes of any length. float32 at least.

    Args:
        query: one vector per position; the axis is the one before the channels.
        table: embeddings of the distances ``-r .. r``.

    Raises:
        ValueError: if the table has an even number of rows.

    Source: Shaw et al., Self-Attention with Relative Position Representations (2018), section 3.2, for the clipping;
    Srinivas et al., BoTNet (CVPR 2021), figure 4, for one table per axis.

    >>> relative_scores(jnp.ones((3, 1)), jnp.array([[-1.0], [0.0], [1.0]])).tolist()
    [[0.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [-1.0, -1.0, 0.0]]
    """
    if table.shape[0] % 2 == 0:
        raise ValueError(f"the table holds distances -r .. r, an odd number of rows; got {table.shape[0]}")
    length, reach = query.shape[-2], table.shape[0] // 2
    wide = jnp.promote_types(query.dtype, jnp.float32)
    scores = jnp.einsum("...nd,md->...nm", query, table, preferred_element_type=wide)
    position = jnp.arange(length)
    index = reach + jnp.clip(position[None, :] - position[:, None], -reach, reach)
    return jnp.take_along_axis(scores, jax.lax.broadcast(index, scores.shape[:-2]), axis=-1)

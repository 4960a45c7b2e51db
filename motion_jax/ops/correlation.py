"""Local correlation of two feature maps: every position against a square window around it in the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def all_pairs(source: Float[Array, "n h w c"], target: Float[Array, "n h w c"]) -> Float[Array, "n h*w h*w"]:
    """Inner products of every source position with every target position, row by row, in float32 at least.

    The positions stay flat: a TPU keeps the last axis in tiles of 128, of which a row of 28 cells would fill a quarter.

    Full precision is asked for by name: the default of an accelerator (TF32, bfloat16 passes) would move a matching
    score by 1e-3, which a temperature of 100 turns into another displacement.
    """
    batch, height, width, channels = source.shape
    return jnp.einsum(
        "nsc,ntc->nst",
        source.reshape(batch, height * width, channels),
        target.reshape(batch, height * width, channels),
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(source.dtype, jnp.float32),
    )


def check_pair(source: jax.Array, target: jax.Array, radius: int, dilation: int) -> None:
    """Raise a ValueError unless the two maps are alike and radius and dilation make a window."""
    if source.ndim != 4 or source.shape != target.shape or source.dtype != target.dtype:
        raise ValueError(
            "source and target must be two feature maps (n, h, w, c) of one shape and dtype; "
            f"got {source.shape} {source.dtype} and {target.shape} {target.dtype}"
        )
    if radius < 0:
        raise ValueError(f"radius must be 0 or more (the window is 2 * radius + 1 wide); got {radius}")
    if dilation < 1:
        raise ValueError(f"dilation must be 1 or more (cells between neighbours of the window); got {dilation}")


def _by_displacement(scores: jax.Array, farthest: int) -> jax.Array:
    """Re-index targets by their distance from the source along the flat positions, zero beyond the ends.

    ``[n, s, t]`` becomes ``[n, s, d]`` with ``t = s + d - farthest``. Done by padding and reshaping: in a row-major
    array whose rows are one element longer, each row starts one element further along its own.
    """
    batch, cells, _ = scores.shape
    width = cells + 2 * farthest
    scores = jnp.pad(scores, [(0, 0), (0, 0), (farthest, farthest)]).reshape(batch, cells * width)
    scores = jnp.pad(scores, [(0, 0), (0, cells)]).reshape(batch, cells, width + 1)
    return scores[:, :, : 2 * farthest + 1]


@functools.partial(jax.jit, static_argnames=("radius", "dilation"))
def local_correlation(
    source: Float[Array, "n h w c"], target: Float[Array, "n h w c"], *, radius: int, dilation: int = 1
) -> Float[Array, "n h w p p"]:
    """Inner products of each source position with the ``(2 * radius + 1)**2`` target positions around it.

    The result is ordered dy then dx, each from ``-radius`` to ``radius``: entry ``[n, y, x, i, j]`` is
    ``source[n, y, x] . target[n, y + (i - radius) * dilation, x + (j - radius) * dilation]``, and 0 where that
    position lies outside the frame. Nothing is normalised or rectified. float32 at least.

    Args:
        source: features of the frame that moves.
        target: features of the frame it is looked for in, same shape and dtype.
        radius: the largest displacement, in steps of ``dilation`` cells.
        dilation: cells of the map between neighbouring displacements.

    Raises:
        ValueError: for unlike maps, a negative radius, or a dilation below 1.

    Source: MotionSqueeze, resnet.py, ``Matching_layer`` (SpatialCorrelationSampler, kernel size 1).

    >>> cell = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1].set(1.0)
    >>> moved = jnp.roll(cell, 1, axis=2)
    >>> local_correlation(cell, moved, radius=1)[0, 1, 1].tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    check_pair(source, target, radius, dilation)
    batch, height, width, _ = source.shape
    reach = radius * dilation
    farthest = reach * width + reach
    scores = _by_displacement(all_pairs(source, target), farthest)
    # Displacement first, positions last: a TPU would fill a row of few displacements up to 128.
    scores = jnp.moveaxis(scores, -1, 0)
    # Of each row dy of the window the entries dx; what runs over the side of the frame is in another row of it.
    rows = [farthest + dy * width for dy in range(-reach, reach + 1, dilation)]
    window = jnp.stack([scores[row - reach : row + reach + 1 : dilation] for row in rows])
    x = np.arange(-reach, reach + 1, dilation)[:, None] + np.tile(np.arange(width), height)[None]
    window = jnp.where(jnp.asarray((x >= 0) & (x < width))[None, :, None], window, 0)
    window = jnp.moveaxis(window, (0, 1), (-2, -1))
    return window.reshape(batch, height, width, *window.shape[-2:])

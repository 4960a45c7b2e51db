"""Similarities of all pairs of positions, and their windows; equals ``motion_jax.ops.correlation``.

Measured in bfloat16 for a TPU (docs/performance.md), GB read and written with the gradient: matching by cosines of
features as they are, 3.36, instead of products of normalised ones in float32, 4.15; scores as (n, h w, h w), 1.21,
instead of (n, h, w, h, w), 5.63; windows of 14 x 14 maps by a product with one-hot vectors, 1.36, instead of slices of
re-indexed scores, 5.40.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

# The largest map, in cells, whose windows a TPU picks by a product: its one-hot vectors grow with the square.
LARGEST_PRODUCT = 256
# Added to the squared length of a vector, as ``motion_jax.ops.l2_normalize`` does.
EPSILON = 1e-6


def all_pairs(source: jax.Array, target: jax.Array, *, cosine: bool = False) -> jax.Array:
    """Compare ``(n, s, c)`` with ``(n, t, c)`` to ``(n, s, t)``: inner products or cosines, in float32 at least.

    The positions are flat: a TPU keeps the last axis in tiles of 128, of which a row of 28 cells would fill a quarter.
    """
    return _cosines(source, target) if cosine else _products(source, target)


def _products(source: jax.Array, target: jax.Array) -> jax.Array:
    """Compute inner products in full precision.

    The default precision of an accelerator (TF32, bfloat16 passes) changes a matching score by 1e-3, which a
    temperature of 100 turns into another displacement.
    """
    return jnp.einsum(
        "nsc,ntc->nst",
        source,
        target,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.promote_types(jnp.promote_types(source.dtype, target.dtype), jnp.float32),
    )


@jax.custom_jvp
def _cosines(source: jax.Array, target: jax.Array) -> jax.Array:
    """Divide the products of the vectors by their lengths.

    bfloat16 features are read in bfloat16, and their products are exact; normalised features would take float32. The
    derivative is written out for the same reason; it is that of the products of normalised vectors.
    """
    return _products(source, target) * _per_length(source)[:, :, None] * _per_length(target)[:, None, :]


@_cosines.defjvp
def _cosines_jvp(
    vectors: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    source, target = vectors
    across_source, across_target = (_across(x, v) for x, v in zip(vectors, tangents, strict=True))
    change = _products(across_source, target) + _products(source, across_target)
    return _cosines(source, target), change * _per_length(source)[:, :, None] * _per_length(target)[:, None, :]


def _per_length(x: jax.Array) -> jax.Array:
    """Return one over the length of each vector, in float32 at least."""
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jax.lax.rsqrt(jnp.sum(jnp.square(x), axis=-1) + EPSILON)


def _across(x: jax.Array, change: jax.Array) -> jax.Array:
    """Return the change of each vector without its component along the vector, which does not change the direction."""
    unit = x * _per_length(x)[..., None]
    return change - unit * jnp.sum(unit * change, axis=-1, keepdims=True)


@functools.partial(jax.jit, static_argnames=("radius", "dilation", "cosine", "dtype"))
def local_correlation(
    source: jax.Array, target: jax.Array, *, radius: int, dilation: int, cosine: bool, dtype: DTypeLike | None
) -> jax.Array:
    """Compare all pairs of positions of two maps ``(n, h, w, c)``, then pick the windows ``(n, h, w, p, p)``."""
    batch, height, width, channels = source.shape
    cells, side = height * width, 2 * radius + 1
    scores = all_pairs(source.reshape(batch, cells, channels), target.reshape(batch, cells, channels), cosine=cosine)
    window = windows(scores if dtype is None else scores.astype(dtype), width=width, radius=radius, dilation=dilation)
    return window.reshape(batch, height, width, side, side)


def windows(scores: jax.Array, *, width: int, radius: int, dilation: int) -> jax.Array:
    """Pick the scores of the targets around each source, 0 outside the frame: ``(n, s, t)`` to ``(n, s, p * p)``."""
    options = {"width": width, "radius": radius, "dilation": dilation}
    if scores.shape[-1] > LARGEST_PRODUCT:
        return windows_by_shift(scores, **options)
    on_tpu, elsewhere = (functools.partial(form, **options) for form in (windows_by_product, windows_by_shift))
    return jax.lax.platform_dependent(scores, tpu=on_tpu, default=elsewhere)


def windows_by_product(scores: jax.Array, *, width: int, radius: int, dilation: int) -> jax.Array:
    """Pick by products with one-hot vectors, which are exact. Moving elements along a TPU's rows costs far more."""
    cells = scores.shape[-1]
    cell, offset = np.arange(cells), np.arange(-radius, radius + 1) * dilation
    y, x = cell[:, None] // width + np.repeat(offset, offset.size), cell[:, None] % width + np.tile(offset, offset.size)
    target = np.where((y >= 0) & (y < cells // width) & (x >= 0) & (x < width), y * width + x, -1)
    chosen = (jnp.asarray(target)[:, None] == jnp.asarray(cell)[None, :, None]).astype(scores.dtype)
    return jnp.einsum("nst,std->nsd", scores, chosen, precision=jax.lax.Precision.HIGHEST)


def windows_by_shift(scores: jax.Array, *, width: int, radius: int, dilation: int) -> jax.Array:
    """Pick by slices of the scores re-indexed by displacement along the flat positions."""
    cells, reach = scores.shape[-1], radius * dilation
    farthest = reach * width + reach
    scores = _by_displacement(scores, farthest)
    # Displacement first, positions last: a TPU would fill a row of few displacements up to 128.
    scores = jnp.moveaxis(scores, -1, 0)
    # For each row dy of the window its entries dx. Entries beyond the side of the frame belong to another row.
    rows = [farthest + dy * width for dy in range(-reach, reach + 1, dilation)]
    window = jnp.stack([scores[row - reach : row + reach + 1 : dilation] for row in rows])
    x = np.arange(-reach, reach + 1, dilation)[:, None] + np.tile(np.arange(width), cells // width)[None]
    window = jnp.where(jnp.asarray((x >= 0) & (x < width))[None, :, None], window, 0)
    window = jnp.moveaxis(window, (0, 1), (-2, -1))
    return window.reshape(*window.shape[:2], -1)


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

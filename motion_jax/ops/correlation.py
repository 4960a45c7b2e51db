"""Local correlation of two feature maps: every position against a square window around it in the other."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from motion_jax.ops.normalization import l2_normalize, per_length

# The largest map, in cells, whose windows a TPU picks by a product: its one-hot vectors grow with the square.
LARGEST_PRODUCT = 256


def all_pairs(
    source: Float[Array, "n s c"], target: Float[Array, "n t c"], *, cosine: bool = False
) -> Float[Array, "n s t"]:
    """Inner products of every source position with every target position, in float32 at least.

    The positions are flat: a TPU keeps the last axis in tiles of 128, of which a row of 28 cells would fill a quarter.
    ``cosine`` makes it the cosine of their angle, as if by ``l2_normalize``.
    """
    return _cosines(source, target) if cosine else _products(source, target)


def _products(source: jax.Array, target: jax.Array) -> jax.Array:
    """Inner products in full precision, which is asked for by name.

    The default of an accelerator (TF32, bfloat16 passes) would move a matching score by 1e-3, which a temperature of
    100 turns into another displacement.
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
    """``_products`` of the vectors divided by their lengths, in which the vectors are read as they are.

    So bfloat16 features are read in bfloat16, and their products are exact, where normalised ones would take float32.
    The derivative is written out for the same reason; it is that of ``_products(l2_normalize(..), l2_normalize(..))``.
    """
    return _products(source, target) * per_length(source)[:, :, None] * per_length(target)[:, None, :]


@_cosines.defjvp
def _cosines_jvp(
    vectors: tuple[jax.Array, jax.Array], tangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array]:
    source, target = vectors
    across_source, across_target = (_across(x, v) for x, v in zip(vectors, tangents, strict=True))
    change = _products(across_source, target) + _products(source, across_target)
    return _cosines(source, target), change * per_length(source)[:, :, None] * per_length(target)[:, None, :]


def _across(x: jax.Array, change: jax.Array) -> jax.Array:
    """The change of each vector without its part along the vector, which turns nothing."""
    unit = l2_normalize(x)
    return change - unit * jnp.sum(unit * change, axis=-1, keepdims=True)


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


def _windows(scores: jax.Array, width: int, radius: int, dilation: int) -> jax.Array:
    """Of each source the scores of the targets around it, 0 outside the frame: (n, s, t) to (n, s, p * p)."""
    options = {"width": width, "radius": radius, "dilation": dilation}
    if scores.shape[-1] > LARGEST_PRODUCT:
        return _windows_by_shift(scores, **options)
    return jax.lax.platform_dependent(
        scores,
        tpu=functools.partial(_windows_by_product, **options),
        default=functools.partial(_windows_by_shift, **options),
    )


def _windows_by_product(scores: jax.Array, *, width: int, radius: int, dilation: int) -> jax.Array:
    """Products with one-hot vectors, which are exact. On a TPU moving elements along its rows of 128 costs far more."""
    cells = scores.shape[-1]
    cell, offset = np.arange(cells), np.arange(-radius, radius + 1) * dilation
    y, x = cell[:, None] // width + np.repeat(offset, offset.size), cell[:, None] % width + np.tile(offset, offset.size)
    target = np.where((y >= 0) & (y < cells // width) & (x >= 0) & (x < width), y * width + x, -1)
    chosen = (jnp.asarray(target)[:, None] == jnp.asarray(cell)[None, :, None]).astype(scores.dtype)
    return jnp.einsum("nst,std->nsd", scores, chosen, precision=jax.lax.Precision.HIGHEST)


def _windows_by_shift(scores: jax.Array, *, width: int, radius: int, dilation: int) -> jax.Array:
    """Slices of the scores re-indexed by displacement along the flat positions."""
    cells, reach = scores.shape[-1], radius * dilation
    farthest = reach * width + reach
    scores = _by_displacement(scores, farthest)
    # Displacement first, positions last: a TPU would fill a row of few displacements up to 128.
    scores = jnp.moveaxis(scores, -1, 0)
    # Of each row dy of the window the entries dx; what runs over the side of the frame is in another row of it.
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


@functools.partial(jax.jit, static_argnames=("radius", "dilation", "cosine", "dtype"))
def local_correlation(
    source: Float[Array, "n h w c"],
    target: Float[Array, "n h w c"],
    *,
    radius: int,
    dilation: int = 1,
    cosine: bool = False,
    dtype: DTypeLike | None = None,
) -> Float[Array, "n h w p p"]:
    """Inner products of each source position with the ``(2 * radius + 1)**2`` target positions around it.

    The result is ordered dy then dx, each from ``-radius`` to ``radius``: entry ``[n, y, x, i, j]`` is
    ``source[n, y, x] . target[n, y + (i - radius) * dilation, x + (j - radius) * dilation]``, and 0 where that
    position lies outside the frame. Nothing is rectified. float32 at least.

    Args:
        source: features of the frame that moves.
        target: features of the frame it is looked for in, same shape and dtype.
        radius: the largest displacement, in steps of ``dilation`` cells.
        dilation: cells of the map between neighbouring displacements.
        cosine: divide by the lengths of the two features (see ``l2_normalize``).
        dtype: to round the products to; None keeps them as they are summed.

    Raises:
        ValueError: for unlike maps, a negative radius, or a dilation below 1.

    Source: MotionSqueeze, resnet.py, ``Matching_layer`` (SpatialCorrelationSampler, kernel size 1).

    >>> cell = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1].set(1.0)
    >>> moved = jnp.roll(cell, 1, axis=2)
    >>> local_correlation(cell, moved, radius=1)[0, 1, 1].tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    check_pair(source, target, radius, dilation)
    batch, height, width, channels = source.shape
    cells, side = height * width, 2 * radius + 1
    scores = all_pairs(source.reshape(batch, cells, channels), target.reshape(batch, cells, channels), cosine=cosine)
    window = _windows(scores if dtype is None else scores.astype(dtype), width, radius, dilation)
    return window.reshape(batch, height, width, side, side)

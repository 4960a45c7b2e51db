"""Local correlation of two feature maps: every position against a square window around it in the other."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from motion_jax import kernels
from motion_jax.ops.normalization import l2_normalize


def all_pairs(
    source: Float[Array, "n s c"],
    target: Float[Array, "n t c"],
    *,
    cosine: bool = False,
    implementation: kernels.Implementation | None = None,
) -> Float[Array, "n s t"]:
    """Inner products of every source position with every target position, in float32 at least.

    Args:
        source: features of flat positions.
        target: features of flat positions, of the same dtype.
        cosine: divide by the lengths of the two features (see ``l2_normalize``).
        implementation: None for cosines that read the features as they are, ``reference`` to normalise them first.
    """
    if kernels.is_reference(implementation) and cosine:
        return kernels.all_pairs(l2_normalize(source), l2_normalize(target))
    return kernels.all_pairs(source, target, cosine=cosine)


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


def local_correlation(
    source: Float[Array, "n h w c"],
    target: Float[Array, "n h w c"],
    *,
    radius: int,
    dilation: int = 1,
    cosine: bool = False,
    dtype: DTypeLike | None = None,
    implementation: kernels.Implementation | None = None,
) -> Float[Array, "n h w p p"]:
    """Inner products of each source position with the ``(2 * radius + 1)**2`` target positions around it.

    The result is ordered dy then dx, each from ``-radius`` to ``radius``: entry ``[n, y, x, i, j]`` is
    ``source[n, y, x] . target[n, y + (i - radius) * dilation, x + (j - radius) * dilation]``, and 0 where that
    position lies outside the frame. Scores are not rectified. float32 at least.

    Args:
        source: features of the frame that moves.
        target: features of the frame it is looked for in, same shape and dtype.
        radius: the largest displacement, in steps of ``dilation`` cells.
        dilation: cells of the map between neighbouring displacements.
        cosine: divide by the lengths of the two features (see ``l2_normalize``).
        dtype: to round the products to; None keeps them as they are summed.
        implementation: None for the fast form on the platform, ``reference`` for products of shifted maps.

    Raises:
        ValueError: for unlike maps, a negative radius, or a dilation below 1.

    Source: MotionSqueeze, section 3.1; resnet.py, ``Matching_layer`` (SpatialCorrelationSampler, kernel size 1).

    >>> cell = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1].set(1.0)
    >>> moved = jnp.roll(cell, 1, axis=2)
    >>> local_correlation(cell, moved, radius=1)[0, 1, 1].tolist()
    [[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    """
    check_pair(source, target, radius, dilation)
    form = _shifted_products if kernels.is_reference(implementation) else kernels.local_correlation
    return form(source, target, radius=radius, dilation=dilation, cosine=cosine, dtype=dtype)


@functools.partial(jax.jit, static_argnames=("radius", "dilation", "cosine", "dtype"))
def _shifted_products(
    source: jax.Array, target: jax.Array, *, radius: int, dilation: int, cosine: bool, dtype: DTypeLike | None
) -> jax.Array:
    """Multiply the source with the target shifted by each displacement, one row of displacements at a time."""
    wide = jnp.promote_types(source.dtype, jnp.float32)
    source, target = (l2_normalize(x) if cosine else x.astype(wide) for x in (source, target))
    height, width = source.shape[1:3]
    reach = radius * dilation
    target = jnp.pad(target, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    shifts = range(0, 2 * reach + 1, dilation)
    shifted = jnp.stack([target[:, :, x : x + width] for x in shifts], axis=3)
    rows = [jnp.sum(source[..., None, :] * shifted[:, y : y + height], axis=-1) for y in shifts]
    scores = jnp.stack(rows, axis=3)
    return scores if dtype is None else scores.astype(dtype)

"""Local correlation of two feature maps: every position against a square window around it in the other."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def all_pairs(source: Float[Array, "n h w c"], target: Float[Array, "n y x c"]) -> Float[Array, "n h w y x"]:
    """Inner products of every source position with every target position, in float32 at least.

    Full precision is asked for by name: the default of an accelerator (TF32, bfloat16 passes) would move a matching
    score by 1e-3, which a temperature of 100 turns into another displacement.
    """
    return jnp.einsum(
        "nhwc,nyxc->nhwyx",
        source,
        target,
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


def _window_along(scores: jax.Array, source_axis: int, radius: int, dilation: int) -> jax.Array:
    """Re-index the target axis that follows ``source_axis`` by displacement, zero outside.

    ``[..., i, j, ...]`` becomes ``[..., i, d, ...]`` with ``j = i + (d - radius) * dilation``. Done by padding and
    reshaping: in a row-major array whose rows are one element longer, each row starts one element further along its
    own.
    """
    before, (rows, columns), after = (
        scores.shape[:source_axis],
        scores.shape[source_axis : source_axis + 2],
        scores.shape[source_axis + 2 :],
    )
    reach = radius * dilation
    width = columns + 2 * reach
    none = [(0, 0)]
    scores = jnp.pad(scores, none * (source_axis + 1) + [(reach, reach)] + none * len(after))
    scores = scores.reshape(*before, rows * width, *after)
    scores = jnp.pad(scores, none * source_axis + [(0, rows)] + none * len(after))
    scores = scores.reshape(*before, rows, width + 1, *after)
    return jax.lax.slice_in_dim(scores, 0, 2 * reach + 1, dilation, axis=source_axis + 1)


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
    scores = jnp.swapaxes(all_pairs(source, target), 2, 3)  # n, source y, target y, source x, target x
    return jnp.swapaxes(_window_along(_window_along(scores, 1, radius, dilation), 3, radius, dilation), 2, 3)

"""Matching on absolute positions; equals ``motion_jax.ops.match``, whose scores are re-indexed by displacement.

On a TPU that re-indexing costs ten times the rest. Without it the result stays exact, because the expected displacement
is the expected position less the source's own, and because cells of the window outside the frame all have score 0, so
that their number and the sum of their displacements suffice.

Measured in MSNet-R50 (docs/performance.md): rows in 4 groups, each with the rows that it reaches, take 185 ms forward
and 1328 in training on a CPU and 132 MB of temporary memory on a TPU; one product of all rows takes 198, 1374 and 240.
Sums of the softmax on a CPU as one product: 1.3 instead of 3.3 ms of processor time for one pair of 28 x 28 cells.
Scores computed again for the gradient on a TPU: 4.52 instead of 4.62 GB of temporary memory for the training step.
"""

import functools

import jax
import jax.numpy as jnp

from motion_jax.kernels.argmax import first_argmax
from motion_jax.kernels.correlation import all_pairs
from motion_jax.kernels.materialise import materialise

# Into how many groups the rows of a map are cut, where a displacement spans less than the map.
GROUPS = 4


@functools.partial(jax.jit, static_argnames=("radius", "sigma", "temperature", "dilation", "cosine"))
def match(source: jax.Array, target: jax.Array, **options: int | float | bool | None) -> tuple[jax.Array, jax.Array]:
    """Match two maps ``(n, h, w, c)``: displacement ``(n, h, w, 2)`` and confidence ``(n, h, w, 1)``."""
    form = functools.partial(by_groups_of_rows, **options)
    # On a TPU the gradient matches again rather than keep the scores: they fit the chip's fast memory.
    return jax.lax.platform_dependent(source, target, tpu=jax.checkpoint(form), default=form)


def by_groups_of_rows(
    source: jax.Array, target: jax.Array, *, radius: int, dilation: int, **options: float | bool | None
) -> tuple[jax.Array, jax.Array]:
    """Match groups of the source's rows, each with the rows of the target that it reaches."""
    batch, height, width, channels = source.shape
    source, target = (x.reshape(batch, height * width, channels) for x in (source, target))
    reach = radius * dilation
    rows = height if 2 * reach >= height else -(-height // GROUPS)
    matches = []
    for first in range(0, height, rows):
        above, last = max(0, first - reach), min(height, first + rows)
        matches.append(
            _match_rows(
                source[:, first * width : last * width],
                target[:, above * width : (last + reach) * width],
                first - above,
                width,
                radius=radius,
                dilation=dilation,
                **options,
            )
        )
    x, y, confidence = (jnp.concatenate(parts, axis=1) for parts in zip(*matches, strict=True))
    shape = (batch, height, width, 1)
    displacement = jnp.concatenate([x.reshape(shape), y.reshape(shape)], axis=-1)
    return displacement, confidence.reshape(shape)


def _match_rows(
    source: jax.Array,
    target: jax.Array,
    first: int,
    width: int,
    *,
    radius: int,
    sigma: float | None,
    temperature: float,
    dilation: int,
    cosine: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Match some rows with all rows that they reach; ``first`` is the place of their first row among those.

    Returns dx, dy and confidence, each (n, cells of the source).
    """
    scores = jax.nn.relu(all_pairs(source, target, cosine=cosine))  # (n, source, target)
    dtype = scores.dtype

    # Coordinates from the flat index, one number per cell, so that everything below broadcasts them.
    def position(cell: jax.Array) -> tuple[jax.Array, jax.Array]:
        columns = jnp.full((), width, cell.dtype)
        return jax.lax.rem(cell, columns).astype(dtype), jax.lax.div(cell, columns).astype(dtype)

    reach = radius * dilation
    source_x, source_y = position(first * width + jnp.arange(scores.shape[1], dtype=jnp.int32)[None, :, None])
    x, y = position(jnp.arange(scores.shape[2], dtype=jnp.int32)[None, None])
    offset_x, offset_y = x - source_x, y - source_y  # (1, source, target), in cells
    inside = (jnp.abs(offset_x) <= reach) & (jnp.abs(offset_y) <= reach)
    if dilation > 1:
        inside &= (offset_x % dilation == 0) & (offset_y % dilation == 0)
    scores = materialise(jnp.where(inside, scores, 0))

    # If every score is 0 the choice does not matter: all cells have the same weight.
    best = first_argmax(scores)
    index = jax.lax.broadcasted_iota(best.dtype, scores.shape, scores.ndim - 1)
    confidence = jnp.sum(jnp.where(index == best[..., None], scores, 0), axis=-1)
    logits = temperature * scores
    if sigma is not None:
        best_x, best_y = position(best[..., None])
        logits *= jnp.exp(-(jnp.square(x - best_x) + jnp.square(y - best_y)) / (2 * (sigma * dilation) ** 2))

    # Softmax over the window: its cells in the frame one by one, those outside (score 0) in closed form. The offsets
    # of a whole window sum to zero, so those outside the frame sum to the negative of those inside.
    largest = temperature * jnp.max(jax.lax.stop_gradient(scores), axis=-1)
    weights = jnp.where(inside, jnp.exp(logits - largest[..., None]), 0)
    weight_outside = jnp.exp(-largest)
    count_outside = (2 * radius + 1) ** 2 - jnp.sum(inside, axis=-1)
    inner, inner_x, inner_y = _moments(weights, offset_x, offset_y)
    total = inner + count_outside * weight_outside

    def expected(offset: jax.Array, inner: jax.Array) -> jax.Array:
        offset_outside = -jnp.sum(jnp.where(inside, offset, 0), axis=-1)
        return (inner + offset_outside * weight_outside) / (total * reach)

    return expected(offset_x, inner_x), expected(offset_y, inner_y), confidence


def _moments(weights: jax.Array, offset_x: jax.Array, offset_y: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return the sums of weights (n, source, target), alone and times each offset (1, source, target)."""

    def by_sums(weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        return tuple(jnp.sum(weights * factor, axis=-1) for factor in (1, offset_x, offset_y))

    # An offset is one number of the target less one of the source. XLA on a CPU does not vectorise the three sums.
    def by_product(weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # From the middle source, whose offsets are the smallest to all targets.
        middle = weights.shape[1] // 2
        x, y = offset_x[0, middle], offset_y[0, middle]
        factors = jnp.stack([jnp.ones_like(x), x, y], axis=-1)
        sums = jnp.einsum("nst,tk->nsk", weights, factors, precision=jax.lax.Precision.HIGHEST)
        total, sum_x, sum_y = jnp.moveaxis(sums, -1, 0)
        from_x, from_y = (offset[..., 0] - offset[:, middle, :1] for offset in (offset_x, offset_y))
        return total, sum_x + from_x * total, sum_y + from_y * total

    return jax.lax.platform_dependent(weights, cpu=by_product, default=by_sums)

"""From matching scores to displacement: the (kernel-)soft-argmax, and matching in one function."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax.ops.correlation import all_pairs, check_pair
from motion_jax.ops.materialise import materialise

# Into how many groups the rows of a map are cut for matching, where a displacement spans less than the map.
GROUPS = 4


def _gaussian(distance: jax.Array, sigma: float) -> jax.Array:
    return jnp.exp(-jnp.square(distance) / (2 * sigma**2))


def _first_argmax(scores: jax.Array) -> jax.Array:
    """Index of the first maximum along the last axis, without a gradient."""
    scores = jax.lax.stop_gradient(scores)
    index = jax.lax.broadcasted_iota(jnp.int32, scores.shape, scores.ndim - 1)
    is_max = scores >= jnp.max(scores, axis=-1, keepdims=True)
    return jnp.min(jnp.where(is_max, index, scores.shape[-1] - 1), axis=-1)


def _distance_to(best: jax.Array, length: int, dtype: jnp.dtype) -> jax.Array:
    """``(*lead,)`` coordinates to ``(*lead, length)`` distances of every cell of that axis."""
    shape = (*best.shape, length)
    return (jax.lax.broadcasted_iota(best.dtype, shape, best.ndim) - best[..., None]).astype(dtype)


@functools.partial(jax.jit, static_argnames=("sigma", "temperature"))
def kernel_soft_argmax(
    scores: Float[Array, "n h w p p"], *, sigma: float | None, temperature: float
) -> Float[Array, "n h w 2"]:
    """Expected displacement (dx, dy) under a softmax of scores that a Gaussian keeps near their maximum.

    The scores are multiplied by a Gaussian centred on their largest entry (the first of equal ones, no gradient
    through the choice), then by ``temperature``, and softmaxed over the whole window. Without the Gaussian this is the
    plain soft-argmax, which far-away cells of middling score pull aside.

    Args:
        scores: matching scores, dy then dx, p odd.
        sigma: width of the Gaussian, in cells of the window; None for the plain soft-argmax.
        temperature: multiplier of the scores before the softmax.

    Returns:
        (dx, dy) in units of the radius, so within [-1, 1]; right and down are positive.

    Source: MotionSqueeze, section 3.2 (eq. 4); resnet.py, ``apply_gaussian_kernel`` and ``match_to_flow_soft``.

    >>> scores = jnp.zeros((1, 1, 1, 3, 3)).at[..., 1, 2].set(1.0)
    >>> [round(v, 4) for v in kernel_soft_argmax(scores, sigma=5.0, temperature=100.0)[0, 0, 0].tolist()]
    [1.0, 0.0]
    """
    *positions, side, _ = scores.shape
    if scores.ndim != 5 or scores.shape[-1] != side or side % 2 == 0 or side < 3:
        raise ValueError(f"scores must be (n, h, w, p, p) with p odd and at least 3; got {scores.shape}")
    radius = side // 2
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    flat = (*positions, side * side)
    logits = temperature * scores
    if sigma is not None:
        best = _first_argmax(scores.reshape(flat))
        gaussian_y = _gaussian(_distance_to(best // side, side, scores.dtype), sigma)
        gaussian_x = _gaussian(_distance_to(best % side, side, scores.dtype), sigma)
        logits = gaussian_y[..., :, None] * gaussian_x[..., None, :] * logits
    weights = jax.nn.softmax(logits.reshape(flat), axis=-1).reshape(scores.shape)
    offset = jnp.arange(-radius, radius + 1, dtype=scores.dtype)
    displacement = [weights.sum(axis) @ offset for axis in (-2, -1)]
    return jnp.stack(displacement, axis=-1) / radius


@functools.partial(jax.jit, static_argnames=("radius", "sigma", "temperature", "dilation", "cosine"))
def match(
    source: Float[Array, "n h w c"],
    target: Float[Array, "n h w c"],
    *,
    radius: int,
    sigma: float | None,
    temperature: float,
    dilation: int = 1,
    cosine: bool = False,
) -> tuple[Float[Array, "n h w 2"], Float[Array, "n h w 1"]]:
    """Where each source position went, and how sure that is.

    Equal to rectifying ``local_correlation``, its maximum as the confidence, and ``kernel_soft_argmax``; but computed
    on absolute positions of the target, so that the scores are never re-indexed by displacement: on a TPU that
    re-indexing costs ten times the rest. It stays exact because the expected displacement is the expected position
    less the source's own, and because cells of the window outside the frame all have score 0, so that their number
    and the sum of their displacements suffice.

    Args:
        source: features of the frame that moves, normalised (see ``l2_normalize``) unless ``cosine`` is set.
        target: features of the frame it is looked for in, same shape and dtype.
        radius: the largest displacement, in steps of ``dilation`` cells; the window has ``2 * radius + 1`` a side.
        sigma: width of the Gaussian around the best match, in steps; None for the plain soft-argmax.
        temperature: multiplier of the scores before the softmax.
        dilation: cells of the map between neighbouring displacements.
        cosine: divide the scores by the lengths of the two features, as if they had been normalised.

    Returns:
        displacement (dx, dy) in units of the radius, so that 1 is ``radius * dilation`` cells of the map; and
        confidence, the largest rectified score, with gradient. Both float32 at least.

    Raises:
        ValueError: for unlike maps, or a radius or dilation below 1.

    Source: MotionSqueeze, section 3.2; resnet.py, ``Matching_layer``, ``match_to_flow_soft`` and ``flow_computation``.

    >>> image = jax.random.normal(jax.random.key(0), (1, 8, 8, 16))
    >>> from motion_jax.ops import l2_normalize
    >>> source, target = l2_normalize(image), l2_normalize(jnp.roll(image, 2, axis=2))
    >>> displacement, confidence = match(source, target, radius=4, sigma=5.0, temperature=100.0)
    >>> [round(v, 3) for v in displacement[0, 4, 4].tolist()]  # two of four cells to the right
    [0.5, 0.0]
    """
    check_pair(source, target, radius, dilation)
    if radius < 1:
        raise ValueError(f"match needs a radius of 1 or more; got {radius}")
    batch, height, width, channels = source.shape
    source, target = (x.reshape(batch, height * width, channels) for x in (source, target))
    reach = radius * dilation
    # Rows of the source in groups, each matched with the rows of the target that it reaches.
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
                sigma=sigma,
                temperature=temperature,
                dilation=dilation,
                cosine=cosine,
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
    """``match`` of some rows with all rows they reach, of which ``first`` is where their own first row lies.

    dx, dy and confidence, each (n, cells of the source).
    """
    scores = jax.nn.relu(all_pairs(source, target, cosine=cosine))  # (n, source, target)
    dtype = scores.dtype

    # Where each cell lies, by division of the flat index: one number per cell, so that everything below broadcasts it.
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

    # If every score is 0 the choice does not matter: all cells weigh the same.
    best = _first_argmax(scores)
    is_best = _distance_to(best, scores.shape[2], best.dtype) == 0
    confidence = jnp.sum(jnp.where(is_best, scores, 0), axis=-1)
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
    total = jnp.sum(weights, axis=-1) + count_outside * weight_outside

    def expected(offset: jax.Array) -> jax.Array:
        offset_outside = -jnp.sum(jnp.where(inside, offset, 0), axis=-1)
        numerator = jnp.sum(weights * offset, axis=-1) + offset_outside * weight_outside
        return numerator / (total * reach)

    return expected(offset_x), expected(offset_y), confidence

"""Displacement between two feature maps: the kernel-soft-argmax of matching scores, and matching as a whole."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from motion_jax import kernels
from motion_jax.ops.correlation import check_pair, local_correlation


@functools.partial(jax.jit, static_argnames=("sigma", "temperature"))
def kernel_soft_argmax(
    scores: Float[Array, "n h w p p"], *, sigma: float | None, temperature: float
) -> Float[Array, "n h w 2"]:
    """Expected displacement (dx, dy) under a softmax of scores that a Gaussian keeps near their maximum.

    The scores are multiplied by a Gaussian centred on their largest entry (the first of equal ones, no gradient
    through the choice), then by ``temperature``, and softmaxed over the whole window. Without the Gaussian this is the
    plain soft-argmax, which cells of middling score far from the maximum pull aside.

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
    scores = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    flat = (*positions, side * side)
    logits = temperature * scores
    if sigma is not None:
        best = kernels.first_argmax(scores.reshape(flat))
        row = jax.lax.div(best, jnp.full_like(best, side))
        gaussian_y, gaussian_x = (_gaussian(centre, side, sigma, scores.dtype) for centre in (row, best - side * row))
        logits = gaussian_y[..., :, None] * gaussian_x[..., None, :] * logits
    weights = jax.nn.softmax(logits.reshape(flat), axis=-1).reshape(scores.shape)
    radius = side // 2
    offset = jnp.arange(-radius, radius + 1, dtype=scores.dtype)
    displacement = [weights.sum(axis) @ offset for axis in (-2, -1)]
    return jnp.stack(displacement, axis=-1) / radius


def _gaussian(centre: jax.Array, side: int, sigma: float, dtype: jnp.dtype) -> jax.Array:
    """A Gaussian of maximum 1 around each ``centre``, at the cells 0 to ``side`` - 1 of a new last axis."""
    cell = jax.lax.broadcasted_iota(centre.dtype, (*centre.shape, side), centre.ndim)
    return jnp.exp(-jnp.square((cell - centre[..., None]).astype(dtype)) / (2 * sigma**2))


def match(
    source: Float[Array, "n h w c"],
    target: Float[Array, "n h w c"],
    *,
    radius: int,
    sigma: float | None,
    temperature: float,
    dilation: int = 1,
    cosine: bool = False,
    implementation: kernels.Implementation | None = None,
) -> tuple[Float[Array, "n h w 2"], Float[Array, "n h w 1"]]:
    """Displacement of each source position, and the confidence in it.

    With S the rectified ``local_correlation`` of the two maps, the displacement is ``kernel_soft_argmax(S)`` and the
    confidence is the largest entry of S.

    Args:
        source: features of the frame that moves, normalised (see ``l2_normalize``) unless ``cosine`` is set.
        target: features of the frame it is looked for in, same shape and dtype.
        radius: the largest displacement, in steps of ``dilation`` cells; the window has ``2 * radius + 1`` a side.
        sigma: width of the Gaussian around the best match, in steps; None for the plain soft-argmax.
        temperature: multiplier of the scores before the softmax.
        dilation: cells of the map between neighbouring displacements.
        cosine: divide the scores by the lengths of the two features, as if they had been normalised.
        implementation: None for the fast form on the platform, which never re-indexes scores by displacement;
            ``reference`` for the two functions one after the other.

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
    window = {"radius": radius, "dilation": dilation, "cosine": cosine}
    softmax = {"sigma": sigma, "temperature": temperature}
    if not kernels.is_reference(implementation):
        return kernels.match(source, target, **window, **softmax)
    scores = jax.nn.relu(local_correlation(source, target, **window, implementation="reference"))
    confidence = scores.max(axis=(-2, -1))[..., None]
    return kernel_soft_argmax(scores, **softmax), confidence

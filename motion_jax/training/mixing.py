"""Mixup and CutMix of the clips in a batch, on the device, and the soft labels that result."""

import jax
import jax.numpy as jnp
import optax


def mix(
    key: jax.Array, clips: jax.Array, label: jax.Array, *, mixup: float, cutmix: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mix each clip with the one before it in this device's batch.

    Mixup returns ``share * clip + (1 - share) * other clip`` with ``share ~ Beta(mixup, mixup)``. CutMix covers a
    rectangle of the clip, the same in every frame, by that of the other clip. With ``share ~ Beta(cutmix, cutmix)`` the
    sides of the rectangle are ``sqrt(1 - share)`` of the frame's, and its centre is uniform. The frame's border may cut
    the rectangle, so ``share`` is then set to the part of the frame that still shows the clip. All clips of the device
    use the same draw. If both parameters are above 0, one of the two is chosen with equal probability. uint8 clips are
    rounded to integers.

    Args:
        key: a random key, not to be used again.
        clips: (b, t, h, w, c) uint8 or floating; a batch of one clip is returned as it is.
        label: (b,) integers.
        mixup, cutmix: parameters of the Beta distributions, 0 for none.

    Returns:
        ``(mixed, other, share)``: the mixed clips in the dtype of ``clips``, the labels of the other clips (b,), and
        the share of each clip's own label, a scalar of float32 or wider.

    Raises:
        ValueError: if neither is above 0.

    Source: Zhang et al., mixup, ICLR 2018, equation 1; Yun et al., CutMix, ICCV 2019, equations 1 and 2.
    """
    if not (mixup > 0 or cutmix > 0):
        raise ValueError(f"mixup is {mixup} and cutmix is {cutmix}: one of them must be above 0")
    choice, draw, place = jax.random.split(key, 3)
    dtype = jnp.promote_types(clips.dtype, jnp.float32)
    size = clips.shape[2:4]
    # Weight of each pixel of the clip itself, (h, w).
    if mixup > 0:
        blend = jnp.broadcast_to(jax.random.beta(draw, mixup, mixup, dtype=dtype), size)
    if cutmix > 0:
        paste = _outside_box(place, jax.random.beta(draw, cutmix, cutmix, dtype=dtype), size)
    if mixup > 0 and cutmix > 0:
        kept = jnp.where(jax.random.bernoulli(choice), blend, paste)
    else:
        kept = blend if mixup > 0 else paste
    weight = kept[None, None, :, :, None]
    mixed = weight * clips + (1 - weight) * jnp.roll(clips, 1, axis=0)
    if jnp.issubdtype(clips.dtype, jnp.integer):
        mixed = jnp.round(mixed)
    return mixed.astype(clips.dtype), jnp.roll(label, 1), kept.mean()


def soft_labels(
    label: jax.Array, other: jax.Array, share: jax.Array | float, *, classes: int, smoothing: float
) -> jax.Array:
    """Return the target distribution of mixed clips, (b, classes), in float32 or the wider dtype of ``share``.

    ``label`` gets the probability ``share`` and ``other`` gets ``1 - share``; then a part ``smoothing`` of the whole is
    spread evenly over the classes.

    Source: Szegedy et al., Rethinking the Inception Architecture, CVPR 2016, section 7.

    >>> soft_labels(jnp.array([0]), jnp.array([2]), 0.75, classes=4, smoothing=0.5).tolist()
    [[0.5, 0.125, 0.25, 0.125]]
    """
    dtype = jnp.promote_types(jnp.result_type(share), jnp.float32)
    own, others = (jax.nn.one_hot(each, classes, dtype=dtype) for each in (label, other))
    return optax.smooth_labels(share * own + (1 - share) * others, smoothing)


def _outside_box(key: jax.Array, share: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return an (h, w) mask: 0 in a random rectangle of about ``1 - share`` of the area, 1 outside."""

    def covered(key: jax.Array, length: int) -> jax.Array:
        centre = jax.random.uniform(key, dtype=share.dtype) * length
        half = jnp.sqrt(1 - share) * length / 2
        first, last = jnp.round(centre - half), jnp.round(centre + half)
        position = jnp.arange(length)
        return (first <= position) & (position < last)

    rows, columns = (covered(key, length) for key, length in zip(jax.random.split(key), size, strict=True))
    return 1 - (rows[:, None] & columns[None, :]).astype(share.dtype)

"""Mixup, CutMix and soft labels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.training.mixing import mix, soft_labels

SHAPE = (4, 3, 20, 30, 3)
mix_jitted = jax.jit(mix, static_argnames=("mixup", "cutmix"))


def clips_of(rng, dtype=np.uint8):
    return rng.integers(0, 256, SHAPE).astype(dtype), np.array([3, 1, 4, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_mixup_is_one_weighted_mean(rng, dtype):
    clips, label = clips_of(rng, dtype)
    mixed, other, share = mix_jitted(jax.random.key(5), jnp.asarray(clips), jnp.asarray(label), mixup=0.8, cutmix=0.0)
    assert mixed.dtype == dtype
    assert 0 < share < 1
    share = float(share)
    np.testing.assert_array_equal(other, [1, 3, 1, 4])
    wanted = share * clips.astype(float) + (1 - share) * clips[[3, 0, 1, 2]]
    # uint8 clips are rounded, not truncated: an error of at most half a level.
    np.testing.assert_allclose(mixed, wanted, rtol=0, atol=0.501 if dtype == np.uint8 else 1e-4)
    if dtype == np.uint8:
        assert abs(np.mean(mixed - wanted)) < 0.02


def test_cutmix_pastes_one_rectangle_into_every_frame(rng):
    # Pixels are even in one clip and odd in the next, which tells the source of each.
    clips = 2 * rng.integers(0, 127, SHAPE) + np.array([0, 1, 0, 1]).reshape(4, 1, 1, 1, 1)
    clips = clips.astype(np.uint8)
    shares, boxes = [], []
    for seed in range(30):
        mixed, _, share = mix_jitted(
            jax.random.key(seed), jnp.asarray(clips), jnp.arange(4, dtype=jnp.int32), mixup=0.0, cutmix=1.0
        )
        foreign = np.asarray(mixed) % 2 != clips % 2
        assert (foreign == foreign[:1, :1, :, :, :1]).all(), "clips, frames or channels differ"
        box = foreign[0, 0, :, :, 0]
        np.testing.assert_array_equal(mixed, np.where(box[None, None, :, :, None], np.roll(clips, 1, axis=0), clips))
        np.testing.assert_array_equal(box, box.any(1, keepdims=True) & box.any(0, keepdims=True))
        rows, columns = np.flatnonzero(box.any(1)), np.flatnonzero(box.any(0))
        assert len(rows) == np.ptp(rows) + 1 if len(rows) else True
        assert len(columns) == np.ptp(columns) + 1 if len(columns) else True
        assert float(share) == pytest.approx(1 - box.mean(), abs=1e-6)
        shares.append(float(share))
        if box.any() and not (box[[0, -1]].any() or box[:, [0, -1]].any()):
            boxes.append((len(rows) / 20, len(columns) / 30))
    assert 0.05 < np.std(shares) < 0.4
    # A rectangle that the border does not cut has the frame's aspect ratio, up to rounding to pixels.
    assert len(boxes) > 3
    assert max(abs(height - width) for height, width in boxes) < 1 / 20 + 1 / 30


def test_shares_follow_the_beta_distribution():
    clips = jnp.zeros((2, 1, 1, 1, 1))
    keys = jax.random.split(jax.random.key(0), 4000)

    def shares(alpha):
        return jax.vmap(lambda key: mix(key, clips, jnp.arange(2), mixup=alpha, cutmix=0.0)[2])(keys)

    # The variance of Beta(a, a) is 1 / (4 (2a + 1)).
    found = shares(0.3)
    assert np.mean(found) == pytest.approx(0.5, abs=0.02)
    assert np.var(found) == pytest.approx(1 / (4 * (2 * 0.3 + 1)), rel=0.06)


def test_each_batch_uses_one_of_the_two(rng):
    clips, label = clips_of(rng)
    keys = jax.random.split(jax.random.key(1), 200)

    def is_pasted(key):
        mixed, _, _ = mix(key, jnp.asarray(clips), jnp.asarray(label), mixup=1.0, cutmix=1.0)
        one_of_both = (mixed == clips) | (mixed == jnp.roll(clips, 1, axis=0))
        return one_of_both.all()

    assert 0.35 < np.mean(jax.jit(jax.vmap(is_pasted))(keys)) < 0.65


def test_a_batch_of_one_clip_is_not_mixed(rng):
    clip = rng.integers(0, 256, (1, 2, 4, 4, 3)).astype(np.uint8)
    mixed, other, _ = mix(jax.random.key(0), jnp.asarray(clip), jnp.array([2]), mixup=1.0, cutmix=0.0)
    np.testing.assert_array_equal(mixed, clip)
    assert other.tolist() == [2]


def test_nothing_to_mix_is_an_error():
    with pytest.raises(ValueError, match="one of them must be above 0"):
        mix(jax.random.key(0), jnp.zeros((2, 1, 1, 1, 1)), jnp.arange(2), mixup=0.0, cutmix=0.0)


def test_soft_labels_are_distributions():
    soft = soft_labels(jnp.array([0, 2]), jnp.array([1, 2]), jnp.float32(0.7), classes=5, smoothing=0.1)
    wanted = [[0.65, 0.29, 0.02, 0.02, 0.02], [0.02, 0.02, 0.92, 0.02, 0.02]]
    np.testing.assert_allclose(soft, wanted, atol=1e-6)
    assert soft.dtype == jnp.float32

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close, check_gradients

from motion_jax.inspection import reference
from motion_jax.ops import l2_normalize, self_similarity, unit_length
from motion_jax.ops.self_similarity import TEMPORAL_PADDINGS, window_exists


@pytest.mark.parametrize(
    ("shape", "window", "offsets"),
    [
        ((2, 4, 5, 6, 3), (5, 3, 3), None),
        ((1, 2, 3, 2, 4), (5, 7, 5), None),
        ((1, 1, 4, 4, 2), (1, 3, 5), None),
        ((1, 5, 3, 4, 2), (5, 3, 3), (1,)),
        ((1, 5, 3, 4, 2), (5, 1, 3), (-3, 0, 2)),
    ],
)
@pytest.mark.parametrize("implementation", [None, "reference"])
def test_equals_the_loop(rng, shape, window, offsets, implementation):
    x = rng.standard_normal(shape).astype(np.float32)
    actual = self_similarity(jnp.asarray(x), window=window, offsets=offsets, implementation=implementation)
    assert_close(actual, reference.self_similarity(x, window=window, offsets=offsets))


@pytest.mark.parametrize("temporal_padding", TEMPORAL_PADDINGS)
@pytest.mark.parametrize(
    ("frames", "window", "offsets"), [(4, (5, 3, 3), None), (3, (1, 3, 1), (-3, 1, 2)), (1, (3, 1, 3), None)]
)
def test_two_embeddings_and_padding_in_time_equal_the_loop(rng, frames, window, offsets, temporal_padding):
    x, other = rng.standard_normal((2, 2, frames, 3, 4, 3)).astype(np.float32)
    options = {"window": window, "offsets": offsets, "temporal_padding": temporal_padding}
    actual = self_similarity(jnp.asarray(x), jnp.asarray(other), **options)
    assert_close(actual, reference.self_similarity(x, other, **options))
    exists = reference.self_similarity(np.ones((1, frames, 3, 4, 1)), **options)[0] > 0
    np.testing.assert_array_equal(window_exists(frames, 3, 4, **options), exists)


@pytest.mark.parametrize("temporal_padding", TEMPORAL_PADDINGS)
def test_cosine_similarity_rounded_where_asked(rng, temporal_padding):
    x = jnp.asarray(3 * rng.standard_normal((1, 3, 4, 5, 8)), jnp.float32)
    options = {"window": (3, 3, 5), "temporal_padding": temporal_padding}
    expected = self_similarity(l2_normalize(x), **options)
    assert_close(self_similarity(x, cosine=True, **options), expected)
    rounded = self_similarity(x, cosine=True, dtype=jnp.bfloat16, **options)
    assert rounded.dtype == jnp.bfloat16
    assert_close(rounded, expected, dtype="bfloat16")


def test_a_still_clip_is_most_similar_to_itself_in_place(rng):
    frame = l2_normalize(jnp.asarray(rng.standard_normal((1, 1, 6, 6, 32)), jnp.float32))
    stss = self_similarity(jnp.tile(frame, (1, 3, 1, 1, 1)), window=(3, 5, 5))
    np.testing.assert_allclose(stss[0, 1, ..., 2, 2], 1, atol=1e-5)
    others = stss.at[..., 2, 2].set(-1)
    assert others.max() < 0.95


def test_a_moved_pattern_peaks_along_its_path(rng):
    frame = l2_normalize(jnp.asarray(rng.standard_normal((1, 9, 9, 32)), jnp.float32))
    clip = jnp.stack([jnp.roll(frame, (t, -t), (1, 2)) for t in range(3)], axis=1)
    stss = self_similarity(clip, window=(3, 3, 3))[0, 1, 4, 4]
    peaks = [np.unravel_index(np.argmax(plane), plane.shape) for plane in stss]
    assert peaks == [(0, 2), (1, 1), (2, 0)]


@pytest.mark.parametrize("temporal_padding", TEMPORAL_PADDINGS)
def test_gradient(rng, temporal_padding):
    x, other = jnp.asarray(rng.standard_normal((2, 1, 2, 3, 2, 2)), jnp.float32)
    compare = lambda x, y: self_similarity(x, y, window=(3, 3, 3), temporal_padding=temporal_padding)  # noqa: E731
    check_gradients(compare, (x, other), rtol=1e-2)
    check_gradients(lambda x: compare(x, None), (x,), rtol=1e-2)


def test_jitted_equals_unjitted(rng):
    x = jnp.asarray(rng.standard_normal((1, 3, 4, 4, 8)), jnp.float32)
    compare = lambda x: self_similarity(x, window=(3, 5, 5))  # noqa: E731
    with jax.disable_jit():
        unjitted = compare(x)
    assert_close(jax.jit(compare)(x), unjitted)


@pytest.mark.parametrize(
    ("window", "offsets"), [((4, 3, 3), None), ((3, 2, 3), None), ((3, 3, -1), None), ((3, 3, 3), ())]
)
def test_bad_window(window, offsets):
    with pytest.raises(ValueError, match=r"odd and positive|at least one frame"):
        self_similarity(jnp.ones((1, 2, 3, 3, 1)), window=window, offsets=offsets)


def test_bad_options(annotations_off):
    x = jnp.ones((1, 2, 3, 3, 1))
    with pytest.raises(ValueError, match="temporal_padding must be one of zero, edge, replicate"):
        self_similarity(x, temporal_padding="mirror")
    with pytest.raises(ValueError, match="must have one shape"):
        self_similarity(x, jnp.ones((1, 3, 3, 3, 1)))


def test_unit_length_divides_by_the_length_and_gives_short_vectors_no_gradient(rng):
    x = rng.standard_normal((2, 3, 4)).astype(np.float32)
    assert_close(unit_length(jnp.asarray(x)), x / np.sqrt((x**2).sum(-1, keepdims=True)))
    assert_close(unit_length(1e-8 * jnp.asarray(x)), x / np.sqrt((x**2).sum(-1, keepdims=True)))
    check_gradients(unit_length, (jnp.asarray(x),), rtol=1e-2)
    short = jnp.asarray([[0.0, 0.0], [3e-13, 4e-13]], jnp.float32)
    unit, pull_back = jax.vjp(unit_length, short)
    assert_close(unit, [[0, 0], [0.3, 0.4]])
    np.testing.assert_array_equal(pull_back(jnp.ones_like(short))[0], np.zeros((2, 2)))
    assert unit_length(jnp.zeros((1, 2), jnp.float16)).dtype == jnp.float32

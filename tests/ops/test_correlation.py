import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import arrays, generator
from tolerance import assert_close, check_gradients

from motion_jax.inspection import reference
from motion_jax.ops import l2_normalize, local_correlation


def maps(golden):
    return [jnp.asarray(np.moveaxis(golden[name], 1, -1)) for name in ("f1", "f2")]


@pytest.mark.parametrize(
    ("shape", "radius", "dilation"),
    [
        ((2, 5, 7, 3), 2, 1),
        ((1, 3, 4, 2), 5, 1),
        ((1, 1, 1, 4), 1, 1),
        ((1, 6, 2, 1), 0, 1),
        ((2, 6, 9, 3), 2, 2),
        ((1, 3, 4, 2), 2, 3),
    ],
)
@pytest.mark.parametrize("implementation", [None, "reference"])
def test_equals_the_loop(rng, shape, radius, dilation, implementation):
    source, target = rng.standard_normal((2, *shape)).astype(np.float32)
    options = {"radius": radius, "dilation": dilation}
    actual = local_correlation(jnp.asarray(source), jnp.asarray(target), implementation=implementation, **options)
    assert_close(actual, reference.local_correlation(source, target, **options))


@pytest.mark.parametrize("side", [7, 15])
def test_golden_values_and_gradients(side):
    golden = arrays("ops")
    correlate = lambda a, b: local_correlation(a, b, radius=side // 2)  # noqa: E731
    scores, pull_back = jax.vjp(correlate, *maps(golden))
    expected = golden[f"P{side}_corr_raw"]
    assert_close(scores, expected.transpose(0, 3, 4, 1, 2))
    cotangent = generator(8).standard_normal(expected.shape).transpose(0, 3, 4, 1, 2)
    for gradient, name in zip(pull_back(jnp.asarray(cotangent, scores.dtype)), ("f1", "f2"), strict=True):
        assert_close(gradient, np.moveaxis(golden[f"P{side}_corr_raw_grad_{name}"], 1, -1))


def test_a_moved_pattern_scores_highest_at_its_move(rng):
    source = jnp.asarray(rng.standard_normal((1, 9, 8, 32)), jnp.float32)
    target = jnp.roll(source, (1, -2), axis=(1, 2))
    scores = local_correlation(source, target, radius=3)[0, 4, 4]
    assert np.unravel_index(np.argmax(scores), scores.shape) == (3 + 1, 3 - 2)


def test_gradient(rng):
    source, target = jnp.asarray(rng.standard_normal((2, 1, 3, 2, 2)), jnp.float32)
    check_gradients(lambda a, b: local_correlation(a, b, radius=1), (source, target), rtol=1e-2)


def test_bfloat16_features_score_in_float32(rng):
    source, target = rng.standard_normal((2, 1, 5, 5, 64))
    scores = local_correlation(jnp.asarray(source, jnp.bfloat16), jnp.asarray(target, jnp.bfloat16), radius=2)
    assert scores.dtype == jnp.float32
    assert_close(scores, reference.local_correlation(source, target, radius=2), dtype="bfloat16")


def test_products_are_rounded_where_asked(rng):
    source, target = jnp.asarray(rng.standard_normal((2, 1, 4, 5, 8)), jnp.float32)
    whole = local_correlation(source, target, radius=2, cosine=True)
    rounded = local_correlation(source, target, radius=2, cosine=True, dtype=jnp.bfloat16)
    assert rounded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(rounded, whole.astype(jnp.bfloat16))
    assert_close(whole, local_correlation(l2_normalize(source), l2_normalize(target), radius=2))


@pytest.mark.parametrize(
    ("other", "radius", "dilation", "message"),
    [
        ((1, 4, 5, 8), 1, 1, "source and target"),
        ((1, 5, 5, 8), -1, 1, "radius must be 0 or more"),
        ((1, 5, 5, 8), 1, 0, "dilation must be 1 or more"),
    ],
)
def test_bad_input(other, radius, dilation, message, annotations_off):
    with pytest.raises(ValueError, match=message):
        local_correlation(jnp.ones((1, 5, 5, 8)), jnp.ones(other), radius=radius, dilation=dilation)

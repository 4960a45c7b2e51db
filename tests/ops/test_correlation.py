import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import arrays, generator
from ops import twins
from tolerance import assert_close, check_gradients

from motion_jax.ops import l2_normalize, local_correlation
from motion_jax.ops.correlation import LARGEST_PRODUCT, _windows_by_product, _windows_by_shift, all_pairs


def maps(golden):
    return [jnp.asarray(np.moveaxis(golden[name], 1, -1)) for name in ("f1", "f2")]


@pytest.mark.parametrize(
    ("shape", "radius"), [((2, 5, 7, 3), 2), ((1, 3, 4, 2), 5), ((1, 1, 1, 4), 1), ((1, 6, 2, 1), 0)]
)
def test_equals_the_loop(rng, shape, radius):
    source, target = rng.standard_normal((2, *shape)).astype(np.float32)
    assert_close(
        local_correlation(jnp.asarray(source), jnp.asarray(target), radius=radius),
        twins.local_correlation(source, target, radius),
    )


@pytest.mark.parametrize(("shape", "radius", "dilation"), [((2, 6, 9, 3), 2, 2), ((1, 3, 4, 2), 2, 3)])
def test_dilated_equals_the_loop(rng, shape, radius, dilation):
    source, target = rng.standard_normal((2, *shape)).astype(np.float32)
    assert_close(
        local_correlation(jnp.asarray(source), jnp.asarray(target), radius=radius, dilation=dilation),
        twins.local_correlation(source, target, radius, dilation),
    )


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
    assert_close(scores, twins.local_correlation(source, target, 2), dtype="bfloat16")


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "radius", "dilation"), [((5, 7), 2, 1), ((3, 2), 4, 1), ((6, 9), 2, 3), ((1, 1), 1, 1)]
)
def test_windows_by_product_are_those_by_shift(rng, size, radius, dilation, dtype):
    """To the bit, and so are their gradients: both only move what is there."""
    scores = jnp.asarray(rng.standard_normal((2, math.prod(size), math.prod(size))), dtype)
    options = {"width": size[1], "radius": radius, "dilation": dilation}
    one, one_back = jax.vjp(lambda x: _windows_by_product(x, **options), scores)
    other, other_back = jax.vjp(lambda x: _windows_by_shift(x, **options), scores)
    assert one.dtype == other.dtype == dtype
    np.testing.assert_array_equal(one, other)
    cotangent = jnp.asarray(rng.standard_normal(one.shape), dtype)
    np.testing.assert_array_equal(*(back(cotangent)[0] for back in (one_back, other_back)))


@pytest.mark.parametrize(("platform", "side", "products"), [("cpu", 16, 1), ("tpu", 16, 2), ("tpu", 17, 1)])
def test_a_tpu_picks_windows_of_small_maps_by_a_product(platform, side, products):
    assert LARGEST_PRODUCT == 16**2
    maps = jax.ShapeDtypeStruct((1, side, side, 4), jnp.float32)
    correlate = jax.jit(lambda a, b: local_correlation(a, b, radius=2))
    program = jax.export.export(correlate, platforms=[platform])(maps, maps).mlir_module()
    assert program.count("stablehlo.dot_general") == products


def cosines_of_normalised(source, target):
    return all_pairs(l2_normalize(source), l2_normalize(target))


def test_cosine_is_the_product_of_normalised_features(rng, x64):
    """In value, gradients of both modes and second derivative, also of a zero vector and of short ones."""
    source, target, *tangents = (jnp.asarray(x) for x in rng.standard_normal((4, 1, 6, 5)))
    source = source.at[0, 2].set(0).at[0, 3].multiply(1e-3)
    weights = jnp.asarray(rng.standard_normal((1, 6, 6)))
    forms = (lambda a, b: all_pairs(a, b, cosine=True)), cosines_of_normalised
    for take in (
        lambda f: f(source, target),
        lambda f: jax.jvp(f, (source, target), tuple(tangents))[1],
        lambda f: jax.grad(lambda a, b: jnp.vdot(weights, f(a, b)), (0, 1))(source, target),
        lambda f: jax.hessian(lambda a: jnp.vdot(weights, jnp.sin(f(a, target))))(source),
    ):
        for ours, theirs in zip(*(jax.tree.leaves(take(f)) for f in forms), strict=True):
            assert_close(ours, theirs, dtype="float64")


def test_cosines_of_bfloat16_features_are_exact(rng):
    source, target = (jnp.asarray(x, jnp.bfloat16) for x in 3 * rng.standard_normal((2, 2, 9, 64)))
    exact = cosines_of_normalised(*(x.astype(jnp.float32) for x in (source, target)))
    cosines, pull_back = jax.vjp(lambda a, b: all_pairs(a, b, cosine=True), source, target)
    assert cosines.dtype == jnp.float32
    np.testing.assert_allclose(cosines, exact, atol=1e-6)
    assert [gradient.dtype for gradient in pull_back(jnp.ones_like(cosines))] == [jnp.bfloat16] * 2


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

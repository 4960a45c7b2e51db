import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import arrays, generator
from tolerance import assert_close, check_gradients

from motion_jax.inspection import reference
from motion_jax.ops import kernel_soft_argmax, l2_normalize, match

PAPER = {"sigma": 5.0, "temperature": 100.0}


def normalised(rng, *shape):
    return reference.l2_normalize(rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize(
    ("shape", "radius"), [((2, 7, 5, 8), 2), ((1, 3, 4, 8), 7), ((1, 1, 1, 8), 1), ((1, 2, 9, 8), 3), ((0, 4, 4, 8), 2)]
)
def test_match_equals_the_loop(rng, shape, radius):
    source, target = normalised(rng, 2, *shape)
    actual = match(jnp.asarray(source), jnp.asarray(target), radius=radius, **PAPER)
    for ours, theirs in zip(actual, reference.match(source, target, radius=radius, **PAPER), strict=True):
        assert_close(ours, theirs)


FORMS = [{"sigma": None, "dilation": 1}, {"sigma": 5.0, "dilation": 2}, {"sigma": None, "dilation": 3}]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("shape", "radius"), [((2, 7, 5, 8), 2), ((1, 1, 4, 8), 1)])
def test_plain_and_dilated_match_equal_the_loop(rng, shape, radius, form):
    source, target = normalised(rng, 2, *shape)
    # A temperature at which the plain soft-argmax is not yet the hard one.
    actual = match(jnp.asarray(source), jnp.asarray(target), radius=radius, temperature=5.0, **form)
    expected = reference.match(source, target, radius=radius, temperature=5.0, **form)
    for ours, theirs in zip(actual, expected, strict=True):
        assert_close(ours, theirs)


def test_match_of_any_length_by_its_cosine(rng):
    source, target = jnp.asarray(3 * rng.standard_normal((2, 2, 6, 5, 8)), jnp.float32)
    expected = match(l2_normalize(source), l2_normalize(target), radius=2, **PAPER)
    for ours, theirs in zip(match(source, target, radius=2, cosine=True, **PAPER), expected, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize(("height", "share"), [(28, 0.625), (14, 1.0), (56, 0.4375)])
def test_rows_are_compared_only_with_those_they_reach(height, share):
    """A share of all pairs of rows, of what one product of the whole map costs."""
    maps = jax.ShapeDtypeStruct((1, height, 4, 64), jnp.float32)
    program = jax.jit(lambda a, b: match(a, b, radius=7, **PAPER)).lower(maps, maps).as_text()
    shapes = re.findall(r"dot_general.*-> tensor<1x(\d+)x(\d+)xf32>", program)
    # Products of three columns are the sums of the softmax.
    assert sum(int(s) * int(t) for s, t in shapes if int(t) != 3) == share * (4 * height) ** 2


def test_plain_soft_argmax_equals_the_loop(rng):
    scores = rng.standard_normal((1, 3, 2, 5, 5)).astype(np.float32)
    actual = kernel_soft_argmax(jnp.asarray(scores), sigma=None, temperature=2.0)
    assert_close(actual, reference.kernel_soft_argmax(scores, sigma=None, temperature=2.0))


@pytest.mark.parametrize("side", [7, 15])
def test_golden_values_and_gradients(side):
    golden = arrays("ops")
    radius = side // 2
    maps = [jnp.asarray(np.moveaxis(golden[name], 1, -1)) for name in ("f1", "f2")]

    def motion(a, b):
        return jnp.concatenate(match(l2_normalize(a), l2_normalize(b), radius=radius, **PAPER), axis=-1)

    tensor, pull_back = jax.vjp(motion, *maps)
    assert_close(tensor, np.moveaxis(golden[f"P{side}_flow_uvc"], 1, -1))
    cotangent = np.moveaxis(generator(9).standard_normal((2, 3, 12, 10)), 1, -1)
    for gradient, name in zip(pull_back(jnp.asarray(cotangent, tensor.dtype)), ("f1", "f2"), strict=True):
        assert_close(gradient, np.moveaxis(golden[f"P{side}_flow_uvc_grad_{name}"], 1, -1))


@pytest.mark.parametrize("side", [7, 15])
def test_kernel_soft_argmax_golden(side):
    golden = arrays("ops")
    scores = golden[f"P{side}_match"].transpose(0, 2, 1).reshape(2, 12, 10, side, side)
    for temperature, name in ((100.0, "flow_uvc"), (1.0, "flow_uv_temp1")):
        actual = kernel_soft_argmax(jnp.asarray(scores), sigma=5.0, temperature=temperature)
        assert_close(actual, np.moveaxis(golden[f"P{side}_{name}"][:, :2], 1, -1))

    def projected(scores):
        motion = jnp.concatenate([kernel_soft_argmax(scores, **PAPER), scores.max((-1, -2))[..., None]], axis=-1)
        return jnp.sum(
            motion * jnp.asarray(np.moveaxis(generator(9).standard_normal((2, 3, 12, 10)), 1, -1), jnp.float32)
        )

    gradient = jax.grad(projected)(jnp.asarray(scores)).reshape(2, 120, side * side)
    assert_close(gradient, golden[f"P{side}_flow_uvc_grad_match"].transpose(0, 2, 1))


def test_equal_frames_do_not_move(rng):
    frame = jnp.asarray(normalised(rng, 1, 9, 9, 64))
    displacement, confidence = match(frame, frame, radius=3, **PAPER)
    np.testing.assert_allclose(displacement[0, 3:6, 3:6], 0, atol=1e-5)
    np.testing.assert_allclose(confidence, 1, atol=1e-5)


@pytest.mark.parametrize(("dx", "dy"), [(2, 0), (0, -1), (-3, 2)])
def test_a_moved_pattern_yields_its_move(rng, dx, dy):
    source = jnp.asarray(normalised(rng, 1, 12, 13, 64))
    displacement, confidence = match(source, jnp.roll(source, (dy, dx), (1, 2)), radius=4, **PAPER)
    np.testing.assert_allclose(4 * displacement[0, 6, 6], (dx, dy), atol=1e-3)
    np.testing.assert_allclose(confidence[0, 6, 6, 0], 1, atol=1e-5)


def test_a_dilated_window_reaches_further_in_the_same_unit(rng):
    """Six cells to the right are 3 of 3 steps of 2 cells: displacement 1, which an undilated window cannot see."""
    source = jnp.asarray(normalised(rng, 1, 14, 16, 64))
    displacement, confidence = match(source, jnp.roll(source, 6, 2), radius=3, dilation=2, **PAPER)
    np.testing.assert_allclose(displacement[0, 7, 7], (1, 0), atol=1e-3)
    np.testing.assert_allclose(confidence[0, 7, 7, 0], 1, atol=1e-5)


def test_golden_shift():
    golden = arrays("ops")
    source = jnp.asarray(np.moveaxis(golden["shift_f1"], 1, -1))
    source, target = l2_normalize(source), l2_normalize(jnp.roll(source, (2, -3), (1, 2)))
    for side in (7, 15):
        motion = jnp.concatenate(match(source, target, radius=side // 2, **PAPER), axis=-1)
        assert_close(motion, np.moveaxis(golden[f"P{side}_shift_uvc"], 1, -1))


def test_features_without_a_match_stay_put():
    """All scores zero: a uniform softmax over a window whose displacements cancel, finite gradients."""
    source, target = jnp.zeros((2, 1, 4, 4, 8))
    value, gradient = jax.value_and_grad(lambda a: match(a, target, radius=3, **PAPER)[0].sum())(source)
    np.testing.assert_allclose(value, 0, atol=1e-6)
    assert np.isfinite(gradient).all()


def test_gradient(rng, x64):
    source, target = jnp.asarray(rng.standard_normal((2, 1, 3, 4, 6)))
    # Moderate: at the papers' temperature the finite differences of the check would cross arg-max changes.
    smooth = {"sigma": 5.0, "temperature": 3.0}
    f = lambda a, b: match(l2_normalize(a), l2_normalize(b), radius=2, **smooth)  # noqa: E731
    check_gradients(f, (source, target), eps=1e-6)


def test_scores_stay_float32_for_bfloat16_features(rng):
    source, target = normalised(rng, 2, 1, 6, 6, 32)
    displacement, confidence = match(
        jnp.asarray(source, jnp.bfloat16), jnp.asarray(target, jnp.bfloat16), radius=2, sigma=5.0, temperature=1.0
    )
    assert displacement.dtype == confidence.dtype == jnp.float32
    expected = reference.match(source, target, radius=2, sigma=5.0, temperature=1.0)
    assert_close(displacement, expected[0], dtype="bfloat16")
    assert_close(confidence, expected[1], dtype="bfloat16")


def test_bad_input(annotations_off):
    with pytest.raises(ValueError, match="one shape and dtype"):
        match(jnp.ones((1, 5, 5, 8)), jnp.ones((1, 4, 5, 8)), radius=2, **PAPER)
    with pytest.raises(ValueError, match="radius of 1 or more"):
        match(jnp.ones((1, 5, 5, 8)), jnp.ones((1, 5, 5, 8)), radius=0, **PAPER)
    with pytest.raises(ValueError, match="dilation must be 1 or more"):
        match(jnp.ones((1, 5, 5, 8)), jnp.ones((1, 5, 5, 8)), radius=1, dilation=0, **PAPER)
    with pytest.raises(ValueError, match="p odd"):
        kernel_soft_argmax(jnp.ones((1, 2, 2, 4, 4)), **PAPER)

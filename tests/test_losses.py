import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close, check_gradients

from motion_jax.losses import stss_alignment


def slow(student, teacher, *, window, temperature, mask=None):
    """One position and one frame of its window after the other."""
    b, t, h, w, _ = student.shape
    unit = [x / np.sqrt((x**2).sum(-1, keepdims=True) + 1e-6) for x in (student, teacher)]
    terms = []
    for n, f, i, j in np.ndindex(b, t, h, w):
        for offset in range(-(window[0] // 2), window[0] // 2 + 1):
            if not 0 <= f + offset < t or (mask is not None and not mask[n, f, i, j]):
                continue
            cells = [
                (i + k, j + m)
                for k in range(-(window[1] // 2), window[1] // 2 + 1)
                for m in range(-(window[2] // 2), window[2] // 2 + 1)
                if 0 <= i + k < h and 0 <= j + m < w
            ]
            q, p = (np.exp([x[n, f, i, j] @ x[n, f + offset, y, z] / temperature for y, z in cells]) for x in unit)
            p, q = p / p.sum(), q / q.sum()
            terms.append((p * np.log(p / q)).sum())
    return np.mean(terms) if terms else 0.0


def pair(rng, shape=(2, 3, 3, 4), widths=(5, 7)):
    return [rng.standard_normal((*shape, width)) for width in widths]


@pytest.mark.parametrize(("window", "masked"), [((3, 3, 5), False), ((3, 3, 5), True), ((5, 9, 1), True)])
def test_equals_the_loop(x64, rng, window, masked):
    student, teacher = pair(rng)
    mask = rng.random(student.shape[:-1]) < 0.4 if masked else None
    options = {"window": window, "temperature": 0.3}
    expected = slow(student, teacher, mask=mask, **options)
    for dtype in ("float32", "float64"):
        arrays = [jnp.asarray(x, dtype) for x in (student, teacher)]
        align = jax.jit(lambda *arrays, mask: stss_alignment(*arrays, mask=mask, **options))
        actual = align(*arrays, mask=None if mask is None else jnp.asarray(mask))
        assert actual.dtype == jnp.dtype(dtype)
        assert_close(actual, expected, dtype=dtype)
    assert expected > 0.01


def test_gradient(x64, rng):
    arrays = tuple(map(jnp.asarray, pair(rng, (1, 2, 2, 3))))
    mask = jnp.asarray(rng.random((1, 2, 2, 3)) < 0.6)
    align = jax.jit(lambda *arrays: stss_alignment(*arrays, window=(3, 3, 5), temperature=0.5, mask=mask))
    check_gradients(align, arrays, eps=1e-6, atol=1e-7, rtol=1e-6)


def test_equal_relations_cost_nothing(rng):
    """Turned and scaled features have the same cosines, and the gradient vanishes there."""
    x = jnp.asarray(100 * rng.standard_normal((1, 3, 4, 4, 6)), jnp.float32)
    turned = 2 * x @ jnp.asarray(np.linalg.qr(rng.standard_normal((6, 6)))[0], jnp.float32)
    align = jax.jit(lambda y: stss_alignment(y, x, window=(3, 5, 5)))
    loss, gradient = jax.jit(jax.value_and_grad(align))(turned)
    assert abs(loss) < 1e-6
    assert np.abs(gradient).max() < 1e-6


def test_only_positions_of_the_mask_count(rng):
    student, teacher = (jnp.asarray(x, jnp.float32) for x in pair(rng))
    align = jax.jit(jax.value_and_grad(lambda x, mask: stss_alignment(x, teacher, window=(3, 3, 3), mask=mask)))
    everywhere = jnp.ones(student.shape[:-1], bool)
    assert_close(align(student, everywhere)[0], align(student, None)[0])
    assert align(student, ~everywhere)[0] == 0
    _, gradient = align(student, everywhere.at[0].set(False))
    assert not np.asarray(gradient[0]).any()
    assert np.asarray(gradient[1]).any()


def test_low_precision_and_zero_features_stay_finite(rng):
    student, teacher = (jnp.asarray(x, jnp.float16).at[:, 0].set(0) for x in pair(rng))
    loss, gradient = jax.jit(jax.value_and_grad(lambda x: stss_alignment(x, teacher, temperature=0.01)))(student)
    assert loss.dtype == jnp.float32
    assert np.isfinite(loss)
    assert np.isfinite(np.asarray(gradient, np.float32)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": jnp.ones((1, 2, 3, 4, 5))}, "must be features .* of one grid"),
        ({"mask": jnp.ones((1, 2), bool)}, r"mask must be \(b, t, h, w\) bool, \(1, 2, 3, 3\)"),
        ({"mask": jnp.ones((1, 2, 3, 3))}, "mask must be .*got .* float32"),
        ({"temperature": 0.0}, "temperature must be positive; got 0.0"),
        ({"window": (3, 2, 3)}, "odd and positive"),
    ],
)
def test_bad_arguments(annotations_off, changes, message):
    x = jnp.ones((1, 2, 3, 3, 5))
    with pytest.raises(ValueError, match=message):
        stss_alignment(**{"student": x, "teacher": x, **changes})

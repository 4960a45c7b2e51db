import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import arrays
from tolerance import check_gradients

from motion_jax.inspection import reference
from motion_jax.ops import temporal_shift


@pytest.mark.parametrize("shape", [(2, 5, 3, 4, 16), (1, 1, 2, 2, 8), (2, 2, 1, 3, 11), (1, 4, 9)])
@pytest.mark.parametrize("fold_div", [3, 8])
def test_equals_the_loop(rng, shape, fold_div):
    x = rng.standard_normal(shape).astype(np.float32)
    actual = temporal_shift(jnp.asarray(x), fold_div=fold_div)
    np.testing.assert_array_equal(actual, reference.temporal_shift(x, fold_div=fold_div))


@pytest.mark.parametrize("name", ["tsm", "tsm24"])
def test_golden(name):
    golden = arrays("ops")
    x, expected = (
        np.moveaxis(golden[f"{name}_{side}_n2_t3"].reshape(2, 3, *golden[f"{name}_{side}_n2_t3"].shape[1:]), 2, -1)
        for side in ("in", "out")
    )
    np.testing.assert_array_equal(temporal_shift(jnp.asarray(x), fold_div=8), expected)


def test_gradient(rng):
    x = jnp.asarray(rng.standard_normal((1, 3, 2, 2, 8)), jnp.float32)
    check_gradients(lambda x: jnp.sin(temporal_shift(x, fold_div=4)), (x,), rtol=1e-2)


def test_dtype_is_kept():
    assert temporal_shift(jnp.ones((1, 2, 1, 1, 8), jnp.bfloat16), fold_div=8).dtype == jnp.bfloat16


@pytest.mark.parametrize("fold_div", [1, 9])
def test_refuses_to_move_nothing_or_everything(fold_div):
    with pytest.raises(ValueError, match=r"fold_div must be in 2\.\.8"):
        temporal_shift(jnp.ones((1, 2, 1, 1, 8)), fold_div=fold_div)


def test_jitted_equals_unjitted(rng):
    x = jnp.asarray(rng.standard_normal((2, 4, 3, 3, 16)), jnp.float32)
    np.testing.assert_array_equal(jax.jit(lambda x: temporal_shift(x, fold_div=8))(x), temporal_shift(x, fold_div=8))

"""What holds for every motion block: any shape in and out, gradients, jit, bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close

from motion_jax.blocks import MotionSqueeze, Selfy

BLOCKS = {
    "motion_squeeze": MotionSqueeze(reduction=16, radius=3, widths=(4, 8)),
    "motion_squeeze_unreduced": MotionSqueeze(reduction=None, radius=2),
    "selfy": Selfy(window=(3, 5, 5), channels=16, integration_width=8),
    "selfy_next_frame": Selfy(window=(1, 9, 9), offsets=(1,), channels=16, integration_width=8),
    "selfy_wide": Selfy(window=(5, 13, 17), channels=8, integration_width=8, stride=1, fusion="sum_of_relu"),
}


def variables_of(block, x, rng):
    """Every parameter and statistic away from zero and one, so that no branch is silent."""
    shapes = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), x)
    draw = lambda s: jnp.asarray(rng.uniform(0.5, 1.5, s.shape) * (1 if len(s.shape) == 1 else 0.2), s.dtype)  # noqa: E731
    return {name: jax.tree.map(draw, shapes[name]) for name in ("params", "batch_stats")}


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", [(2, 4, 6, 9, 12), (1, 1, 7, 5, 8), (1, 2, 3, 4, 8)])
def test_any_shape_goes_through_in_training_and_evaluation(rng, name, shape):
    block = BLOCKS[name]
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    variables = variables_of(block, x, rng)
    for train in (False, True):
        y, updates = block.apply(variables, x, train=train, mutable=["batch_stats"])
        assert y.shape == shape
        assert np.isfinite(y).all()
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(*map(jax.tree.leaves, (updates, variables["batch_stats"])), strict=True)
        ]
        assert all(moved) == train == any(moved)


@pytest.mark.parametrize("name", BLOCKS)
def test_jitted_equals_unjitted_and_every_parameter_has_a_gradient(rng, name):
    block = BLOCKS[name]
    x = jnp.asarray(rng.standard_normal((1, 4, 6, 6, 8)), jnp.float32)
    variables = variables_of(block, x, rng)

    def loss(params, x):
        y, _ = block.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), y

    (_, jitted), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"], x)
    assert_close(jitted, loss(variables["params"], x)[1], kind="block")
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_is_near_float32(rng, name):
    block = BLOCKS[name]
    x = jnp.asarray(rng.standard_normal((1, 3, 6, 6, 8)), jnp.float32)
    # At the papers' temperature a rounded feature may choose another match; the arithmetic is compared without it.
    gentle = {"temperature": 1.0} if isinstance(block, MotionSqueeze) else {}
    variables = variables_of(block, x, rng)
    expected = block.clone(**gentle).apply(variables, x, train=False)
    actual = block.clone(dtype=jnp.bfloat16, **gentle).apply(variables, x, train=False)
    assert actual.dtype == jnp.bfloat16
    assert_close(actual.astype(jnp.float32), expected, kind="block", dtype="bfloat16")

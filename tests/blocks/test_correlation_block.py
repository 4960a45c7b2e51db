import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import evaluate, random_variables
from tolerance import assert_close

from motion_jax.blocks import CorrelationBlock
from motion_jax.inspection import reference
from motion_jax.inspection.reference import Layers, relu


def formula(block, variables, x):
    """Displacement by displacement and group by group, with the frame before."""
    layers = Layers(variables)
    y = layers.conv_bn_relu(x, "reduction_conv", "reduction_bn")
    weights = layers.params["filter"]
    side, _, groups, per_group = weights.shape
    _, frames, height, width, _ = x.shape
    correlation = np.zeros((*x.shape[:4], side, side, groups))
    for t, i, j, k, m, g in itertools.product(*map(range, (frames, height, width, side, side, groups))):
        row, column = (at + (cell - block.radius) * block.dilation for at, cell in ((i, k), (j, m)))
        if 0 <= row < height and 0 <= column < width:
            channels = slice(g * per_group, (g + 1) * per_group)
            products = y[:, t, i, j, channels] * y[:, max(t - 1, 0), row, column, channels]
            correlation[:, t, i, j, k, m, g] = (products * weights[k, m, g]).mean(-1)
    out = layers.bn(layers.conv(correlation.reshape(*x.shape[:4], -1), "out_conv"), "out_bn")
    return relu(x + out), correlation


@pytest.mark.parametrize(
    ("shape", "fields"),
    [
        ((2, 3, 4, 5, 6), {"radius": 1, "dilation": 1, "channels": 4, "groups": 2}),
        ((1, 1, 2, 3, 8), {"groups": 1}),
        ((1, 2, 5, 3, 6), {"radius": 2, "channels": 6, "groups": 6}),
        ((1, 2, 6, 7, 24), {"radius": 1, "dilation": 3}),
    ],
)
def test_equals_the_formula(rng, shape, fields):
    block = CorrelationBlock(**fields)
    x = rng.standard_normal(shape).astype(np.float32)
    variables = random_variables(block, jnp.asarray(x), seed=rng)
    y, sown = evaluate(block, variables, jnp.asarray(x))
    expected, correlation = formula(block, variables, x)
    assert_close(sown["correlation"], correlation, kind="block")
    assert_close(y, expected, kind="block")


def test_starts_as_a_relu_with_the_mean_of_the_products(rng):
    x = jnp.asarray(rng.standard_normal((1, 3, 4, 5, 8)), jnp.float32)
    block = CorrelationBlock(radius=2, dilation=1, channels=4, groups=1)
    variables = jax.jit(lambda x: block.init(jax.random.key(0), x, train=False))(x)
    y, sown = evaluate(block, variables, x)
    np.testing.assert_array_equal(y, relu(x))
    reduced = Layers(variables).conv_bn_relu(np.asarray(x, np.float64), "reduction_conv", "reduction_bn")
    plain = reference.local_correlation(reduced[:, 2], reduced[:, 1], radius=2) / 4
    assert_close(sown["correlation"][:, 2, ..., 0], plain, kind="block")


@pytest.mark.parametrize(("features", "compared"), [(128, (32, 32)), (512, (128, 32)), (48, (12, 4)), (2, (1, 1))])
def test_groups_are_the_papers_where_there_are_channels(features, compared):
    assert CorrelationBlock().compared(features) == compared


@pytest.mark.parametrize(
    ("groups", "message"), [(0, "groups of CorrelationBlock is 0"), (3, "the groups must divide the 4 channels")]
)
def test_groups_must_divide_the_channels(groups, message):
    with pytest.raises(ValueError, match=message):
        CorrelationBlock(channels=4, groups=groups).init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 8)), train=False)

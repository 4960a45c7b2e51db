import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import evaluate, random_variables
from tolerance import assert_close

from motion_jax.blocks import NonLocal
from motion_jax.inspection.reference import Layers, softmax


def formula(variables, x):
    """Position by position."""
    layers = Layers(variables)
    theta, phi, g = (layers.conv(x, name) for name in ("theta", "phi", "g"))
    y = np.zeros_like(g)
    for clip, *position in np.ndindex(*x.shape[:4]):
        weights = softmax(phi[clip].reshape(-1, phi.shape[-1]) @ theta[(clip, *position)])
        y[(clip, *position)] = weights @ g[clip].reshape(-1, g.shape[-1])
    return x + layers.bn(layers.conv(y, "out_conv"), "out_bn")


@pytest.mark.parametrize(("shape", "channels"), [((2, 3, 4, 3, 6), None), ((1, 1, 2, 5, 4), 7)])
def test_equals_the_formula(rng, shape, channels):
    block = NonLocal(channels=channels)
    x = rng.standard_normal(shape).astype(np.float32)
    variables = random_variables(block, jnp.asarray(x), seed=rng)
    assert_close(evaluate(block, variables, jnp.asarray(x))[0], formula(variables, x), kind="block")


def test_starts_as_the_identity(rng):
    x = jnp.asarray(rng.standard_normal((1, 2, 3, 3, 4)), jnp.float32)
    block = NonLocal()
    variables = jax.jit(lambda x: block.init(jax.random.key(0), x, train=False))(x)
    np.testing.assert_array_equal(evaluate(block, variables, x)[0], x)


def test_flops_of_table_3g():
    """46.5 G in TSM-R50 (33.056 G): the convolutions, BN, the softmax (3 n - 1), and one of the two products."""
    shape = (1, 8, 28, 28, 512)
    block = NonLocal()
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros(shape), train=False)["params"])
    positions, channels = 8 * 28 * 28, params["theta"]["kernel"].shape[-1]
    convolutions = sum(math.prod(params[name]["kernel"].shape) for name in ("theta", "phi", "g", "out_conv"))
    count = positions * (convolutions + 4 * 512 + positions * channels + 3 * positions - 1)
    assert round(33.056 + count / 1e9, 1) == 46.5

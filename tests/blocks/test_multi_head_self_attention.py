import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import evaluate, random_variables
from tolerance import assert_close

from motion_jax.blocks import MultiHeadSelfAttention
from motion_jax.inspection.reference import Layers, relu, softmax


def formula(block, variables, x):
    """Head by head and position by position."""
    layers = Layers(variables)
    y = relu(layers.bn(layers.conv(x, "conv1"), "bn1"))
    query, key, value = (layers.conv(y, name) for name in ("query", "key", "value"))
    tables = [layers.params[f"relative_{name}"] for name in ("frame", "row", "column")]
    z = np.zeros_like(y)
    for clip, head, *position in np.ndindex(x.shape[0], block.heads, *x.shape[1:4]):
        channels = slice(head * block.head_channels, (head + 1) * block.head_channels)
        q = query[(clip, *position)][channels] / np.sqrt(block.head_channels)
        scores = np.zeros(x.shape[1:4])
        for other in np.ndindex(*scores.shape):
            scores[other] = q @ key[(clip, *other)][channels]
            for table, reach, here, there in zip(tables, block.distances, position, other, strict=True):
                scores[other] += q @ table[reach + np.clip(there - here, -reach, reach)]
        weights = softmax(scores)
        z[(clip, *position)][channels] = sum(w * value[(clip, *o)][channels] for o, w in np.ndenumerate(weights))
    z = relu(layers.bn(z, "bn2"))
    return relu(x + layers.bn(layers.conv(z, "conv3"), "bn3"))


@pytest.mark.parametrize(
    ("shape", "heads", "distances"), [((2, 3, 4, 3, 6), 2, (1, 2, 9)), ((1, 1, 2, 5, 4), 3, (7, 27, 27))]
)
def test_equals_the_formula(rng, shape, heads, distances):
    block = MultiHeadSelfAttention(heads=heads, head_channels=4, distances=distances)
    x = rng.standard_normal(shape).astype(np.float32)
    variables = random_variables(block, jnp.asarray(x), seed=rng)
    assert_close(evaluate(block, variables, jnp.asarray(x))[0], formula(block, variables, x), kind="block")


def test_the_same_parameters_serve_clips_of_any_size(rng):
    block = MultiHeadSelfAttention(heads=1, head_channels=4, distances=(2, 3, 3))
    variables = random_variables(block, jnp.zeros((1, 2, 3, 3, 4)), seed=rng, positive=True)
    larger = jnp.asarray(rng.standard_normal((1, 5, 6, 4, 4)), jnp.float32)
    assert evaluate(block, variables, larger)[0].shape == larger.shape


def test_starts_as_a_rectified_identity(rng):
    x = jnp.asarray(rng.standard_normal((1, 2, 3, 3, 4)), jnp.float32)
    block = MultiHeadSelfAttention(heads=2, head_channels=2)
    variables = jax.jit(lambda x: block.init(jax.random.key(0), x, train=False))(x)
    np.testing.assert_array_equal(evaluate(block, variables, x)[0], np.maximum(x, 0))


def test_flops_of_table_3g():
    """50.6 G in TSM-R50 (33.056 G): convolutions, two products, relative positions, softmax (3 n - 1 a head), BN."""
    shape = (1, 8, 28, 28, 512)
    block = MultiHeadSelfAttention()
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros(shape), train=False)["params"])
    positions, width = 8 * 28 * 28, block.heads * block.head_channels
    convolutions = sum(math.prod(params[name]["kernel"].shape) for name in ("conv1", "query", "key", "value", "conv3"))
    distances = sum(params[f"relative_{name}"].shape[0] for name in ("frame", "row", "column"))
    attention = 2 * positions * width + distances * width + block.heads * (3 * positions - 1)
    norms = 4 * sum(params[name]["scale"].size for name in ("bn1", "bn2", "bn3"))
    assert round(33.056 + positions * (convolutions + attention + norms) / 1e9, 1) == 50.6

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import evaluate, random_variables
from tolerance import assert_close

from motion_jax.blocks import LocalSelfAttention
from motion_jax.inspection.reference import Layers, integrate, relu, softmax, upsample


def attend(block, layers, x):
    """Position by position, over the cells of the window that exist."""
    query, key, value = (layers.conv(x, name) for name in ("query", "key", "value"))
    tables = [layers.params[f"relative_{name}"] for name in ("frame", "row", "column")]
    result = np.zeros_like(x)
    for clip, *position in np.ndindex(*x.shape[:4]):
        q, scores, values = query[(clip, *position)], [], []
        for cell in itertools.product(*(range(side) for side in block.window)):
            other = [p + c - side // 2 for p, c, side in zip(position, cell, block.window, strict=True)]
            if all(0 <= o < size for o, size in zip(other, x.shape[1:4], strict=True)):
                embedding = key[(clip, *other)] + sum(table[c] for table, c in zip(tables, cell, strict=True))
                scores.append(q @ embedding)
                values.append(value[(clip, *other)])
        result[(clip, *position)] = softmax(np.array(scores)) @ np.array(values)
    return result


@pytest.mark.parametrize(
    ("shape", "window", "stride"),
    [((2, 3, 4, 5, 6), (3, 5, 3), 1), ((1, 4, 6, 7, 4), (5, 3, 5), 2), ((1, 1, 2, 3, 4), (3, 7, 7), 1)],
)
def test_equals_the_formula(rng, shape, window, stride):
    block = LocalSelfAttention(window=window, channels=5, stride=stride, integration_width=4)
    x = rng.standard_normal(shape).astype(np.float32)
    variables = random_variables(block, jnp.asarray(x), seed=rng)
    layers = Layers(variables)
    y = attend(block, layers, layers.conv_bn_relu(x, "downsample_conv", "downsample_bn", strides=(stride, stride)))
    expected = relu(x + upsample(layers, integrate(layers, y[:, :, None]), shape=shape, stride=stride))
    assert_close(evaluate(block, variables, jnp.asarray(x))[0], expected, kind="block")


def test_frames_out_of_the_window_do_not_matter(rng):
    block = LocalSelfAttention(window=(3, 3, 3), channels=4, stride=1, integration_width=4)
    x = jnp.asarray(rng.standard_normal((1, 5, 4, 4, 4)), jnp.float32)
    variables = random_variables(block, x, seed=rng, positive=True)
    apply = jax.jit(lambda x: block.apply(variables, x, train=False)[0, 2])
    np.testing.assert_array_equal(apply(x.at[0, 4].add(1.0)), apply(x))
    assert np.abs(apply(x.at[0, 3].add(1.0)) - apply(x)).max() > 1e-3


def test_starts_as_a_rectified_identity(rng):
    x = jnp.asarray(rng.standard_normal((1, 2, 4, 4, 4)), jnp.float32)
    block = LocalSelfAttention(window=(3, 3, 3))
    variables = jax.jit(lambda x: block.init(jax.random.key(0), x, train=False))(x)
    assert variables["params"]["query"]["kernel"].shape == (1, 1, 32, 32)  # Table 3e's C
    np.testing.assert_array_equal(evaluate(block, variables, x)[0], np.maximum(x, 0))


def test_bad_window():
    with pytest.raises(
        ValueError, match=r"window of LocalSelfAttention is \(3, 4, 3\), expected a tuple of 3 int .*, odd"
    ):
        LocalSelfAttention(window=(3, 4, 3)).init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 4)), train=False)

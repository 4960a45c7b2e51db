import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close

from motion_jax.inspection import reference
from motion_jax.layers import BatchNorm, Conv, ConvBNAct


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "depthwise"),
    [
        ((3, 3), (1, 1), (1, 1), False),
        ((7, 7), (2, 2), (3, 3), False),
        ((3, 3), (2, 2), (0, 1), False),
        ((1, 1), (1, 1), (0, 0), False),
        ((1, 1), (2, 2), (0, 0), False),
        ((7, 7), (1, 1), (3, 3), True),
        ((3, 3), (2, 2), (1, 1), True),
        ((3, 1, 3), (1, 1, 2), (1, 0, 1), False),
        ((3,), (2,), (1,), False),
    ],
)
def test_conv_equals_the_loop(rng, kernel, strides, padding, depthwise):
    channels, space = 4, (5, 9, 8)[-len(kernel) :]
    x = rng.standard_normal((2, 3, *space, channels)).astype(np.float32)
    layer = Conv(channels if depthwise else 6, kernel, strides, padding, depthwise=depthwise)
    variables = layer.init(jax.random.key(0), jnp.asarray(x))
    y = layer.apply(variables, jnp.asarray(x))
    expected = reference.convolution(x, variables["params"]["kernel"], strides=strides, padding=padding)
    assert_close(y, expected)


def test_layers_in_bfloat16_keep_float32_parameters_and_statistics():
    for layer, options in ((Conv(3, (3, 3), dtype=jnp.bfloat16), {}), (BatchNorm(dtype=jnp.bfloat16), {"train": True})):
        x = jnp.ones((1, 4, 4, 2))
        variables = layer.init(jax.random.key(0), x, **options)
        assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
        assert layer.apply(variables, x, mutable=["batch_stats"], **options)[0].dtype == jnp.bfloat16


@pytest.mark.parametrize(
    "options", [{"kernel_size": (3, 3), "padding": (1, 1), "depthwise": True}, {"kernel_size": (1, 1)}]
)
def test_maps_side_by_side_are_convolved_alike(rng, options):
    x = jnp.asarray(rng.standard_normal((2, 5, 4, 3, 6)), jnp.float32)  # three maps of six channels
    features = 6 if options.get("depthwise") else 4
    alone, together = Conv(features, **options), Conv(features, maps=3, **options)
    variables = alone.init(jax.random.key(0), x[..., 0, :])
    wide = x.reshape(2, 5, 4, 18)
    assert jax.tree.map(jnp.shape, together.init(jax.random.key(0), wide)) == jax.tree.map(jnp.shape, variables)
    expected = jnp.stack([alone.apply(variables, x[..., index, :]) for index in range(3)], axis=-2).reshape(2, 5, 4, -1)
    assert_close(together.apply(variables, wide), expected)


def test_maps_side_by_side_share_their_statistics(rng):
    x = jnp.asarray(1 + rng.standard_normal((2, 5, 4, 3, 6)), jnp.float32)
    alone, together = BatchNorm(), BatchNorm(maps=3)
    variables = alone.init(jax.random.key(0), x, train=False)
    variables["params"]["scale"] = jnp.asarray(rng.standard_normal(6), jnp.float32)
    wide = x.reshape(2, 5, 4, 18)
    assert jax.tree.map(jnp.shape, together.init(jax.random.key(0), wide, train=False)) == jax.tree.map(
        jnp.shape, variables
    )
    expected, actual = (
        layer.apply(variables, given, train=True, mutable=["batch_stats"])
        for layer, given in ((alone, x), (together, wide))
    )
    assert_close(actual[0], expected[0].reshape(wide.shape))
    for ours, theirs in zip(*(jax.tree.leaves(updates) for _, updates in (actual, expected)), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (Conv(5, (3, 3), depthwise=True), "keeps the channels"),
        (Conv(5, (3,) * 4), "needs 4 spatial axes"),
    ],
)
def test_conv_refuses_what_does_not_fit(layer, message):
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), jnp.ones((2, 4, 4, 3)))


def test_batch_norm_trains_as_pytorch(rng):
    """Normalisation by the biased variance, running statistics by the unbiased one."""
    x = 3 + 2 * rng.standard_normal((2, 3, 4, 5))
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), jnp.asarray(x, jnp.float32), train=False)
    y, updates = layer.apply(variables, jnp.asarray(x, jnp.float32), train=True, mutable=["batch_stats"])
    mean, var, count = x.mean((0, 1, 2)), x.var((0, 1, 2)), 24
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=2e-5)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * var * count / (count - 1), rtol=1e-5)


def test_zeros_count_without_being_there(rng):
    """Statistics of 2 * 3 cells and 18 zeros that are not there are those of all 24."""
    x = jnp.asarray(3 + rng.standard_normal((2, 3, 5)), jnp.float32)
    layer = BatchNorm()
    variables = layer.init(jax.random.key(0), x, train=False)
    options = {"train": True, "mutable": ["batch_stats"], "method": "scale_and_shift"}
    filled, stats = layer.apply(variables, x, zeros=18, **options)
    expected, expected_stats = layer.apply(variables, jnp.pad(x, [(0, 0), (0, 9), (0, 0)]), **options)
    for ours, theirs in zip(jax.tree.leaves((filled, stats)), jax.tree.leaves((expected, expected_stats)), strict=True):
        assert_close(ours, theirs)


def test_frozen_statistics_neither_normalise_nor_move(rng):
    x = jnp.asarray(5 + rng.standard_normal((8, 3)), jnp.float32)
    layer = BatchNorm(frozen=True)
    variables = layer.init(jax.random.key(0), x, train=False)
    y, updates = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y, x, rtol=1e-4)
    np.testing.assert_array_equal(updates["batch_stats"]["mean"], 0)


def test_synchronised_statistics_are_those_of_the_whole_batch(rng):
    x = jnp.asarray(rng.standard_normal((8, 4, 3)), jnp.float32)
    whole, parts = BatchNorm(), BatchNorm(axis_name="data")
    variables = whole.init(jax.random.key(0), x, train=False)
    expected, stats = whole.apply(variables, x, train=True, mutable=["batch_stats"])
    apply = functools.partial(parts.apply, train=True, mutable=["batch_stats"])
    y, part_stats = jax.vmap(apply, in_axes=(None, 0), axis_name="data")(variables, x)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(part_stats), jax.tree.leaves(stats), strict=True):
        np.testing.assert_allclose(ours[0], theirs, rtol=1e-5)


class Layers(nn.Module):
    """Three ways to call ``ConvBNAct``."""

    @nn.compact
    def __call__(self, x, *, train):
        layer = ConvBNAct(functools.partial(BatchNorm, epsilon=0.5), jnp.float32, train)
        x = layer(x, 4, (3, 3), name="first")
        x = layer(x, 4, (3, 1), strides=(2, 1), depthwise=True, act=nn.relu6, name=("second", "second_bn"))
        zeros = nn.initializers.zeros
        return layer(x, 6, (3, 3), padding=(0, 0), act=None, maps=2, scale_init=zeros, name=("conv3", "bn3"))


def test_convolution_normalisation_and_activation_are_the_layers_of_their_module(rng):
    x = jnp.asarray(rng.standard_normal((2, 5, 7, 8, 3)), jnp.float32)
    variables = Layers().init(jax.random.key(0), x, train=False)
    shapes = jax.tree.map(jnp.shape, variables["params"])
    kernels = {"first_conv": (3, 3, 3, 4), "second": (3, 1, 1, 4), "conv3": (3, 3, 2, 6)}
    assert {name: shapes[name]["kernel"] for name in kernels} == kernels
    assert set(shapes) == {*kernels, "first_bn", "second_bn", "bn3"}
    np.testing.assert_array_equal(variables["params"]["bn3"]["scale"], 0)
    variables["params"]["bn3"]["scale"] = jnp.ones(6)
    norm = functools.partial(BatchNorm, epsilon=0.5)

    def apply(layer, name, x, **options):
        own = {collection: tree[name] for collection, tree in variables.items() if name in tree}
        return layer.apply(own, x, mutable=["batch_stats"], **options)[0]

    y = apply(Conv(4, (3, 3), padding=(1, 1)), "first_conv", x)
    y = nn.relu(apply(norm(), "first_bn", y, train=True))
    y = apply(Conv(4, (3, 1), (2, 1), (1, 0), depthwise=True), "second", y)
    y = nn.relu6(apply(norm(), "second_bn", y, train=True))
    y = apply(norm(maps=2), "bn3", apply(Conv(6, (3, 3), maps=2), "conv3", y), train=True)
    actual, updates = Layers().apply(variables, x, train=True, mutable=["batch_stats"])
    assert_close(actual, y)
    assert y.shape == (2, 5, 2, 6, 12)
    assert set(updates["batch_stats"]) == {"first_bn", "second_bn", "bn3"}

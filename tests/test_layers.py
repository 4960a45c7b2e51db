import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close

from motion_jax.layers import BatchNorm, Conv


def slow_conv(x, kernel, strides, padding, depthwise=False):
    """Convolution cell by cell of the output, in NumPy."""
    rank = len(strides)
    size = kernel.shape[:rank]
    x = np.pad(x, [(0, 0), *((p, p) for p in padding), (0, 0)])
    outputs = [(n - k) // s + 1 for n, k, s in zip(x.shape[1:], size, strides, strict=False)]
    y = np.zeros((x.shape[0], *outputs, kernel.shape[-1]))
    for cell in np.ndindex(*outputs):
        window = tuple(slice(c * s, c * s + k) for c, s, k in zip(cell, strides, size, strict=True))
        patch = x[(slice(None), *window)]
        if depthwise:
            y[(slice(None), *cell)] = (patch * kernel[None, ..., 0, :]).sum(tuple(range(1, rank + 1)))
        else:
            y[(slice(None), *cell)] = np.tensordot(patch, kernel, axes=rank + 1)
    return y


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
    expected = slow_conv(
        x.reshape(6, *space, channels), np.asarray(variables["params"]["kernel"]), strides, padding, depthwise
    )
    assert_close(y, expected.reshape(2, 3, *expected.shape[1:]))


def test_conv_with_bias_in_bfloat16_keeps_float32_parameters():
    layer = Conv(3, (3, 3), padding=(1, 1), use_bias=True, dtype=jnp.bfloat16)
    x = jnp.ones((1, 4, 4, 2))
    variables = layer.init(jax.random.key(0), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    shifted = {"params": {**variables["params"], "bias": jnp.ones(3)}}
    assert layer.apply(variables, x).dtype == jnp.bfloat16
    assert_close(layer.apply(shifted, x), layer.apply(variables, x) + 1, dtype="bfloat16")


@pytest.mark.parametrize("use_bias", [False, True])
@pytest.mark.parametrize(
    "options", [{"kernel_size": (3, 3), "padding": (1, 1), "depthwise": True}, {"kernel_size": (1, 1)}]
)
def test_maps_side_by_side_are_convolved_alike(rng, options, use_bias, monkeypatch):
    """On every platform: one map after the other gives the same."""
    x = jnp.asarray(rng.standard_normal((2, 5, 4, 3, 6)), jnp.float32)  # three maps of six channels
    features = 6 if options.get("depthwise") else 4
    alone = Conv(features, use_bias=use_bias, **options)
    together = Conv(features, use_bias=use_bias, side_by_side=3, **options)
    variables = alone.init(jax.random.key(0), x[..., 0, :])
    if use_bias:
        variables["params"]["bias"] = jnp.asarray(rng.standard_normal(features), jnp.float32)
    wide = x.reshape(2, 5, 4, 18)
    assert jax.tree.map(jnp.shape, together.init(jax.random.key(0), wide)) == jax.tree.map(jnp.shape, variables)
    expected = jnp.stack([alone.apply(variables, x[..., index, :]) for index in range(3)], axis=-2).reshape(2, 5, 4, -1)
    assert_close(together.apply(variables, wide), expected)
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *arguments, default, **forms: default(*arguments))
    assert_close(together.apply(variables, wide), expected)


@pytest.mark.parametrize("two_pass", [False, True])
def test_maps_side_by_side_share_their_statistics(rng, two_pass):
    x = jnp.asarray(1 + rng.standard_normal((2, 5, 4, 3, 6)), jnp.float32)
    alone, together = BatchNorm(two_pass=two_pass), BatchNorm(two_pass=two_pass, side_by_side=3)
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
        (Conv(5, (3, 3), side_by_side=3), "side_by_side is for"),
    ],
)
def test_conv_refuses_what_does_not_fit(layer, message):
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), jnp.ones((2, 4, 4, 3)))


@pytest.mark.parametrize("two_pass", [False, True])
def test_batch_norm_trains_as_pytorch(rng, two_pass):
    """Normalisation by the biased variance, running statistics by the unbiased one."""
    x = 3 + 2 * rng.standard_normal((2, 3, 4, 5))
    layer = BatchNorm(two_pass=two_pass)
    variables = layer.init(jax.random.key(0), jnp.asarray(x, jnp.float32), train=False)
    y, updates = layer.apply(variables, jnp.asarray(x, jnp.float32), train=True, mutable=["batch_stats"])
    mean, var, count = x.mean((0, 1, 2)), x.var((0, 1, 2)), 24
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(var + 1e-5), atol=2e-5)
    np.testing.assert_allclose(updates["batch_stats"]["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(updates["batch_stats"]["var"], 0.9 + 0.1 * var * count / (count - 1), rtol=1e-5)


@pytest.mark.parametrize("two_pass", [False, True])
def test_zeros_count_without_being_there(rng, two_pass):
    """What normalises 2 * 3 cells among 24 is what normalises all 24, of which the others are zero."""
    x = jnp.asarray(3 + rng.standard_normal((2, 3, 5)), jnp.float32)
    layer = BatchNorm(two_pass=two_pass)
    variables = layer.init(jax.random.key(0), x, train=False)
    options = {"train": True, "mutable": ["batch_stats"], "method": "affine"}
    filled, stats = layer.apply(variables, x, cells=24, **options)
    expected, expected_stats = layer.apply(variables, jnp.pad(x, [(0, 0), (0, 9), (0, 0)]), **options)
    for ours, theirs in zip(jax.tree.leaves((filled, stats)), jax.tree.leaves((expected, expected_stats)), strict=True):
        assert_close(ours, theirs)


def test_two_passes_hold_where_the_mean_is_large(rng):
    x = jnp.asarray(1000 + rng.standard_normal((4096, 1)), jnp.float32)
    layer = BatchNorm(two_pass=True)
    variables = layer.init(jax.random.key(0), x, train=False)
    y, _ = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(y.std(), 1, rtol=1e-3)


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

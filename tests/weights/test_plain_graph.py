"""A function written plainly computes the same for every batch, and has none of the operations that it replaces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from motion_jax.layers import Conv
from motion_jax.ops import match, self_similarity, temporal_shift
from motion_jax.weights.plain_graph import plain

CALLS = {"jit", "pjit", "custom_jvp_call", "remat2", "checkpoint", "cond", "scan", "platform_index"}
REPLACED = {"pad", "gather", "dynamic_slice", "rem", "reduce_window_max", *CALLS}
# The primitives that converters are given.
KNOWN = {
    "add", "broadcast_in_dim", "concatenate", "conv_general_dilated", "convert_element_type", "div", "dot_general",
    "eq", "exp", "ge", "iota", "max", "min", "mul", "neg", "reduce_max", "reduce_min", "reduce_sum", "reshape", "rev",
    "rsqrt", "select_n", "slice", "square", "squeeze", "stack", "sub", "transpose",
}  # fmt: skip
SHAPE = (5, 6, 7, 8)


def max_pool(x):
    window = {"window_dimensions": (1, 1, 3, 3, 1), "window_strides": (1, 1, 2, 2, 1)}
    padding = ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, **window, padding=padding)


def depthwise(x):
    layer = Conv(8, (3, 3), (2, 2), (1, 1), depthwise=True)
    kernel = jnp.asarray(np.random.default_rng(1).standard_normal((3, 3, 1, 8)), jnp.float32)
    return layer.apply({"params": {"kernel": kernel}}, x)


def matched(x):
    flat = x.reshape(-1, *x.shape[2:])
    return jnp.concatenate(match(flat, flat[:, ::-1], radius=2, sigma=5.0, temperature=10.0), axis=-1)


FUNCTIONS = {
    "strided": lambda x: x[:, ::2, :, 1::3],
    "part": lambda x: x[:, 1:, :-1, :, 2:5],
    "both": lambda x: x[:, ::2, ::3],
    "one": lambda x: x[:, -1, :, 2],
    "listed": lambda x: x[:, jnp.array([0, 0, 3, 1])],
    "gaps": lambda x: lax.pad(x, 0.5, [(0, 0, 0), (1, -2, 0), (0, 1, 1), (-1, 0, 2), (0, 0, 0)]),
    "max_pool": max_pool,
    "shift": lambda x: temporal_shift(x, fold_div=4),
    "depthwise": depthwise,
    "match": matched,
    "self_similarity": lambda x: self_similarity(x, window=(3, 3, 5)),
    "self_similarity_by_cosine": lambda x: self_similarity(x, window=(3, 3, 5), cosine=True),
    "self_similarity_edge": lambda x: self_similarity(x, window=(3, 3, 3), temporal_padding="edge"),
    "self_similarity_replicate": lambda x: self_similarity(x, window=(3, 3, 3), temporal_padding="replicate"),
    "relu": lambda x: jax.nn.relu(x) * jax.nn.softmax(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_plain_functions_compute_the_same(name, rng):
    function = FUNCTIONS[name]
    x = jnp.asarray(rng.standard_normal((3, *SHAPE)), jnp.float32)
    expected = np.asarray(jax.jit(function)(x))
    symbolic = jax.ShapeDtypeStruct(jax.export.symbolic_shape("b, 5, 6, 7, 8"), jnp.float32)
    operations = {each.primitive.name for each in jax.make_jaxpr(plain(function, symbolic))(symbolic).eqns}
    assert not operations & REPLACED
    assert operations <= KNOWN
    exported = jax.export.export(jax.jit(plain(function, symbolic)))(symbolic)
    np.testing.assert_allclose(np.asarray(exported.call(x)), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: jnp.take(x, jnp.argmax(x[0, 0, 0, 0]), axis=1), "index that depends on the input"),
        (lambda x: lax.scan(lambda c, r: (c + r, c), x[0], x)[1], "the operation scan"),
        (jax.checkpoint(lambda x: jnp.sin(x)), "the operation"),
    ],
)
def test_what_cannot_be_written_plainly_is_refused(function, reason):
    spec = jax.ShapeDtypeStruct((2, *SHAPE), jnp.float32)
    with pytest.raises(ValueError, match=reason):
        jax.make_jaxpr(plain(function, spec))(spec)

"""Every kernel equals its reference: values and gradients, on every platform's form, in every dtype."""

import functools
import importlib
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tolerance import assert_close

from motion_jax import kernels, ops
from motion_jax.kernels import correlation
from motion_jax.kernels.side_by_side import kernel_of_maps
from motion_jax.ops.correlation import all_pairs

convolution_module = importlib.import_module("motion_jax.kernels.convolution")
# A GPU takes forms that one of these two takes.
PLATFORMS = ("cpu", "tpu")


# Part of the key of JAX's caches, so that what is traced for one platform is not used for the other.
traced_for = jax.make_user_context(default_value="cpu")


@pytest.fixture(params=PLATFORMS)
def platform(request, monkeypatch):
    """Compute in the forms of each platform; the CPU's are chosen by JAX itself."""
    if request.param != "cpu":

        def form_of(*x, default, **forms):
            return forms.get(request.param, default)(*x)

        monkeypatch.setattr(jax.lax, "platform_dependent", form_of)
    with traced_for(request.param):
        yield request.param


def normal(rng, *shape):
    return rng.standard_normal(shape)


def conv(shape, window, features, strides=None, padding=None, *, depthwise=False, maps=1):
    """A convolution of maps (n, *space, c), ``maps`` of them side by side, and its kernel."""
    rank = len(window)
    options = {"strides": strides or (1,) * rank, "padding": padding or (0,) * rank, "depthwise": depthwise}
    kernel = (*window, 1 if depthwise else shape[-1], features)
    return functools.partial(kernels.convolution, **options), [(*shape[:-1], maps * shape[-1]), kernel]


def pair(op, shape, **options):
    return functools.partial(op, **options), [shape, shape]


def match(shape, *, sigma=3.0, temperature=5.0, cosine=True, **options):
    return pair(ops.match, shape, sigma=sigma, temperature=temperature, cosine=cosine, **options)


def pool(shape, window, strides, padding):
    return functools.partial(ops.max_pool, window=window, strides=strides, padding=padding), [shape]


# By name: an operation that takes ``implementation``, and the shapes of its arguments.
CASES = {
    "conv_1x1": conv((2, 5, 4, 3), (1, 1), 6),
    "conv_1x1_strided": conv((2, 5, 4, 3), (1, 1), 6, (2, 3)),
    "conv_1x1_padded": conv((2, 5, 4, 3), (1, 1), 6, None, (1, 0)),
    "conv_1x1_of_three_maps": conv((2, 5, 4, 3), (1, 1), 6, maps=3),
    "conv_1x1x1": conv((2, 3, 5, 4, 3), (1, 1, 1), 6, (1, 2, 2)),
    "conv_depthwise": conv((2, 5, 9, 4), (7, 7), 4, None, (3, 3), depthwise=True),
    "conv_depthwise_strided": conv((2, 5, 8, 4), (3, 3), 4, (2, 2), (1, 1), depthwise=True),
    "conv_depthwise_of_two_maps": conv((2, 5, 4, 3), (3, 3), 3, None, (1, 1), depthwise=True, maps=2),
    "conv_reaching_everywhere": conv((3, 2, 2, 5), (3, 3), 4, None, (1, 1)),
    "conv_reaching_everywhere_strided": conv((3, 2, 1, 5), (3, 3), 4, (2, 2), (1, 1)),
    "conv_to_one_cell": conv((5, 3, 4, 6), (3, 4), 7),
    "conv_of_windows": conv((7, 9, 9, 1), (3, 3), 4, None, (1, 1)),
    "conv_of_windows_strided": conv((7, 9, 13, 4), (3, 3), 5, (2, 2), (1, 1)),
    "conv_of_windows_without_padding": conv((7, 5, 6, 4), (3, 3), 5, (2, 1), (0, 1)),
    "conv_3d_of_windows": conv((2, 3, 5, 5, 4), (3, 3, 3), 6, (1, 2, 2), (1, 1, 1)),
    "conv_3d_to_one_frame": conv((2, 3, 5, 5, 4), (3, 5, 5), 6, None, (1, 0, 0)),
    "conv_1d": conv((3, 9, 4), (3,), 5, (2,), (1,)),
    "conv_of_long_rows": conv((2, 5, 19, 8), (3, 3), 4, (2, 2), (1, 1)),
    "conv_of_two_maps": conv((2, 4, 5, 3), (3, 3), 4, None, (1, 1), maps=2),
    "conv_of_two_maps_of_long_rows": conv((2, 4, 19, 8), (3, 3), 4, None, (1, 1), maps=2),
    "max_pool": pool((2, 3, 7, 8, 4), (3, 3), (2, 2), ((1, 1), (1, 1))),
    "max_pool_one_sided": pool((2, 5, 4, 6, 3), (2, 2, 2), (2, 2, 2), ((0, 1), (0, 0), (0, 0))),
    "max_pool_1d": pool((3, 5, 2), (3,), (1,), ((1, 1),)),
    "all_pairs": (all_pairs, [(2, 6, 5), (2, 7, 5)]),
    "all_pairs_cosine": (functools.partial(all_pairs, cosine=True), [(2, 6, 5), (2, 7, 5)]),
    "correlation": pair(ops.local_correlation, (2, 5, 7, 3), radius=2),
    "correlation_cosine": pair(ops.local_correlation, (2, 5, 7, 3), radius=2, cosine=True),
    "correlation_dilated": pair(ops.local_correlation, (1, 6, 9, 3), radius=2, dilation=3),
    "correlation_window_larger_than_the_map": pair(ops.local_correlation, (2, 3, 4, 3), radius=5, cosine=True),
    "correlation_of_one_cell": pair(ops.local_correlation, (1, 1, 1, 4), radius=1),
    "correlation_without_displacement": pair(ops.local_correlation, (1, 6, 2, 1), radius=0),
    "correlation_of_a_large_map": pair(ops.local_correlation, (1, 16, 17, 3), radius=2),
    "correlation_rounded": pair(ops.local_correlation, (1, 4, 5, 8), radius=2, dtype=jnp.bfloat16),
    "match": match((2, 7, 5, 8), radius=2),
    "match_of_normalised": match((2, 7, 5, 8), radius=2, cosine=False, temperature=0.5),
    "match_in_groups_of_rows": match((1, 13, 4, 8), radius=2),
    "match_window_larger_than_the_map": match((1, 3, 4, 8), radius=7),
    "match_of_one_row": match((1, 1, 4, 8), radius=1),
    "match_dilated": match((2, 7, 5, 8), radius=2, dilation=2),
    "match_dilated_in_groups": match((1, 19, 3, 8), radius=2, dilation=3),
    "match_by_plain_soft_argmax": match((1, 9, 5, 8), radius=2, dilation=2, sigma=None),
    "self_similarity": (functools.partial(ops.self_similarity, window=(3, 5, 3), cosine=True), [(2, 4, 5, 6, 3)]),
    "self_similarity_at_edges": (
        functools.partial(ops.self_similarity, window=(1, 3, 5), offsets=(-3, 0, 1), temporal_padding="edge"),
        [(1, 3, 4, 5, 3), (1, 3, 4, 5, 3)],
    ),
    "residual_sum": pair(ops.residual_sum, (2, 3, 4, 5)),
    "upsampling": (
        functools.partial(ops.scale_upsampled, stride=2, size=(5, 6)),
        [(2, 3, 3, 3, 4), (1, 1, 1, 1, 4), (1, 1, 1, 1, 4)],
    ),
    "upsampling_by_three": (
        functools.partial(ops.scale_upsampled, stride=3, size=(4, 5)),
        [(1, 2, 2, 2, 4), (1, 1, 1, 1, 4), (1, 1, 1, 1, 4)],
    ),
}
WITH_DERIVATIVES_OF_THEIR_OWN = ("all_pairs_cosine", "correlation_cosine", "match", "self_similarity")


def outcomes(op, arguments, cotangent_rng, *, forward_mode):
    """Values, gradients of a random direction, and derivatives along one; leaves by leaves."""
    results, pull_back = jax.vjp(jax.jit(op), *arguments)

    def draw(like):
        return jnp.asarray(cotangent_rng.standard_normal(like.shape), like.dtype)

    outcome = {"values": results, "gradients": pull_back(jax.tree.map(draw, results))}
    if forward_mode:
        outcome["derivatives"] = jax.jvp(op, arguments, tuple(draw(x) for x in arguments))[1]
    return outcome


@functools.cache
def reference_outcomes(name, dtype):
    """The same for both platforms: the reference knows no platform."""
    return case_outcomes(name, dtype, "reference")


def case_outcomes(name, dtype, implementation):
    op, shapes = CASES[name]
    rng = np.random.default_rng(0)
    arguments = tuple(jnp.asarray(normal(rng, *shape), dtype) for shape in shapes)
    op = functools.partial(op, implementation=implementation)
    return outcomes(op, arguments, rng, forward_mode=name in WITH_DERIVATIVES_OF_THEIR_OWN)


def with_cost(name: str, dtype: str):
    """Return a case. The options of matching compile for seconds each: beyond float32 they are long tests."""
    return pytest.param(name, dtype, marks=pytest.mark.long if name.startswith("match_") and dtype != "float32" else ())


@pytest.mark.parametrize(
    ("name", "dtype"), [with_cost(name, dtype) for name in CASES for dtype in ("float32", "bfloat16", "float64")]
)
def test_a_kernel_equals_its_reference(name, dtype, platform):
    with jax.enable_x64(dtype == "float64"):
        expected, actual = reference_outcomes(name, dtype), case_outcomes(name, dtype, None)
        for what in expected:
            for ours, theirs in zip(*map(jax.tree.leaves, (actual[what], expected[what])), strict=True):
                assert ours.dtype == theirs.dtype
                assert_close(ours, theirs, dtype="bfloat16" if "rounded" in name else dtype)


def test_an_unknown_implementation_is_refused(annotations_off):
    for op, shapes in CASES.values():
        with pytest.raises(ValueError, match=r"implementation must be None .* or 'reference'; got 'xla'"):
            op(*(jnp.zeros(shape) for shape in shapes), implementation="xla")


def test_the_context_selects_the_reference_in_functions_that_were_traced_before():
    x = jax.ShapeDtypeStruct((1, 6, 5, 4), jnp.float32)
    correlate = jax.jit(lambda x: ops.local_correlation(x, x, radius=1))

    def has_product():
        return "dot_general" in str(jax.make_jaxpr(correlate)(x))

    assert has_product()
    with kernels.reference():
        assert not has_product()
    assert has_product()


def test_shapes_choose_the_form_of_a_convolution(monkeypatch):
    """At 224 pixels: banded matrices for the first two layers on SELFY's windows, a product for the last."""
    monkeypatch.setattr(jax.lax, "platform_dependent", lambda *x, cpu, default: cpu(*x))
    chosen = []
    for form in ("by_xla", "by_product_of_rows", "by_shifts", "by_banded_rows"):
        called = getattr(convolution_module, form)

        def note(*arguments, form=form, called=called, **keywords):
            chosen.append((form, keywords.get("axes")))
            return called(*arguments, **keywords)

        monkeypatch.setattr(convolution_module, form, note)
    of_selfy = [((9, 9, 1), 4, 1, 1), ((9, 9, 4), 16, 2, 1), ((5, 5, 16), 64, 2, 1), ((3, 3, 64), 64, 1, 0)]
    of_a_stage = [((14, 14, 64), 64, 1, 1), ((56, 56, 64), 64, 1, 1), ((7, 7, 512), 512, 1, 1)]
    for shape, features, stride, padding in of_selfy + of_a_stage:
        call, shapes = conv((8, *shape), (3, 3), features, (stride, stride), (padding, padding))
        jax.eval_shape(call, *(jax.ShapeDtypeStruct(each, jnp.float32) for each in shapes))
    of_windows = [("by_banded_rows", 1), ("by_banded_rows", 1), ("by_xla", None), ("by_banded_rows", 2)]
    assert chosen == of_windows + [("by_xla", None)] * 3


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(
    ("size", "radius", "dilation"), [((5, 7), 2, 1), ((3, 2), 4, 1), ((6, 9), 2, 3), ((1, 1), 1, 1)]
)
def test_windows_by_product_are_those_by_shift(rng, size, radius, dilation, dtype):
    """To the bit, and so are their gradients: both only move what is there."""
    scores = jnp.asarray(normal(rng, 2, math.prod(size), math.prod(size)), dtype)
    options = {"width": size[1], "radius": radius, "dilation": dilation}
    forms = (correlation.windows_by_product, correlation.windows_by_shift)
    (one, one_back), (other, other_back) = (jax.vjp(functools.partial(form, **options), scores) for form in forms)
    assert one.dtype == other.dtype == dtype
    np.testing.assert_array_equal(one, other)
    cotangent = jnp.asarray(normal(rng, *one.shape), dtype)
    np.testing.assert_array_equal(*(back(cotangent)[0] for back in (one_back, other_back)))


@pytest.mark.parametrize(("platform_name", "side", "products"), [("cpu", 16, 1), ("tpu", 16, 2), ("tpu", 17, 1)])
def test_a_tpu_picks_windows_of_small_maps_by_a_product(platform_name, side, products):
    assert correlation.LARGEST_PRODUCT == 16**2
    maps = jax.ShapeDtypeStruct((1, side, side, 4), jnp.float32)
    correlate = jax.jit(lambda a, b: ops.local_correlation(a, b, radius=2))
    program = jax.export.export(correlate, platforms=[platform_name])(maps, maps).mlir_module()
    assert program.count("stablehlo.dot_general") == products


def test_cosines_of_short_and_zero_vectors(rng, x64):
    """Values, gradients of both modes and second derivatives."""
    source, target, *tangents = (jnp.asarray(x) for x in normal(rng, 4, 1, 6, 5))
    source = source.at[0, 2].set(0).at[0, 3].multiply(1e-3)
    weights = jnp.asarray(normal(rng, 1, 6, 6))
    forms = [functools.partial(all_pairs, cosine=True, implementation=form) for form in (None, "reference")]
    for take in (
        lambda f: f(source, target),
        lambda f: jax.jvp(f, (source, target), tuple(tangents))[1],
        lambda f: jax.grad(lambda a, b: jnp.vdot(weights, f(a, b)), (0, 1))(source, target),
        lambda f: jax.hessian(lambda a: jnp.vdot(weights, jnp.sin(f(a, target))))(source),
    ):
        for ours, theirs in zip(*(jax.tree.leaves(take(f)) for f in forms), strict=True):
            assert_close(ours, theirs, dtype="float64")


def test_cosines_of_bfloat16_features_are_exact(rng):
    source, target = (jnp.asarray(x, jnp.bfloat16) for x in 3 * normal(rng, 2, 2, 9, 64))
    exact = all_pairs(*(x.astype(jnp.float32) for x in (source, target)), cosine=True, implementation="reference")
    cosines, pull_back = jax.vjp(functools.partial(all_pairs, cosine=True), source, target)
    assert cosines.dtype == jnp.float32
    np.testing.assert_allclose(cosines, exact, atol=1e-6)
    assert [gradient.dtype for gradient in pull_back(jnp.ones_like(cosines))] == [jnp.bfloat16] * 2


@pytest.mark.parametrize("form", [{"sigma": 5.0, "dilation": 1}, {"sigma": 5.0, "dilation": 2}, {"sigma": None}])
def test_matching_at_the_papers_temperature(rng, x64, form):
    source, target = (jnp.asarray(x) for x in normal(rng, 2, 1, 11, 6, 16))

    def gradient(implementation):
        match = functools.partial(
            ops.match, radius=4, temperature=100.0, cosine=True, implementation=implementation, **form
        )

        def total(a, b):
            return sum(jnp.sum(jnp.sin(3 * out)) for out in match(a, b))

        return jax.value_and_grad(total, (0, 1))(source, target)

    for ours, theirs in zip(*(jax.tree.leaves(gradient(form)) for form in (None, "reference")), strict=True):
        assert_close(ours, theirs, dtype="float64")


@pytest.mark.parametrize("name", ["max_pool", "max_pool_one_sided", "max_pool_1d"])
def test_the_first_of_equal_entries_takes_the_gradient_and_nan_wins(rng, name, platform):
    """Rectified features have many equal entries: 0."""
    op, (shape,) = CASES[name]
    x = np.maximum(rng.integers(-3, 3, shape), 0).astype(np.float32)
    results = []
    for implementation in (None, "reference"):
        y, pull_back = jax.vjp(functools.partial(op, implementation=implementation), jnp.asarray(x))
        results.append(pull_back(jnp.asarray(np.random.default_rng(1).standard_normal(y.shape), y.dtype))[0])
    assert_close(*results)
    x[0, :2] = np.nan
    np.testing.assert_array_equal(op(jnp.asarray(x)), op(jnp.asarray(x), implementation="reference"))


def test_first_argmax_is_that_of_numpy(rng):
    x = rng.integers(-3, 3, (4, 5, 7)).astype(np.float32)
    np.testing.assert_array_equal(kernels.first_argmax(jnp.asarray(x)), x.argmax(-1))


@pytest.mark.parametrize(("maps", "zeros"), [(1, 0), (3, 0), (1, 18), (2, 5)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_mean_and_variance_in_one_pass(rng, maps, zeros, dtype):
    with jax.enable_x64(dtype == "float64"):
        x = jnp.asarray(1 + normal(rng, 2, 3, maps * 5), dtype)

        def whole(x):
            return jnp.concatenate([x.reshape(-1, 5), jnp.zeros((zeros, 5), dtype)])

        mean, var, count = kernels.mean_and_variance(x, maps=maps, zeros=zeros)
        assert count == len(whole(x))
        assert_close(mean, whole(x).mean(0), dtype=dtype)
        assert_close(var, whole(x).var(0), dtype=dtype)
        slopes = [
            jax.grad(lambda x, f=f: jnp.sum(jnp.sin(jnp.stack(f(x)))))(x)
            for f in (
                lambda x: kernels.mean_and_variance(x, maps=maps, zeros=zeros)[:2],
                lambda x: (whole(x).mean(0), whole(x).var(0)),
            )
        ]
        assert_close(*slopes, dtype=dtype)


@pytest.mark.parametrize(("frames", "maps"), [(1, 1), (6, 6), (8, 8), (11, 1), (16, 8), (12, 6)])
def test_frames_are_packed_side_by_side_and_unpacked(rng, frames, maps):
    x = jnp.asarray(normal(rng, 2, frames, 3, 4, 5), jnp.float32)
    packed, together = ops.pack_frames(x)
    assert (together, packed.shape) == (maps, (2 * frames // maps, 3, 4, maps * 5))
    np.testing.assert_array_equal(packed[0].reshape(3, 4, maps, 5)[:, :, maps - 1], x[0, maps - 1])
    np.testing.assert_array_equal(ops.unpack_frames(packed, maps=maps, frames=frames), x)
    apart, one = ops.pack_frames(x, implementation="reference")
    assert one == 1
    np.testing.assert_array_equal(apart, x.reshape(-1, 3, 4, 5))
    np.testing.assert_array_equal(ops.unpack_frames(apart, maps=1, frames=frames), x)


@pytest.mark.parametrize(("depthwise", "window"), [(True, (3, 3)), (False, (1, 1)), (False, (3, 3))])
def test_maps_side_by_side_are_convolved_one_by_one(rng, platform, depthwise, window):
    """The reference of packed maps is itself written with a block-diagonal kernel: hold it to separate maps."""
    call, (_, kernel) = conv((2, 5, 4, 3), window, 3, None, tuple(k // 2 for k in window), depthwise=depthwise)
    x, kernel = jnp.asarray(normal(rng, 2, 5, 4, 2, 3), jnp.float32), jnp.asarray(normal(rng, *kernel), jnp.float32)
    expected = jnp.stack([call(x[..., index, :], kernel) for index in range(2)], axis=-2).reshape(2, 5, 4, 6)
    for implementation in (None, "reference"):
        assert_close(call(x.reshape(2, 5, 4, 6), kernel, implementation=implementation), expected)
    assert kernel_of_maps(kernel, 1, depthwise=depthwise) is kernel


def test_recomputed_functions_keep_their_arguments_alone():
    x = jnp.arange(6.0)

    def function(x):
        return jnp.sum(jnp.sin(jnp.outer(x, x)))

    kept = [leaf.shape for leaf in jax.tree.leaves(jax.vjp(kernels.recompute(function), x)[1])]
    assert (6, 6) not in kept
    assert_close(jax.grad(kernels.recompute(function))(x), jax.grad(function)(x))
    assert_close(kernels.materialise(x), x)

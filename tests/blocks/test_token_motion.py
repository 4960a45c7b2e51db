"""TokenMotion against the three official modules and against a slow loop, in every form."""

import functools
import itertools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import GOLDENS
from token_modules import CASES, Slow, block_of, case, clips_of, names_shapes, quick_jit, state_dict
from tolerance import assert_close

import motion_jax
from motion_jax.blocks import TokenMotion
from motion_jax.profiling.operations import count
from motion_jax.weights.save import torch_state_dict

SMALL = {"features": 6, "hidden": 4, "window": (3, 3, 5), "extraction_width": 3, "integration_widths": (4, 3, 5)}
GRADIENTS = {"float32": 1e-4, "float64": 1e-9}
FORMS = {
    "similarity": ("cosine", "dot", "dot_softmax"),
    "temporal_padding": ("zero", "replicate"),
    "norm": ("batch", "group"),
    "integration": ("full", "lite"),
    "output": ("none", "linear", "layer_scale"),
}
EVERY = [{**dict(zip(FORMS, values, strict=True)), "encoders": 2} for values in itertools.product(*FORMS.values())]
# Every value with every other one. The rest runs in the long tests.
FEW = [
    ("cosine", "zero", "batch", "full", "none", 2),
    ("cosine", "replicate", "group", "lite", "linear", 1),
    ("cosine", "zero", "group", "lite", "layer_scale", 2),
    ("dot", "replicate", "batch", "full", "layer_scale", 1),
    ("dot", "zero", "group", "full", "linear", 2),
    ("dot", "replicate", "batch", "lite", "none", 2),
    ("dot_softmax", "zero", "batch", "lite", "linear", 1),
    ("dot_softmax", "replicate", "group", "full", "none", 2),
    ("dot_softmax", "zero", "batch", "lite", "layer_scale", 2),
]
FEW = [dict(zip([*FORMS, "encoders"], values, strict=True)) for values in FEW]
SHAPES = {1: (2, 1, 4, 2, 5), 2: (1, 2, 3, 5, 7), 4: (2, 4, 5, 3, 5)}


def tokens_of(clips, dtype=jnp.float32):
    return jnp.asarray(clips.reshape(len(clips), -1, clips.shape[-1]), dtype)


def samples(x):
    """The elements that the goldens keep, float64."""
    x = np.asarray(x, np.float64).reshape(-1)
    return x[np.linspace(0, x.size - 1, min(256, x.size)).astype(np.int64)]


def assert_samples(found, golden, name, tolerance):
    largest = np.abs(golden[f"{name}_stat"][2:4]).max()
    np.testing.assert_allclose(samples(found), golden[f"{name}_s"], rtol=0, atol=tolerance * largest)


def check_golden(name, dtype):
    description, golden = case(name)
    block = block_of(description["module"], description["config"], dtype=jnp.dtype(dtype))
    weights = state_dict(description["names_shapes"], description["zeroed"])
    variables = motion_jax.load_torch(weights, block)
    shape = (*(description[side] for side in "bthw"), description["config"]["d_in"])

    @quick_jit
    def compute(tokens, cotangent):
        def evaluate(variables, tokens):
            out, sown = block.apply(variables, tokens, grid=shape[1:4], train=False, mutable=["intermediates"])
            return out, sown["intermediates"]

        out, pull_back, stss = jax.vjp(evaluate, variables, tokens, has_aux=True)
        trained = block.apply(variables, tokens, grid=shape[1:4], train=True, mutable=["batch_stats"])
        return out, stss, *pull_back(cotangent), *trained

    forward, backward = {"float32": 1e-5, "float64": 1e-9}[dtype], GRADIENTS[dtype]
    cotangent = np.random.Generator(np.random.PCG64(13)).standard_normal((*shape[:4], block.features))
    for kind in description["inputs"]:
        tokens = tokens_of(clips_of(kind, shape), dtype)
        out, stss, gradient, dx, trained, updates = compute(tokens, tokens_of(cotangent, dtype))
        for index in range(block.encoders):
            assert_samples(stss[f"stss{index}"], golden, f"{kind}_eval_stss{index}", forward)
        assert_samples(out, golden, f"{kind}_eval_out", forward)
        assert_samples(dx, golden, f"{kind}_eval_dx", backward)
        gradient = torch_state_dict(block, {"params": gradient["params"]})
        expected = description["param_grads"].get(f"{kind}_eval", {})
        largest = max([abs(value) for values in expected.values() for value in values[2:]], default=0)
        for tensor, (length, total, *first) in expected.items():
            found = np.asarray(gradient[tensor], np.float64)
            # The goldens hold twelve digits.
            np.testing.assert_allclose(np.sqrt((found**2).sum()), length, rtol=max(backward, 1e-9), atol=1e-9)
            np.testing.assert_allclose(found.sum(), total, rtol=0, atol=backward * (10 * largest + 1))
            np.testing.assert_allclose(found.reshape(-1)[:3], first, rtol=0, atol=backward * (largest + 1))
        if block.norm == "group":
            assert "batch_stats" not in updates
            assert_close(trained, out, dtype=dtype)
            continue
        if f"{kind}_train_out_s" in golden:
            assert_samples(trained, golden, f"{kind}_train_out", forward)
        statistics = torch_state_dict(block, updates)
        for tensor, values in description["buffers_after_train_forward"][kind].items():
            if not tensor.endswith("num_batches_tracked"):
                assert_close(statistics[tensor], values, dtype=dtype)
    parameters = sum(value.size for value in jax.tree.leaves(variables["params"]))
    assert parameters == description["params"]


@pytest.mark.parametrize("name", CASES)
def test_equals_the_official_module(name):
    check_golden(name, "float32")


@pytest.mark.long
@pytest.mark.parametrize("name", CASES)
def test_equals_the_official_module_in_float64(x64, name):
    check_golden(name, "float64")


def check_form(form, frames, *, fields=SMALL, shape=None, dtype="float32", padded=None, seed=0):
    block = TokenMotion(**{**fields, **form}, dtype=jnp.dtype(dtype))
    shape = shape or SHAPES[frames]
    weights = state_dict(names_shapes(block, shape[-1]), [])
    clips = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    mask = None if padded is None else jnp.asarray(padded)
    variables = motion_jax.load_torch(weights, block)

    @quick_jit
    def both_modes(tokens):
        apply = functools.partial(block.apply, variables, tokens, grid=shape[1:4], mask=mask)
        out, sown = apply(train=False, mutable=["intermediates"])
        return out, sown["intermediates"], *apply(train=True, mutable=["batch_stats"])

    out, stss, trained, updates = both_modes(tokens_of(clips, dtype))
    assert out.dtype == jnp.dtype(dtype)
    slow = Slow(block, weights, train=False)
    expected = slow(clips, padded=padded)
    assert_close(out, expected.reshape(out.shape), kind="block", dtype=dtype)
    for index, similarities in enumerate(slow.stss):
        assert_close(stss[f"stss{index}"], similarities, kind="block", dtype=dtype)
    slow = Slow(block, weights, train=True)
    expected = slow(clips, padded=padded)
    assert_close(trained, expected.reshape(out.shape), kind="block", dtype=dtype)
    if block.norm == "batch":
        for tensor, value in torch_state_dict(block, updates).items():
            if not tensor.endswith("num_batches_tracked"):
                assert_close(value, slow.weights[tensor], kind="block", dtype=dtype)


@pytest.mark.parametrize(("form", "frames"), list(zip(FEW, itertools.cycle(SHAPES), strict=False)), ids=str)
def test_equals_the_loop(form, frames):
    check_form(form, frames)


@pytest.mark.long
@pytest.mark.parametrize(
    ("form", "frames"), [(form, list(SHAPES)[(index + index // 3) % 3]) for index, form in enumerate(EVERY)], ids=str
)
def test_every_form_equals_the_loop_in_float64(x64, form, frames):
    check_form(form, frames, dtype="float64", seed=frames)


@pytest.mark.long
@pytest.mark.parametrize("form", FEW, ids=str)
@pytest.mark.parametrize("train", [False, True])
def test_gradients_equal_differences_of_the_loop(x64, rng, form, train):
    block = TokenMotion(**{**SMALL, **form}, dtype=jnp.float64)
    weights = state_dict(names_shapes(block, 7), [])
    variables = motion_jax.load_torch(weights, block)
    clips, change, cotangent = (rng.standard_normal((1, 2, 3, 5, width)) for width in (7, 7, 6))

    @quick_jit
    def gradient(tokens):
        apply = lambda x: block.apply(variables, x, grid=(2, 3, 5), train=train, mutable=["batch_stats"])[0]  # noqa: E731
        return jax.vjp(apply, tokens)[1](tokens_of(cotangent, "float64"))[0]

    step = 1e-5 * change
    before, after = (Slow(block, weights, train=train)(clips + sign * step) for sign in (-1, 1))
    expected = ((after - before) * cotangent).sum() / 2e-5
    found = (np.asarray(gradient(tokens_of(clips, "float64"))).reshape(clips.shape) * change).sum()
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
    ("window", "shape", "similarity"),
    [
        ((1, 3, 3), (1, 3, 3, 4, 5), "cosine"),  # the previous frame
        ((1, 5, 3), (2, 1, 3, 4, 5), "dot_softmax"),  # of a single frame, itself
        ((5, 9, 7), (1, 2, 4, 6, 5), "dot_softmax"),  # as wide as can be: 2 * 4 + 1
        ((7, 1, 1), (1, 2, 1, 1, 5), "cosine"),  # longer than the clip, on a map of one cell
    ],
    ids=str,
)
def test_windows(window, shape, similarity):
    form = {"window": window, "similarity": similarity, "integration": "lite", "norm": "group"}
    check_form(form, shape[1], shape=shape)


@pytest.mark.parametrize("similarity", ["cosine", "dot_softmax"])
def test_bfloat16_is_near_the_loop(similarity):
    """Rounding of 2^-9 per layer adds up."""
    block = TokenMotion(**SMALL, similarity=similarity, norm="group", dtype=jnp.bfloat16)
    weights = state_dict(names_shapes(block, 5), [])
    clips = np.random.default_rng(0).standard_normal(SHAPES[4]).astype(np.float32)
    variables = motion_jax.load_torch(weights, block)
    out = quick_jit(lambda tokens: block.apply(variables, tokens, grid=SHAPES[4][1:4], train=False))(tokens_of(clips))
    assert out.dtype == jnp.bfloat16
    expected = Slow(block, weights, train=False)(clips).reshape(out.shape)
    assert np.abs(np.asarray(out, np.float64) - expected).max() < 0.05 * np.abs(expected).max()


@pytest.mark.parametrize(
    "padded",
    [
        [[True, True, False, False], [False, True, False, False]],
        [[True, True, True, True], [False, False, False, True]],
    ],
    ids=["history", "the_last_frame_is_real"],
)
def test_padded_frames_are_replaced_by_the_first_real_one(padded):
    check_form({"output": "linear", "integration": "lite"}, 4, padded=np.array(padded))


def test_padded_frames_do_not_matter(rng):
    block = TokenMotion.rldx(**SMALL)
    clips = rng.standard_normal((1, 3, 3, 4, 5)).astype(np.float32)
    other = clips.copy()
    other[:, 0] = rng.standard_normal((3, 4, 5))
    variables = motion_jax.load_torch(state_dict(names_shapes(block, 5), []), block)
    residual = lambda x, mask: block.apply(variables, x, grid=(3, 3, 4), mask=mask, train=False)  # noqa: E731
    apply = quick_jit(residual)
    mask = jnp.array([[True, False, False]])
    np.testing.assert_array_equal(apply(tokens_of(clips), mask), apply(tokens_of(other), mask))
    assert np.abs(apply(tokens_of(clips), ~mask) - apply(tokens_of(other), ~mask)).max() > 0.01
    gradient = quick_jit(jax.grad(lambda x: residual(x, mask).sum()))(tokens_of(clips)).reshape(clips.shape)
    assert not np.asarray(gradient[:, 0]).any()
    assert np.asarray(gradient[:, 1]).any()


@pytest.mark.parametrize(
    ("dtype", "similarity"),
    [("float16", "cosine"), ("float16", "dot_softmax")],
)
def test_zero_frames_give_finite_values_and_gradients(dtype, similarity):
    """MOSS divides by a length of 1e-12 there, which is 0 in float16."""
    block = TokenMotion.moss(**{**SMALL, "encoders": 1}, similarity=similarity, dtype=jnp.dtype(dtype))
    names = names_shapes(block, 5)
    # Without these biases the features of a zero token are zeros.
    weights = state_dict(names, [name for name in names if name.endswith(("ln_pre.bias", "in_proj.bias"))])
    variables = motion_jax.load_torch(weights, block)
    tokens = jnp.zeros((1, 24, 5)).at[:, 12:].set(jnp.linspace(-1, 1, 60).reshape(12, 5))

    @quick_jit
    def loss_and_gradients(variables, tokens):
        def loss(params, tokens):
            out = block.apply({**variables, "params": params}, tokens, grid=(2, 3, 4), train=False)
            return out.astype(jnp.float32).sum(), out

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(variables["params"], tokens)

    for each in jax.tree.leaves(loss_and_gradients(variables, tokens)):
        assert np.isfinite(np.asarray(each, np.float32)).all()


PRESETS = {
    "moss": (TokenMotion.moss(), 768, 1_120_640),
    "moss_light": (TokenMotion.moss(features=192), 768, 1_070_976),
    "moss_vit_l": (
        TokenMotion.moss(features=448, hidden=256, extraction_width=96, integration_widths=(96, 96, 192)),
        1024,
        2_561_344,
    ),
    "rldx": (TokenMotion.rldx(), 1152, 2_122_880),
    "rldx_full": (TokenMotion.rldx(integration="full"), 1152, 8_547_456),
    "opentau": (TokenMotion.opentau(), 1152, 1_401_472),
}


@pytest.mark.parametrize("name", PRESETS)
def test_parameters_of_the_published_modules(name):
    block, channels, parameters = PRESETS[name]
    shapes = block.variable_shapes(channels)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == parameters


class OnMaps(nn.Module):
    """A block called with feature maps, as the count of operations calls it."""

    block: nn.Module

    @nn.compact
    def __call__(self, x, *, train):
        return self.block(x.reshape(len(x), -1, x.shape[-1]), grid=x.shape[1:4], train=train)


def test_the_costs_of_the_documentation():
    page = (GOLDENS.parent.parent / "docs" / "token_grids.md").read_text()
    rows = re.findall(r"^\| `(TokenMotion.*)` \| \((.*)\) \| (.*) \| (.*) \| (.*) \|$", page, flags=re.MULTILINE)
    assert len(rows) == 4
    for call, grid, *numbers in rows:
        block = eval(call, {"TokenMotion": TokenMotion})
        grid = tuple(map(int, grid.split(", ")))
        found = count(OnMaps(block), (*grid, 768 if ".moss" in call else 1152))
        similarities = block.encoders * np.prod(grid) * np.prod(block.window) * (2 * block.hidden - 1) / 1e9
        layers = found.stages["block"].total / 1e9
        parameters = sum(found.parameters.values())
        assert numbers == [f"{parameters:,}", f"{layers + similarities:.3f}", f"{similarities:.3f}"], call


def test_keywords_override_what_a_preset_sets():
    block = TokenMotion.rldx(features=1152, window=(5, 9, 9), norm="group", epsilon=1e-3)
    assert (block.hidden, block.norm, block.epsilon, block.output) == (512, "group", 1e-3, "linear")
    assert TokenMotion.opentau().zero_start
    assert not TokenMotion.opentau(zero_start=False).zero_start
    assert (TokenMotion.moss().epsilon, TokenMotion.rldx().epsilon, TokenMotion.opentau().epsilon) == (1e-5, 1e-6, 1e-6)


def test_start_of_the_parameters():
    """PyTorch's defaults for MOSS; normal values of deviation 0.02 and sqrt(2 / (out * 9)) for the others."""
    fields = {"hidden": 64, "window": (3, 5, 5), "extraction_width": 32, "integration_widths": (48, 32, 64)}
    call = {"grid": (1, 2, 2), "train": False}
    init = lambda block: quick_jit(lambda: block.init(jax.random.key(0), jnp.ones((1, 4, 96)), **call)["params"])()  # noqa: E731
    params = init(TokenMotion.moss(features=80, **fields))
    for name, leaf, inputs in (
        ("encoder0_in_proj", "kernel", 96),
        ("encoder0_in_proj", "bias", 96),
        ("encoder1_integration0_conv", "kernel", 32 * 9),
        ("encoder1_out_proj", "bias", 64),
    ):
        values, bound = np.asarray(params[name][leaf]), 1 / np.sqrt(inputs)
        assert 0.9 * bound < np.abs(values).max() <= bound
        np.testing.assert_allclose(values.std(), bound / np.sqrt(3), rtol=0.2)
    params = init(TokenMotion.rldx(features=80, integration="full", **fields))
    np.testing.assert_allclose(np.std(params["encoder0_in_proj"]["kernel"]), 0.02, rtol=0.05)
    np.testing.assert_allclose(np.std(params["out_proj"]["kernel"]), 0.02, rtol=0.05)
    assert not np.any(params["encoder0_in_proj"]["bias"])
    np.testing.assert_allclose(np.std(params["encoder0_integration0_conv"]["kernel"]), np.sqrt(2 / 48 / 9), rtol=0.05)
    params = init(TokenMotion.rldx(**SMALL, output="layer_scale"))
    np.testing.assert_array_equal(params["layerscale"], np.full(6, 1e-5, np.float32))


@pytest.mark.parametrize(("output", "encoders"), [("none", 2), ("linear", 2), ("layer_scale", 1)])
def test_zero_start(rng, output, encoders):
    """The residual is zero, and only what was started at zero has a gradient."""
    block = TokenMotion(**SMALL, output=output, encoders=encoders, zero_start=True, norm="group", integration="lite")
    tokens = jnp.asarray(rng.standard_normal((1, 24, 5)), jnp.float32)

    @quick_jit
    def first_step(tokens):
        params = block.init(jax.random.key(0), tokens, grid=(2, 3, 4), train=True)["params"]
        out, pull_back = jax.vjp(
            lambda params: block.apply({"params": params}, tokens, grid=(2, 3, 4), train=True), params
        )
        return out, pull_back(jnp.asarray(rng.standard_normal(out.shape), jnp.float32))[0]

    out, gradient = first_step(tokens)
    assert not np.asarray(out).any()
    moving = {name for name in gradient if any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient[name]))}
    last = {"none": {f"encoder{index}_out_proj" for index in range(encoders)}, "linear": {"out_proj"}}
    assert moving == last.get(output, {"layerscale"})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": (3, 4, 5)}, "window of TokenMotion is .*odd"),
        ({"window": (2, 3, 3)}, "window of TokenMotion is .*odd"),
        ({"window": (3, 3)}, "window of TokenMotion is .*a tuple of 3"),
        ({"integration_widths": (4, 4)}, "integration_widths of TokenMotion is .*a tuple of 3"),
        ({"integration_widths": 4}, "integration_widths of TokenMotion is 4"),
        ({"extraction_width": (64,)}, "extraction_width of TokenMotion is"),
        ({"hidden": 0}, "hidden of TokenMotion is 0"),
        ({"encoders": 0}, "encoders of TokenMotion is 0"),
        ({"similarity": "l2"}, "similarity must be one of cosine, dot, dot_softmax; got 'l2'"),
        ({"temporal_padding": "edge"}, "temporal_padding must be one of zero, replicate; got 'edge'"),
        ({"norm": "layer"}, "norm must be one of batch, group; got 'layer'"),
        ({"integration": "Lite"}, "integration must be one of full, lite; got 'Lite'"),
        ({"output": None}, "output of TokenMotion is None, expected text"),
        ({"initialization": "zeros"}, "initialization must be one of normal, uniform"),
    ],
    ids=str,
)
def test_bad_fields(fields, message):
    with pytest.raises(ValueError, match=message) as error:
        TokenMotion(**{**SMALL, **fields})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("window", "channels", "call", "message"),
    [
        ((3, 3, 3), 5, {"grid": (2, 3, 5)}, r"with 30 tokens for the grid \(2, 3, 5\); got \(1, 24, 5\)"),
        ((3, 3, 3), 5, {"grid": (2, 12)}, r"grid must be three positive integers \(t, h, w\)"),
        ((3, 3, 3), 5, {"grid": (2, -3, -4)}, "grid must be three positive integers"),
        ((3, 3, 3), 5, {"grid": (2.0, 3, 4)}, "grid must be three positive integers"),
        ((3, 9, 3), 5, {}, r"window side U = 9 is above 2 \* min\(h, w\) \+ 1 = 7 of the grid"),
        ((3, 7, 9), 5, {}, "window side V = 9 is above"),
        ((3, 3, 3), 7, {}, "the variables are for tokens of 5 channels; got 7"),
        ((3, 3, 3), 5, {"mask": np.zeros((2, 2), bool)}, r"mask must be \(b, t\) bool, \(1, 2\)"),
        ((3, 3, 3), 5, {"mask": np.zeros((1, 2), np.float32)}, r"mask must be .*got \(1, 2\) float32"),
    ],
)
def test_bad_calls(window, channels, call, message):
    block = TokenMotion(**{**SMALL, "window": window})
    call = {"grid": (2, 3, 4), **call}
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), block.variable_shapes(5))
    with pytest.raises(ValueError, match=message) as error:
        block.apply(variables, jnp.ones((1, 24, channels)), train=False, **call)
    assert "\n" not in str(error.value)


def test_a_grid_that_is_traced_is_refused():
    block = nn.remat(TokenMotion)(**SMALL)
    with pytest.raises(ValueError, match="known when traced"):
        block.init(jax.random.key(0), jnp.ones((1, 24, 5)), grid=(2, 3, 4), train=False)


def test_tokens_of_a_class_are_not_dropped():
    block = TokenMotion(**SMALL)
    with pytest.raises(ValueError, match="without class tokens, with 24 tokens"):
        block.init(jax.random.key(0), jnp.ones((1, 25, 5)), grid=(2, 3, 4), train=False)

"""TokenMotion inside other networks and under the transformations of JAX, Flax Linen and NNX."""

import functools
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, PartitionSpec
from token_modules import names_shapes, quick_jit, state_dict
from tolerance import assert_close

import motion_jax
from motion_jax.blocks import TokenMotion
from motion_jax.weights import stablehlo
from motion_jax.weights.converters import onnx_graph

GRID = (2, 3, 4)
SMALL = {"features": 8, "hidden": 4, "window": (3, 3, 5), "extraction_width": 3, "integration_widths": (4, 3, 5)}
BLOCK = TokenMotion.rldx(**SMALL)
GROUP = TokenMotion.rldx(**SMALL, norm="group")


def variables_of(block):
    return motion_jax.load_torch(state_dict(names_shapes(block, 8), []), block)


@pytest.fixture(scope="module")
def tokens():
    return jnp.asarray(np.random.default_rng(0).standard_normal((4, 24, 8)), jnp.float32)


class Layer(nn.Module):
    """A pre-norm transformer layer."""

    @nn.compact
    def __call__(self, x):
        x = x + nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm1")(x))
        hidden = nn.gelu(nn.Dense(16, name="dense1")(nn.LayerNorm(name="norm2")(x)))
        return x + nn.Dense(8, name="dense2")(hidden)


class SigLipLike(nn.Module):
    """An image encoder without class token, frame by frame, with the block after a third of its layers."""

    motion: nn.Module | None = None

    @nn.compact
    def __call__(self, clips):
        batch, frames = clips.shape[:2]
        x = nn.Conv(8, (4, 4), strides=(4, 4), padding="VALID", name="patches")(clips)
        grid = x.shape[1:4]
        x = x.reshape(batch * frames, -1, 8)
        x = x + self.param("positions", nn.initializers.normal(0.02), (1, x.shape[1], 8))
        for index in range(3):
            x = Layer(name=f"layer{index}")(x)
            if index == 1 and self.motion is not None:
                flat = x.reshape(batch, -1, 8)
                x = (flat + self.motion(flat, grid=grid, train=False)).reshape(x.shape)
        return nn.LayerNorm(name="norm")(x).mean(1).reshape(batch, frames, 8)


class VideoPrismLike(nn.Module):
    """A factorised encoder: space within each frame, the block, then time at each position."""

    motion: nn.Module | None = None

    @nn.compact
    def __call__(self, clips):
        batch, frames = clips.shape[:2]
        x = nn.Conv(8, (4, 4), strides=(4, 4), padding="VALID", name="patches")(clips)
        grid = x.shape[1:4]
        x = Layer(name="spatial")(x.reshape(batch * frames, -1, 8)).reshape(batch, -1, 8)
        if self.motion is not None:
            x = x + self.motion(x, grid=grid, train=False)
        x = jnp.swapaxes(x.reshape(batch, frames, -1, 8), 1, 2)
        x = Layer(name="temporal")(x.reshape(-1, frames, 8))
        return nn.LayerNorm(name="norm")(x).reshape(batch, -1, frames, 8).mean(1)


@pytest.mark.parametrize(
    ("host", "form"),
    [
        (SigLipLike, {}),
        (VideoPrismLike, {"output": "layer_scale"}),
        pytest.param(SigLipLike, {"output": "none", "norm": "batch", "integration": "full"}, marks=pytest.mark.long),
        pytest.param(VideoPrismLike, {"similarity": "dot_softmax"}, marks=pytest.mark.long),
    ],
)
def test_a_host_is_bit_equal_at_the_start(rng, host, form):
    clips = jnp.asarray(rng.standard_normal((2, 2, 12, 16, 3)), jnp.float32)
    net = host(TokenMotion.opentau(**SMALL, **form))
    # The block starts as it does; the host's weights are any.
    own = jax.jit(lambda: net.motion.init(jax.random.key(0), jnp.ones((1, 24, 8)), grid=(2, 3, 4), train=False))()
    shapes = jax.eval_shape(host().init, jax.random.key(0), clips)["params"]
    params = jax.tree.map(lambda leaf: jnp.asarray(0.3 * rng.standard_normal(leaf.shape), leaf.dtype), shapes)
    params["motion"] = own["params"]
    rest = {kind: {"motion": tree} for kind, tree in own.items() if kind != "params"}
    apply = jax.jit(lambda params: net.apply({"params": params, **rest}, clips))
    plain = jax.jit(lambda params: host().apply({"params": params}, clips))
    without = {name: value for name, value in params.items() if name != "motion"}
    np.testing.assert_array_equal(apply(params), plain(without))
    # Another value of what starts at zero reaches the result.
    other = lambda leaf: leaf + jnp.arange(leaf.size).reshape(leaf.shape)  # noqa: E731
    last = {"none": "encoder0_out_proj", "linear": "out_proj", "layer_scale": "layerscale"}[net.motion.output]
    params["motion"] = {**params["motion"], last: jax.tree.map(other, params["motion"][last])}
    assert np.abs(apply(params) - plain(without)).max() > 1e-4


def test_jitted_equals_unjitted(tokens):
    variables = variables_of(BLOCK)
    apply = lambda variables, tokens: BLOCK.apply(variables, tokens, grid=GRID, train=False)  # noqa: E731
    with jax.disable_jit():
        unjitted = apply(variables, tokens[:1])
    assert_close(quick_jit(apply)(variables, tokens[:1]), unjitted, kind="block")


def test_vmap_and_scan_over_clips(tokens):
    variables = variables_of(BLOCK)
    apply = lambda tokens: BLOCK.apply(variables, tokens, grid=GRID, train=False)  # noqa: E731

    @quick_jit
    def every(tokens):
        one_by_one = jax.lax.scan(lambda _, clip: (None, apply(clip[None])[0]), None, tokens)[1]
        return apply(tokens), jax.vmap(lambda clip: apply(clip[None])[0])(tokens), one_by_one

    expected, mapped, scanned = every(tokens)
    assert_close(mapped, expected, kind="block")
    assert_close(scanned, expected, kind="block")


class Residual(nn.Module):
    """A layer that a scan over layers repeats."""

    motion: nn.Module

    @nn.compact
    def __call__(self, x, _):
        return x + self.motion(x, grid=GRID, train=True), None


def test_scan_over_layers(tokens):
    stack = nn.scan(Residual, variable_axes={"params": 0}, split_rngs={"params": True}, length=2)(GROUP)
    variables = quick_jit(stack.init)(jax.random.key(0), tokens, None)
    found = quick_jit(stack.apply)(variables, tokens, None)[0]
    expected = tokens
    for index in range(2):
        layer = jax.tree.map(lambda leaf, index=index: leaf[index], variables)
        expected = quick_jit(Residual(GROUP).apply)(layer, expected, None)[0]
    assert_close(found, expected, kind="block")
    assert np.abs(found - tokens).max() > 1e-6


class Remat(nn.Module):
    """A host that computes the block again for the gradients."""

    motion: nn.Module
    again: bool

    @nn.compact
    def __call__(self, x):
        call = lambda block, x: block(x, grid=GRID, train=True)  # noqa: E731
        return (nn.remat(call) if self.again else call)(self.motion, x)


def test_remat_changes_nothing_and_moves_the_statistics_once(tokens):
    variables = {kind: {"motion": tree} for kind, tree in variables_of(BLOCK).items()}

    @functools.partial(quick_jit, static_argnums=0)
    def outcome(again, variables):
        def loss(params):
            given = {**variables, "params": params}
            y, updates = Remat(BLOCK, again).apply(given, tokens, mutable=["batch_stats"])
            return jnp.sum(jnp.sin(y)), updates

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    found, expected = (jax.tree.leaves(outcome(again, variables)) for again in (True, False))
    for ours, plain in zip(found, expected, strict=True):
        assert_close(ours, plain, kind="block")


def on_devices(function, *, count, out_specs):
    mesh = Mesh(np.array(jax.devices()[:count]), ("data",))
    specs = (PartitionSpec(), PartitionSpec("data"))
    return quick_jit(jax.shard_map(function, mesh=mesh, in_specs=specs, out_specs=out_specs))


@pytest.mark.parametrize("block", [BLOCK, GROUP], ids=["batch", "group"])
def test_tokens_sharded_over_the_batch(tokens, block):
    """Values, and gradients of the sum over all clips."""
    variables = variables_of(block)

    def compute(variables, tokens):
        def loss(params):
            y = block.apply({**variables, "params": params}, tokens, grid=GRID, train=False)
            return jnp.sum(jnp.sin(y)), y

        (_, y), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return y, gradient

    # With the parameters replicated, shard_map sums their gradients over the devices.
    sharded = on_devices(compute, count=4, out_specs=(PartitionSpec("data"), PartitionSpec()))
    found, expected = sharded(variables, tokens), quick_jit(compute)(variables, tokens)
    assert len(found[0].sharding.device_set) == 4
    for ours, plain in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert_close(ours, plain, kind="block")


def test_batch_statistics_are_those_of_each_device(tokens):
    variables = variables_of(BLOCK)

    def train(variables, tokens):
        y, updates = BLOCK.apply(variables, tokens, grid=GRID, train=True, mutable=["batch_stats"])
        return y, jax.lax.pmean(updates["batch_stats"], "data")

    y, stats = on_devices(train, count=2, out_specs=(PartitionSpec("data"), PartitionSpec()))(variables, tokens)
    alone = quick_jit(lambda tokens: BLOCK.apply(variables, tokens, grid=GRID, train=True, mutable=["batch_stats"]))
    halves = [alone(tokens[:2]), alone(tokens[2:])]
    assert_close(y, jnp.concatenate([half[0] for half in halves]), kind="block")
    mean = jax.tree.map(lambda a, b: (a + b) / 2, *(half[1]["batch_stats"] for half in halves))
    jax.tree.map(functools.partial(assert_close, kind="block"), stats, mean)


class NnxHost(nnx.Module):
    """An NNX network that adds the block's result."""

    def __init__(self, tokens, *, rngs):
        self.linear = nnx.Linear(8, 8, rngs=rngs)
        motion = nnx.bridge.ToNNX(TokenMotion.opentau(**SMALL, norm="batch"), rngs=rngs)
        self.motion = nnx.bridge.lazy_init(motion, tokens, grid=GRID, train=False)

    def __call__(self, tokens, *, train):
        x = self.linear(tokens)
        return x + self.motion(x, grid=GRID, train=train, mutable=["batch_stats"] if train else None)


def test_in_nnx(tokens):
    host = NnxHost(tokens, rngs=nnx.Rngs(0))
    x = host.linear(tokens)
    np.testing.assert_array_equal(host(tokens, train=False), x)
    variables = variables_of(BLOCK)
    for kind, collection in (("params", nnx.Param), ("batch_stats", nnx.BatchStat)):
        state = nnx.state(host.motion, collection)
        assert set(state) == set(variables[kind])
        nnx.update(host.motion, nnx.State(jax.tree.map(jnp.asarray, variables[kind])))
    expected, updates = BLOCK.apply(variables, x, grid=GRID, train=True, mutable=["batch_stats"])

    @nnx.jit
    def step(host, tokens):
        return nnx.value_and_grad(lambda host: jnp.sum(host(tokens, train=True)))(host), host(tokens, train=False)

    evaluated = BLOCK.apply(variables, x, grid=GRID, train=False)
    assert_close(host(tokens, train=False) - x, evaluated, kind="block")
    (total, gradient), after = step(host, tokens)
    assert_close(total, jnp.sum(x + expected), kind="block")
    assert np.any(gradient["motion"]["out_proj"]["kernel"])
    stats = host.motion.encoder0_extraction_norm["mean"]
    assert_close(stats, updates["batch_stats"]["encoder0_extraction_norm"]["mean"], kind="block")
    assert_close(after - x, BLOCK.apply({**variables, **updates}, x, grid=GRID, train=False), kind="block")


EXPORTED = {
    "rldx": BLOCK,
    "opentau": TokenMotion.opentau(**SMALL, zero_start=False, output="layer_scale"),
    "moss": TokenMotion.moss(**SMALL, similarity="dot_softmax"),
    "previous_frame": TokenMotion.moss(**{**SMALL, "window": (1, 3, 3), "encoders": 1}, similarity="dot"),
}


@pytest.fixture(
    scope="module",
    params=["rldx", "moss", *(pytest.param(name, marks=pytest.mark.long) for name in ("opentau", "previous_frame"))],
)
def exported(request):
    """A block as a function of tokens with a static grid, and its result."""
    block = EXPORTED[request.param]
    variables = variables_of(block)
    function = lambda tokens: block.apply(variables, tokens, grid=GRID, train=False)  # noqa: E731
    return function, quick_jit(function)


def test_stablehlo_export_with_a_static_grid(tokens, exported, tmp_path):
    function, apply = exported
    stablehlo.save(tmp_path / "block.stablehlo", function, (24, 8), dtype="float32")
    run = stablehlo.load(tmp_path / "block.stablehlo")
    for count in (1, 4):
        assert_close(run(np.asarray(tokens[:count])), apply(tokens)[:count], kind="block")


def test_onnx_export_with_a_static_grid(tokens, exported, tmp_path):
    absent = [name for name in ("jax2onnx", "onnx", "onnxruntime") if not importlib.util.find_spec(name)]
    if absent:
        pytest.skip(f"onnx is an extra: {', '.join(absent)} is not installed")
    function, apply = exported
    onnx_graph.save(tmp_path / "block.onnx", function, (24, 8), dtype="float32")
    run = onnx_graph.load(tmp_path / "block.onnx")
    for count in (1, 4):
        assert_close(run(np.asarray(tokens[:count])), apply(tokens)[:count], kind="block")

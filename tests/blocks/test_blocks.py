"""What holds for every motion block: any shape in and out, gradients, jit, bfloat16."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import random_variables
from tolerance import assert_close

from motion_jax import blocks
from motion_jax.blocks import (
    CorrelationBlock,
    CorrespondenceProposal,
    LocalSelfAttention,
    MotionSqueeze,
    MultiHeadSelfAttention,
    NonLocal,
    Selfy,
)
from motion_jax.layers import Conv

SMALL_SELFY = {"channels": 16, "integration_width": 8}
BLOCKS = {
    "motion_squeeze": MotionSqueeze(reduction=16, radius=3, widths=(4, 8)),
    "motion_squeeze_unreduced": MotionSqueeze(reduction=None, radius=2),
    "motion_squeeze_both_ways": MotionSqueeze(
        reduction=8,
        radius=2,
        dilation=2,
        transformation="4x(3,3)",
        widths=(4, 4, 4),
        kernel=False,
        confidence=False,
        directions="forward_and_backward",
        fusion="concatenate",
    ),
    "motion_squeeze_multiplied": MotionSqueeze(
        reduction=None, radius=2, transformation="1x(3,3)", kernel=False, fusion="multiply"
    ),
    "selfy": Selfy(window=(3, 5, 5), **SMALL_SELFY),
    "selfy_next_frame": Selfy(window=(1, 9, 9), offsets=(1,), **SMALL_SELFY),
    "selfy_wide": Selfy(
        window=(5, 13, 17), channels=8, integration_width=8, stride=1, temporal_padding="edge", fusion="sum_of_relu"
    ),
    "selfy_conv3d": Selfy(window=(3, 5, 5), extraction="conv3d", similarity="embedded_gaussian", **SMALL_SELFY),
    "selfy_mlp": Selfy(
        window=(3, 5, 3), extraction="mlp", extraction_widths=(8, 8), similarity="dot", stride=1, **SMALL_SELFY
    ),
    # 32 channels: of 16 rectified ones often one alone is left, whose similarities are equal up to rounding.
    "selfy_soft_argmax": Selfy(
        window=(3, 5, 5), channels=32, integration_width=8, extraction="soft_argmax", stride=1, enlarge=2
    ),
    "correspondence_proposal": CorrespondenceProposal(k=3),
    "non_local": NonLocal(),
    "multi_head_self_attention": MultiHeadSelfAttention(heads=2, head_channels=4, distances=(2, 3, 27)),
    "local_self_attention": LocalSelfAttention(window=(3, 5, 7), channels=8, integration_width=8),
    "correlation_block": CorrelationBlock(channels=4, groups=2),
}


def gentle(block, **fields):
    """The block at a temperature at which its result is smooth; what it computes is the same otherwise."""
    return block.clone(**fields, **({"temperature": 1.0} if hasattr(block, "temperature") else {}))


def test_every_block_is_here():
    assert {type(block).__name__ for block in BLOCKS.values()} == set(blocks.__all__)


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("shape", [(2, 4, 6, 9, 12), (1, 1, 7, 5, 8), (1, 2, 3, 4, 8)])
def test_any_shape_goes_through_in_training_and_evaluation(rng, name, shape):
    block = BLOCKS[name]
    x = jnp.asarray(rng.standard_normal(shape), jnp.float32)
    variables = random_variables(block, x, seed=rng, positive=True)

    @jax.jit
    def both(variables, x):
        return [block.apply(variables, x, train=train, mutable=["batch_stats"]) for train in (False, True)]

    for train, (y, updates) in zip((False, True), both(variables, x), strict=True):
        assert y.shape == shape
        assert np.isfinite(y).all()
        moved = [
            not np.array_equal(a, b)
            for a, b in zip(*map(jax.tree.leaves, (updates, variables["batch_stats"])), strict=True)
        ]
        assert all(moved) == train == any(moved)


@pytest.mark.parametrize("name", BLOCKS)
def test_jitted_equals_unjitted(rng, name):
    block = BLOCKS[name]
    x = jnp.asarray(rng.standard_normal((1, 3, 4, 5, 8)), jnp.float32)
    variables = random_variables(block, x, seed=rng, positive=True)
    apply = lambda v, x: block.apply(v, x, train=True, mutable=["batch_stats"])[0]  # noqa: E731
    assert_close(jax.jit(apply)(variables, x), apply(variables, x), kind="block")


@pytest.mark.parametrize("name", BLOCKS)
def test_every_parameter_has_a_gradient_and_it_is_the_difference_quotient(rng, x64, name):
    block = gentle(BLOCKS[name], dtype=jnp.float64)
    x = jnp.asarray(rng.standard_normal((1, 4, 5, 6, 8)))
    variables = random_variables(block, x, seed=rng, positive=True)

    @jax.jit
    def loss(params, x):
        y, _ = block.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y))

    at = (variables["params"], x)
    gradient = jax.jit(jax.grad(loss, (0, 1)))(*at)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
    step = 1e-6
    along = jax.tree.map(lambda leaf: jnp.asarray(rng.standard_normal(leaf.shape)), at)
    ahead, behind = (loss(*jax.tree.map(lambda a, d, s=s: a + s * d, at, along)) for s in (step, -step))
    slope = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, along)), strict=True))
    np.testing.assert_allclose(slope, (ahead - behind) / (2 * step), rtol=1e-5)


@pytest.mark.parametrize("name", BLOCKS)
def test_bfloat16_is_near_float32(rng, name):
    # At the papers' temperature a rounded feature may choose another match; the arithmetic is compared without it.
    block = gentle(BLOCKS[name])
    # Already rounded, so that what is matched as it comes is the same in both.
    x = jnp.asarray(rng.standard_normal((1, 3, 6, 6, 8)), jnp.bfloat16).astype(jnp.float32)
    variables = random_variables(block, x, seed=rng, positive=True)
    expected = jax.jit(lambda v, x: block.apply(v, x, train=False))(variables, x)
    actual = jax.jit(lambda v, x: block.clone(dtype=jnp.bfloat16).apply(v, x, train=False))(variables, x)
    assert actual.dtype == jnp.bfloat16
    assert_close(actual.astype(jnp.float32), expected, kind="block", dtype="bfloat16")


class OwnNet(nn.Module):
    """A user's network of Flax's own layers, which knows nothing of this library but the block."""

    block: nn.Module

    @nn.compact
    def __call__(self, clips, *, train):
        x = nn.relu(nn.Conv(8, (3, 3), strides=(2, 2), name="stem")(clips))
        y = self.block(x, train=train)
        return x, y, nn.Dense(3, name="head")(y.mean((1, 2, 3)))


class Net3D(nn.Module):
    """A 3-D stage that halves the frames too, then the block, then another."""

    block: nn.Module

    @nn.compact
    def __call__(self, clips, *, train):
        x = Conv(8, (3, 3, 3), strides=(2, 2, 2), padding=(1, 1, 1), name="stage1")(clips)
        y = self.block(x, train=train)
        return x, y, Conv(8, (3, 3, 3), padding=(1, 1, 1), name="stage2")(y).mean((1, 2, 3))


class Transformer(nn.Module):
    """Patches as tokens with a class token before them; the block works on the grid of the others."""

    block: nn.Module

    @nn.compact
    def __call__(self, clips, *, train):
        patches = nn.Conv(8, (3, 3), strides=(3, 3), padding="VALID", name="patches")(clips)
        batch, frames, height, width, channels = patches.shape
        tokens = patches.reshape(batch, -1, channels)
        tokens = jnp.concatenate([jnp.zeros((batch, 1, channels)), tokens], axis=1)
        tokens = nn.MultiHeadDotProductAttention(2, name="attention")(nn.LayerNorm(name="norm")(tokens))
        grid = tokens[:, 1:].reshape(batch, frames, height, width, channels)
        y = self.block(grid, train=train)
        return grid, y, jnp.concatenate([tokens[:, :1], y.reshape(batch, -1, channels)], axis=1).mean(1)


# One form of each: what surrounds a block does not depend on its options.
@pytest.mark.parametrize("name", sorted(blocks.__all__))
@pytest.mark.parametrize("network", [OwnNet, Net3D, Transformer])
def test_a_block_in_another_network_does_what_it_does_alone(rng, network, name):
    block = next(block for block in BLOCKS.values() if type(block).__name__ == name)
    clips = jnp.asarray(rng.standard_normal((2, 5, 15, 21, 3)), jnp.float32)
    net = network(block)
    variables = random_variables(net, clips, seed=rng)

    @jax.jit
    def both(variables, clips):
        (x, inside, out), updates = net.apply(variables, clips, train=True, mutable=["batch_stats"])
        own = {name: variables[name]["block"] for name in ("params", "batch_stats")}
        alone, own_updates = block.apply(own, x, train=True, mutable=["batch_stats"])
        return inside, alone, out, updates["batch_stats"]["block"], own_updates["batch_stats"]

    inside, alone, out, updates, own_updates = both(variables, clips)
    assert np.isfinite(out).all()
    np.testing.assert_array_equal(inside, alone)
    jax.tree.map(np.testing.assert_array_equal, updates, own_updates)

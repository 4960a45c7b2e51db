import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import evaluate, random_variables
from tolerance import assert_close

from motion_jax.blocks import CorrespondenceProposal
from motion_jax.inspection.reference import Layers


def formula(block, variables, x):
    """Position by position: sort the other frames' positions by distance, embed the nearest, take the maximum."""
    layers = Layers(variables)
    size = np.array(x.shape[1:4])
    count = sum(name.startswith("embedding") and name.endswith("conv") for name in layers.params)
    pooled, proposals = [], []
    for clip, *here in np.ndindex(*x.shape[:4]):
        others = [p for p in np.ndindex(*size) if p[0] != here[0]] or [tuple(here)]
        own = x[(clip, *here)]
        distances = [np.square(own.astype(np.float64) - x[(clip, *p)]).sum() for p in others]
        nearest = [others[i] for i in np.argsort(distances, kind="stable")[: block.k]]
        moves = np.array(nearest) - here
        y = np.stack([np.concatenate([m / size, own, x[(clip, *p)]]) for m, p in zip(moves, nearest, strict=True)])
        for index in range(count):
            y = layers.conv_bn_relu(y[None, None], f"embedding{index}_conv", f"embedding{index}_bn")[0, 0]
        pooled.append(y.max(0))
        proposals.append(moves)
    y = np.reshape(pooled, (*x.shape[:4], -1))
    result = x + layers.bn(layers.conv(y, "out_conv"), "out_bn")
    return result, np.reshape(proposals, (*x.shape[:4], -1, 3))


@pytest.mark.parametrize(
    ("shape", "k", "widths"),
    [((2, 3, 4, 3, 6), 3, None), ((1, 2, 2, 2, 5), 8, (4, 3, 2)), ((1, 1, 3, 4, 4), 2, None)],
)
def test_equals_the_formula(rng, shape, k, widths):
    block = CorrespondenceProposal(k=k, widths=widths)
    x = rng.standard_normal(shape).astype(np.float32)
    variables = random_variables(block, jnp.asarray(x), seed=rng)
    y, sown = evaluate(block, variables, jnp.asarray(x))
    expected, proposals = formula(block, variables, x)
    np.testing.assert_array_equal(sown["proposals"], proposals)
    assert_close(y, expected, kind="block")


def test_proposals_follow_a_moved_pattern(rng):
    frame = jnp.asarray(rng.standard_normal((1, 6, 6, 16)), jnp.float32)
    clip = jnp.stack([jnp.roll(frame, (t, -t), (1, 2)) for t in range(3)], axis=1)
    block = CorrespondenceProposal(k=2)
    _, sown = evaluate(block, random_variables(block, clip, seed=rng, positive=True), clip)
    assert {tuple(move) for move in np.asarray(sown["proposals"][0, 1, 3, 3])} == {(1, 1, -1), (-1, -1, 1)}


def test_starts_as_the_identity(rng):
    x = jnp.asarray(rng.standard_normal((1, 2, 3, 3, 4)), jnp.float32)
    block = CorrespondenceProposal()
    variables = jax.jit(lambda x: block.init(jax.random.key(0), x, train=False))(x)
    np.testing.assert_array_equal(evaluate(block, variables, x)[0], x)


def test_flops_of_the_supplement_table_2():
    """20.4 G in TSM-R18 (14.589 G): all distances, the layers for each proposal, the last layer, BN."""
    shape = (1, 8, 28, 28, 128)
    block = CorrespondenceProposal()
    params = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros(shape), train=False)["params"])
    positions = 8 * 28 * 28
    count = positions**2 * 128
    for name, layer in params.items():
        times = positions * (block.k if name.startswith("embedding") else 1)
        count += times * (math.prod(layer["kernel"].shape) if "kernel" in layer else 4 * layer["scale"].size)
    assert round(14.589 + count / 1e9, 1) == 20.4


def test_the_distances_grow_with_the_square_of_the_frames():
    """By the compiler's own count: four times the frames, about sixteen times the operations."""
    block = CorrespondenceProposal(k=1, widths=(1,))

    def operations(frames):
        x = jnp.zeros((1, frames, 6, 6, 64))
        choose = jax.jit(lambda x: block._choose(x.reshape(1, -1, 64), frames))
        return choose.lower(x).compile().cost_analysis()["flops"]

    assert 14 < operations(16) / operations(4) < 18


def test_bad_k():
    with pytest.raises(ValueError, match="k of CorrespondenceProposal is 0, expected an integer from 1 to"):
        CorrespondenceProposal(k=0).init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 4)), train=False)

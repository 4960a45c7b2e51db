import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.blocks import Selfy

CLIP = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 8, 8, 8)), jnp.float32)


@pytest.mark.parametrize(
    ("side", "strides", "last"), [(5, (1, 2, 1), 3), (9, (1, 2, 2), 3), (13, (1, 2, 2), 4), (17, (1, 2, 2), 5)]
)
def test_the_extraction_closes_every_window_of_table_3a(side, strides, last):
    """The last kernel takes what the strides leave, so that one cell remains (reference: the FLOPs of Table 3a)."""
    remaining = side
    for stride in strides:
        remaining = -(-remaining // stride)
    assert remaining == last
    block = Selfy(window=(1, side, side), channels=8)
    params = block.init(jax.random.key(0), CLIP, train=False)["params"]
    assert params["extraction3_conv"]["kernel"].shape == (last, last, 64, 64)


def test_the_block_starts_as_a_rectified_identity():
    block = Selfy(window=(3, 5, 5), channels=8)
    variables = block.init(jax.random.key(0), CLIP, train=False)
    np.testing.assert_array_equal(block.apply(variables, CLIP, train=False), np.maximum(CLIP, 0))


@pytest.mark.parametrize(
    ("fusion", "expected"), [("sum_of_relu", CLIP + 1), ("z_only", jnp.ones_like(CLIP)), ("v_only", CLIP)]
)
def test_fusions(fusion, expected):
    block = Selfy(window=(3, 5, 5), channels=8, fusion=fusion)
    variables = block.init(jax.random.key(0), CLIP, train=False)
    variables["params"]["upsample_bn"]["bias"] = jnp.ones(8)  # Z = 1 everywhere
    np.testing.assert_allclose(block.apply(variables, CLIP, train=False), expected)


def test_unknown_fusion():
    with pytest.raises(ValueError, match="fusion must be one of relu_of_sum"):
        Selfy(fusion="sum").init(jax.random.key(0), CLIP, train=False)


def test_the_upsampling_leaves_three_of_four_cells_to_the_statistics():
    """Zeros are inserted before BN: on odd cells the result is BN of zero."""
    block = Selfy(window=(3, 5, 5), channels=8, fusion="z_only")
    variables = block.init(jax.random.key(0), CLIP, train=False)
    variables["params"]["upsample_bn"] = {"scale": jnp.ones(8), "bias": jnp.full(8, 0.25)}
    variables["batch_stats"]["upsample_bn"]["mean"] = jnp.full(8, -0.5)
    y = block.apply(variables, CLIP, train=False)
    np.testing.assert_allclose(y[:, :, 1::2], 0.75, rtol=1e-4)
    np.testing.assert_allclose(y[:, :, :, 1::2], 0.75, rtol=1e-4)
    assert np.abs(y[:, :, ::2, ::2] - 0.75).max() > 0.01

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import state_dict
from plain_networks import INCEPTION, i3d, i3d_names_shapes
from tolerance import LOGITS_LARGE, assert_close

import motion_jax
from motion_jax.backbones import InceptionI3D
from motion_jax.blocks import MotionSqueeze

SITES = ["inc_a", "inc_b", "inc_c", "inc_d", "inc_e", "inc_f", "inc_g", "inc_h", "inc_i"]


@functools.cache
def network(dtype):
    """With the weights the plain formulation is given."""
    weights = state_dict(i3d_names_shapes(174), [])
    model = motion_jax.build_model("i3d", num_classes=174, dtype=dtype)
    apply = jax.jit(functools.partial(model.apply, train=False, method="features"))
    return weights, apply, motion_jax.load_torch(weights, model)


@pytest.mark.parametrize("shape", [(1, 8, 64, 64), (2, 1, 33, 47), (1, 9, 72, 104)])
def test_equals_the_plain_formulation(rng, shape):
    # The plain formulation equals the port to PyTorch, given this padding and first kernel, to 1e-13.
    weights, apply, variables = network(jnp.float32)
    clips = rng.standard_normal((*shape, 3)).astype(np.float32)
    logits, aux = apply(variables, clips)
    expected, stages = i3d(weights, clips)
    assert list(aux["stages"]) == SITES
    for ours, theirs in zip(aux["stages"].values(), stages.values(), strict=True):
        assert_close(ours, theirs, kind="block")
    np.testing.assert_allclose(logits, expected, rtol=0, atol=LOGITS_LARGE)
    np.testing.assert_allclose(aux["frame_logits"].mean(axis=1), logits, atol=1e-5)


def test_bfloat16_logits_are_float32_and_near(rng):
    clips = rng.standard_normal((2, 1, 33, 47, 3)).astype(np.float32)
    _, apply, variables = network(jnp.bfloat16)
    logits, aux = apply(variables, clips)
    assert logits.dtype == jnp.float32
    assert aux["stages"]["inc_i"].dtype == jnp.bfloat16
    expected, _ = network(jnp.float32)[1](variables, clips)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=2e-2 * np.abs(expected).max())


def stages_of(backbone, shape):
    def run(x):
        variables = backbone.init(jax.random.key(0), x, train=False)
        return backbone.apply(variables, x, train=False)

    return {name: stage.shape for name, stage in jax.eval_shape(run, jnp.zeros(shape)).items()}


def test_all_frames_reach_the_motion_block_and_a_quarter_the_classifier():
    stages = stages_of(InceptionI3D(blocks={"inc_b": MotionSqueeze()}), (1, 8, 224, 224, 3))
    assert stages["inc_a"] == (1, 8, 28, 28, 256)
    assert stages["inc_b"] == stages["inc_b_motion"] == (1, 8, 28, 28, 480)
    assert stages["inc_c"] == (1, 4, 14, 14, 512)
    assert stages["inc_g"] == (1, 4, 14, 14, 832)
    assert stages["inc_i"] == (1, 2, 7, 7, 1024)


@pytest.mark.parametrize(("frames", "left"), [(1, 1), (2, 1), (5, 2), (16, 4)])
def test_frames_are_halved_twice_and_rounded_up(frames, left):
    assert stages_of(InceptionI3D(width=8), (1, frames, 65, 33, 3))["inc_i"] == (1, left, 3, 2, 128)


def test_narrow_networks_scale_every_branch():
    channels = [shape[-1] for shape in stages_of(InceptionI3D(width=16), (1, 1, 32, 32, 3)).values()]
    published = [one + three + five + pool for _, one, _, three, _, five, pool in INCEPTION.values()]
    assert channels == [count // 4 for count in published]


def test_unknown_site():
    with pytest.raises(ValueError, match="InceptionI3D has no site res3; its sites are inc_a, inc_b, inc_c"):
        stages_of(InceptionI3D(blocks={"res3": MotionSqueeze()}), (1, 2, 32, 32, 3))

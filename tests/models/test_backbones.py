"""What holds for the networks on every backbone: any number of frames, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import random_variables

import motion_jax

NAMES = [name for name in motion_jax.list_models() if name.endswith(("mobilenetv2", "i3d"))]
CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 33, 48, 3)).astype(np.uint8)


def narrow(name, **options):
    return motion_jax.build_model(name, num_classes=5, width=8, **options)


@pytest.mark.parametrize("frames", [1, 2, 8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_any_number_of_frames(name, frames):
    model = motion_jax.build_model(name, num_classes=5, **({"window": (9, 9, 9)} if "selfynet" in name else {}))

    def run(clips):
        variables = model.init(jax.random.key(0), clips, train=False)
        return model.apply(variables, clips, train=False, method="features")

    clips = jax.ShapeDtypeStruct((1, frames, 63, 97, 3), jnp.uint8)
    if frames == 1 and ("msnet" in name or "selfynet" in name):
        with pytest.raises(
            ValueError, match=r"(MotionSqueeze|Selfy) compares frames, but the clips have one; give clips of"
        ):
            jax.eval_shape(run, clips)
        return
    logits, aux = jax.eval_shape(run, clips)
    assert logits.shape == (1, 5)
    assert aux["frame_logits"].shape == (1, -(-frames // 4) if "i3d" in name else frames, 5)
    if "msnet" in name:
        assert aux["displacement"].shape == (1, frames - 1, 8, 13, 2)
    if "selfynet" in name:
        assert aux["stss"].shape == (1, frames, 4, 7, 9, 9, 9)


@pytest.mark.long
@pytest.mark.parametrize("name", ["msnet_tsm_mobilenetv2", "i3d"])
def test_every_parameter_learns(name):
    model = narrow(name, dropout=0.0)
    variables = random_variables(model, CLIPS)

    def loss(params):
        logits, updates = model.apply({**variables, "params": params}, CLIPS, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(logits)), updates

    gradients, updates = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
        assert np.isfinite(leaf).all(), path
        assert np.abs(leaf).max() > 0, path
    moved = jax.tree.map(lambda a, b: not np.array_equal(a, b), updates["batch_stats"], variables["batch_stats"])
    assert all(jax.tree.leaves(moved))

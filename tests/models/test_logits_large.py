"""ResNet-50 networks with 8 and 16 frames, and L = 9, with the official weights, give the official logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import description, input_b, sha256, state_dict
from tolerance import LOGITS_LARGE

import motion_jax

MODELS = {
    "tsm_r50_t8": ("tsm_r50", {}),
    "msnet_r50_t8": ("msnet_tsm_r50", {}),
    "msnet_r50_t16": ("msnet_tsm_r50", {}),
    "selfy_r50_t16_l9": ("selfynet_tsm_r50", {"window": (9, 9, 9)}),
}
GOLDEN = description("net_r50")["networks"]


def official(network):
    """The official network's weights; those of MotionSqueeze's do not depend on the number of frames."""
    layout = network if network.startswith("selfy") else "msnet_r50_t8"
    names = description(f"names_{layout}")["names_shapes"]
    if network.startswith("tsm"):
        names = {name: shape for name, shape in names.items() if not name.startswith(("flow", "chnl"))}
    last = {name.rpartition(".")[0] for name in names if name.startswith("layer") and ".bn3." in name}
    return state_dict(names, sorted(last))


def test_every_network_is_compared():
    assert set(MODELS) == set(GOLDEN)


@pytest.mark.parametrize("network", MODELS)
def test_logits(network):
    golden, (name, fields) = GOLDEN[network], MODELS[network]
    weights = official(network)
    assert sha256(weights) == golden["weights_sha256_sorted_concat"]
    model = motion_jax.build_model(name, num_classes=174, **fields)
    variables = motion_jax.load_torch(weights, model)
    clip = jnp.asarray(input_b(golden["frames"])[golden["clip"]], jnp.float32)
    logits = jax.jit(functools.partial(model.apply, train=False))(variables, clip[None])
    np.testing.assert_allclose(logits[0], golden["logits"], rtol=0, atol=LOGITS_LARGE)

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import description, input_a, input_b, normalise, sha256, state_dict
from plain_networks import SHORTCUTS, mobilenet_v2
from tolerance import LOGITS_LARGE

import motion_jax
from motion_jax.backbones import MobileNetV2
from motion_jax.backbones.mobilenet_v2 import InvertedResidual
from motion_jax.blocks import MotionSqueeze

INPUTS = {"A": input_a, "B": input_b}


@functools.cache
def official():
    names = description("names_tsm_mobilenetv2_t8")["names_shapes"]
    return state_dict(names, [f"features.{number}.conv.7" for number in SHORTCUTS])


@functools.cache
def network(name):
    model = motion_jax.build_model(name, num_classes=174)
    return jax.jit(functools.partial(model.apply, train=False)), motion_jax.load_torch(official(), model)


@pytest.mark.parametrize("name", ["tsn_mobilenetv2", "tsm_mobilenetv2"])
@pytest.mark.parametrize("shape", [(2, 1, 33, 47), (1, 2, 64, 40), (1, 16, 40, 72)])
def test_logits_with_official_weights(rng, name, shape):
    clips = normalise(rng.random((*shape, 3))).astype(np.float32)
    apply, variables = network(name)
    expected = mobilenet_v2(official(), clips, shifted=name.startswith("tsm"))
    np.testing.assert_allclose(apply(variables, clips), expected, rtol=0, atol=LOGITS_LARGE)


GOLDEN = description("net_tsm_mobilenetv2")["outputs"]


@pytest.mark.parametrize("which", GOLDEN)
def test_logits_are_those_of_the_official_network(which):
    golden = GOLDEN[which]
    assert sha256(official()) == description("net_tsm_mobilenetv2")["weights_sha256_sorted_concat"]
    clips = INPUTS[golden["input"]](golden["frames"])[:1]
    apply, variables = network("tsm_mobilenetv2")
    logits = apply(variables, jnp.asarray(clips, jnp.float32))
    np.testing.assert_allclose(logits[0], golden["logits"], rtol=0, atol=LOGITS_LARGE)


def test_the_plain_formulation_is_the_official_network():
    golden = GOLDEN["B_t8"]
    expected = mobilenet_v2(official(), input_b()[:1], shifted=True)
    np.testing.assert_allclose(expected[0], golden["logits"], rtol=0, atol=1e-12)


def test_bfloat16_logits_are_float32_and_near(rng):
    clips = rng.integers(0, 256, (2, 4, 33, 48, 3)).astype(np.uint8)
    apply, variables = network("tsm_mobilenetv2")
    model = motion_jax.build_model("tsm_mobilenetv2", num_classes=174, dtype=jnp.bfloat16)
    half = jax.jit(functools.partial(model.apply, train=False))(variables, clips)
    assert half.dtype == jnp.float32
    # Fifty-two roundings one after the other, which random weights do not forget.
    expected = apply(variables, clips)
    np.testing.assert_allclose(half, expected, rtol=0, atol=3e-2 * np.abs(expected).max())


def test_logits_with_a_stem_of_7x7(rng):
    """As the supplement prints it."""
    weights = {**official(), "features.0.0.weight": rng.standard_normal((32, 3, 7, 7)).astype(np.float32) / 9}
    clips = normalise(rng.random((1, 2, 35, 52, 3))).astype(np.float32)
    model = motion_jax.build_model("tsm_mobilenetv2", num_classes=174, stem_kernel=7)
    logits = jax.jit(functools.partial(model.apply, train=False))(motion_jax.load_torch(weights, model), clips)
    np.testing.assert_allclose(logits, mobilenet_v2(weights, clips, shifted=True), rtol=0, atol=LOGITS_LARGE)


def stages_of(backbone, shape):
    def run(x):
        variables = backbone.init(jax.random.key(0), x, train=False)
        return backbone.apply(variables, x, train=False)

    return {name: stage.shape for name, stage in jax.eval_shape(run, jnp.zeros(shape)).items()}


def test_stages_are_those_of_the_supplement():
    assert stages_of(MobileNetV2(), (2, 8, 224, 224, 3)) == {
        "stage1": (2, 8, 112, 112, 32),
        "stage2": (2, 8, 56, 56, 24),
        "stage3": (2, 8, 28, 28, 32),
        "stage4": (2, 8, 14, 14, 96),
        "stage5": (2, 8, 7, 7, 1280),
    }


@pytest.mark.parametrize(("width", "channels"), [(4, (4, 8, 8, 16, 1280)), (24, (24, 24, 24, 72, 1280))])
def test_narrow_networks_keep_multiples_of_eight_and_the_head(width, channels):
    """As the paper's own width multiplier; 24 * 0.75 = 18 would lose more than a tenth as 16."""
    stages = stages_of(MobileNetV2(width=width, fold_div=8), (1, 3, 37, 64, 3))
    assert tuple(shape[-1] for shape in stages.values()) == channels
    assert stages["stage5"][:4] == (1, 3, 2, 2)


def test_a_wide_network_widens_its_head():
    assert stages_of(MobileNetV2(width=48), (1, 1, 32, 32, 3))["stage5"][-1] == 1920


def test_zero_init_starts_a_block_with_a_shortcut_as_the_identity(rng):
    x = jnp.asarray(rng.standard_normal((1, 2, 5, 6, 8)), jnp.float32)
    block = InvertedResidual(features=8, expansion=2, zero_init=True)
    y, _ = block.init_with_output(jax.random.key(0), x, train=False)
    np.testing.assert_array_equal(y, x)
    y, _ = block.clone(features=16).init_with_output(jax.random.key(0), x, train=False)
    assert np.any(y)


def test_bad_arguments():
    block = MotionSqueeze(reduction=None)
    for backbone, message in [
        (MobileNetV2(blocks={"res3": block}), "MobileNetV2 has no site res3; its sites are stage1, stage2, stage3"),
        (MobileNetV2(stem_kernel=4), "stem_kernel must be odd, 3 or 7 as published; got 4"),
    ]:
        with pytest.raises(ValueError, match=message):
            backbone.init(jax.random.key(0), jnp.zeros((1, 2, 32, 32, 3)), train=False)

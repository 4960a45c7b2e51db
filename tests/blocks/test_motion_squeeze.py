import math
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import evaluate, random_variables
from tolerance import assert_close

from motion_jax.blocks import MotionSqueeze
from motion_jax.inspection import reference
from motion_jax.inspection.reference import Layers
from motion_jax.layers import Conv

FORMS = [
    {},
    {"transformation": "1x(1,1)", "fusion": "motion", "reduction": None},
    {"transformation": "1x(3,3)", "kernel": False, "fusion": "multiply", "dilation": 2},
    {"transformation": "4x(3,3)", "widths": (4, 6, 5), "confidence": False, "fusion": "concatenate"},
    {"directions": "forward_and_backward", "widths": (5,), "kernel": False},
    {"directions": "forward_and_backward", "transformation": "1x(3,3)", "confidence": False},
    {"reduction_kernel": 3},
]


def formula(block, variables, x):
    """The block's formula, pair by pair."""
    layers = Layers(variables)
    y = x if block.reduction is None else layers.conv_bn_relu(x, "reduction_conv", "reduction_bn")
    y = reference.l2_normalize(y)

    def motion_of(frame, other):
        displacement, confidence = reference.match(
            y[:, frame],
            y[:, other],
            radius=block.radius,
            sigma=block.sigma if block.kernel else None,
            temperature=block.temperature,
            dilation=block.dilation,
        )
        return np.concatenate([displacement, confidence] if block.confidence else [displacement], axis=-1)

    last = x.shape[1] - 1
    per_frame = []
    for frame in range(last + 1):
        here = min(frame, last - 1)
        motion = [motion_of(here, here + 1)] if last else [np.zeros((*y[:, 0, ..., 0].shape, 2 + block.confidence))]
        if block.directions == "forward_and_backward":
            here = max(frame, 1)
            motion.append(motion_of(here, here - 1) if last else motion[0])
        per_frame.append(np.concatenate(motion, axis=-1))
    z = np.stack(per_frame, axis=1)
    separable = block.transformation == "depthwise_separable"
    count = len(block.widths or (16, 32, 64)) + 1 if separable else int(block.transformation[0])
    for index in range(1, count + 1):
        for part in ("depthwise", "pointwise") if separable else ("conv",):
            z = layers.conv_bn_relu(z, f"transform{index}_{part}", f"transform{index}_{part}_bn")
    if block.fusion == "concatenate":
        return layers.conv(np.concatenate([x, z], axis=-1), "fusion_conv")
    return {"add": x + z, "multiply": x * z, "motion": z}[block.fusion]


def motion_tensor(block, clip):
    """Return the input of the feature transformation, of a block whose only layer it is."""
    given = []

    def note(call, arguments, keywords, context):
        if isinstance(context.module, Conv):
            given.append(arguments[0])
        return call(*arguments, **keywords)

    with nn.intercept_methods(note):
        block.init(jax.random.key(0), clip, train=False)
    (tensor,) = given
    return tensor


@pytest.mark.parametrize("shape", [(1, 3, 5, 4, 6), (2, 1, 3, 4, 6)])
@pytest.mark.parametrize("form", FORMS, ids=str)
def test_equals_the_formula(rng, form, shape):
    block = MotionSqueeze(**{"reduction": 16, "radius": 2, "temperature": 10.0, **form})
    x = rng.standard_normal(shape).astype(np.float32)
    variables = random_variables(block, jnp.asarray(x), seed=rng)
    assert_close(evaluate(block, variables, jnp.asarray(x))[0], formula(block, variables, x), kind="block")


@pytest.mark.parametrize("frames", [11, 16])
def test_frames_side_by_side_in_any_number(rng, frames):
    """8 by 8 of 16; of 11, which has no divisor up to 8, each by itself."""
    test_equals_the_formula(rng, {"widths": (5, 6)}, (2, frames, 3, 4, 6))


@pytest.mark.parametrize(("platform", "products"), [("cpu", 12), ("tpu", 16)])
def test_a_tpu_matches_again_for_the_gradient(platform, products):
    """Products of four groups of rows: forward, two of the gradient, and once more."""
    block = MotionSqueeze(reduction=None, transformation="1x(3,3)")
    clip = jax.ShapeDtypeStruct((1, 2, 28, 4, 8), jnp.float32)
    variables = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), clip)
    slope = jax.jit(jax.grad(lambda x, variables: block.apply(variables, x, train=False).sum()))
    program = jax.export.export(slope, platforms=[platform])(clip, variables).mlir_module()
    assert len(re.findall(r"dot_general.*batching_dims", program)) == products


@pytest.mark.parametrize(
    ("transformation", "printed"),
    [("1x(1,1)", 33.4), ("1x(3,3)", 33.5), ("4x(3,3)", 35.8), ("depthwise_separable", 33.7)],
)
def test_flops_of_the_supplement_table_1(transformation, printed):
    """The papers' count after res3 of TSM-R50 (33.056 G): convolutions, 4 per element for BN, 2 C - 1 per score."""
    block = MotionSqueeze(transformation=transformation)
    shapes = jax.eval_shape(
        lambda: block.init(jax.random.key(0), jnp.zeros((1, 8, 28, 28, 512)), train=False)["params"]
    )
    cells = 8 * 28 * 28
    layers = sum(
        cells * (math.prod(layer["kernel"].shape) if "kernel" in layer else 4 * layer["scale"].size)
        for layer in shapes.values()
    )
    scores = 7 * 28 * 28 * 15 * 15 * (2 * 64 - 1)
    assert round(33.056 + (layers + scores) / 1e9, 1) == printed


def test_backward_pairs_look_back(rng):
    frame = jnp.asarray(rng.standard_normal((1, 10, 10, 32)), jnp.float32)
    clip = jnp.stack([jnp.roll(frame, (t, 2 * t), (1, 2)) for t in range(3)], axis=1)
    block = MotionSqueeze(
        reduction=None, radius=4, transformation="1x(1,1)", directions="forward_and_backward", fusion="motion"
    )
    _, sown = evaluate(block, random_variables(block, clip, seed=rng, positive=True), clip)
    np.testing.assert_allclose(sown["displacement"][0, :, 5, 5], [[0.5, 0.25]] * 2, atol=1e-3)
    np.testing.assert_allclose(sown["displacement_backward"][0, :, 5, 5], [[-0.5, -0.25]] * 2, atol=1e-3)
    motion = motion_tensor(block, clip)
    np.testing.assert_array_equal(motion[:, 0, ..., 3:], motion[:, 1, ..., 3:])
    np.testing.assert_allclose(motion[:, 1:, ..., 3:5], sown["displacement_backward"], atol=1e-6)
    assert motion.shape == (1, 3, 10, 10, 6)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"transformation": "2x(3,3)"}, "transformation must be one of depthwise_separable, 1x"),
        ({"directions": "backward"}, "directions must be one of forward, forward_and_backward"),
        ({"fusion": "sum"}, "fusion must be one of add, multiply, concatenate, motion"),
        ({"transformation": "4x(3,3)", "widths": (8,)}, "has 3 hidden widths"),
    ],
)
def test_bad_forms(form, message):
    with pytest.raises(ValueError, match=message):
        MotionSqueeze(**form).init(jax.random.key(0), jnp.zeros((1, 2, 4, 4, 8)), train=False)


def test_motion_of_a_moving_pattern_and_the_repeated_last_pair(rng):
    frame = jnp.asarray(rng.standard_normal((1, 10, 10, 32)), jnp.float32)
    clip = jnp.stack([jnp.roll(frame, (0, t), (1, 2)) for t in range(4)], axis=1)
    block = MotionSqueeze(reduction=None, radius=4, transformation="1x(1,1)")
    variables = block.init(jax.random.key(0), clip, train=False)
    _, sown = block.apply(variables, clip, train=False, mutable=["intermediates"])
    displacement, confidence = sown["intermediates"]["displacement"], sown["intermediates"]["confidence"]
    assert displacement.shape == (1, 3, 10, 10, 2)
    assert confidence.shape == (1, 3, 10, 10, 1)
    np.testing.assert_allclose(displacement[0, :, 5, 5], [[0.25, 0]] * 3, atol=1e-3)
    motion = motion_tensor(block, clip)
    np.testing.assert_array_equal(motion[:, -1], motion[:, -2])
    np.testing.assert_array_equal(motion[:, :-1], jnp.concatenate([displacement, confidence], -1))


def test_a_single_frame_has_no_motion(rng):
    clip = jnp.asarray(rng.standard_normal((2, 1, 4, 5, 8)), jnp.float32)
    block = MotionSqueeze(reduction=None, radius=2, transformation="1x(1,1)")
    np.testing.assert_array_equal(motion_tensor(block, clip), 0)


def test_the_block_adds_to_its_input(rng):
    clip = jnp.asarray(rng.standard_normal((1, 3, 4, 4, 8)), jnp.float32)
    block = MotionSqueeze(radius=2)
    variables = block.init(jax.random.key(0), clip, train=False)
    variables["params"]["transform4_pointwise_bn"] = {"scale": jnp.zeros(8), "bias": jnp.full(8, 2.0)}
    np.testing.assert_allclose(block.apply(variables, clip, train=False), clip + 2, rtol=1e-6)


@pytest.mark.parametrize("side", [1, 3])
def test_the_reduction_has_the_kernel_that_is_asked_for(side):
    block = MotionSqueeze(reduction=8, radius=2, reduction_kernel=side)
    shapes = jax.eval_shape(lambda: block.init(jax.random.key(0), jnp.zeros((1, 2, 8, 8, 4)), train=False))
    assert shapes["params"]["reduction_conv"]["kernel"].shape == (side, side, 4, 8)


def test_an_even_reduction_kernel_is_refused():
    with pytest.raises(ValueError, match=r"reduction_kernel of MotionSqueeze is 2, expected .* from 1 to 63, odd"):
        MotionSqueeze(reduction_kernel=2)

"""What a network sees in a clip: equal to its own results, and to finite differences."""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import motion_jax
from motion_jax.blocks import MotionSqueeze
from motion_jax.inspection.class_activation import class_activation
from motion_jax.inspection.clip_inspection import make_inspector
from motion_jax.layers import Conv
from motion_jax.models import VideoClassifier

SIZE = 64
CELL = 4


class Patches(nn.Module):
    """Patches of 4x4 pixels as the only stage, so that a frame moved by whole cells has the same features."""

    blocks: Mapping[str, nn.Module]

    @nn.compact
    def __call__(self, x, *, train):
        x = Conv(32, (CELL, CELL), (CELL, CELL), name="patches")(x)
        return {"patches": x, "patches_motion": self.blocks["patches"](x, train=train)}


@pytest.mark.parametrize(
    ("fields", "down", "right"),
    [
        ({"radius": 1, "dilation": 2}, -2 * CELL, 2 * CELL),
        pytest.param({"radius": 2}, 0, 0, marks=pytest.mark.long),
        pytest.param({"radius": 2}, CELL, -2 * CELL, marks=pytest.mark.long),
        pytest.param({"radius": 2, "directions": "forward_and_backward"}, 0, CELL, marks=pytest.mark.long),
    ],
)
def test_the_motion_of_patches_in_pixels(fields, down, right):
    frame = np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)
    clip = np.stack([np.roll(frame, (down * t, right * t), axis=(0, 1)) for t in range(3)])
    model = VideoClassifier(Patches({"patches": MotionSqueeze(reduction=None, **fields)}), num_classes=2)
    seen = make_inspector(model, model.init(jax.random.key(0), clip[None], train=False), activation=False)(clip)
    assert seen.activation is None
    motion = seen.comparison
    assert motion.expected.shape[:3] == (3, 10, 12)
    inner = np.s_[:2, 2:-2, 2:-2, motion.main_offset]  # whose match is in the frame
    np.testing.assert_allclose(motion.expected[inner], np.broadcast_to((right, down), (2, 6, 8, 2)), atol=0.02)
    np.testing.assert_allclose(motion.confidence[inner], 1, atol=1e-4)


def network(name, **fields):
    model = motion_jax.build_model(name, num_classes=3, width=8, **fields)
    clip = np.random.default_rng(0).integers(0, 256, (4, SIZE, SIZE, 3), np.uint8)

    @jax.jit
    def run():
        variables = model.init(jax.random.key(1), clip[None], train=False)
        return variables, model.apply(variables, clip[None], train=False, method="features")[1]

    variables, aux = run()
    return clip, aux, make_inspector(model, variables)(clip)


def pixels(displacement, reach):
    """The displacement (t, h, w, 2) in units of ``reach`` cells as pixels."""
    return np.asarray(displacement) * reach * SIZE / displacement.shape[2]


BOTH_WAYS = {"directions": "forward_and_backward", "reduction": None, "dilation": 2}


@pytest.mark.parametrize("fields", [{}, pytest.param(BOTH_WAYS, marks=pytest.mark.long)])
def test_motion_squeeze_shows_the_displacement_it_computes(fields):
    _, aux, seen = network("msnet_tsm_r18", radius=2, **fields)
    motion = seen.comparison
    reach = 2 * fields.get("dilation", 1)
    forward = motion.offsets.index(1)
    assert motion.main_offset == forward
    assert motion.pairs().tolist() == [0, 1, 2]
    assert motion.estimated
    assert motion.reach == reach
    truth = pixels(aux["displacement"][0], reach)
    np.testing.assert_allclose(motion.expected[:-1, :, :, forward], truth, atol=1e-3)
    np.testing.assert_allclose(motion.confidence[:-1, :, :, forward], aux["confidence"][0, ..., 0], atol=1e-5)
    assert not motion.expected[-1, :, :, forward].any()
    if "directions" in fields:
        backward = pixels(aux["displacement_backward"][0], reach)
        np.testing.assert_allclose(motion.expected[1:, :, :, motion.offsets.index(-1)], backward, atol=1e-3)


def test_selfy_shows_its_self_similarity():
    _, aux, seen = network("selfynet_tsm_r18", window=(3, 5, 5))
    motion = seen.comparison
    assert motion.offsets == (-1, 0, 1)
    assert motion.offsets[motion.main_offset] == 1
    np.testing.assert_allclose(motion.similarities, aux["stss"][0], atol=1e-6)
    assert not motion.estimated
    # A cell is most similar to itself.
    np.testing.assert_allclose(motion.expected[:, :, :, 1], 0, atol=0.3 * SIZE / 8)
    # The neighbour to which all similarity points is the expected displacement.
    scores = np.maximum(motion.similarities[0, 1, 2, 2], 0)
    dy, dx = np.unravel_index(scores.argmax(), scores.shape)
    gaussian = np.exp(-((np.mgrid[:5, :5] - np.array([dy, dx])[:, None, None]) ** 2).sum(0) / (2 * 5.0**2))
    weights = np.exp(100 * gaussian * scores - 100)
    weights /= weights.sum()
    expected = [(weights * (np.mgrid[:5, :5][axis] - 2)).sum() * SIZE / 4 for axis in (1, 0)]
    np.testing.assert_allclose(motion.expected[0, 1, 2, 2], expected, atol=1e-2)


@pytest.mark.long
def test_corrnet_looks_back():
    _, aux, seen = network("corrblock_tsm_r18", radius=1)
    motion = seen.comparison
    assert motion.offsets == (-1,)
    assert motion.pairs().tolist() == [1, 2, 3]
    np.testing.assert_allclose(
        motion.similarities[1:, :, :, 0], aux["correlation"][0, 1:].mean(-1), rtol=1e-4, atol=1e-5
    )
    assert not motion.similarities[0].any()
    assert np.abs(motion.expected).max() <= SIZE / 8 * motion.step + 1e-4


@pytest.mark.long
def test_a_network_without_a_motion_block_shows_its_prediction():
    clip, aux, seen = network("tsm_r18")
    assert seen.comparison is None
    np.testing.assert_array_equal(seen.frames, clip)
    np.testing.assert_allclose(seen.probabilities, jax.nn.softmax(aux["frame_logits"][0].mean(0)), atol=1e-5)
    np.testing.assert_allclose(seen.frame_probabilities, jax.nn.softmax(aux["frame_logits"][0]), atol=1e-5)
    assert seen.activation.shape == (3, 4, 2, 2)


def test_grad_cam_equals_finite_differences():
    model = motion_jax.build_model("tsn_r18", num_classes=3, width=8)
    clip = np.zeros((1, 2, SIZE, SIZE, 3), np.uint8)
    variables = jax.jit(lambda: model.init(jax.random.key(1), clip, train=False))()
    rng = np.random.default_rng(3)
    features = rng.normal(size=(2, 2, 3, 64)).astype(np.float32)

    def logits(features):
        return np.asarray(
            model.apply(variables, jnp.asarray(features)[None], train=False, method="classify")[0].mean(0), np.float64
        )

    weights = np.zeros((3, 64))
    for channel in range(64):
        more = features.copy()
        more[..., channel] += 1.0  # The head is linear, so the difference quotient is exact.
        weights[:, channel] = (logits(more) - logits(features)) / features[..., 0].size
    expected = np.maximum(np.einsum("thwc,kc->kthw", features.astype(np.float64), weights), 0)
    found = class_activation(model, variables, jnp.asarray(features))
    np.testing.assert_allclose(found * features[..., 0].size, expected * features[..., 0].size, rtol=1e-3, atol=1e-4)

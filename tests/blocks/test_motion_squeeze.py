import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.blocks import MotionSqueeze


def test_motion_of_a_moving_pattern_and_the_repeated_last_pair(rng):
    frame = jnp.asarray(rng.standard_normal((1, 10, 10, 32)), jnp.float32)
    clip = jnp.stack([jnp.roll(frame, (0, t), (1, 2)) for t in range(4)], axis=1)
    block = MotionSqueeze(reduction=None, radius=4)
    variables = block.init(jax.random.key(0), clip, train=False)
    _, sown = block.apply(variables, clip, train=False, mutable=["intermediates"])
    displacement, confidence = sown["intermediates"]["displacement"], sown["intermediates"]["confidence"]
    assert displacement.shape == (1, 3, 10, 10, 2)
    assert confidence.shape == (1, 3, 10, 10, 1)
    np.testing.assert_allclose(displacement[0, :, 5, 5], [[0.25, 0]] * 3, atol=1e-3)
    motion = block.apply(variables, clip, method=lambda block, x: block._motion_tensor(x))
    np.testing.assert_array_equal(motion[:, -1], motion[:, -2])
    np.testing.assert_array_equal(motion[:, :-1], jnp.concatenate([displacement, confidence], -1))


def test_a_single_frame_has_no_motion(rng):
    clip = jnp.asarray(rng.standard_normal((2, 1, 4, 5, 8)), jnp.float32)
    block = MotionSqueeze(reduction=None, radius=2)
    np.testing.assert_array_equal(block.apply({}, clip, method=lambda block, x: block._motion_tensor(x)), 0)


def test_the_block_adds_to_its_input(rng):
    clip = jnp.asarray(rng.standard_normal((1, 3, 4, 4, 8)), jnp.float32)
    block = MotionSqueeze(radius=2)
    variables = block.init(jax.random.key(0), clip, train=False)
    variables["params"]["transform4_pointwise_bn"] = {"scale": jnp.zeros(8), "bias": jnp.full(8, 2.0)}
    np.testing.assert_allclose(block.apply(variables, clip, train=False), clip + 2, rtol=1e-6)

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import normalise

import motion_jax
from motion_jax.layers import BatchNorm

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3)).astype(np.uint8)


def narrow(name="msnet_tsm_r18", **options):
    model = motion_jax.build_model(name, num_classes=7, width=8, **options)
    return model, jax.jit(lambda x: model.init(jax.random.key(0), x, train=False))(CLIPS)


def test_uint8_clips_are_normalised_on_the_device():
    model, variables = narrow()
    floats = jnp.asarray(normalise(CLIPS / 255), jnp.float32)
    apply = jax.jit(lambda x: model.apply(variables, x, train=False))
    np.testing.assert_allclose(apply(CLIPS), apply(floats), atol=1e-5)


def test_dropout_is_drawn_per_frame_and_only_in_training():
    model, variables = narrow("tsn_r18", dropout=0.5)
    still = np.repeat(CLIPS[:, :1], 4, axis=1)
    aux = model.apply(variables, still, train=False, method="features")[1]
    np.testing.assert_allclose(aux["frame_logits"][:, 0], aux["frame_logits"][:, 1], atol=1e-6)
    frozen, _ = narrow("tsn_r18", dropout=0.5, norm=lambda **kw: BatchNorm(frozen=True, **kw))
    dropped = frozen.apply(variables, still, train=True, method="features", rngs={"dropout": jax.random.key(1)})[1]
    assert np.abs(dropped["frame_logits"][:, 0] - dropped["frame_logits"][:, 1]).max() > 1e-3


def test_bfloat16_logits_are_float32_and_near():
    model, variables = narrow("tsm_r18")
    half = motion_jax.build_model("tsm_r18", num_classes=7, width=8, dtype=jnp.bfloat16)
    logits = half.apply(variables, CLIPS, train=False)
    assert logits.dtype == jnp.float32
    expected = model.apply(variables, CLIPS, train=False)
    np.testing.assert_allclose(logits, expected, atol=2e-2 * np.abs(expected).max())
    assert {leaf.dtype for leaf in jax.tree.leaves(half.init(jax.random.key(0), CLIPS, train=False))} == {
        jnp.dtype("float32")
    }


def test_features_in_training_advance_the_batch_statistics_as_a_call_does():
    model, variables = narrow()
    run = lambda **kw: model.apply(  # noqa: E731
        variables, CLIPS, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(0)}, **kw
    )
    _, called = run()
    _, inspected = run(method="features")
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), called, inspected)
    assert not np.allclose(called["batch_stats"]["backbone"]["bn1"]["mean"], 0)


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (np.zeros((4, 32, 32, 3), np.uint8), r"clips must be \(batch, frames, height, width, 3\)"),
        (np.zeros((1, 3, 4, 32, 32), np.uint8), "channels last"),
        (np.zeros((1, 4, 32, 32, 3), np.int32), "uint8 .* or normalised floats; got int32"),
    ],
)
def test_bad_clips(clips, message):
    model, variables = narrow("tsn_r18")
    with pytest.raises(ValueError, match=message):
        model.apply(variables, clips, train=False)

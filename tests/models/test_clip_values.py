"""Float clips that are not normalised: refused where their values are known, without cost where they are traced."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from motion_jax.models.classifier import VideoClassifier


class Mean(nn.Module):
    """A backbone that averages."""

    @nn.compact
    def __call__(self, x, *, train):
        return {"mean": nn.Dense(4)(x.mean(axis=(2, 3), keepdims=True))}


MODEL = VideoClassifier(Mean(), num_classes=2)
CLIPS = np.random.default_rng(0).normal(size=(1, 2, 4, 4, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables():
    return MODEL.init(jax.random.key(0), CLIPS, train=False)


@pytest.mark.parametrize("as_array", [np.asarray, jnp.asarray])
@pytest.mark.parametrize("value", [255.0, -30.0, np.nan, np.inf])
def test_known_values_out_of_range_are_refused(variables, as_array, value):
    clips = CLIPS.copy()
    clips[0, 1, 2, 3, 0] = value
    with pytest.raises(
        ValueError, match=r"float clips must be normalised .* one value is (255|30|nan|inf); give uint8 clips"
    ):
        MODEL.apply(variables, as_array(clips), train=False)
    MODEL.apply(variables, as_array(CLIPS), train=False)


def test_traced_values_are_not_looked_at(variables):
    traced = jax.jit(lambda clips: MODEL.apply(variables, clips, train=False))
    expected = MODEL.apply(variables, CLIPS, train=False)
    np.testing.assert_allclose(traced(CLIPS), expected, rtol=1e-6)
    assert np.isfinite(traced(200 * CLIPS)).all()
    for clips in (CLIPS, CLIPS.astype(np.uint8)):
        program = jax.make_jaxpr(lambda clips: MODEL.apply(variables, clips, train=False))(clips)
        assert not {"reduce_max", "abs", "debug_callback"} & {equation.primitive.name for equation in program.eqns}

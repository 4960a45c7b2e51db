"""The state before the first update, and fingerprints."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

from motion_jax.training.state import create_state, fingerprint

SHAPE = tiny_runs.CLIP_SHAPE


def create(seed=0, **options):
    return create_state(tiny_runs.TinyNet(), optax.sgd(0.1, 0.9), seed=seed, clip_shape=SHAPE, **options)


def test_same_seed_same_state():
    assert fingerprint(create(0)) == fingerprint(create(0))
    assert fingerprint(create(0)) != fingerprint(create(1))


def test_state_has_no_device_axis():
    state = create()
    assert state.step.shape == ()
    assert state.step.dtype == jnp.int32
    assert state.params["classifier"]["kernel"].shape == (16, 4)
    assert set(state.batch_stats) == {"bn1"}


def test_given_variables_are_used():
    variables = jax.tree.map(lambda x: np.full(x.shape, 0.5, np.float32), create().variables)
    state = create(variables=variables)
    assert fingerprint(state.variables) == fingerprint(variables)
    assert fingerprint(state.opt_state) == fingerprint(create().opt_state)


def test_variables_of_another_model_are_refused():
    variables = create().variables
    variables["params"]["classifier"]["kernel"] = np.zeros((16, 5))
    variables["params"]["extra"] = variables["params"].pop("conv1")
    with pytest.raises(ValueError, match="do not fit the model") as error:
        create(variables=variables)
    for part in ("params/conv1/bias is missing", "params/extra/bias is unknown", "and 2 more", "load_torch"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_fingerprint_sees_names_values_dtypes_and_shapes():
    base = {"a": np.arange(4, dtype=np.int32)}
    others = [
        {"b": np.arange(4, dtype=np.int32)},
        {"a": np.array([0, 1, 2, 4], np.int32)},
        {"a": np.arange(4, dtype=np.uint32)},
        {"a": np.arange(4, dtype=np.int32).reshape(2, 2)},
    ]
    assert len({fingerprint(tree) for tree in [base, *others]}) == 5
    assert fingerprint({"a": jnp.arange(4)}) == fingerprint(base)

"""One step of SGD equals the official code's: loss, gradient, every parameter and statistic after it."""

import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from official import arrays, description, state_dict, training_input

import motion_jax
from motion_jax.training.optimizer import sgd
from motion_jax.training.parallel import Parallel, spread
from motion_jax.training.state import TrainState
from motion_jax.training.step import make_train_step
from motion_jax.weights.torch_names import torch_name

MODELS = {"tsm": "tsm_r18", "msnet": "msnet_tsm_r18"}


@functools.cache
def first_step(kind, groups, dtype):
    """The golden numbers, our metrics before the step, and our state after it."""
    jnp_dtype = jnp.dtype(dtype)
    reference = description(f"net_{kind}_r18_t8")
    model = motion_jax.build_model(MODELS[kind], num_classes=174, dropout=0.0, dtype=jnp_dtype)
    variables = motion_jax.load_torch(state_dict(reference["names_shapes"], reference["scaled_last_bn"]), model)
    schedule = optax.constant_schedule(0.01)
    optimizer = sgd(
        schedule, momentum=0.9, nesterov=True, weight_decay=5e-4, clip_norm=20.0, groups=groups, classifier_lr=(1, 2)
    )
    params, batch_stats = variables["params"], variables["batch_stats"]
    state = TrainState(jnp.zeros((), jnp.int32), params, batch_stats, optimizer.init(params))
    step = spread(
        make_train_step(model, optimizer, schedule=schedule, seed=0), Parallel(backend="pmap", devices=1), donate=False
    )
    clips = training_input()[None]
    state, metrics = step(state, {"clips": jnp.asarray(clips, jnp_dtype), "label": jnp.asarray([[3, 170]])})
    logits = model.apply(state.variables, jnp.asarray(clips[0], jnp_dtype), train=False)
    return jax.device_get((state, metrics, logits))


def by_torch_name(state):
    """Our arrays under their official names."""
    flat = flax.traverse_util.flatten_dict({"params": state.params, "batch_stats": state.batch_stats})
    return {torch_name(path[1:], only_block=True): value for path, value in flat.items()}


cases = pytest.mark.parametrize(
    ("kind", "groups"), [(kind, groups) for kind in MODELS for groups in ("plain", "official")]
)


@cases
def test_float64(kind, groups, x64):
    state, metrics, logits = first_step(kind, groups, "float64")
    reference, golden = description(f"train_{kind}_r18_64px"), arrays(f"train_{kind}_r18_64px")
    np.testing.assert_allclose(metrics["loss"], reference[groups]["loss"][0], rtol=1e-6)
    np.testing.assert_allclose(metrics["grad_norm"], reference[groups]["grad_norm"][0], rtol=1e-6)
    np.testing.assert_allclose(logits, golden[f"{groups}_eval_logits"][0], rtol=0, atol=1e-6)
    ours = by_torch_name(state)
    compared = 0
    for name, norm, total in zip(
        reference["state_names"], golden[f"{groups}_state1_l2"], golden[f"{groups}_state1_sum"], strict=True
    ):
        if name.startswith("bn2."):
            continue  # the unused layer
        np.testing.assert_allclose(np.linalg.norm(ours[name].ravel()), norm, rtol=1e-6, err_msg=name)
        np.testing.assert_allclose(ours[name].sum(), total, rtol=1e-6, atol=1e-6 * norm, err_msg=name)
        compared += 1
    assert compared == len(ours)


@cases
def test_float32(kind, groups):
    _, metrics, logits = first_step(kind, groups, "float32")
    reference, golden = description(f"train_{kind}_r18_64px"), arrays(f"train_{kind}_r18_64px")
    np.testing.assert_allclose(metrics["loss"], reference[groups]["loss"][0], rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm"], reference[groups]["grad_norm"][0], rtol=1e-4)
    np.testing.assert_allclose(logits, golden[f"{groups}_eval_logits"][0], rtol=0, atol=5e-3)


def test_float64_tells_the_groups_apart(x64):
    """The two groupings differ by far more than the bounds above."""
    golden = arrays("train_tsm_r18_64px")
    difference = np.abs(golden["plain_state1_l2"] / golden["official_state1_l2"] - 1)
    assert difference.max() > 1e-5

"""One step of SGD against the official code: loss, gradient, and every parameter and statistic after the step."""

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
from motion_jax.training.parallel import ParallelConfig, replicate
from motion_jax.training.state import TrainState
from motion_jax.training.step import make_train_step
from motion_jax.weights.torch_names import TorchNames

MODELS = {"tsm": "tsm_r18", "msnet": "msnet_tsm_r18"}


def keep_gradients() -> optax.GradientTransformation:
    """Return an optimizer that only stores the gradients, so that one compiled step serves both groupings."""
    return optax.GradientTransformation(
        lambda params: jax.tree.map(jnp.zeros_like, params),
        lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads),
    )


@functools.cache
def gradients(kind, dtype):
    """Return state and metrics after one step that does not change the parameters, and an evaluation function."""
    reference = description(f"net_{kind}_r18_t8")
    model = motion_jax.build_model(MODELS[kind], num_classes=174, dropout=0.0, dtype=dtype)
    variables = motion_jax.load_torch(state_dict(reference["names_shapes"], reference["scaled_last_bn"]), model)
    optimizer = keep_gradients()
    state = TrainState(
        jnp.zeros((), jnp.int32), variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
    )
    step = replicate(
        make_train_step(model, optimizer, schedule=optax.constant_schedule(0.01), seed=0),
        ParallelConfig(backend="pmap", devices=1),
        donate=False,
    )
    batch = {"clips": jnp.asarray(training_input()[None], dtype), "label": jnp.asarray([[3, 170]])}
    state, metrics = step(state, batch)
    evaluate = jax.jit(lambda variables: model.apply(variables, batch["clips"][0], train=False))
    return jax.device_get(state), jax.device_get(metrics), evaluate


def first_step(kind, groups, dtype):
    """Return the state after the step, the metrics before it, and the evaluation logits of that state."""
    state, metrics, evaluate = gradients(kind, dtype)
    optimizer = sgd(
        optax.constant_schedule(0.01),
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        clip_norm=20.0,
        groups=groups,
        classifier_lr=(1, 2),
    )

    @jax.jit
    def update(params, grads):
        return optax.apply_updates(params, optimizer.update(grads, optimizer.init(params), params)[0])

    state = state.replace(params=update(state.params, state.opt_state))
    return state, metrics, evaluate(state.variables)


def by_torch_name(kind, state):
    """Return the arrays of a state under their official names."""
    names = TorchNames.of(motion_jax.build_model(MODELS[kind], num_classes=1))
    flat = flax.traverse_util.flatten_dict({"params": state.params, "batch_stats": state.batch_stats})
    return {names.short(path): value for path, value in flat.items()}


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
    ours = by_torch_name(kind, state)
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

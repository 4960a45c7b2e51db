"""The optimizer against PyTorch's formulas, written in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from motion_jax.training.optimizer import parameter_kinds, sgd
from motion_jax.training.schedules import step_schedule

SHAPES = {
    "conv1": {"kernel": (2, 3), "bias": (3,)},
    "bn1": {"scale": (3,), "bias": (3,)},
    "block": {"classifier": {"kernel": (3, 2)}, "bn": {"scale": (2,), "bias": (2,)}, "tokens": (4,)},
    "classifier": {"kernel": (3, 4), "bias": (4,)},
}
# (rate, decay) factors of TSN.get_optim_policies, written by hand, classifier at (5, 10).
OFFICIAL = {
    "conv1": {"kernel": (1, 1), "bias": (2, 0)},
    "bn1": {"scale": (1, 0), "bias": (1, 0)},
    "block": {"classifier": {"kernel": (1, 1)}, "bn": {"scale": (1, 0), "bias": (1, 0)}, "tokens": (1, 1)},
    "classifier": {"kernel": (5, 1), "bias": (10, 0)},
}
LR, DROP_AT, DECAY = 0.1, 3, 0.01


def draw(rng, scale=1.0):
    return jax.tree.map(
        lambda shape: scale * rng.standard_normal(shape), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def is_pair(x):
    return isinstance(x, tuple)


def torch_sgd(params, gradients, *, momentum, nesterov, clip_norm, multipliers):
    """Return the parameters after clip_grad_norm_ and torch.optim.SGD.step."""
    leaves, tree = jax.tree.flatten(params)
    groups = jax.tree.leaves(multipliers, is_leaf=is_pair)
    buffers = [None] * len(leaves)
    for step, gradient in enumerate(gradients):
        lr = LR if step < DROP_AT else LR * 0.1
        grads = jax.tree.leaves(gradient)
        norm = np.sqrt(sum(np.sum(g**2) for g in grads))
        coefficient = min(1.0, clip_norm / (norm + 1e-6)) if clip_norm else 1.0
        for i, (grad, (rate, decay)) in enumerate(zip(grads, groups, strict=True)):
            d = grad * coefficient + DECAY * decay * leaves[i]
            buffers[i] = d if buffers[i] is None else momentum * buffers[i] + d
            d = d + momentum * buffers[i] if nesterov else buffers[i]
            leaves[i] = leaves[i] - lr * rate * d
    return jax.tree.unflatten(tree, leaves)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("groups", ["official", "plain"])
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("clip_norm", [4.0, None])
def test_sgd_equals_torch(rng, groups, nesterov, clip_norm):
    params = draw(rng)
    # Norms between 1 and 13: the clip is active in some steps only.
    gradients = [draw(rng, scale) for scale in (0.2, 1, 2, 0.5, 1, 2)]
    plain = jax.tree.map(lambda _: (1, 1), OFFICIAL, is_leaf=is_pair)
    expected = torch_sgd(
        params,
        gradients,
        momentum=0.9,
        nesterov=nesterov,
        clip_norm=clip_norm,
        multipliers=OFFICIAL if groups == "official" else plain,
    )
    optimizer = sgd(
        step_schedule(LR, milestones=(DROP_AT,), factor=0.1, steps_per_epoch=1),
        momentum=0.9,
        nesterov=nesterov,
        weight_decay=DECAY,
        clip_norm=clip_norm,
        groups=groups,
        classifier_lr=(5.0, 10.0),
    )
    got = jax.tree.map(jnp.asarray, params)
    state = optimizer.init(got)
    for gradient in gradients:
        updates, state = jax.jit(optimizer.update)(jax.tree.map(jnp.asarray, gradient), state, got)
        got = optax.apply_updates(got, updates)
    for name, value in zip(jax.tree.leaves(got), jax.tree.leaves(expected), strict=True):
        assert name.dtype == jnp.float64
        np.testing.assert_allclose(name, value, rtol=1e-12, atol=1e-13)


def test_float32_parameters_stay_float32(rng):
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), draw(rng))
    optimizer = sgd(
        lambda count: 0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-4,
        clip_norm=1.0,
        groups="official",
        classifier_lr=(1.0, 2.0),
    )
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype(jnp.float32)}


def test_parameter_kinds_by_hand():
    assert parameter_kinds(SHAPES) == {
        "conv1": {"kernel": "weight", "bias": "bias"},
        "bn1": {"scale": "norm", "bias": "norm"},
        # A classifier inside a block is not the classifier.
        "block": {"classifier": {"kernel": "weight"}, "bn": {"scale": "norm", "bias": "norm"}, "tokens": "weight"},
        "classifier": {"kernel": "classifier weight", "bias": "classifier bias"},
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"groups": "offical"}, "groups is 'offical'"), ({"momentum": 0.0}, "nesterov needs a momentum above 0")],
)
def test_sgd_refuses(changes, message):
    options = {
        "momentum": 0.9,
        "nesterov": True,
        "weight_decay": 0.0,
        "clip_norm": None,
        "groups": "plain",
        "classifier_lr": (1.0, 2.0),
    }
    with pytest.raises(ValueError, match=message):
        sgd(lambda count: 0.1, **{**options, **changes})

"""Networks in the forms of every platform train as networks in the reference form of every operation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import random_variables

from motion_jax import build_model, kernels

pytestmark = pytest.mark.long

NETWORKS = {"msnet_tsm_r18": {"radius": 2}, "selfynet_tsm_r18": {"window": (3, 9, 9)}}
# Part of the key of JAX's caches, so that what is traced for one platform is not used for another.
traced_for = jax.make_user_context(default_value="cpu")


@pytest.mark.parametrize("name", NETWORKS)
def test_the_forms_of_all_platforms_train_as_the_reference(name, monkeypatch, x64):
    # In float64: at the small maps of these clips, BatchNorm magnifies rounding.
    model = build_model(name, num_classes=3, width=8, dropout=0.0, dtype=jnp.float64, **NETWORKS[name])
    clips = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 64, 64, 3)))
    variables = random_variables(model, clips)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss_and_gradients(params):
        logits, updates = model.apply({**variables, "params": params}, clips, train=True, mutable=["batch_stats"])
        return jnp.square(logits).sum(), updates["batch_stats"]

    chosen = []

    def on_platform(*arguments, default, **forms):
        chosen.append(forms)
        return forms.get(traced_for.value, default)(*arguments)

    actual = {"cpu": loss_and_gradients(variables["params"])}
    monkeypatch.setattr(jax.lax, "platform_dependent", on_platform)
    # A GPU takes forms that one of these two takes.
    with traced_for("tpu"):
        actual["tpu"] = loss_and_gradients(variables["params"])
    assert {name for forms in chosen for name in forms} == {"cpu", "tpu"}
    count = len(chosen)
    assert count > 10
    with kernels.reference():
        expected = loss_and_gradients(variables["params"])
    assert len(chosen) == count, "the reference asks for no platform"
    for platform, result in actual.items():
        for (path, ours), theirs in zip(jax.tree.leaves_with_path(result), jax.tree.leaves(expected), strict=True):
            scale = max(float(jnp.abs(theirs).max()), 1e-3)
            where = f"{platform}: {jax.tree_util.keystr(path)}"
            np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-8, err_msg=where)

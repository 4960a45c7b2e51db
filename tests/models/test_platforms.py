"""What a platform computes in a form of its own, the others compute in another one: to the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from variables import drawn_variables

from motion_jax import build_model

NETWORKS = {"msnet_tsm_r18": {"radius": 2}, "selfynet_tsm_r18": {"window": (3, 9, 9)}}


@pytest.mark.parametrize("platform", ["tpu", "gpu"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_forms_of_other_platforms_train_as_those_of_a_cpu(name, platform, monkeypatch, x64):
    # In float64: at the small maps of these clips, BatchNorm makes much of rounding.
    model = build_model(name, num_classes=3, width=8, dropout=0.0, dtype=jnp.float64, **NETWORKS[name])
    clips = jnp.asarray(np.random.default_rng(0).standard_normal((1, 3, 64, 64, 3)))
    variables = drawn_variables(model, clips)

    def loss_and_gradients():
        def loss_of(params):
            logits, updates = model.apply({**variables, "params": params}, clips, train=True, mutable=["batch_stats"])
            return jnp.square(logits).sum(), updates["batch_stats"]

        return jax.jit(jax.value_and_grad(loss_of, has_aux=True))(variables["params"])

    chosen = []

    def on_platform(*arguments, default, **forms):
        chosen.append(forms)
        return forms.get(platform, default)(*arguments)

    expected = loss_and_gradients()
    monkeypatch.setattr(jax.lax, "platform_dependent", on_platform)
    jax.clear_caches()
    actual = loss_and_gradients()
    assert {name for forms in chosen for name in forms} == {"cpu", "tpu"}
    assert len(chosen) > 10
    for (path, ours), theirs in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        scale = max(float(jnp.abs(theirs).max()), 1e-3)
        np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-8, err_msg=jax.tree_util.keystr(path))

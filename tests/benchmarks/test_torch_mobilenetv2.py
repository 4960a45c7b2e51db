"""The PyTorch MobileNet-V2s have the official logits, and the same training step as ours."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from official import description, normalise, state_dict
from plain_networks import SHORTCUTS, mobilenet_v2
from tolerance import LOGITS

import motion_jax
from motion_jax.experiment import random_variables
from motion_jax.training.optimizer import sgd
from motion_jax.training.parallel import ParallelConfig, replicate
from motion_jax.training.state import TrainState
from motion_jax.training.step import make_train_step
from motion_jax.weights.save import torch_state_dict

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -r benchmarks/requirements.txt")

from benchmarks import torch_mobilenetv2 as twins  # noqa: E402
from benchmarks.torch_networks import make_optimizer, predict, train_step  # noqa: E402

# Waiting threads of PyTorch spin, which slows down other tests on the same cores.
torch.set_num_threads(1)


def twin(name, tensors, *, num_classes, frames, dtype=torch.float32):
    network = twins.build_network(name, num_classes=num_classes, frames=frames, dropout=0.0).to(dtype)
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}, strict=True)
    return network


@pytest.mark.parametrize("name", ["tsn_mobilenetv2", "tsm_mobilenetv2"])
def test_official_logits(rng, name):
    names = description("names_tsm_mobilenetv2_t8")["names_shapes"]
    weights = state_dict(names, [f"features.{number}.conv.7" for number in SHORTCUTS])
    clips = rng.integers(0, 256, (1, 4, 64, 48, 3), np.uint8)
    floats = normalise(clips / 255).astype(np.float32)
    shifted = name.startswith("tsm")
    expected = mobilenet_v2(weights, floats, shifted=shifted)
    named = weights if shifted else {key.replace(".net.", "."): value for key, value in weights.items()}
    network = twin(name, named, num_classes=174, frames=4).eval()
    for given in (clips, floats):
        logits = predict(network, torch.from_numpy(given), dtype=torch.float32)
        np.testing.assert_allclose(logits, expected, rtol=0, atol=LOGITS)


@pytest.mark.long
@pytest.mark.usefixtures("x64")
def test_our_training_step_of_msnet(rng):
    name = "msnet_tsm_mobilenetv2"
    model = motion_jax.build_model(name, num_classes=3, dropout=0.0, dtype="float64")
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, "float64"), random_variables(model, seed=0))
    network = twin(name, torch_state_dict(model, variables), num_classes=3, frames=4, dtype=torch.float64)
    clips, labels = normalise(rng.random((2, 4, 48, 48, 3))), [2, 0]

    recipe = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4, "classifier_lr": (1.0, 2.0)}
    optimizer = sgd(lambda count: 0.01, clip_norm=20.0, groups="official", **recipe)
    step = replicate(
        make_train_step(model, optimizer, schedule=optax.constant_schedule(0.01), seed=0),
        ParallelConfig(backend="pmap", devices=1),
        donate=False,
    )
    state = TrainState(
        jnp.zeros((), jnp.int32), variables["params"], variables["batch_stats"], optimizer.init(variables["params"])
    )
    state, metrics = step(state, {"clips": jnp.asarray(clips[None]), "label": jnp.asarray([labels], jnp.int32)})

    loss, norm = train_step(
        network.train(),
        make_optimizer(network, learning_rate=0.01),
        torch.from_numpy(clips),
        torch.tensor(labels),
        dtype=torch.float32,
    )
    np.testing.assert_allclose(float(loss), metrics["loss"], rtol=1e-9)
    np.testing.assert_allclose(float(norm), metrics["grad_norm"], rtol=1e-9)
    theirs = network.state_dict()
    for key, value in torch_state_dict(model, state.variables).items():
        if "num_batches_tracked" not in key:
            np.testing.assert_allclose(theirs[key], value, rtol=1e-6, atol=1e-9, err_msg=key)


def test_other_networks_are_refused():
    with pytest.raises(ValueError, match="there is no PyTorch version of 'selfynet_tsm_mobilenetv2', only of tsn_"):
        twins.build_network("selfynet_tsm_mobilenetv2", num_classes=2, frames=8)

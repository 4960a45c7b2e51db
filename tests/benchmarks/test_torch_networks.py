"""The PyTorch twins are right: the official logits and training step, and ours, with the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from official import arrays, description, input_b, state_dict, training_input
from tolerance import LOGITS

import motion_jax
from motion_jax.training.parallel import ParallelConfig, replicate
from motion_jax.training.state import TrainState
from motion_jax.training.step import make_train_step
from motion_jax.weights.save import torch_state_dict

torch = pytest.importorskip("torch", reason="PyTorch is not installed: pip install -r benchmarks/requirements.txt")

from benchmarks import torch_networks as twins  # noqa: E402

# PyTorch's threads spin while they wait for each other: on cores shared with other tests that takes far longer.
torch.set_num_threads(1)

OFFICIAL = {"tsm": "tsm_r18", "msnet": "msnet_tsm_r18", "selfy": "selfynet_tsm_r18"}
FORMATS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
formats = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)


def twin(name, tensors, *, dtype=torch.float32, memory_format=torch.contiguous_format):
    """The network with these weights, every name and shape as in them."""
    network = twins.build_network(name, num_classes=174, dropout=0.0, memory_format=memory_format).to(dtype)
    network.load_state_dict({key: torch.from_numpy(np.array(value)) for key, value in tensors.items()}, strict=True)
    return network


def official_weights(kind):
    reference = description(f"net_{kind}_r18_t8")
    return state_dict(reference["names_shapes"], reference["scaled_last_bn"])


def first_step(network, clips, labels):
    """Loss and gradient norm before the update."""
    options = {"dtype": torch.float32}
    loss, norm = twins.train_step(
        network.train(), twins.make_optimizer(network), clips, torch.tensor(labels), **options
    )
    return float(loss), float(norm)


def ours(kind, dtype):
    """Our network and its variables, with the official weights, and their twin."""
    model = motion_jax.build_model(OFFICIAL[kind], num_classes=174, dropout=0.0, dtype=dtype)
    variables = motion_jax.load_torch(official_weights(kind), model)
    return model, variables, twin(OFFICIAL[kind], torch_state_dict(model, variables), dtype=getattr(torch, dtype))


@formats
@pytest.mark.parametrize("kind", OFFICIAL)
def test_official_logits(kind, memory_format):
    network = twin(OFFICIAL[kind], official_weights(kind), memory_format=memory_format).eval()
    logits = twins.predict(network, torch.tensor(input_b(), dtype=torch.float32), dtype=torch.float32)
    np.testing.assert_allclose(logits, arrays(f"net_{kind}_r18_t8")["B_logits64"], rtol=0, atol=LOGITS)


@formats
@pytest.mark.parametrize("kind", ["tsm", "msnet"])
def test_official_training_step(kind, memory_format):
    """What one step of the official groups starts from, and the network it leaves."""
    network = twin(OFFICIAL[kind], official_weights(kind), dtype=torch.float64, memory_format=memory_format)
    reference, golden = description(f"train_{kind}_r18_64px"), arrays(f"train_{kind}_r18_64px")
    clips = torch.from_numpy(training_input())
    loss, norm = first_step(network, clips, [3, 170])
    np.testing.assert_allclose(loss, reference["official"]["loss"][0], rtol=1e-6)
    np.testing.assert_allclose(norm, reference["official"]["grad_norm"][0], rtol=1e-6)
    logits = twins.predict(network.eval(), clips, dtype=torch.float32)
    np.testing.assert_allclose(logits, golden["official_eval_logits"][0], rtol=0, atol=1e-6)
    state = network.state_dict()
    norms = [torch.linalg.vector_norm(state[name].double()) for name in reference["state_names"]]
    np.testing.assert_allclose(norms, golden["official_state1_l2"], rtol=1e-6)


@pytest.mark.parametrize("kind", OFFICIAL)
def test_our_logits(kind, rng):
    """Of uint8 clips."""
    model, variables, network = ours(kind, "float32")
    clips = rng.integers(0, 256, (2, 8, 64, 64, 3), np.uint8)
    expected = jax.jit(lambda variables, clips: model.apply(variables, clips, train=False))(variables, clips)
    logits = twins.predict(network.eval(), torch.from_numpy(clips), dtype=torch.float32)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=LOGITS)


def test_our_training_step_of_selfy(x64):
    """Nothing official is stored of SELFY's training."""
    model, variables, network = ours("selfy", "float64")
    step = replicate(
        make_train_step(model, optax.identity(), schedule=optax.constant_schedule(0.01), seed=0),
        ParallelConfig(backend="pmap", devices=1),
        donate=False,
    )
    state = TrainState(jnp.zeros((), jnp.int32), variables["params"], variables["batch_stats"], optax.EmptyState())
    clips, labels = training_input(), [3, 170]
    state, metrics = step(state, {"clips": jnp.asarray(clips[None]), "label": jnp.asarray([labels], jnp.int32)})
    loss, norm = first_step(network, torch.from_numpy(clips), labels)
    np.testing.assert_allclose(loss, metrics["loss"], rtol=1e-6)
    np.testing.assert_allclose(norm, metrics["grad_norm"], rtol=1e-6)
    theirs = network.state_dict()
    for name, value in torch_state_dict(model, state.variables).items():
        if "running" in name:
            np.testing.assert_allclose(theirs[name], value, rtol=1e-6, atol=1e-9, err_msg=name)


@pytest.mark.parametrize(
    ("file", "name"), [("names_msnet_r50_t8", "msnet_tsm_r50"), ("names_selfy_r50_t8", "selfynet_tsm_r50")]
)
def test_official_names_of_resnet50(file, name):
    with torch.device("meta"):
        shapes = {
            key: list(tensor.shape) for key, tensor in twins.build_network(name, num_classes=174).state_dict().items()
        }
    assert shapes == {key: shape for key, (shape, _) in description(file)["names_shapes"].items()}


def test_there_is_no_twin_of_other_networks():
    with pytest.raises(ValueError, match="there is no PyTorch version of 'tsn_r18'"):
        twins.build_network("tsn_r18", num_classes=174)

"""PyTorch -> ours -> PyTorch and ours -> PyTorch -> ours, bit by bit and with the official keys."""

import sys

import jax
import numpy as np
import pytest
from bench import random_variables
from official import description, state_dict
from plain_networks import i3d_names_shapes

import motion_jax
from motion_jax.weights.files import read_tensors
from motion_jax.weights.load import LOADED, assign
from motion_jax.weights.save import save_safetensors, torch_state_dict

OFFICIAL = {
    "net_tsm_r18_t8": ("tsm_r18", {}),
    "net_msnet_r18_t8": ("msnet_tsm_r18", {}),
    "net_selfy_r18_t8": ("selfynet_tsm_r18", {}),
    "names_msnet_r50_t8": ("msnet_tsm_r50", {}),
    "names_selfy_r50_t16_l9": ("selfynet_tsm_r50", {"window": (9, 9, 9)}),
    "names_tsm_mobilenetv2_t8": ("tsm_mobilenetv2", {}),
    "i3d": ("i3d", {}),
}
# One of every backbone with every block, shifted or not.
NARROW = [
    "tsn_r18",
    "tsm_r50",
    "msnet_tsn_r18",
    "msnet_tsm_r50",
    "selfynet_tsm_r18",
    "tsn_mobilenetv2",
    "tsm_mobilenetv2",
    "msnet_tsm_mobilenetv2",
    "selfynet_tsm_mobilenetv2",
    "i3d",
    "msnet_i3d",
    "selfynet_i3d",
    "cpnet_tsm_r18",
    "nonlocal_tsm_r18",
    "mhsa_tsm_r18",
    "localattention_tsm_r18",
    "corrblock_tsm_r18",
]
# As a fresh network has them: neither we nor the official forward pass knows them.
FRESH = {"num_batches_tracked": 0, "bn2.weight": 1, "bn2.bias": 0, "bn2.running_mean": 0, "bn2.running_var": 1}


def clips(frames=2, size=32):
    return np.zeros((1, frames, size, size, 3), np.float32)


def narrow(name, **fields):
    model = motion_jax.build_model(name, num_classes=5, width=8, **fields)
    return model, random_variables(model, clips())


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("layout", OFFICIAL)
def test_pytorch_to_ours_to_pytorch(layout):
    name, fields = OFFICIAL[layout]
    shapes = i3d_names_shapes(400) if layout == "i3d" else description(layout)["names_shapes"]
    weights = state_dict(shapes, [])
    for key in weights:
        for leaf, value in FRESH.items():
            if key == leaf or (key.endswith(".num_batches_tracked") and leaf == "num_batches_tracked"):
                weights[key] = np.full_like(weights[key], value)
    model = motion_jax.build_model(name, num_classes=len(weights[list(weights)[-1]]), **fields)
    found = torch_state_dict(model, motion_jax.load_torch(weights, model))
    assert {key: (list(v.shape), str(v.dtype)) for key, v in found.items()} == {
        key: (list(shape), dtype) for key, (shape, dtype) in shapes.items()
    }
    assert_same(found, weights)


@pytest.mark.parametrize("name", NARROW)
def test_ours_to_pytorch_to_ours(name):
    model, variables = narrow(name)
    assert_same(motion_jax.load_torch(torch_state_dict(model, variables), model), variables)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("msnet_tsm_r18", {"sites": ("res2", "res3")}),
        ("msnet_tsm_r18", {"transformation": "4x(3,3)"}),
        ("selfynet_tsm_r18", {"extraction": "conv3d"}),
        ("selfynet_tsm_r18", {"similarity": "embedded_gaussian"}),
    ],
)
def test_networks_nobody_published_come_back_too(name, fields):
    model, variables = narrow(name, **fields)
    assert_same(motion_jax.load_torch(torch_state_dict(model, variables, prefix="module."), model), variables)


@pytest.mark.parametrize(("dropout", "classifier"), [(0.5, "module.new_fc"), (0.0, "module.base_model.fc1")])
def test_the_official_wrapper_keeps_a_classifier_with_dropout_outside(dropout, classifier):
    model, variables = narrow("msnet_tsm_r18", dropout=dropout)
    found = torch_state_dict(model, variables, prefix="module.base_model.")
    assert found[f"{classifier}.weight"].shape == (5, 64, 1)
    assert {key.rpartition(".")[0] for key in found if not key.startswith("module.base_model.")} <= {"module.new_fc"}
    assert {"module.base_model.bn2.running_var", "module.base_model.layer1.0.bn1.num_batches_tracked"} < set(found)
    assert_same(motion_jax.load_torch(found, model), variables)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("tsn_r18", "resnet18"),
        ("tsm_r34", "resnet34"),
        ("msnet_tsm_r50", "resnet50"),
        ("tsm_r101", "resnet101"),
        ("tsm_mobilenetv2", "mobilenetv2"),
    ],
)
def test_architecture(name, expected):
    assert motion_jax.build_model(name, num_classes=2).backbone.architecture() == expected


def test_our_own_names_in_safetensors(tmp_path):
    model, variables = narrow("msnet_tsm_mobilenetv2")
    save_safetensors(path := tmp_path / "ours.safetensors", variables)
    tensors = read_tensors(path)
    assert {"params/classifier/bias", "batch_stats/backbone/stem_bn/var"} < set(tensors)
    assert_same(motion_jax.load_torch(path, model), variables)
    tensors.pop("params/classifier/bias")
    with pytest.raises(ValueError, match=r"missing: params/classifier/bias\. Build"):
        motion_jax.load_torch(tensors, model)


def test_what_became_of_every_tensor():
    model, variables = narrow("tsn_r18")
    weights = torch_state_dict(model, variables, prefix="module.")
    weights["module.fc1.weight"] = np.zeros((9, 64, 1), np.float32)
    weights["module.extra"] = np.zeros(3)
    del weights["module.bn1.weight"]
    _, rows = assign(weights, model)
    by_name = {row.name: row for row in rows}
    assert len(rows) == len(weights) + 1
    assert by_name["module.conv1.weight"].target == "params/backbone/conv1/kernel"
    assert by_name["module.conv1.weight"].shape == (8, 3, 7, 7)
    assert by_name["module.conv1.weight"].outcome == LOADED
    found = {name: by_name[name].outcome for name in ("module.fc1.weight", "module.extra", "bn1.weight")}
    assert found == {"module.fc1.weight": "another shape", "module.extra": "left over", "bn1.weight": "absent"}
    assert by_name["module.bn2.weight"].outcome == "unused"


def test_a_pytorch_file_is_a_state_dict_or_an_official_checkpoint(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")
    model, variables = narrow("selfynet_tsm_r18")
    motion_jax.save_torch(plain := tmp_path / "plain.pth", model, variables)
    assert set(torch.load(plain, weights_only=True)) == set(torch_state_dict(model, variables))
    motion_jax.save_torch(wrapped := tmp_path / "wrapped.pth.tar", model, variables, prefix="module.base_model.")
    content = torch.load(wrapped, weights_only=True)
    assert set(content) == {"epoch", "arch", "state_dict", "best_prec1"}
    assert content["arch"] == "resnet18"
    assert content["state_dict"]["module.new_fc.weight"].shape == (5, 64, 1)
    assert content["state_dict"]["module.base_model.bn1.num_batches_tracked"].dtype == torch.int64
    for path in (plain, wrapped):
        assert_same(motion_jax.load_torch(path, model), variables)


def test_without_pytorch_the_error_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    model, variables = narrow("tsn_r18")
    with pytest.raises(ValueError, match="needs PyTorch: pip install torch"):
        motion_jax.save_torch(tmp_path / "x.pth", model, variables)

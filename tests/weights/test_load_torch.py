import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import description, state_dict
from safetensors.numpy import save_file

import motion_jax

LAYOUTS = {
    "net_tsm_r18_t8": ("tsm_r18", {}),
    "net_msnet_r18_t8": ("msnet_tsm_r18", {}),
    "net_selfy_r18_t8": ("selfynet_tsm_r18", {}),
    "names_msnet_r50_t8": ("msnet_tsm_r50", {}),
    "names_selfy_r50_t8": ("selfynet_tsm_r50", {}),
    "names_selfy_r50_t16_l9": ("selfynet_tsm_r50", {"window": (9, 9, 9)}),
}


def official(layout="net_tsm_r18_t8"):
    reference = description(layout)
    return state_dict(reference["names_shapes"], reference.get("scaled_last_bn", []))


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.fixture(scope="module")
def tsm():
    model = motion_jax.build_model("tsm_r18", num_classes=174)
    return model, motion_jax.load_torch(official(), model)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_official_layout_fills_its_model(layout):
    name, fields = LAYOUTS[layout]
    model = motion_jax.build_model(name, num_classes=174, **fields)
    weights = official(layout)
    variables = motion_jax.load_torch(weights, model)
    used = {k: v for k, v in weights.items() if "num_batches" not in k and not k.startswith("bn2.")}
    leaves = jax.tree.leaves(variables)
    assert len(leaves) == len(used)
    # Every value arrives, whatever its place: the sum over all tensors is the same.
    assert np.isclose(
        sum(np.asarray(v).sum(dtype=np.float64) for v in leaves), sum(v.sum(dtype=np.float64) for v in used.values())
    )


@pytest.mark.parametrize("prefix", ["", "module.", "module.base_model.", "a.b.c."])
def test_any_prefix(tsm, prefix):
    model, expected = tsm
    assert_same(motion_jax.load_torch({prefix + k: v for k, v in official().items()}, model), expected)


def test_the_classifier_of_a_network_with_dropout_stands_outside_the_base_model(tsm):
    model, expected = tsm
    weights = {f"module.base_model.{k}": v for k, v in official().items() if not k.startswith("fc1")}
    weights["module.new_fc.weight"] = official()["fc1.weight"][..., 0]  # a Linear has no kernel axis
    weights["module.new_fc.bias"] = official()["fc1.bias"]
    assert_same(
        motion_jax.load_torch({"epoch": 3, "arch": "resnet18", "state_dict": weights, "best_prec1": 50.0}, model),
        expected,
    )


def test_the_tsm_repository_wraps_its_first_convolutions(tsm):
    model, expected = tsm
    weights = {
        k.replace(".conv1.weight", ".conv1.net.weight") if k.startswith("layer") else k: v
        for k, v in official().items()
    }
    assert_same(motion_jax.load_torch(weights, model), expected)


def test_from_a_safetensors_file(tsm, tmp_path):
    model, expected = tsm
    save_file(official(), tmp_path / "tsm.safetensors")
    assert_same(motion_jax.load_torch(tmp_path / "tsm.safetensors", model), expected)


def test_every_missing_extra_and_misshapen_tensor_is_named(tsm):
    weights = official()
    del weights["layer1.0.conv1.weight"], weights["bn1.running_var"]
    weights["layer9.weight"] = np.zeros(3)
    weights["layer2.0.conv1.weight"] = weights["layer2.0.conv1.weight"][:, :5]
    with pytest.raises(ValueError, match="does not fit") as error:
        motion_jax.load_torch(weights, tsm[0])
    for name in (
        "layer1.0.conv1.weight",
        "bn1.running_var",
        "layer9.weight",
        "layer2.0.conv1.weight is (128, 5, 3, 3)",
    ):
        assert name in str(error.value)


def test_weights_of_another_model_do_not_load():
    model = motion_jax.build_model("msnet_tsm_r18", num_classes=174)
    with pytest.raises(ValueError, match=r"missing: .*chnl_reduction.0.weight"):
        motion_jax.load_torch(official("net_tsm_r18_t8"), model)
    with pytest.raises(ValueError, match=r"left over: .*selfy.stss_extraction"):
        motion_jax.load_torch(official("net_selfy_r18_t8"), motion_jax.build_model("tsm_r18", num_classes=174))


def test_initial_values_stay_where_the_checkpoint_has_none(tsm, caplog):
    """ImageNet weights into a motion network with another classifier."""
    model = motion_jax.build_model("msnet_tsm_r18", num_classes=10)
    init = jax.jit(lambda x: model.init(jax.random.key(1), x, train=False))(jnp.zeros((1, 2, 32, 32, 3)))
    weights = {("fc" + k[3:] if k.startswith("fc1") else k): v for k, v in official().items()}
    variables = motion_jax.load_torch(weights, model, init=init)
    assert_same(variables["params"]["classifier"], init["params"]["classifier"])
    block = "blocks_res3"
    assert_same(variables["params"]["backbone"][block], init["params"]["backbone"][block])
    assert_same(variables["params"]["backbone"]["layer1_0"], tsm[1]["params"]["backbone"]["layer1_0"])
    assert "fc1.weight is (174, 512, 1)" in caplog.text
    assert "chnl_reduction.0.weight" in caplog.text


@pytest.mark.parametrize("path", ["absent.pth", "absent.safetensors"])
def test_a_file_that_is_not_there(tsm, path):
    with pytest.raises(ValueError, match="there is no file"):
        motion_jax.load_torch(path, tsm[0])

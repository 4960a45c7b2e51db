import jax
import jax.numpy as jnp
import numpy as np
import pytest
from official import description, state_dict
from plain_networks import i3d_names_shapes
from safetensors.numpy import save_file

import motion_jax

LAYOUTS = {
    "net_tsm_r18_t8": ("tsm_r18", {}),
    "net_msnet_r18_t8": ("msnet_tsm_r18", {}),
    "net_selfy_r18_t8": ("selfynet_tsm_r18", {}),
    "names_msnet_r50_t8": ("msnet_tsm_r50", {}),
    "names_selfy_r50_t8": ("selfynet_tsm_r50", {}),
    "names_selfy_r50_t16_l9": ("selfynet_tsm_r50", {"window": (9, 9, 9)}),
    "names_tsm_mobilenetv2_t8": ("tsm_mobilenetv2", {}),
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


@pytest.fixture(scope="module")
def mobilenet():
    model = motion_jax.build_model("tsm_mobilenetv2", num_classes=174)
    return model, motion_jax.load_torch(official("names_tsm_mobilenetv2_t8"), model)


def test_every_tensor_of_mobilenetv2_lies_where_its_name_says(mobilenet):
    weights, variables = official("names_tsm_mobilenetv2_t8"), mobilenet[1]
    params, stats = variables["params"]["backbone"], variables["batch_stats"]["backbone"]
    transposed = lambda name: np.moveaxis(weights[name], (0, 1), (-1, -2))  # noqa: E731
    np.testing.assert_array_equal(params["stem_conv"]["kernel"], transposed("features.0.0.weight"))
    np.testing.assert_array_equal(params["head_bn"]["bias"], weights["features.18.1.bias"])
    layers = ["expand", "depthwise", "project"]
    for block in range(1, 18):
        for index, layer in enumerate(layers[1:] if block == 1 else layers):
            name = f"features.{block}.conv.{3 * index}"
            name = f"{name}.net" if f"{name}.net.weight" in weights else name
            ours = params[f"features_{block}"]
            np.testing.assert_array_equal(ours[f"{layer}_conv"]["kernel"], transposed(f"{name}.weight"))
            name = f"features.{block}.conv.{3 * index + 1}"
            np.testing.assert_array_equal(ours[f"{layer}_bn"]["scale"], weights[f"{name}.weight"])
            ours = stats[f"features_{block}"][f"{layer}_bn"]
            np.testing.assert_array_equal(ours["mean"], weights[f"{name}.running_mean"])
            np.testing.assert_array_equal(ours["var"], weights[f"{name}.running_var"])


def torchvision_mobilenet(weights):
    """The same weights under torchvision's names: convolution, BN and activation nested, the linear pair not."""
    names = {
        f"features.{block}.conv.{3 * group + layer}": f"features.{block}.conv."
        + (f"{group}.{layer}" if group < (1 if block == 1 else 2) else f"{group + layer}")
        for block in range(1, 18)
        for group in range(3)
        for layer in range(2)
    }
    names["classifier"] = "classifier.1"
    return {
        f"{names.get(module, module)}.{leaf}": value
        for name, value in weights.items()
        for module, _, leaf in [name.replace(".net.", ".").rpartition(".")]
    }


@pytest.mark.parametrize("prefix", ["", "module.", "backbone.net2."])
def test_torchvision_names_of_mobilenetv2(mobilenet, prefix):
    weights = torchvision_mobilenet(official("names_tsm_mobilenetv2_t8"))
    assert {"features.1.conv.0.0.weight", "features.1.conv.2.bias", "features.17.conv.1.1.running_mean"} < set(weights)
    weights = {prefix + name: value for name, value in weights.items()}
    assert_same(motion_jax.load_torch(weights, mobilenet[0]), mobilenet[1])


def test_a_checkpoint_of_the_tsm_repository_with_dropout(mobilenet):
    weights = {f"module.base_model.{k}": v for k, v in official("names_tsm_mobilenetv2_t8").items()}
    for leaf in ("weight", "bias"):
        weights[f"module.new_fc.{leaf}"] = weights.pop(f"module.base_model.classifier.{leaf}")
    assert_same(motion_jax.load_torch({"epoch": 9, "state_dict": weights}, mobilenet[0]), mobilenet[1])


def test_mobilenetv2_names_every_missing_extra_and_misshapen_tensor(mobilenet):
    weights = official("names_tsm_mobilenetv2_t8")
    del weights["features.3.conv.0.net.weight"]
    weights["features.19.0.weight"] = np.zeros(3)
    weights["features.1.conv.0.weight"] = weights["features.1.conv.0.weight"][..., :2]
    with pytest.raises(ValueError, match="does not fit") as error:
        motion_jax.load_torch(weights, mobilenet[0])
    for part in (
        "missing: features.3.conv.0.weight;",
        "left over: features.19.0.weight;",
        "features.1.conv.0.weight is (32, 1, 3, 2), which does not make (3, 3, 1, 32)",
    ):
        assert part in str(error.value)


def test_i3d_on_kinetics_loads_all_but_its_first_kernel(caplog):
    names = i3d_names_shapes(400)
    weights = state_dict(names, [])
    model = motion_jax.build_model("i3d", num_classes=400)
    complete = motion_jax.load_torch(weights, model)
    assert len(jax.tree.leaves(complete)) == len([name for name in names if "num_batches" not in name])
    weights["conv3d_1a_7x7.conv3d.weight"] = np.zeros((64, 3, 7, 7, 7), np.float32)
    misfit = r"conv3d_1a_7x7.conv3d.weight is \(64, 3, 7, 7, 7\), which does not make \(7, 7, 3, 64\)"
    with pytest.raises(ValueError, match=misfit):
        motion_jax.load_torch(weights, model)
    assert_same(motion_jax.load_torch({f"module.{k}": v for k, v in weights.items()}, model, init=complete), complete)
    assert "(64, 3, 7, 7, 7)" in caplog.text


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
    (record,) = caplog.records
    kept = len(jax.tree.leaves([init[kind]["backbone"].get(block, {}) for kind in init])) + 2
    loaded = len(jax.tree.leaves(init)) - kept
    of_classifier = "fc.bias is (174,), which does not make (10,), fc.weight is (174, 512, 1), which does not make "
    first, second, third = record.getMessage().splitlines()
    assert first == f"{loaded} tensors loaded"
    assert second.startswith(f"  2 keep their initial value, of another shape: {of_classifier}")
    assert third.startswith(f"  {kept - 2} keep their initial value, not in the file: ")
    # Four names at most.
    assert third.count(", ") == 1 + 4
    assert third.endswith(", ..")


def test_two_tensors_for_one_place_are_refused(tsm):
    weights = official()
    weights["new_fc.weight"] = weights["fc1.weight"]
    with pytest.raises(ValueError, match=r"fc1.weight and new_fc.weight are one tensor of the network"):
        motion_jax.load_torch(weights, tsm[0])


def test_a_kernel_with_too_few_axes_is_a_misfit(tsm):
    weights = official() | {"layer1.0.conv1.weight": np.zeros(64, np.float32)}
    with pytest.raises(ValueError, match=r"of another shape: layer1.0.conv1.weight is \(64,\)"):
        motion_jax.load_torch(weights, tsm[0])


@pytest.mark.parametrize("path", ["absent.pth", "absent.safetensors"])
def test_a_file_that_is_not_there(tsm, path):
    with pytest.raises(ValueError, match="there is no file"):
        motion_jax.load_torch(path, tsm[0])

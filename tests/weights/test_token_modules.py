"""State dicts of MOSS, RLDX-1 and OpenTau into TokenMotion and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file
from token_modules import CASES, block_of, case, names_shapes, state_dict

import motion_jax
from motion_jax.blocks import TokenMotion
from motion_jax.weights.save import save_safetensors, torch_state_dict

SMALL = {"features": 6, "hidden": 4, "window": (3, 3, 5), "extraction_width": 3, "integration_widths": (4, 3, 5)}
MOSS = TokenMotion.moss(**SMALL)
WEIGHTS = state_dict(names_shapes(MOSS, 7), [])


def assert_same(actual, expected):
    assert actual.keys() == expected.keys()
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def prefixed(prefix, weights=WEIGHTS):
    return {f"{prefix}{name}": value for name, value in weights.items()}


@pytest.fixture(scope="module")
def moss():
    return motion_jax.load_torch(WEIGHTS, MOSS)


@pytest.mark.parametrize("name", CASES)
def test_round_trip_of_the_official_modules(name):
    """Every name and shape of the recorded state dict, every value bit by bit."""
    description, _ = case(name)
    weights = state_dict(description["names_shapes"], description["zeroed"])
    block = block_of(description["module"], description["config"])
    found = torch_state_dict(block, motion_jax.load_torch(weights, block))
    assert_same(found, weights)
    assert {name: list(value.shape) for name, value in found.items()} == description["names_shapes"]
    assert {name: value.dtype for name, value in found.items()} == {n: v.dtype for n, v in weights.items()}


@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("integration", ["full", "lite"])
@pytest.mark.parametrize("output", ["none", "linear", "layer_scale"])
def test_round_trip_of_every_form(norm, integration, output):
    block = TokenMotion(**SMALL, norm=norm, integration=integration, output=output, encoders=2)
    weights = state_dict(names_shapes(block, 7), [])
    variables = motion_jax.load_torch(weights, block)
    assert set(variables) == ({"params", "batch_stats"} if norm == "batch" else {"params"})
    assert_same(torch_state_dict(block, variables), weights)
    assert_same(motion_jax.load_torch(torch_state_dict(block, variables, prefix="a.b."), block), variables)


def test_every_value_lies_where_its_name_says(moss):
    params, stats = moss["params"], moss["batch_stats"]
    first = "stss_encoders.0"
    np.testing.assert_array_equal(params["encoder0_ln_pre"]["scale"], WEIGHTS[f"{first}.ln_pre.weight"])
    np.testing.assert_array_equal(params["encoder0_in_proj"]["kernel"], WEIGHTS[f"{first}.in_proj.weight"].T)
    kernel = WEIGHTS[f"{first}.stss_integration.conv2_fuse.1.weight"][:, :, 0]
    np.testing.assert_array_equal(params["encoder0_integration2_conv"]["kernel"], kernel.transpose(2, 3, 1, 0))
    np.testing.assert_array_equal(
        stats["encoder1_integration0_norm"]["var"], WEIGHTS["stss_encoders.1.stss_integration.conv0.1.running_var"]
    )


@pytest.mark.parametrize(
    "prefix", ["moss_layers.0.", "module.visual.moss_layers.11.", "motion_block.", "a.motion_module."]
)
def test_any_prefix(moss, prefix):
    assert_same(motion_jax.load_torch(prefixed(prefix), MOSS), moss)
    assert_same(motion_jax.load_torch({"state_dict": prefixed(prefix)}, MOSS), moss)


@pytest.mark.parametrize("first", ["selfy_layers", "selfy_layers1"])
@pytest.mark.parametrize("prefix", ["", "module.visual."])
def test_old_names_of_moss(moss, prefix, first):
    old = {}
    for name, value in WEIGHTS.items():
        _, encoder, rest = name.split(".", 2)
        old[f"{prefix}{first if encoder == '0' else 'selfy_layers2'}.0.{rest}"] = value
    assert_same(motion_jax.load_torch(old, MOSS), moss)


def test_several_blocks_in_one_file(moss):
    other = {name: value + 1 for name, value in WEIGHTS.items()}
    host = {"visual.conv1.weight": np.zeros(3)}
    weights = {**prefixed("moss_layers.0."), **prefixed("moss_layers.1.", other), **host}
    with pytest.raises(ValueError, match=r"2 blocks TokenMotion .*prefixes moss_layers.0., moss_layers.1.: choose one"):
        motion_jax.load_torch(weights, MOSS)
    assert_same(motion_jax.load_torch(weights, MOSS, prefix="moss_layers.0."), moss)
    assert_same(motion_jax.load_torch(weights, MOSS, prefix="moss_layers.1."), motion_jax.load_torch(other, MOSS))
    with pytest.raises(ValueError, match=r"no tensor's name starts with 'moss_layers.2.'; the first name is moss_"):
        motion_jax.load_torch(weights, MOSS, prefix="moss_layers.2.")
    # Old names are chosen by their new prefix.
    old = {
        name.replace("moss_layers.1.stss_encoders.0.", "selfy_layers.1.").replace(
            "moss_layers.1.stss_encoders.1.", "selfy_layers2.1."
        ): value
        for name, value in weights.items()
    }
    assert_same(motion_jax.load_torch(old, MOSS, prefix="moss_layers.1."), motion_jax.load_torch(other, MOSS))


def test_every_missing_extra_and_misshapen_tensor_is_named():
    weights = prefixed("motion_block.")
    del weights["motion_block.stss_encoders.1.ln_pre.bias"]
    weights["motion_block.gate"] = np.zeros(1, np.float32)
    weights["visual.conv1.weight"] = np.zeros(3, np.float32)
    name = "motion_block.stss_encoders.0.stss_integration.conv0.0.weight"
    weights[name] = weights[name][..., :2]
    with pytest.raises(ValueError, match="does not fit") as error:
        motion_jax.load_torch(weights, MOSS)
    for part in (
        "missing: stss_encoders.1.ln_pre.bias;",
        "left over: motion_block.gate, visual.conv1.weight;",
        f"{name} is (4, 3, 1, 3, 2), which does not make (3, 3, 3, 4)",
    ):
        assert part in str(error.value)


def test_a_module_of_another_form_does_not_load():
    with pytest.raises(ValueError, match=r"missing: .*stss_integration.fuse.1.weight.*left over: .*conv2_fuse"):
        motion_jax.load_torch(WEIGHTS, MOSS.clone(integration="lite"))
    with pytest.raises(ValueError, match=r"missing: .*out_proj.weight"):
        motion_jax.load_torch(WEIGHTS, MOSS.clone(output="linear"))
    without = {name: value for name, value in WEIGHTS.items() if name != "stss_encoders.0.ln_pre.weight"}
    with pytest.raises(ValueError, match=r"model. missing: stss_encoders.0.ln_pre.weight. Build"):
        motion_jax.load_torch(without, MOSS)


def test_initial_values_stay_where_the_file_has_none(moss, caplog):
    """The width of the tokens is that of the initial values."""
    init = jax.tree.map(lambda leaf: jnp.full(leaf.shape, 0.5), MOSS.variable_shapes(9))
    variables = motion_jax.load_torch(WEIGHTS, MOSS, init=init)
    np.testing.assert_array_equal(variables["params"]["encoder0_ln_pre"]["scale"], np.full(9, 0.5))
    np.testing.assert_array_equal(variables["params"]["encoder0_in_proj"]["kernel"], np.full((9, 4), 0.5))
    assert_same(variables["params"]["encoder1_in_proj"], moss["params"]["encoder1_in_proj"])
    assert "3 keep their initial value, of another shape: stss_encoders.0.in_proj.weight is (4, 7)," in caplog.text


def test_from_safetensors_files(moss, tmp_path):
    save_file(prefixed("motion_block."), tmp_path / "official.safetensors")
    assert_same(motion_jax.load_torch(tmp_path / "official.safetensors", MOSS), moss)
    save_safetensors(tmp_path / "ours.safetensors", moss)
    assert_same(motion_jax.load_torch(tmp_path / "ours.safetensors", MOSS), moss)


def test_a_pytorch_file(moss, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is an extra")
    motion_jax.save_torch(tmp_path / "block.pth", MOSS, moss, prefix="moss_layers.0.")
    written = torch.load(tmp_path / "block.pth", weights_only=True)
    assert_same({name: value.numpy() for name, value in written.items()}, prefixed("moss_layers.0."))
    assert_same(motion_jax.load_torch(tmp_path / "block.pth", MOSS), moss)


def test_a_block_without_official_names_is_refused():
    with pytest.raises(ValueError, match="NonLocal has no official tensor names"):
        motion_jax.load_torch(WEIGHTS, motion_jax.blocks.NonLocal())

"""tools.import_weights: weights of other programs become a workdir for every command."""

import json
import os
import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bench import call, error_of, last_json, random_variables, save_untrained, succeed
from safetensors.numpy import save_file

import motion_jax
from motion_jax.configs import moving_shapes
from motion_jax.experiment import initial_variables, load_trained
from motion_jax.models import ModelConfig
from motion_jax.tools import import_weights
from motion_jax.weights.save import torch_state_dict
from motion_jax.weights.torch_names import TorchNames

CONFIG = "configs/moving_shapes.py:tsm_r18,4,smoke"
CLASSES = 12


@pytest.fixture(scope="module")
def network():
    section = moving_shapes.get_config("tsm_r18,4,smoke").model.to_dict()
    model = ModelConfig(**section).build(CLASSES)
    return model, random_variables(model, np.zeros((1, 2, 32, 32, 3), np.float32))


@pytest.fixture(scope="module")
def weights(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "official.safetensors"
    save_file(torch_state_dict(*network, prefix="module.base_model."), path)
    return path


def labels_file(folder, count=CLASSES):
    (path := folder / "labels.txt").write_text("".join(f"class {index}\n" for index in range(count)))
    return path


def test_a_workdir_like_one_that_was_trained(network, weights, tmp_path):
    workdir = tmp_path / "run"
    options = (weights, f"--config={CONFIG}", f"--workdir={workdir}", f"--labels={labels_file(tmp_path)}", "--json")
    done = call("import_weights", *options)
    table, result = done.stdout.splitlines()[:-1], last_json(done)
    assert result["classes"] == CLASSES
    assert result["counts"] == {"loaded": len(jax.tree.leaves(network[1])), "unused": 25}
    assert any("module.base_model.layer1.0.conv1.weight" in row and "loaded" in row for row in table)
    trained = load_trained(workdir)
    jax.tree.map(np.testing.assert_array_equal, trained.restored.variables, network[1])
    assert trained.restored.step == 0
    assert trained.restored.labels[:2] == ("class 0", "class 1")
    assert json.loads((workdir / "labels.json").read_text())[-1] == f"class {CLASSES - 1}"
    assert json.loads((workdir / "config.json").read_text()) == trained.restored.config
    assert not (workdir / "data").exists()
    assert "holds a run already" in error_of(call("import_weights", *options))


@pytest.mark.xdist_group("commands_moving_shapes")
def test_training_continues_from_them(network, weights, tmp_path):
    from motion_jax.data.sources.moving_shapes import CLASSES as names

    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({name: str(index) for index, name in enumerate(names)}))
    workdir = tmp_path / "run"
    options = (f"--config={CONFIG}", f"--workdir={workdir}")
    last_json(call("import_weights", weights, *options, f"--labels={labels}", "--json"))
    # A step so small that the weights stay what they were: random ones would be others.
    slow = ["--config.train.steps=1", "--config.train.learning_rate=1e-12", "--config.train.warmup_epochs=0.0"]
    done = succeed("train.py", *options, *slow)
    assert "training from step 0 to 1" in done.stderr
    params = load_trained(workdir / "checkpoints" / "latest" / "1").restored.variables["params"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), params, network[1]["params"])


def test_an_incomplete_file_is_an_error_unless_partial(network, tmp_path, monkeypatch):
    # In place of random values, whose compilation takes half a minute.
    initial = jax.tree.map(lambda x: np.full_like(x, 7), network[1])
    initial["params"]["classifier"] = {"kernel": np.full((64, CLASSES), 7.0), "bias": np.full(CLASSES, 7.0)}
    monkeypatch.setattr(import_weights, "random_variables", lambda model, *, seed: initial)
    found = torch_state_dict(*network)
    del found["bn1.weight"]
    found["fc.weight"], found["fc.bias"] = found.pop("fc1.weight")[:7], found.pop("fc1.bias")[:7]
    save_file(found, path := tmp_path / "imagenet.safetensors")
    workdir = tmp_path / "run"
    options = ("import_weights", path, f"--config={CONFIG}", f"--workdir={workdir}")
    says = r"missing: bn1.weight\. .*give --partial to keep initial values"
    assert re.search(says, error_of(call(*options)))
    says = "has 7 classes and --labels has 12"
    assert says in error_of(call(*options, f"--labels={labels_file(tmp_path)}"))
    assert not workdir.exists()
    out = call(*options, f"--labels={labels_file(tmp_path)}", "--partial").stdout
    assert "2 another shape" in out
    kept = [line.split()[0] for line in out.splitlines() if "initial value" in line]
    assert sorted(kept) == ["bn1.weight", "fc.bias", "fc.weight"]
    variables = load_trained(workdir).restored.variables
    np.testing.assert_array_equal(variables["params"]["classifier"]["bias"], np.full(CLASSES, 7))
    np.testing.assert_array_equal(variables["params"]["backbone"]["bn1"]["scale"], 7)
    np.testing.assert_array_equal(
        variables["params"]["backbone"]["conv1"]["kernel"], network[1]["params"]["backbone"]["conv1"]["kernel"]
    )


def test_a_file_of_another_network(tmp_path):
    save_file(
        {"layer1.0.bn1.weight": np.ones(3, np.float32), "fc1.bias": np.ones(4)}, path := tmp_path / "a.safetensors"
    )
    for options in ([], ["--partial"]):
        done = call("import_weights", path, f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}", *options)
        assert re.search(r"no weight of .* fits the backbone of tsm_r18", error_of(done))


@pytest.mark.parametrize(
    ("options", "root"),
    [((), "run/videos"), (("--root=here",), "here"), (("--config.data.root=there",), "there")],
    ids=["later", "option", "override"],
)
def test_a_config_of_absent_videos(weights, tmp_path, options, root):
    network = ("--config=configs/video_folder.py:tsm_r18,4", "--config.model.width=8", "--config.data.size=32")
    workdir = tmp_path / "run"
    last_json(call("import_weights", weights, *network, f"--workdir={workdir}", *options, "--json"))
    data = json.loads((workdir / "config.json").read_text())["data"]
    assert (data["root"], data["size"]) == (str(tmp_path / root) if not options else root, 32)


class Hostile:
    """Unpickling it runs code that makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def test_a_malicious_file_is_refused_in_one_line(tmp_path):
    (tmp_path / "bad.pth").write_bytes(pickle.dumps({"state_dict": Hostile(tmp_path / "marker")}, protocol=2))
    done = call("import_weights", tmp_path / "bad.pth", f"--config={CONFIG}", f"--workdir={tmp_path / 'run'}")
    line = error_of(done)
    assert "which is refused" in line or "needs PyTorch: pip install torch" in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.pth"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.txt", "\n\n", "holds no class names"),
        ("a.txt", "one\ntwo\none\n", "names a class twice: one"),
        ("a.json", "{", "neither a JSON list"),
        ("a.json", '{"one": 0, "two": 2}', "neither a JSON list"),
        ("a.json", "[1, 2]", "holds no class names"),
    ],
)
def test_files_without_usable_labels(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=reason):
        import_weights.labels_of(str(tmp_path / name))


@pytest.mark.parametrize("name", ["tsm_r18", "tsm_mobilenetv2"])
def test_init_from_takes_torchvision_names(name, tmp_path, monkeypatch):
    """train.init_from loads ImageNet weights into a network with another classifier."""
    imagenet = motion_jax.build_model(name.replace("tsm", "tsn"), num_classes=9, width=8)
    variables = random_variables(imagenet, np.zeros((1, 2, 32, 32, 3), np.float32))
    found = {key: value for key, value in torch_state_dict(imagenet, variables).items() if not key.startswith("bn2.")}
    if name == "tsm_r18":
        found["fc.weight"], found["fc.bias"] = found.pop("fc1.weight")[..., 0], found.pop("fc1.bias")
    else:
        found = torchvision_mobilenet(found)
        assert (
            TorchNames.of(imagenet).without_prefixes(list(found))["features.2.conv.0.0.weight"]
            == "features.2.conv.0.weight"
        )
    save_file(found, path := tmp_path / "imagenet.safetensors")
    model = motion_jax.build_model(name, num_classes=5, width=8)
    # In place of random values, whose compilation takes half a minute.
    initial = jax.tree.map(jnp.zeros_like, random_variables(model, np.zeros((1, 2, 32, 32, 3), np.float32)))
    monkeypatch.setattr(type(model), "init", lambda *_, **__: initial)
    started = initial_variables(model, str(path), seed=0)
    np.testing.assert_array_equal(started["params"]["classifier"]["bias"], np.zeros(5))
    jax.tree.map(np.testing.assert_array_equal, started["params"]["backbone"], variables["params"]["backbone"])


def test_init_from_a_run_says_what_was_loaded(tmp_path, monkeypatch, caplog):
    """Another motion block and another classifier keep their initial values; the log counts all and names a few."""
    source = moving_shapes.get_config("msnet_tsm_r18,8,smoke").to_dict()
    save_untrained(source, ["a", "b", "c"], tmp_path)
    model = motion_jax.build_model("selfynet_tsm_r18", num_classes=5, width=8)
    initial = random_variables(model, np.zeros((1, 2, 32, 32, 3), np.float32), seed=1)
    monkeypatch.setattr(type(model), "init", lambda *_, **__: initial)
    started = initial_variables(model, str(tmp_path), seed=0)
    given = load_trained(tmp_path).restored.variables
    for kind in given:
        backbones = (variables[kind]["backbone"]["layer1_0"] for variables in (started, given))
        jax.tree.map(np.testing.assert_array_equal, *backbones)
    np.testing.assert_array_equal(started["params"]["classifier"]["bias"], initial["params"]["classifier"]["bias"])
    (record,) = caplog.records
    loaded, kept, left = record.getMessage().splitlines()
    of_the_block = len(jax.tree.leaves([initial[kind]["backbone"]["blocks_res3"] for kind in initial]))
    assert loaded == f"{len(jax.tree.leaves(initial)) - of_the_block - 2} tensors loaded"
    assert kept.startswith(f"  {of_the_block + 2} keep their initial value: ")
    assert " left over: params/backbone/blocks_pool1/" in left
    assert max(line.count(", ") for line in (kept, left)) <= 4


def torchvision_mobilenet(found):
    """Rename tensors as torchvision does: it nests convolution, BN and activation, except for the last, linear pair."""
    renamed = {}
    for key, value in found.items():
        parts = key.split(".")
        if parts[0] == "features" and len(parts) == 5 and parts[2] == "conv":
            groups = 1 if parts[1] == "1" else 2
            group, layer = divmod(int(parts[3]), 3)
            parts[3] = f"{group}.{layer}" if group < groups else str(group + layer)
        if parts[0] == "classifier":
            parts[0] = "classifier.1"
        renamed[".".join(parts)] = value
    return renamed

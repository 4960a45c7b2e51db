"""tools.export --streaming: the state goes in and comes out, and every frame is compared with the network."""

import importlib.util

import numpy as np
import pytest
from bench import call, error_of, last_json, save_untrained

from motion_jax import streaming
from motion_jax.configs import moving_shapes
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.experiment import load_trained
from motion_jax.weights import load_exported

EXTRAS = ("jax2onnx", "onnx", "onnxruntime")


def workdir_of(name, folder, *, causal=True):
    config = moving_shapes.get_config(f"{name},4,smoke").to_dict()
    config["model"]["causal"] = causal
    return save_untrained(config, CLASSES, folder)


@pytest.fixture(scope="module")
def msnet(tmp_path_factory):
    return workdir_of("msnet_tsm_r18", tmp_path_factory.mktemp("msnet"))


def check(workdir, format_, output, *options):
    if format_ == "onnx" and (absent := [name for name in EXTRAS if not importlib.util.find_spec(name)]):
        pytest.skip(f"onnx is an extra: {', '.join(absent)} is not installed")
    arguments = (f"--checkpoint={workdir}", f"--format={format_}", f"--output={output}", "--streaming", "--batch=2")
    result = last_json(call("export", *arguments, *options, "--json"))
    assert result["difference"] <= max(1e-4, 1e-6 * result["largest_logit"])
    exported = load_exported(output)
    card = exported.card
    assert card.model["causal"]
    assert tuple(card.streaming["frame"]) == (32, 32, 3)
    assert all(len(like["shape"]) <= 3 for like in card.streaming["state"].values())
    trained = load_trained(workdir)
    frames = np.random.default_rng(1).integers(0, 256, (3, 1, 32, 32, 3), np.uint8)
    ours, theirs = streaming.init(trained.model, trained.restored.variables, size=(32, 32)), exported.init()
    assert not any(value.any() for value in theirs.values())
    for frame in frames:
        expected, ours = streaming.step(trained.model, trained.restored.variables, ours, frame)
        found, theirs = exported.step(theirs, frame)
        np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
    return exported


@pytest.mark.long
def test_a_stream_in_stablehlo(msnet, tmp_path):
    exported = check(msnet, "stablehlo", tmp_path / "net.stablehlo", "--input=uint8")
    assert "backbone/layer1_0/shifted" in exported.card.streaming["state"]
    with pytest.raises(ValueError, match=r"frame must be \(b, 32, 32, 3\) for this export; got \(1, 4, 32, 32, 3\)"):
        exported.step(exported.init(), np.zeros((1, 4, 32, 32, 3), np.uint8))
    with pytest.raises(ValueError, match="one frame at a time: use its init and step"):
        exported.predict(np.zeros((1, 4, 32, 32, 3), np.uint8))


@pytest.mark.parametrize("name", ["tsn_r18", "tsm_mobilenetv2", "selfynet_tsm_r18"])
@pytest.mark.long
def test_other_networks_in_stablehlo(name, tmp_path):
    check(workdir_of(name, tmp_path / "run"), "stablehlo", tmp_path / "net.stablehlo")


@pytest.mark.parametrize("name", ["tsn_r18", "msnet_tsm_r18", "selfynet_tsm_r18", "tsm_mobilenetv2"])
@pytest.mark.long
def test_a_stream_in_onnx(name, tmp_path):
    check(workdir_of(name, tmp_path / "run"), "onnx", tmp_path / "net.onnx")


def test_what_cannot_stream_is_refused(msnet, tmp_path):
    arguments = (f"--checkpoint={msnet}", "--streaming", f"--output={tmp_path / 'net'}", "--format=saved_model")
    assert "--streaming is for --format=stablehlo or onnx; got saved_model" in error_of(call("export", *arguments))
    clips = workdir_of("tsn_r18", tmp_path / "run", causal=False)
    arguments = (f"--checkpoint={clips}", "--format=stablehlo", f"--output={tmp_path / 'net.stablehlo'}")
    assert "looks at later frames" in error_of(call("export", *arguments, "--streaming"))
    assert not (tmp_path / "net.stablehlo").exists()

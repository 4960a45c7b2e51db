"""tools.export: every format is read back by its own runtime and must agree, or it is not written."""

import importlib.util
import json
import re
import sys

import numpy as np
import pytest
from bench import call, error_of, last_json, save_untrained

import motion_jax
from motion_jax.configs import moving_shapes
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.experiment import load_trained
from motion_jax.tools import export
from motion_jax.weights import load_exported, stablehlo
from motion_jax.weights.card import card_path, read_card

EXTRAS = {
    "pytorch": ("torch",),
    "onnx": ("jax2onnx", "onnx", "onnxruntime"),
    "saved_model": ("tensorflow",),
}


def workdir_of(name, folder):
    return save_untrained(moving_shapes.get_config(f"{name},4,smoke").to_dict(), CLASSES, folder)


def exported_by(*options):
    return last_json(call("export", *options, "--json"))


def refused(*options):
    return error_of(call("export", *options), only=False)


@pytest.fixture(scope="module")
def msnet(tmp_path_factory):
    return workdir_of("msnet_tsm_r18", tmp_path_factory.mktemp("msnet"))


@pytest.fixture(scope="module")
def selfynet(tmp_path_factory):
    return workdir_of("selfynet_tsm_r18", tmp_path_factory.mktemp("selfynet"))


def needs(format_):
    absent = [package for package in EXTRAS.get(format_, ()) if not importlib.util.find_spec(package)]
    if absent:
        pytest.skip(f"{format_} is an extra: {', '.join(absent)} is not installed")


@pytest.fixture(scope="module")
def clips():
    """Clips of the shape that the command compares, so that its compiled programs are reused."""
    return np.random.default_rng(0).integers(0, 256, (3, 4, 32, 32, 3), np.uint8)


@pytest.fixture(scope="module")
def logits(msnet, selfynet, clips):
    """The logits of the networks for the clips, from the program that the command compares with."""
    found = {}
    for name, workdir in (("msnet", msnet), ("selfynet", selfynet)):
        trained = load_trained(workdir)
        reference = export.reference_of(trained.model)
        found[name] = np.concatenate([reference(trained.restored.variables, clip[None])[0] for clip in clips])
    return found


@pytest.mark.parametrize(
    ("network", "format_", "options"),
    [
        ("msnet", "safetensors", ()),
        ("msnet", "stablehlo", ("--input=uint8",)),
        ("selfynet", "stablehlo", ()),
        ("msnet", "onnx", ()),
        ("selfynet", "onnx", ("--input=uint8",)),
        ("msnet", "saved_model", ()),
    ],
)
def test_an_export_computes_what_the_network_does(network, format_, options, tmp_path, request, clips, logits):
    needs(format_)
    workdir = request.getfixturevalue(network)
    output = tmp_path / "new" / f"net{export.SUFFIXES[format_][0]}"
    result = exported_by(f"--checkpoint={workdir}", f"--format={format_}", f"--output={output}", *options)
    assert result["difference"] <= max(1e-4, 1e-6 * result["largest_logit"])
    assert result["largest_logit"] > 0.01
    assert result["bytes"] > 100_000
    assert [path.name for path in sorted(output.parent.iterdir())] == sorted({output.name, f"{output.name}.json"})
    exported = load_exported(output)
    card = exported.card
    assert (card.format, card.labels, card.preprocessing.frames, card.preprocessing.size) == (format_, CLASSES, 4, 32)
    assert card.model["name"] == f"{network}_tsm_r18"
    assert {"jax", "flax", "motion_jax"} < set(card.versions)
    found = exported.predict(clips)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, logits[network], rtol=0, atol=2e-3)
    if card.preprocessing.input == "uint8":
        with pytest.raises(ValueError, match="takes uint8; got float32"):
            exported.predict(clips.astype(np.float32))
    else:
        floats = (clips / 255 - card.preprocessing.mean) / card.preprocessing.std
        np.testing.assert_allclose(exported.predict(floats), found, rtol=0, atol=2e-3)
    with pytest.raises(ValueError, match=r"clips must be \(b, 4, 32, 32, 3\) for this export; got"):
        exported.predict(clips[:, :3])


def test_pytorch_weights_are_read_back_bit_by_bit(msnet, tmp_path):
    needs("pytorch")
    output = tmp_path / "net.pth.tar"
    prefix = "--prefix=module.base_model."
    result = exported_by(f"--checkpoint={msnet}", "--format=pytorch", f"--output={output}", prefix)
    assert result["difference"] == 0
    assert read_card(output).preprocessing.input == "float32"
    trained = load_trained(msnet)
    read = motion_jax.load_torch(output, trained.model)
    np.testing.assert_array_equal(
        read["params"]["classifier"]["kernel"], trained.restored.variables["params"]["classifier"]["kernel"]
    )
    with pytest.raises(ValueError, match="holds weights for PyTorch code and no network"):
        load_exported(output)


def test_an_export_that_differs_is_not_written(msnet, tmp_path, monkeypatch):
    write = stablehlo.save

    def wrong(path, function, shape, *, dtype):
        write(path, lambda clips: function(clips) + 2e-3, shape, dtype=dtype)

    monkeypatch.setattr(stablehlo, "save", wrong)
    output = tmp_path / "net.stablehlo"
    output.write_text("an older one")
    says = r"is not written: read back as stablehlo, its logits differ .* by 2\.0e-03"
    assert re.search(says, refused(f"--checkpoint={msnet}", "--format=stablehlo", f"--output={output}"))
    assert [path.name for path in tmp_path.iterdir()] == ["net.stablehlo"]
    assert output.read_text() == "an older one"


def test_what_a_killed_export_left_is_deleted(msnet, tmp_path):
    (tmp_path / ".export-net.safetensors").mkdir()
    (tmp_path / ".export-net.safetensors" / "net.safetensors").write_bytes(b"half")
    exported_by(f"--checkpoint={msnet}", "--format=safetensors", f"--output={tmp_path / 'net.safetensors'}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.safetensors", "net.safetensors.json"]


def test_the_card_holds_the_metrics_of_this_checkpoint_only(msnet):
    trained = load_trained(msnet)
    model = trained.model
    assert export.describe(trained, "onnx", model, input_="uint8").metrics == {}
    evaluation = {"top1": 50.0, "protocol": {"step": 0}}
    try:
        (msnet / "eval.json").write_text(json.dumps(evaluation))
        assert export.describe(trained, "onnx", model, input_="uint8").metrics == evaluation
        (msnet / "eval.json").write_text(json.dumps({"top1": 50.0, "protocol": {"step": 12}}))
        assert export.describe(trained, "onnx", model, input_="uint8").metrics == {}
    finally:
        (msnet / "eval.json").unlink()


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--format=onnx", "--output=net.pth"), "needs an --output with .onnx; got net.pth"),
        (("--format=saved_model", "--output=net.pb"), "no suffix: it is a folder"),
        (("--format=onnx", "--output=net.onnx", "--prefix=module."), "--prefix is for --format=pytorch"),
        (("--format=pytorch", "--output=net.pth", "--input=uint8"), "--input=uint8 is for formats that hold"),
        (("--format=onnx", "--output=net.onnx", "--batch=0"), "--batch must be 1 or more"),
        (("--format=keras", "--output=net"), "invalid choice"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(options, reason):
    assert reason in error_of(call("export", "--checkpoint=absent", *options))


@pytest.mark.parametrize(("format_", "module"), [("onnx", "jax2onnx"), ("saved_model", "tensorflow")])
def test_without_the_extra_the_error_says_how_to_install_it(format_, module, msnet, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    output = f"--output={tmp_path / 'net'}{export.SUFFIXES[format_][0]}"
    assert re.search(r"needs .*: pip install", refused(f"--checkpoint={msnet}", f"--format={format_}", output))
    assert not list(tmp_path.iterdir())


def test_files_that_are_not_exports(msnet, tmp_path):
    with pytest.raises(ValueError, match="there is no export"):
        load_exported(tmp_path / "absent.onnx")
    (path := tmp_path / "net.stablehlo").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="has no card"):
        load_exported(path)
    exported_by(f"--checkpoint={msnet}", "--format=safetensors", f"--output={tmp_path / 'good.safetensors'}")
    card = json.loads(card_path(tmp_path / "good.safetensors").read_text())
    # A card from before there were checksums.
    card = {name: value for name, value in card.items() if name not in ("sha256", "card_sha256")}
    card_path(path).write_text(json.dumps({**card, "format": "stablehlo"}))
    with pytest.raises(ValueError, match="is not a StableHLO export that JAX"):
        load_exported(path)
    for broken in ("{", "[]", json.dumps({"format": "onnx"}), json.dumps({**card, "more": 1})):
        card_path(path).write_text(broken)
        with pytest.raises(ValueError, match="is not the card of an export"):
            load_exported(path)
    card_path(path).write_text(json.dumps({**card, "format": "keras"}))
    with pytest.raises(ValueError, match="has the format 'keras'"):
        load_exported(path)
    (good := tmp_path / "good.safetensors").write_bytes(good.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is not as it was written, says its card"):
        load_exported(good)
    card_path(good).write_text(json.dumps(card))
    with pytest.raises(ValueError, match="is not a whole safetensors file"):
        load_exported(good)


def test_one_flipped_bit_of_an_export_or_its_card_is_found(msnet, tmp_path):
    output = tmp_path / "net.stablehlo"
    exported_by(f"--checkpoint={msnet}", "--format=stablehlo", f"--output={output}")
    load_exported(output)
    whole, card = output.read_bytes(), card_path(output).read_text()
    rng = np.random.default_rng(0)
    for position in rng.integers(0, len(whole), 20):
        output.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(ValueError, match="is not as it was written, says its card"):
            load_exported(output)
    output.write_bytes(whole)
    card_path(output).write_text(card.replace(CLASSES[0], CLASSES[0][:-1] + "x", 1))
    with pytest.raises(ValueError, match="is not the card of an export: its values are not those that were written"):
        load_exported(output)
    card_path(output).write_text(json.dumps(json.loads(card)))  # Another layout of the same values.
    load_exported(output)


def test_exports_of_one_name_do_not_overwrite_each_other(msnet, tmp_path):
    for format_ in ("safetensors", "stablehlo"):
        exported_by(f"--checkpoint={msnet}", f"--format={format_}", f"--output={tmp_path}/net.{format_}", "--batch=1")
    clips = np.zeros((1, 4, 32, 32, 3), np.uint8)
    one, two = (load_exported(tmp_path / f"net.{format_}") for format_ in ("safetensors", "stablehlo"))
    assert (one.card.format, two.card.format) == ("safetensors", "stablehlo")
    np.testing.assert_allclose(one.predict(clips), two.predict(clips), atol=1e-4)


@pytest.mark.parametrize(
    ("export_", "card"),
    [("a/net.onnx", "a/net.onnx.json"), ("net.pth.tar", "net.pth.tar.json"), ("folder", "folder.json")],
)
def test_the_path_of_the_card(export_, card):
    assert str(card_path(export_)) == card

"""tools.complexity: tables and JSON for a model, a config and the papers' figures."""

import re
import types

import pytest
from bench import call, error_of, last_json

from motion_jax.blocks import NonLocal
from motion_jax.configs import motionsqueeze_supplement
from motion_jax.tools import complexity


def test_a_named_model():
    done = call("complexity", "selfynet_tsm_r18", "--no-xla", "--json")
    text, result = done.stdout, last_json(done)
    assert result["gflops"] == pytest.approx(17.318, abs=5e-4)
    assert result["params"] == 11_764_346
    assert result["xla_gflops"] is None
    assert list(result["stages"]) == ["stem", "res2", "res3", "res3_motion", "res4", "res5", "classifier"]
    motion = result["stages"]["res3_motion"]
    assert motion["correlation"] == pytest.approx(0.162, abs=5e-4)
    assert motion["gflops"] == pytest.approx(sum(motion[kind] for kind in ("conv_fc", "bn", "correlation", "other")))
    assert sum(stage["gflops"] for stage in result["stages"].values()) == pytest.approx(result["gflops"])
    assert sum(stage["params"] for stage in result["stages"].values()) == result["params"]
    assert "one clip of 8 frames of 224x224, 174 classes" in text
    total = next(line for line in text.splitlines() if line.startswith("total")).split()
    assert total == ["total", "11764346", "17.023", "0.133", "0.162", "0.000", "17.318"]


def test_frames_classes_and_size():
    result = last_json(call("complexity", "tsm_r50", "--no-xla", "--frames=16", "--json"))
    assert result["gflops"] == pytest.approx(66.113, abs=5e-4)
    result = last_json(
        call("complexity", "tsm_r18", "--no-xla", "--frames=2", "--size=32", "--num_classes=10", "--json")
    )
    assert (result["frames"], result["size"], result["num_classes"]) == (2, 32, 10)
    assert result["params"] == 11_265_774 - 164 * 513
    assert result["gflops"] == pytest.approx(14.589 / 4 / 49, rel=0.01)


def test_a_frame_of_a_stream():
    arguments = ("msnet_tsm_mobilenetv2", "--no-xla", "--config.model.causal=true", "--json")
    done = call("complexity", *arguments)
    result = last_json(done)
    # The last pair of a clip is repeated in other networks; causal ones compare every frame with the one before.
    assert result["frame_gflops"] == pytest.approx(result["gflops"] / 8)
    assert "One frame of a stream takes 0.343 GFLOPs." in done.stdout
    assert last_json(call("complexity", arguments[0], "--no-xla", "--json"))["frame_gflops"] is None


def test_a_config_gives_its_network_frames_and_size():
    result = last_json(call("complexity", "configs/moving_shapes.py:selfynet_tsm_r18,16", "--no-xla", "--json"))
    assert (result["frames"], result["size"]) == (16, 64)
    assert "res3_motion" in result["stages"]
    assert result["gflops"] < 1  # a narrow network; of the published width it would be 3
    result = last_json(call("complexity", "configs/moving_shapes.py", "--no-xla", "--frames=4", "--json"))
    assert (result["frames"], list(result["stages"])[1]) == (4, "pool1_motion")


def test_a_config_needs_no_data():
    result = last_json(call("complexity", "configs/something_v1.py:msnet_tsm_r18,8", "--no-xla", "--json"))
    assert (result["gflops"], result["params"]) == (pytest.approx(14.883, abs=5e-4), 11_286_759)
    result = last_json(call("complexity", "configs/selfy_supplement.py:table3a_17x17", "--no-xla", "--json"))
    assert result["gflops"] == pytest.approx(19.801, abs=5e-4)


def test_xla_counts_twice_as_many():
    # Of more pixels than 64: with maps of 2x2, a CPU's form of the convolution spares what padding would cost.
    done = call("complexity", "tsn_r18", "--frames=1", "--size=96", "--num_classes=5", "--json")
    text, result = done.stdout, last_json(done)
    assert 1.5 < result["xla_gflops"] / result["gflops"] < 2.2
    assert f"XLA counts {result['xla_gflops']:.3f} GFLOP" in text
    assert "counts the body of a loop once" in text


def test_the_papers_figures():
    done = call("complexity", "--papers", "--json")
    text, rows = done.stdout, last_json(done)["papers"]
    assert len(rows) == 23
    met = {(row["source"], row["row"]): row for row in rows if row["met"]}
    assert len(met) == 18
    assert "18 of 23 figures are met" in text
    assert met["SELFY, Table 3g", "TSM-R50 + MHSA"]["ours"] == pytest.approx(50.616, abs=5e-4)
    row = next(row for row in rows if row["row"] == "TSM-R50, 16 frames")
    assert (row["printed"], row["unit"], row["met"]) == (66.3, "G", False)
    assert row["difference"] == pytest.approx(66.113 - 66.3, abs=5e-4)
    line = next(line for line in text.splitlines() if "TSM-R50, 16 frames" in line)
    assert "66.3 G    66.113    -0.187  TSM's cost is proportional to the frames" in line
    assert sum(line.endswith("  met") for line in text.splitlines()) == 18


def test_every_printed_figure_is_met_or_explained():
    rows = list(complexity.published_figures())
    for row in rows:
        assert row["met"] != bool(row["note"]), f"{row['row']}: {row['printed']} printed, {row['ours']} here"
    explained = {(row["row"], row["printed"]): round(row["ours"], 1) for row in rows if not row["met"]}
    assert explained == {
        ("MS module", "15.0"): 14.9,
        ("MS module less than CP module", "26"): 27.0,
        ("TSM, 16 frames", "65"): 66.1,
        ("TSM-R50, 16 frames", "66.3"): 66.1,
        ("TSM-R50 + NL", "46.5"): 56.6,
    }
    figures = {}
    for row in rows:
        figures.setdefault(row["source"], []).append(row["printed"])
    assert figures == {
        "MotionSqueeze, Table 1": ["33.1", "33.4", "33.5", "35.8", "33.7"],
        "MotionSqueeze, Table 2": ["14.6", "20.4", "15.0"],
        "MotionSqueeze, section 2": ["6", "26"],
        "SELFY, Table 2": ["65", "67", "77"],
        "SELFY, Table 3a": ["14.6", "17.1", "17.3", "18.4", "19.8"],
        "SELFY, Table 3g": ["33.1", "66.3", "46.5", "50.6", "36.6"],
    }


def test_a_traced_block_is_marked(monkeypatch):
    monkeypatch.setattr(NonLocal, "operations", None)
    done = call("complexity", "nonlocal_tsm_r18", "--no-xla", "--frames=2", "--size=64", "--json")
    assert last_json(done)["traced"] == ["res3_motion"]
    assert "\n~res3_motion " in done.stdout
    assert "~ The motion block declares no cost" in done.stdout


def test_a_model_and_the_papers_are_one_object(monkeypatch):
    first = dict(list(motionsqueeze_supplement.ROWS.items())[:1])
    only = types.SimpleNamespace(ROWS=first, STATED=(), get_config=motionsqueeze_supplement.get_config)
    monkeypatch.setattr(complexity, "SUPPLEMENTS", {"MotionSqueeze": only})
    result = last_json(call("complexity", "tsm_r18", "--no-xla", "--papers", "--json"))
    assert {"gflops", "xla_gflops", "params", "stages", "papers"} <= set(result)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("msnet_r18", "there is no model 'msnet_r18'"),
        ("configs/absent.py:a", "there is no config file 'configs/absent.py'"),
        ("configs/moving_shapes.py:tsm_r18,many", "config arguments are model,frames"),
        ("configs/moving_shapes.py:tsm_r17", "there is no model 'tsm_r17'"),
        ("configs/common.py", "configs/common.py cannot be used: AttributeError: .* no attribute 'get_config'"),
        ("configs/moving_shapes.py,tsm_r18", "use a colon: configs/moving_shapes.py:tsm_r18"),
        ("configs/__init__.py", "configs/__init__.py cannot be used: ImportError: import motion_jax.configs"),
    ],
)
def test_unknown_models_and_configs(argument, message):
    assert re.search(message, error_of(call("complexity", argument, "--no-xla")))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give a named model, a config or --papers"),
        (("tsm_r18", "--frames=0"), "--frames: expected an integer, 1 or more; got '0'"),
        (("tsm_r18", "--size=small"), "--size: expected an integer, 1 or more; got 'small'"),
        (("tsm_r18", "--colour"), "unrecognized arguments: --colour"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message):
    assert message in error_of(call("complexity", *arguments))


def test_overrides_change_the_network():
    result = last_json(call("complexity", "tsm_r18", "--config.model.width=8", "--no-xla", "--json"))
    assert result["params"] < 11_265_774 / 50

"""tools.models: every named model with its cost."""

import pytest
from bench import call, error_of, last_json

import motion_jax


def test_every_model_is_listed_with_its_cost():
    done = call("models", "--json")
    lines = done.stdout.splitlines()[:-1]
    rows = {row["name"]: row for row in last_json(done)["models"]}
    assert list(rows) == motion_jax.list_models()
    assert [line.split()[0] for line in lines[2:]] == motion_jax.list_models()
    row = rows["msnet_tsm_r50"]
    assert row["gflops"] == pytest.approx(33.668, abs=5e-4)
    assert {key: row[key] for key in ("params", "input", "block", "site")} == {
        "params": 23_935_463,
        "input": [8, 224, 224, 3],
        "block": "MotionSqueeze",
        "site": "res3",
    }
    assert (rows["tsn_r18"]["block"], rows["tsn_r18"]["site"]) == (None, None)
    assert rows["selfynet_i3d"]["site"] == "inc_b"
    line = next(line for line in lines if line.startswith("selfynet_tsm_mobilenetv2 "))
    assert line.split()[1:] == ["2828410", "5.126", "8x224x224x3", "Selfy", "stage3"]


def test_bad_usage_is_one_line_and_status_2():
    assert "unrecognized arguments: --colour" in error_of(call("models", "--colour"))

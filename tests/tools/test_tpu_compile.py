"""The TPU compiler's counts. Tests that need libtpu, an extra, are skipped without it."""

import importlib.util
import json

import pytest
from bench import call, error_of, succeed

from motion_jax.tools.tpu_compile import counts_table, largest

TOOL = "motion_jax.tools.tpu_compile"
has_libtpu = importlib.util.find_spec("libtpu") is not None


@pytest.mark.parametrize(("limit", "start"), [(0, 8), (1, 8), (7, 8), (8, 8), (13, 4), (100, 8), (1000, 1)])
def test_the_largest_batch_is_found_to_an_eighth(limit, start):
    asked = []

    def fits(batch):
        asked.append(batch)
        return batch <= limit

    found = largest(fits, start)
    assert limit - max(1, limit // 8) <= found <= limit
    assert len(asked) <= 14


def test_the_table_compares_with_the_first_network():
    counts = {"flops": 2e9, "bytes_accessed": 3e9, "temp_bytes": 10**9, "argument_bytes": 10**8}
    sent = {"collective_bytes": {"all-reduce": 4_000_000, "all-gather": 500_000}}
    rows = [
        {"model": "a", **counts, **sent, "fits": True},
        {"model": "b", **{name: 2 * value for name, value in counts.items()}, **sent, "fits": False},
        {"model": "c", "fits": False, "reason": "too large"},
    ]
    _, _, a, b, c = counts_table(rows).splitlines()
    assert a.split() == ["a", "2.00", "(1.000)", "3.00", "(1.000)", "1.00", "(1.000)", "0.10", "(1.000)", "4.50", "yes"]
    assert b.split()[:5] == ["b", "4.00", "(2.000)", "6.00", "(2.000)"]
    assert b.split()[-1] == "no"
    assert c.split() == ["c", "-", "-", "-", "-", "-", "no"]
    # Of a small network the compiler keeps everything beside the units.
    (*_, alone) = counts_table([{**rows[0], "temp_bytes": 0}]).splitlines()
    assert "0.00" in alone.split()


@pytest.mark.skipif(has_libtpu, reason="libtpu is installed")
def test_without_the_compiler_it_says_how_to_get_it():
    assert 'pip install "jax[tpu]"' in error_of(call("tpu_compile", "tsn_r18"))


def test_an_unknown_slice_is_named():
    assert "v5e-8" in error_of(call("tpu_compile", "tsn_r18", "--slice=v9-8"))


@pytest.mark.skipif(not has_libtpu, reason='needs libtpu: pip install "jax[tpu]"')
@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_the_real_step_of_a_config(backend):
    arguments = ("configs/moving_shapes.py:msnet_tsm_r18,8,smoke", f"--backend={backend}", "--batch=1", "--json")
    result = json.loads(succeed("-m", TOOL, *arguments).stdout.splitlines()[-1])
    (row,) = result["rows"]
    assert row["fits"]
    assert row["flops"] > 0
    # Parameters, their momentum and eight uint8 frames of 32 x 32.
    assert row["argument_bytes"] > 8 * 32 * 32 * 3 + 8 * 170_000
    # Gradients and batch statistics, once.
    assert set(row["collective_bytes"]) == {"all-reduce"}
    assert 4 * 170_000 < row["collective_bytes"]["all-reduce"] < (row["argument_bytes"] - 8 * 32 * 32 * 3) / 1.9

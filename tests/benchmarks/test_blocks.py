"""The table of all motion blocks: complete, up to date, and its page what its results give."""

import json
import sys

import pytest

from benchmarks import blocks as benchmark
from benchmarks.cost_over_time import counted, exponent
from motion_jax import blocks

WRITTEN = pytest.mark.skipif(
    not benchmark.RESULTS.is_file(), reason="there are no results: python -m benchmarks.blocks takes them"
)


@pytest.fixture(scope="module")
def results():
    return json.loads(benchmark.RESULTS.read_text())


@pytest.fixture(scope="module")
def sizes():
    return benchmark.sizes()


def made_up_results(sizes):
    seeds = {"seeds": [90.0, 92.0], "mean": 91.0, "spread": 1.4142}
    return {
        "accuracy": {
            "setting": {"device": "cpu", "jax": "0.10.2"},
            "date": "2026-01-02",
            "seeds": [5, 6],
            "recipe": benchmark.recipe(),
            "networks": {
                label: {"clips": 24, "top1": seeds, "within_pairs": seeds, "long_range_pairs": seeds}
                for label in benchmark.NETWORKS
            },
        },
        "size": sizes,
        "time": {
            "setting": {"device": "another"},
            "step_milliseconds": {label: 50.0 * (1 + index) for index, label in enumerate(benchmark.NETWORKS)},
            "over_frames": {
                name: {"gflops": [1.0, 2.0, 4.0, 8.0], "milliseconds": [3.0, 12.0, 48.0, 192.0]}
                for name in blocks.__all__
            },
        },
    }


def test_every_block_is_compared():
    stands = {label: benchmark.network(label).backbone.blocks.get(benchmark.SITE) for label in benchmark.NETWORKS}
    assert {type(block).__name__ for block in stands.values() if block} == set(blocks.__all__)
    assert all(type(block).__name__ == label.split(",")[0] for label, block in stands.items() if block)


def test_the_page_shows_each_number_once(sizes, tmp_path, monkeypatch):
    written = tmp_path / "results.json"
    written.write_text(json.dumps(made_up_results(sizes)))
    monkeypatch.setattr(benchmark, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(sys, "argv", ["blocks", f"--from={written}"])
    benchmark.main()
    lines = (tmp_path / "page.md").read_text().splitlines()
    params = f"{sizes['MotionSqueeze']['params']:,}"
    gflops = f"{sizes['MotionSqueeze']['gflops']:.3f}"
    assert (
        f"| MotionSqueeze | 91.0 ± 1.4 | 91.0 ± 1.4 | 91.0 ± 1.4 | equal | 150 | 1.50 | {params} | {gflops} |" in lines
    )
    times = "3.0 | 12.0 | 48.0 | 192.0 | 2.00 | 1.000 | 2.000 | 4.000 | 8.000 | 1.00"
    assert f"| NonLocal | {times} |" in lines
    assert "Trained on device cpu, jax 0.10.2, 2026-01-02. Timed on device another." in lines
    assert max(line.count("|") for line in lines) == 12


@WRITTEN
def test_the_page_is_what_the_results_give(results):
    assert benchmark.PAGE.read_text() == benchmark.page(results), "python -m benchmarks.blocks --from=... writes it"


@WRITTEN
def test_the_results_are_of_the_networks_as_they_are(results, sizes):
    assert results["accuracy"]["recipe"] == benchmark.recipe()
    assert results["size"] == sizes
    assert set(results["accuracy"]["networks"]) == set(results["time"]["step_milliseconds"]) == set(benchmark.NETWORKS)
    assert {name: cost["gflops"] for name, cost in results["time"]["over_frames"].items()} == {
        name: counted(getattr(blocks, name)()) for name in blocks.__all__
    }


@pytest.mark.parametrize("name", blocks.__all__)
def test_blocks_that_compare_all_frames_grow_with_the_square_and_others_do_not(name):
    grows = exponent(counted(getattr(blocks, name)()))
    if name in ("CorrespondenceProposal", "MultiHeadSelfAttention", "NonLocal"):
        # Layers around the comparison grow with T alone.
        assert 1.8 <= grows <= 2
    else:
        # MotionSqueeze has one pair less than frames, which shows in short clips.
        assert 1 - 1e-9 <= grows <= 1.1

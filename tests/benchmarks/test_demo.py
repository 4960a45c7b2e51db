"""The comparison at the end of `make demo`."""

import json

import numpy as np
import pytest

from benchmarks import demo
from motion_jax.data.sources.moving_shapes import CLASSES

LABELS = np.arange(24) % 12
ACCURACY = {"seeds": [96.0, 98.0], "mean": 97.0, "spread": 1.0}
MEASURED = {
    "networks": {name: {"top1": ACCURACY, "within_pairs": ACCURACY} for name in demo.NETWORKS},
    "motion": {kind: {"epe": {"mean": 2.0, "spread": 0.25}, "zero": 5.0} for kind in demo.KINDS},
}


@pytest.fixture
def runs(tmp_path):
    """A demo in which TSN takes the first class of each pair, and the other networks are right."""
    for name in demo.NETWORKS:
        folder = tmp_path / name
        folder.mkdir()
        chosen = LABELS // 2 * 2 if name == "tsn_r18" else LABELS
        np.savez(folder / "scores.npz", scores=np.eye(12)[chosen], labels=LABELS, names=np.array(CLASSES))
        top1 = 100 * float(np.mean(chosen == LABELS))
        metrics = {"top1": top1, "top5": 100.0, "mean_class": top1, "clips": len(LABELS)}
        (folder / "eval.json").write_text(json.dumps({**metrics, "protocol": {"model": name}}))
    motion = {group: {"ratio": 0.4} for group in demo.KINDS.values()} | {"all zooms": {"ratio": 0.9}}
    (tmp_path / demo.MOTION_NETWORK / "motion.json").write_text(json.dumps(motion))
    return tmp_path


def test_every_result_is_printed_beside_its_range_and_has_a_verdict(runs):
    rows = {row[0]: row[1:] for row in demo.compare(runs, MEASURED)}
    assert rows["tsn_r18, top-1"] == ("50.0", "94.0 to 100.0", "below the range")
    assert rows["tsn_r18, within pairs"] == ("50.0", "45.0 to 55.0", "as expected")
    assert rows["msnet_tsm_r18, top-1"] == ("100.0", "94.0 to 100.0", "as expected")
    assert rows["msnet_tsm_r18, translations: error / zero field"] == ("0.40", "0.25 to 0.55", "as expected")
    assert rows["msnet_tsm_r18, zooms: error / zero field"] == ("0.90", "0.25 to 0.55", "above the range")
    assert len(rows) == len(demo.NETWORKS) + 1 + len(demo.KINDS)


def test_a_range_is_three_deviations_and_two_points_at_least():
    assert demo.expected({"mean": 95.0, "spread": 1.0}) == (92.0, 98.0)
    assert demo.expected({"mean": 99.5, "spread": 0.0}) == (97.5, 100.0)


def test_the_results_are_of_the_demo_as_it_is():
    results = json.loads(demo.RESULTS.read_text())
    assert results["recipe"] == demo.recipe()
    assert results["seeds"] == list(demo.SEEDS)
    assert len(results["networks"]["msnet_tsm_r18"]["top1"]["seeds"]) == len(demo.SEEDS)

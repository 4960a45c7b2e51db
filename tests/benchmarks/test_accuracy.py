import json
import pathlib

import numpy as np
import pytest

from benchmarks import accuracy
from motion_jax.data.sources.moving_shapes import CLASSES

LABELS = np.arange(24) % 12


@pytest.fixture
def commands(monkeypatch):
    """Stands in for train.py and eval.py: seed 0 is always right, seed 1 always takes the other class of the pair."""
    called = []

    def succeed(program, *arguments, environment):
        options = dict(argument.removeprefix("--").split("=", 1) for argument in arguments)
        called.append((program, options))
        folder = pathlib.Path(options["workdir"])
        folder.mkdir(parents=True, exist_ok=True)
        if program == "eval.py":
            seed = int(folder.name)
            scores = np.eye(12)[LABELS ^ seed]
            np.savez(folder / "scores.npz", scores=scores, labels=LABELS, names=np.array(CLASSES))
            metrics = {"top1": 100.0 * (1 - seed), "top5": 100.0, "mean_class": 0.0, "clips": 24}
            (folder / "eval.json").write_text(json.dumps({**metrics, "protocol": {"model": folder.parent.name}}))

    monkeypatch.setattr(accuracy, "_succeed", succeed)
    return called


def test_every_seed_is_trained_once_and_summed_up(commands, tmp_path):
    runs = {"tsn": ("a.py:tsn_r18,8", ["--config.train.steps=3"]), "msnet": ("a.py:msnet_tsm_r18,8", [])}
    rows = accuracy.train_all(runs, seeds=range(2), workdir=tmp_path)
    assert list(rows) == ["tsn", "msnet"]
    halves = {"seeds": [100.0, 0.0], "mean": 50.0, "spread": pytest.approx(100 / np.sqrt(2))}
    assert rows["tsn"] == {"clips": 24, "top1": halves, "within_pairs": halves, "long_range_pairs": halves}
    trained = [options for program, options in commands if program == "train.py"]
    assert [(options["config"], options["config.seed"]) for options in trained] == [
        (runs[name][0], str(seed)) for seed in range(2) for name in runs
    ]
    assert [options.get("config.train.steps") for options in trained] == ["3", None] * 2
    assert {options["config.data.dir"] for options in trained} == {str(tmp_path / "data")}
    assert len({options["workdir"] for options in trained}) == 4

    commands.clear()
    assert accuracy.train_all(runs, seeds=range(2), workdir=tmp_path) == rows
    assert not commands
    assert "50.0 ± 70.7" in accuracy.accuracy_table(rows)


def test_one_seed_has_no_spread():
    assert accuracy.mean_and_spread(accuracy.over_seeds([91.25])) == "91.2 ± 0.0"


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(ValueError, match=r"train.py .* ended with status 2: train.py: error: there is no config file"):
        accuracy.train_all({"x": ("absent.py", [])}, seeds=range(1), workdir=tmp_path)

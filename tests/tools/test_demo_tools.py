"""The tools `make demo` ends with: report, visualize, evaluate_motion, on a checkpoint made here without training."""

import importlib
import json

import cv2
import numpy as np
import pytest

from motion_jax.configs import moving_shapes
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.experiment import Experiment, open_data
from motion_jax.tools import evaluate_motion, report, visualize
from motion_jax.training.checkpoints import Checkpoints
from motion_jax.training.recipe import make_optimizer, make_schedule
from motion_jax.training.state import create_state


def checkpoint_of(model, workdir):
    """A workdir with the best checkpoint of an untrained network and its data."""
    config = moving_shapes.get_config(f"{model},4,smoke").to_dict()
    experiment = Experiment.from_config(config)
    dataset = open_data(experiment.data, workdir)
    optimizer = make_optimizer(experiment.train, make_schedule(experiment.train, train_size=48))
    state = create_state(experiment.model.build(len(CLASSES)), optimizer, seed=0, clip_shape=(4, 32, 32, 3))
    with Checkpoints(workdir, section=experiment.checkpoint, config=config, labels=dataset.labels) as checkpoints:
        checkpoints.save_best(state, top1=0.0)
    return workdir


@pytest.fixture(scope="module")
def msnet(tmp_path_factory):
    return checkpoint_of("msnet_tsm_r18", tmp_path_factory.mktemp("msnet"))


@pytest.fixture(scope="module")
def tsn(tmp_path_factory):
    return checkpoint_of("tsn_r18", tmp_path_factory.mktemp("tsn"))


@pytest.fixture
def call(monkeypatch, capsys):
    """Run a tool's main with arguments; gives what it printed."""

    def run(tool, *arguments):
        monkeypatch.setattr("sys.argv", [tool.__name__, *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out

    return run


def evaluated(workdir, *, right):
    """Write an evaluation whose scores are right for the given labels and point to the partner for the others."""
    labels = np.arange(len(CLASSES))
    chosen = np.where(np.isin(labels, right), labels, labels ^ 1)
    scores = np.eye(len(CLASSES), dtype=np.float32)[chosen]
    workdir.mkdir()
    np.savez(workdir / "scores.npz", scores=scores, labels=labels, names=np.array(CLASSES))
    metrics = {"top1": 100 * len(right) / 12, "top5": 100.0, "mean_class": 50.0, "clips": 12}
    (workdir / "eval.json").write_text(json.dumps({**metrics, "protocol": {"model": workdir.name}}))
    return workdir


def test_report_compares_runs_and_pairs(tmp_path, call):
    one, two = evaluated(tmp_path / "one", right=[0, 1, 2]), evaluated(tmp_path / "two", right=range(12))
    lines = [{"split": "train", "input_wait": share} for share in (0.5, 0.01, 0.02)] + [{"split": "val", "top1": 1.0}]
    (two / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    *_, last = call(report, one, two, "--json").splitlines()
    first, second = json.loads(last)["runs"]
    assert (first["input_wait"], second["input_wait"]) == (None, 2.0)
    assert first["chance"] == pytest.approx(100 / 12)
    assert first["pairs"]["move left | move right"] == 100
    assert first["pairs"]["move up | move down"] == 50
    assert first["pairs"]["zoom in | zoom out"] == 0
    assert set(second["pairs"].values()) == {100}


def test_within_pairs_leaves_the_other_classes_out():
    scores = np.zeros((2, 12), np.float32)
    scores[:, 5] = 9  # another pair wins, and does not matter
    scores[0, 0] = scores[1, 0] = 1
    accuracy = report.within_pairs(scores[:, :2], np.array([0, 1]), CLASSES[:2])
    assert accuracy == {"move left | move right": 50}


def test_report_of_a_run_that_was_not_evaluated(tmp_path):
    with pytest.raises(ValueError, match=r"run python eval\.py --workdir"):
        report.read_run(tmp_path)


def test_visualize_draws_a_picture(msnet, tmp_path, call):
    target = tmp_path / "new" / "field.png"
    call(visualize, f"--checkpoint={msnet}", f"--output={target}", "--examples=0,3")
    picture = cv2.imread(str(target))
    assert picture.shape[0] > 200
    assert picture.std() > 20


def test_evaluate_motion_reports_every_class_against_stillness(msnet, call):
    *_, last = call(evaluate_motion, f"--checkpoint={msnet}", "--clips=24", "--json").splitlines()
    result = json.loads(last)
    assert set(result) == {*CLASSES, "all translations"}
    assert result["all translations"]["clips"] == sum(result[name]["clips"] for name in evaluate_motion.TRANSLATIONS)
    assert all(row["motion"] > 0.5 and row["epe"] > 0 for row in result.values())


@pytest.mark.parametrize("tool", ["visualize", "evaluate_motion"])
def test_a_network_without_displacement(tsn, tmp_path, call, tool):
    extra = [f"--output={tmp_path / 'x.png'}"] if tool == "visualize" else []
    with pytest.raises(ValueError, match="this network has no displacement"):
        call(importlib.import_module(f"motion_jax.tools.{tool}"), f"--checkpoint={tsn}", *extra)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [(), ("--checkpoint=absent", "--bogus"), ("--checkpoint=a", "--output=b", "--examples=x")]
)
def test_bad_usage_is_one_line_and_status_2(arguments, call, capsys):
    with pytest.raises(SystemExit) as exit_:
        call(visualize, *arguments)
    assert exit_.value.code == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1

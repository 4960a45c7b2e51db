"""motion_jax.load_run and motion_jax.Predictor: the scores of tools.predict for files and arrays of frames."""

import subprocess
import sys

import numpy as np
import pytest
from bench import ROOT, call, last_json, moving_noise, save_untrained, write_video

import motion_jax
from motion_jax.configs import video_folder
from motion_jax.data.storage.video_files import read_video
from motion_jax.experiment import load_trained
from motion_jax.prediction import Predictions, average

LABELS = ("kick", "push", "hug", "point", "punch", "shake")


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A narrow TSM for videos, 4 frames of 32 pixels."""
    config = video_folder.get_config("tsm_r18,4").to_dict()
    config["model"]["width"] = 8
    config["data"] |= {"root": "/home/someone/VIDEOS", "size": 32, "resize": (36, 44), "quality": 80}
    return save_untrained(config, list(LABELS), tmp_path_factory.mktemp("prediction") / "run")


@pytest.fixture(scope="module")
def predictor(workdir):
    return motion_jax.Predictor(motion_jax.load_run(workdir))


def as_dict(predictions):
    return dict(zip(predictions.labels, predictions.probabilities.tolist(), strict=True))


def told_by_the_tool(video, workdir, *options):
    (prediction,) = last_json(call("predict", video, f"--checkpoint={workdir}", *options, "--json"))["predictions"]
    return dict(map(tuple, prediction["top5"]))


def test_a_run_holds_its_network(workdir):
    run, trained = motion_jax.load_run(workdir), load_trained(workdir)
    assert run.labels == LABELS
    assert run.config["model"]["name"] == "tsm_r18"
    np.testing.assert_array_equal(
        run.variables["params"]["classifier"]["kernel"], trained.restored.variables["params"]["classifier"]["kernel"]
    )
    clips = np.zeros((1, 4, 32, 32, 3), np.uint8)
    assert run.model.apply(run.variables, clips, train=False).shape == (1, 6)
    with pytest.raises(ValueError, match="no checkpoint"):
        motion_jax.load_run(workdir / "absent")


def test_scores_of_a_real_clip_are_those_of_the_tool(shared_data, workdir, predictor):
    video = sorted((shared_data / "ut_interaction" / "kick").glob("*.avi"))[0]
    predictions = predictor(str(video))
    assert sorted(predictions.labels) == sorted(LABELS)
    assert np.all(np.diff(predictions.probabilities) <= 0)
    assert predictions.probabilities.sum() == pytest.approx(1)
    assert np.ptp(predictions.probabilities) > 1e-3
    told = told_by_the_tool(video, workdir)
    assert list(told) == list(predictions.labels[:5])
    assert {name: as_dict(predictions)[name] for name in told} == pytest.approx(told, abs=1e-6)
    assert as_dict(predictor(np.stack(list(read_video(video))))) == as_dict(predictions)


def test_more_views(tmp_path, workdir, predictor):
    write_video(tmp_path / "clip.avi", moving_noise(step=3, seed=1, frames=30, side=60))
    more = motion_jax.Predictor(motion_jax.load_run(workdir), clips=2, crops=3)(tmp_path / "clip.avi")
    assert as_dict(more) != as_dict(predictor(tmp_path / "clip.avi"))
    told = told_by_the_tool(tmp_path / "clip.avi", workdir, "--clips=2", "--crops=3")
    assert {name: as_dict(more)[name] for name in told} == pytest.approx(told, abs=1e-6)


def test_videos_of_any_size_and_length_are_compiled_once(workdir):
    run, traces = load_trained(workdir), []

    class Counted:
        variables, labels, config = run.variables, run.labels, run.config

        class model:
            @staticmethod
            def apply(variables, clips, *, train):
                traces.append(clips.shape)
                return run.model.apply(variables, clips, train=train)

    predictor = motion_jax.Predictor(Counted)
    rng = np.random.default_rng(0)
    for shape in ((9, 40, 50, 3), (1, 20, 30, 3), (30, 64, 48, 3)):
        predictor(rng.integers(0, 256, shape, np.uint8))
    assert traces == [(1, 4, 32, 32, 3)]


def test_predictions_print_the_best_classes():
    predictions = Predictions(tuple("abcdef"), np.array([0.5, 0.25, 0.125, 0.0625, 0.05, 0.0125]), "3 of 9 frames")
    assert str(predictions).splitlines() == [
        " 50.0%  a",
        " 25.0%  b",
        " 12.5%  c",
        "  6.2%  d",
        "  5.0%  e",
        "3 of 9 frames",
    ]
    assert repr(predictions) == str(predictions)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ("absent.mp4", "^absent.mp4: there is no such file; check the path"),
        (np.zeros((4, 8, 8, 3), np.float32), r"frames must be uint8 \(t, h, w, 3\), RGB in 0..255; got float32 \(4, 8"),
        (np.zeros((4, 8, 8), np.uint8), r"got uint8 \(4, 8, 8\)"),
        (np.zeros((0, 8, 8, 3), np.uint8), r"got uint8 \(0, 8, 8, 3\)"),
        ([], r"got float64 \(0,\)"),
    ],
)
def test_a_video_that_is_none(predictor, video, message):
    with pytest.raises(ValueError, match=message):
        predictor(video)


def test_what_is_not_a_run():
    with pytest.raises(ValueError, match=r"takes what motion_jax.load_run\(PATH\) or .*; got a str"):
        motion_jax.Predictor("runs/mine")


def test_averages():
    logits = np.array([[[0.0, 0.0], [0.0, np.log(3)]]])
    np.testing.assert_allclose(average(logits, "softmax"), [[0.375, 0.625]])
    np.testing.assert_allclose(average(logits, "logits"), [[1 / (1 + 3**0.5), 3**0.5 / (1 + 3**0.5)]])


def test_names_that_need_more_packages_are_found_when_they_are_used():
    code = (
        "import sys, motion_jax; assert not {'grain', 'orbax', 'tensorflow_datasets'} & set(sys.modules);"
        "motion_jax.load_run; assert 'orbax' in sys.modules; print(motion_jax.Predictor.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "Predictor\n"), done.stderr
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        _ = motion_jax.Predicter

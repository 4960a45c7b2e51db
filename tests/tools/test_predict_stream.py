"""tools.predict --stream: one decision per frame of a file or a camera, equal to the causal network on the clip."""

import json
import re
from unittest import mock

import cv2
import jax
import numpy as np
import pytest
from bench import call, error_of, last_json, moving_noise, save_untrained, write_video

from motion_jax.configs import video_folder
from motion_jax.data.clips.live_frames import play, view_of
from motion_jax.data.storage.video_files import read_video
from motion_jax.experiment import load_trained
from motion_jax.inspection.decisions import Decisions

FRAMES = 9


def run_of(folder, *, causal=True):
    """A narrow MSNet for 32-pixel frames."""
    config = video_folder.get_config("msnet_tsm_r18,4").to_dict()
    config["model"] |= {"width": 8, "causal": causal}
    config["data"] |= {"root": str(folder), "size": 32, "resize": (36, 44)}
    return save_untrained(config, ["left", "right"], folder / "run")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return run_of(tmp_path_factory.mktemp("causal"))


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "clip.avi"
    write_video(path, moving_noise(step=3, seed=1, frames=FRAMES, side=72), fps=20.0)
    return path


@pytest.fixture(scope="module")
def probabilities(trained, video):
    """Those of each frame, from the causal network on the whole clip."""
    run = load_trained(trained)
    views = np.stack([view_of(frame, run.experiment.data) for frame in read_video(video)])[None]
    apply = jax.jit(lambda clips: run.model.apply(run.restored.variables, clips, train=False, method="features"))
    return np.asarray(jax.nn.softmax(apply(views)[1]["frame_logits"][0], axis=-1))


def streamed(*arguments):
    return last_json(call("predict", *arguments, "--json"))["stream"]


def test_the_decision_of_each_frame_is_that_of_the_causal_network(trained, video, probabilities):
    result = streamed("--stream", video, f"--checkpoint={trained}")
    assert (result["file"], result["frames"], result["fps"]) == (str(video), FRAMES, 20.0)
    assert 0 < result["latency_ms"]["median"] <= result["latency_ms"]["p95"]
    np.testing.assert_allclose([each["time"] for each in result["decisions"]], np.arange(FRAMES) / 20)
    labels = ["left", "right"]
    assert [each["label"] for each in result["decisions"]] == [labels[best] for best in probabilities.argmax(axis=1)]
    given = [each["probability"] for each in result["decisions"]]
    np.testing.assert_allclose(given, probabilities.max(axis=1), atol=1e-5)
    assert np.ptp(given) > 1e-4  # else any frame would do


def test_every_other_frame_of_a_video_with_smoothing_and_a_picture(trained, video, tmp_path):
    save = tmp_path / "new" / "seen.mp4"
    options = ("--every=2", "--smoothing=0.5", "--hysteresis=0.9,3", f"--save={save}", "--json")
    done = call("predict", "--stream", video, f"--checkpoint={trained}", *options)
    result = last_json(done)["stream"]
    assert (result["frames"], result["fps"]) == (5, 10.0)
    assert len({each["label"] for each in result["decisions"]}) == 1
    changes = [line for line in done.stdout.splitlines() if re.match(r" +\d+\.\d\d s  (left|right)  \d", line)]
    assert len(changes) == 1
    assert f"seen -> {save}" in done.stdout
    written = read_video(save)
    frames = list(written)
    assert (len(frames), written.fps) == (5, 10.0)
    # The frame, and the displacement beside it.
    assert frames[0].shape == (256 + 44, 512, 3)
    left, right = np.split(frames[2][44:].astype(int), 2, axis=1)
    assert np.abs(left - right).mean() > 5


class FakeCamera:
    """Three frames, then none."""

    def __init__(self, index):
        self.index, self.left = index, 3

    def isOpened(self):
        return self.index == 7

    def get(self, _):
        return 30.0

    def read(self):
        self.left -= 1
        return self.left >= 0, np.full((40, 60, 3), 50 * self.left % 256, np.uint8)

    def release(self):
        self.left = 0


def test_a_camera(trained):
    with mock.patch.object(cv2, "VideoCapture", FakeCamera):
        result = streamed("--stream", "7", f"--checkpoint={trained}")
        refused = error_of(call("predict", "--stream", "8", f"--checkpoint={trained}"), only=False)
    assert (result["file"], result["frames"], result["fps"]) == ("camera 7", 3, 30.0)
    times = [each["time"] for each in result["decisions"]]
    assert times[0] == 0
    assert times == sorted(times)
    assert "there is no camera 8" in refused


def test_an_interrupt_ends_the_stream(trained, monkeypatch):
    def read(self):
        if self.left == 1:
            raise KeyboardInterrupt
        self.left -= 1
        return True, np.zeros((40, 60, 3), np.uint8)

    monkeypatch.setattr(FakeCamera, "read", read)
    monkeypatch.setattr(cv2, "VideoCapture", FakeCamera)
    assert streamed("--stream", "7", f"--checkpoint={trained}")["frames"] == 2


def test_frames_are_decoded_as_the_video_plays(trained, tmp_path):
    path = tmp_path / "clip.avi"
    write_video(path, range(100))
    section = load_trained(trained).experiment.data
    with mock.patch.object(cv2, "cvtColor", side_effect=cv2.cvtColor) as converted:
        _, frames = play(path, section)
        for _ in range(3):
            next(frames)
        assert converted.call_count == 3


@pytest.mark.long
def test_a_streaming_export(trained, video, tmp_path):
    output = tmp_path / "net.stablehlo"
    last_json(
        call("export", f"--checkpoint={trained}", "--format=stablehlo", f"--output={output}", "--streaming", "--json")
    )
    ours, theirs = (streamed("--stream", video, f"--checkpoint={each}") for each in (trained, output))
    for one, other in zip(ours["decisions"], theirs["decisions"], strict=True):
        assert one["label"] == other["label"]
        assert abs(one["probability"] - other["probability"]) < 1e-4
    assert "one frame at a time" in error_of(call("predict", video, f"--checkpoint={output}"), only=False)


def test_what_cannot_stream(video, tmp_path):
    clips = run_of(tmp_path, causal=False)
    message = error_of(call("predict", "--stream", video, f"--checkpoint={clips}"))
    assert "looks at later frames" in message
    assert "--config.model.causal=true" in message


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a.mp4", "--stream=b.mp4"), "FILE and --stream exclude each other"),
        (("--stream=b.mp4", "--clips=2"), "--clips and --stream exclude each other"),
        (("a.mp4", "--smoothing=1"), "--smoothing needs --stream"),
        (("--stream=b.mp4", "--smoothing=-1"), "--smoothing: expected seconds, 0 or more; got '-1'"),
        (("--stream=b.mp4", "--hysteresis=0.1"), "--hysteresis: expected a margin from 0 to 1 and a number of frames"),
        (("--stream=b.mp4", "--save=x.png"), "--save takes a path ending in .mp4; got 'x.png'"),
        (("--stream=b.mp4", "--save=./b.mp4"), "would replace a video that is read"),
    ],
)
def test_bad_usage(arguments, message):
    assert message in error_of(call("predict", *arguments, "--checkpoint=absent"))


def test_smoothing_weighs_frames_by_their_age():
    decisions = Decisions(smoothing=2.0)
    rng = np.random.default_rng(0)
    times, given = np.cumsum(rng.uniform(0.1, 1, 6)), rng.dirichlet(np.ones(3), 6)
    found = [decisions.update(time, one) for time, one in zip(times, given, strict=True)]
    # The first frame stands for all before it.
    left = np.exp(-(times[-1] - times) / 2)
    weights = left - np.concatenate([[0], left[:-1]])
    average = weights @ given
    label, probability = found[-1]
    assert label == average.argmax()
    np.testing.assert_allclose(probability, average.max())


def test_hysteresis_needs_a_margin_for_several_frames():
    decisions = Decisions(margin=0.2, hold=3)
    rows = [[0.9, 0.1], [0.45, 0.55], [0.1, 0.9], [0.1, 0.9], [0.1, 0.9], [0.9, 0.1], [0.1, 0.9], [0.9, 0.1]]
    found = [decisions.update(time, np.array(row)) for time, row in enumerate(rows)]
    assert [label for label, _ in found] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert json.dumps(found[4][1]) == "0.9"

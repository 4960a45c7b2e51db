"""tools.predict on an untrained checkpoint: the scores of eval.py, odd files, pictures."""

import json
import os
import re
import shutil

import cv2
import numpy as np
import pytest
from bench import call, error_of, last_json, moving_noise, save_untrained, write_video, write_videos

from motion_jax.configs import moving_shapes, video_folder
from motion_jax.data.pipeline import eval_batches
from motion_jax.data.storage.video_files import read_video
from motion_jax.experiment import Experiment, load_trained, open_data
from motion_jax.tools import export, predict
from motion_jax.weights.card import write_card


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Two classes of clips; those of val have several sizes and lengths."""
    root = write_videos(tmp_path_factory.mktemp("videos"), train=1, val=2)
    write_video(root / "val" / "left" / "long.avi", moving_noise(step=2, seed=7, frames=31, side=72))
    write_video(root / "val" / "right" / "short.avi", moving_noise(step=3, seed=8, frames=2, side=40))
    return root


@pytest.fixture(scope="module")
def trained(tmp_path_factory, videos):
    """A narrow MSNet for these videos, 4 frames of 32 pixels."""
    config = video_folder.get_config("msnet_tsm_r18,4").to_dict()
    config["model"]["width"] = 8
    config["data"] |= {"root": str(videos), "size": 32, "resize": (36, 44), "quality": 80}
    config["eval"]["batch_size"] = 4
    return save_untrained(config, ["left", "right"], tmp_path_factory.mktemp("trained") / "run")


def predict_files(*arguments):
    done = call("predict", *arguments)
    return done.returncode, done.stdout, done.stderr


def last(text):
    return json.loads(text.splitlines()[-1])["predictions"]


@pytest.mark.parametrize("protocol", [(), ("--clips=2", "--crops=3", "--full_resolution")])
def test_agrees_with_eval_clip_by_clip(videos, trained, protocol):
    last_json(call("eval", f"--workdir={trained}", "--config.parallel.devices=1", *protocol, "--json"))
    with np.load(trained / "scores.npz") as file:
        scores, names = file["scores"], file["names"].tolist()
    files = sorted((videos / "val").rglob("*.avi"))
    code, out, err = predict_files(videos / "val", f"--checkpoint={trained}", "--batch=4", "--json", *protocol)
    assert (code, err) == (0, "")
    predictions = last(out)
    assert [prediction["file"] for prediction in predictions] == list(map(str, files))
    assert len(scores) == 6
    for prediction, expected in zip(predictions, scores, strict=True):
        given = dict(map(tuple, prediction["top5"]))
        np.testing.assert_allclose([given[name] for name in names], expected, atol=2e-6)
        assert prediction["top5"][0] == [prediction["label"], prediction["probability"]]
    assert np.ptp(scores[:, 0]) > 1e-3  # else any two networks would agree


def test_a_config_whose_clips_are_generated(videos, tmp_path):
    """moving_shapes has clips of one size; other videos are cropped as in eval_batches."""
    config = moving_shapes.get_config("tsn_r18,4,smoke").to_dict()
    workdir = save_untrained(config, [f"class {n}" for n in range(12)], tmp_path / "run")
    code, out, _ = predict_files(videos / "val" / "left" / "0.avi", f"--checkpoint={workdir}", "--json")
    (prediction,) = last(out)
    assert code == 0
    assert len(prediction["top5"]) == 5
    probabilities = [probability for _, probability in prediction["top5"]]
    assert probabilities == sorted(probabilities, reverse=True)
    assert 1 / 12 < probabilities[0] <= 1
    assert not (workdir / "data").exists()


def test_views_equal_those_of_evaluation(videos, trained, tmp_path):
    """Views agree bit for bit: frames are resized and stored as JPEG, then sampled and cropped."""
    experiment = Experiment.from_config(json.loads(next(trained.glob("checkpoints/latest/*/config.json")).read_text()))
    dataset = open_data(experiment.data, tmp_path)
    predictor, _ = predict.open_network(trained, crops=3)
    files = sorted((videos / "val").rglob("*.avi"))
    (batch,) = eval_batches(dataset, batch_size=len(files), crops=3)
    for file, expected in zip(files, batch["clips"], strict=True):
        np.testing.assert_array_equal(predict.read(file, predictor).views, expected)


@pytest.mark.parametrize("format_", ["safetensors", "stablehlo"])
def test_an_export_predicts_what_its_checkpoint_does(videos, trained, tmp_path, format_):
    opened, file = load_trained(trained), tmp_path / f"net.{format_}"
    card = export.describe(opened, format_, opened.model, input_="uint8")
    export.write(file, opened.model, opened.restored.variables, card)
    write_card(file, card)
    picture = tmp_path / "seen.png"
    code, out, err = predict_files(
        videos / "val" / "left" / "0.avi", f"--checkpoint={file}", f"--save={picture}", "--json"
    )
    assert (code, err) == (0, "")
    assert picture.is_file()
    _, expected, _ = predict_files(videos / "val" / "left" / "0.avi", f"--checkpoint={trained}", "--json")
    given, expected = (dict(map(tuple, last(text)[0]["top5"])) for text in (out, expected))
    assert given == pytest.approx(expected, abs=1e-5)


def test_folders_lists_and_files(videos, trained, tmp_path):
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(3):
        cv2.imwrite(str(frames / f"{number}.png"), np.full((20, 30, 3), 80 * number, np.uint8))
    (tmp_path / "notes.md").write_text("passed over")
    one = videos / "val" / "left" / "0.avi"
    listed = tmp_path / "some.txt"
    listed.write_text(f"{one}\n\n{videos / 'val' / 'right' / '0.avi'}\n")
    code, out, err = predict_files(listed, tmp_path, one, f"--checkpoint={trained}", "--json")
    assert (code, err) == (0, "")
    expected = [one, videos / "val" / "right" / "0.avi", frames]
    assert [prediction["file"] for prediction in last(out)] == list(map(str, expected))
    assert sum(line.startswith(str(frames)) for line in out.splitlines()) == 1


def test_unreadable_files_are_reported_and_the_others_predicted(videos, trained, tmp_path):
    good, empty, absent = videos / "val" / "left" / "0.avi", tmp_path / "a.mp4", tmp_path / "absent.mp4"
    empty.write_bytes(b"")
    half = tmp_path / "half.avi"
    sound = (videos / "val" / "left" / "long.avi").read_bytes()
    half.write_bytes(sound[: len(sound) // 2])
    code, out, err = predict_files(empty, good, absent, half, f"--checkpoint={trained}", "--json")
    assert code == 0
    first, second, third, fourth = last(out)
    assert set(first) == {"file", "error"}
    assert "the file is empty" in first["error"]
    assert set(second) == {"file", "label", "probability", "top5"}
    assert "no such file" in third["error"]
    assert "of 31 declared frames" in fourth["remark"]
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(sum(line.startswith(f"{path}: ") for line in lines) == 1 for path in (empty, absent, half))
    code, _, err = predict_files(half, f"--checkpoint={trained}")
    assert (code, err) == (0, f"{half}: {fourth['remark']}\n")


# Files that are predicted, with the remark on each.
ODD = {
    "derived_truncated_faststart.mp4": "30 of 66 declared frames can be decoded",
    "derived_truncated.avi": "70 of 120 declared frames can be decoded",
    "decord_corrupted.mp4": "49 of 50 declared frames can be decoded",
    "derived_one_frame.mp4": None,
    "small_one_frame_vp8.webm": "1 of 1000 declared frames can be decoded",  # its header's own claim
    "derived_vfr.mp4": None,
    "derived_vp9.webm": None,
    "gulpio_vp8_audio.webm": None,
    "torchcodec_hevc_10bit.mp4": None,
    "torchcodec_two_video_streams.mp4": None,
    "decord_rotate90.mov": None,
    "decord_unordered.mov": None,
    "20bn_yuv444_40x30.mp4": None,
    "derived_odd_dims_307x153.mp4": None,
    "derived_gray_ffv1.mkv": None,
    "mp4_content_named.avi": None,
    "muxjs_segment.ts": None,
}
ODD_UNREADABLE = (
    "zero_byte.mp4",
    "text_file.mp4",
    "small_no_streams.mp4",
    "small_audio_only.mp4",
    "derived_truncated_no_moov.mp4",
)


def test_every_odd_video(shared_data, trained):
    folder = shared_data / "odd_videos"
    code, out, err = predict_files(folder, f"--checkpoint={trained}", "--json")
    assert code == 0
    found = {prediction["file"].rpartition("/")[2]: prediction for prediction in last(out)}
    av1 = found.pop("torchcodec_av1.mkv")  # 125 frames, or a clean error where there is no AV1 decoder
    assert av1.get("label") or "no video frame can be decoded" in av1["error"]
    assert set(found) == {*ODD, *ODD_UNREADABLE}
    assert {name for name, prediction in found.items() if "error" in prediction} == set(ODD_UNREADABLE)
    assert all(found[name].get("remark") == remark for name, remark in ODD.items())
    assert all(0.5 <= found[name]["probability"] <= 1 for name in ODD)
    named = [line.partition(": ")[0].rpartition("/")[2] for line in err.splitlines()]
    remarked = [name for name, remark in ODD.items() if remark]
    assert sorted(set(named) - {"torchcodec_av1.mkv"}) == sorted([*ODD_UNREADABLE, *remarked])
    assert len(named) == len(set(named))


@pytest.mark.parametrize("name", ODD_UNREADABLE)
def test_an_odd_video_alone(shared_data, trained, name):
    code, out, err = predict_files(shared_data / "odd_videos" / name, f"--checkpoint={trained}", "--json")
    assert code == 2
    assert len(err.splitlines()) == 1
    assert name in err
    (prediction,) = last(out)
    assert set(prediction) == {"file", "error"}


def test_hostile_files_cost_themselves_alone(videos, trained, tmp_path):
    """Names with bytes that are not UTF-8, an escape and a line break; a pipe; a playlist; a frame of a gigapixel."""
    names = [b"caf\xe9.avi", b"\x1b[2J.avi", b"two\nlines.avi"]
    for name in names:
        shutil.copy(videos / "val" / "left" / "0.avi", os.path.join(os.fsencode(tmp_path), name))
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "list.mp4").write_text(f"ffconcat version 1.0\nfile {videos / 'val' / 'left' / '0.avi'}\n")
    jpeg = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1].tobytes()
    at = jpeg.index(b"\xff\xc0") + 5
    (tmp_path / "bomb").mkdir()
    (tmp_path / "bomb" / "1.jpg").write_bytes(jpeg[:at] + b"\x7f\xff\x7f\xff" + jpeg[at + 4 :])
    code, out, err = predict_files(tmp_path, f"--checkpoint={trained}", "--json")
    assert code == 0
    assert "\x1b" not in out + err
    assert r"caf\xe9.avi" in out
    results = {os.path.basename(os.fsencode(result["file"])): result for result in last(out)}
    assert sorted(results) == sorted([*names, b"pipe.mp4", b"list.mp4", b"bomb"])
    one, *others = (results[name]["top5"] for name in names)
    assert others == [one, one]
    assert "pipe, a socket or a device" in results[b"pipe.mp4"]["error"]
    assert "list of other files" in results[b"list.mp4"]["error"]
    assert "1.jpg declares 32767x32767 pixels, more than data.max_pixels" in results[b"bomb"]["error"]
    listed = tmp_path / "files.txt"
    listed.write_bytes(b"\n".join(os.path.join(os.fsencode(tmp_path), name) for name in names[:2]))
    code, out, _ = predict_files(listed, f"--checkpoint={trained}", "--json")
    assert (code, [result["label"] for result in last(out)]) == (0, [one[0][0]] * 2)


def test_no_readable_video_among_several(tmp_path, trained):
    for name in "ab":
        (tmp_path / f"{name}.mp4").write_bytes(b"text")
    code, out, err = predict_files(tmp_path, f"--checkpoint={trained}")
    assert (code, out) == (2, "")
    *named, verdict = err.splitlines()
    assert len(named) == 2
    assert "none of the 2 videos can be read" in verdict


def test_a_picture_and_a_video(videos, trained, tmp_path):
    file = videos / "val" / "left" / "long.avi"
    picture, video = tmp_path / "new" / "seen.png", tmp_path / "seen.mp4"
    assert predict_files(file, f"--checkpoint={trained}", f"--save={picture}")[0] == 0
    image = cv2.imread(str(picture))
    assert image.shape[1] == 1400  # 7 inches
    assert image.shape[0] > 200
    assert image.std() > 20
    assert predict_files(file, f"--checkpoint={trained}", f"--save={video}")[0] == 0
    written = read_video(video)
    frames = list(written)
    assert (len(frames), written.fps) == (31, 10.0)
    # A frame, its displacement, the confidence, the activation and the classes.
    assert frames[0].shape[1] > 3 * frames[0].shape[0]
    assert np.abs(frames[0].astype(int) - frames[5]).max() > 50


def test_pictures_of_several_and_of_a_network_without_displacement(videos, tmp_path):
    config = moving_shapes.get_config("tsn_r18,4,smoke").to_dict()
    workdir = save_untrained(config, [f"class {n}" for n in range(12)], tmp_path / "run")
    save = tmp_path / "seen.mp4"
    code, out, _ = predict_files(videos / "val", f"--checkpoint={workdir}", f"--save={save}")
    assert code == 0
    assert out.splitlines()[-1] == f"seen -> {tmp_path / 'seen'}"
    made = sorted(path.relative_to(tmp_path / "seen").as_posix() for path in (tmp_path / "seen").rglob("*.mp4"))
    assert made[0] == "left/0.avi.mp4"
    assert len(made) == 6
    frame = next(iter(read_video(tmp_path / "seen" / made[0])))
    assert frame.shape[1] < 2.5 * frame.shape[0]  # no displacement beside it


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint=absent",), "the following arguments are required: FILE"),
        (("a.mp4",), "the following arguments are required: --checkpoint"),
        (("a.mp4", "--checkpoint=absent"), "no checkpoint: .*absent is not a folder"),
        (("a.mp4", "--checkpoint=README.md"), "README.md has no card"),
        (("a.mp4", "--checkpoint=a", "--clips=0"), "--clips: expected an integer, 1 or more; got '0'"),
        (("a.mp4", "--checkpoint=a", "--crops=2"), "--crops: invalid choice: 2"),
        (("a.mp4", "--checkpoint=a", "--save=./a.mp4"), "--save=a.mp4 would replace a video that is read"),
        (("a.mp4", "--checkpoint=a", "--save=x.avi"), "--save takes a path ending in .png, .svg, .*; got 'x.avi'"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(arguments, message):
    assert re.search(message, error_of(call("predict", *arguments)))


def test_empty_folders_and_lists(tmp_path, trained):
    (tmp_path / "list.txt").write_text("\n")
    for path, message in ((tmp_path, "holds neither videos nor frames"), (tmp_path / "list.txt", "is empty")):
        code, _, err = predict_files(path, f"--checkpoint={trained}")
        assert (code, len(err.splitlines())) == (2, 1)
        assert message in err


def test_a_broken_checkpoint(trained, tmp_path):
    broken = tmp_path / "run"
    shutil.copytree(trained, broken)
    (leaf,) = broken.rglob("leaves.json")
    leaf.write_text("{}")
    assert "error: the checkpoint" in error_of(call("predict", "a.mp4", f"--checkpoint={broken}"))

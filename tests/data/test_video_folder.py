import itertools
import logging
import os
import shutil
import signal
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest
from bench import data_config, data_section, write_video
from odd_videos import ODD

import motion_jax.data.storage.parts
from motion_jax.data.pipeline import eval_batches, open_dataset, train_batches
from motion_jax.data.sources.preparation import prepare


@pytest.fixture
def root(tmp_path):
    """Two classes; frame i of a video is 20 i bright, plus 100 in class b."""
    for split, count in (("train", 3), ("val", 1)):
        for name, base in (("a", 0), ("b", 100)):
            for number in range(count):
                write_video(tmp_path / "root" / split / name / f"{number}.avi", [base + 20 * i for i in range(6)])
    return tmp_path / "root"


def opened(root, tmp_path, **changes):
    section = data_config(**{"name": "video_folder", "root": str(root), "threads": 1, **changes})
    return open_dataset(section, default_dir=str(tmp_path / "prepared"))


def prepared_folders(tmp_path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "prepared" / "video_folder").iterdir())


def test_examples(root, tmp_path):
    dataset = opened(root, tmp_path)
    assert dataset.labels == ("a", "b")
    assert (dataset.size("train"), dataset.size("val")) == (6, 2)
    example = dataset.example("train", 4)
    assert (example["id"], example["label"], example["num_frames"], example["fps"]) == ("train/b/1.avi", 1, 6, 10.0)
    assert example["frames"].shape == (6, 24, 32, 3)
    assert [round(frame.mean()) for frame in example["frames"]] == pytest.approx([100, 120, 140, 160, 180, 200], abs=2)


def test_evaluation_views(root, tmp_path):
    """Two clips of three crops of 24x32 frames: left, right, centre, the crops of a clip beside each other."""
    ramp = np.broadcast_to(np.arange(64)[None, :, None], (48, 64, 3))
    write_video(root / "val/a/0.avi", [ramp + 20 * i for i in range(8)])
    dataset = opened(root, tmp_path, size=24)
    clips = next(iter(eval_batches(dataset, batch_size=1, clips=2, crops=3)))["clips"][0]
    assert clips.shape == (6, 4, 24, 24, 3)
    # Four segments of two frames: their middles, then their starts; crops start at 0, 8 and 4.
    columns = np.arange(24).mean() * 2 + 0.5
    frames = ((1, 3, 5, 7), (0, 2, 4, 6))
    expected = [[columns + 2 * x + 20 * i for i in chosen] for chosen in frames for x in (0, 8, 4)]
    np.testing.assert_allclose(clips.mean(axis=(2, 3, 4)), expected, atol=1.5)


@pytest.mark.parametrize(("crop", "mean"), [("center", 2 * 15.5 + 0.5), ("none", 31.5)])
def test_training_without_random_crops(root, tmp_path, crop, mean):
    for video in root.glob("train/*/*"):
        write_video(video, [np.broadcast_to(np.arange(64)[None, :, None], (48, 64, 3))] * 4)
    batch = next(train_batches(opened(root, tmp_path, crop=crop, flip="none"), batch_size=6, seed=0))
    columns = batch["clips"].mean(axis=(0, 1, 2, 4))
    assert columns.mean() == pytest.approx(mean, abs=1)
    # Centre: 16 of 32 columns as stored; none: all 64 squeezed into 16.
    assert columns[-1] - columns[0] == pytest.approx(30 if crop == "center" else 60, abs=2)


@pytest.mark.parametrize(("resize", "shape"), [(24, (24, 32)), (None, (48, 64)), ([20, 20], (20, 20))])
def test_resize(root, tmp_path, resize, shape):
    assert opened(root, tmp_path, resize=resize).example("val", 0)["frames"].shape == (6, *shape, 3)


def test_frame_folders_are_videos(root, tmp_path):
    (root / "train/b/clip").mkdir()
    for number in (1, 2, 10):
        cv2.imwrite(str(root / f"train/b/clip/{number}.jpg"), np.full((48, 64, 3), 10 * number, np.uint8))
    example = opened(root, tmp_path).example("train", 6)
    assert (example["id"], example["fps"]) == ("train/b/clip", 0.0)
    assert [round(frame.mean()) for frame in example["frames"]] == pytest.approx([10, 20, 100], abs=1)


def test_prepared_once(root, tmp_path, monkeypatch):
    opened(root, tmp_path)
    monkeypatch.setattr("motion_jax.data.storage.parts.decode", lambda path, **options: 1 / 0)
    opened(root, tmp_path)
    assert len(prepared_folders(tmp_path)) == 1


def test_a_changed_folder_is_prepared_anew(root, tmp_path):
    opened(root, tmp_path)
    write_video(root / "train/a/0.avi", [250] * 9)
    dataset = opened(root, tmp_path)
    assert dataset.example("train", 0)["num_frames"] == 9
    assert len(prepared_folders(tmp_path)) == 2


def test_bad_videos_are_named_and_left_out(root, tmp_path, caplog):
    (root / "train/a/empty.avi").touch()
    (root / "train/b/text.mp4").write_text("no video")
    with caplog.at_level(logging.WARNING):
        dataset = opened(root, tmp_path, max_bad_fraction=0.2)
    assert dataset.size("train") == 6
    assert caplog.text.count("train/a/empty.avi is left out: the file is empty (0 bytes)") == 1
    assert caplog.text.count("train/b/text.mp4 is left out") == 1


def test_too_many_bad_videos(root, tmp_path):
    (root / "train/a/empty.avi").touch()
    (root / "train/b/text.mp4").write_text("no video")
    for _ in range(2):  # The second time from what was prepared.
        with pytest.raises(ValueError, match=r"2 of 10 videos .*max_bad_fraction = 0.1.*empty.avi.*text.mp4") as caught:
            opened(root, tmp_path)
        assert "\n" not in str(caught.value)
    assert opened(root, tmp_path, max_bad_fraction=0.2).size("train") == 6


def test_a_split_without_readable_videos(root, tmp_path):
    for video in root.glob("val/*/*"):
        video.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no video of split val .*0 bytes"):
        opened(root, tmp_path, max_bad_fraction=1)


def test_a_cut_off_video_is_kept_and_named(root, tmp_path, caplog):
    path = root / "train/a/0.avi"
    write_video(path, list(range(0, 250, 5)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with caplog.at_level(logging.WARNING):
        count = opened(root, tmp_path).example("train", 0)["num_frames"]
    assert 10 < count < 40
    assert f"train/a/0.avi is kept: {count} of 50 declared frames can be decoded" in caplog.text


def test_missing_split(root, tmp_path):
    with pytest.raises(ValueError, match=r"no split 'test', only train, val"):
        opened(root, tmp_path).size("test")


def test_a_killed_preparation_goes_on_and_is_never_taken_for_complete(root, tmp_path, pytestconfig, monkeypatch):
    script = (
        "import os, time, motion_jax.data.storage.parts as stored\n"
        "from motion_jax.data.pipeline import DataConfig, open_dataset\n"
        "read = stored.decode\n"
        "def slow(path, **options):\n"
        "    if 'val' in str(path): os.write(1, b'half\\n'); time.sleep(60)\n"
        "    return read(path, **options)\n"
        "stored.decode = slow\n"
        f"section = DataConfig(**{data_section(name='video_folder', root=str(root))})\n"
        f"open_dataset(section, default_dir={str(tmp_path / 'prepared')!r})\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=pytestconfig.rootpath
    )
    assert process.stdout.readline() == b"half\n"
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("prepared/video_folder/*/parts-2.0.0/train-*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    (name,) = prepared_folders(tmp_path)
    left = [path.name for path in (tmp_path / "prepared/video_folder" / name).iterdir() if path.is_dir()]
    assert sorted(entry.partition(".")[0] for entry in left) == ["incomplete", "parts-2"]
    # What was whole is kept: only the videos of the other part are read again.
    read, again = motion_jax.data.storage.parts.decode, []
    monkeypatch.setattr("motion_jax.data.storage.parts.decode", lambda path, **o: again.append(path) or read(path, **o))
    resumed = opened(root, tmp_path)
    assert sorted(path.relative_to(root).as_posix() for path in again) == ["val/a/0.avi", "val/b/0.avi"]
    after = [path.name for path in (tmp_path / "prepared/video_folder" / name).iterdir() if path.is_dir()]
    assert after == ["2.0.0"]
    whole = opened(root, tmp_path / "elsewhere")
    for split, size in (("train", 6), ("val", 2)):
        assert resumed.size(split) == whole.size(split) == size
        for index in range(size):
            assert resumed.example(split, index)["id"] == whole.example(split, index)["id"]
            np.testing.assert_array_equal(
                resumed.example(split, index)["frames"], whole.example(split, index)["frames"]
            )


def test_a_second_process_waits_for_the_first(root, tmp_path, pytestconfig):
    script = (
        "import os, time, motion_jax.data.storage.parts as stored\n"
        "from motion_jax.data.pipeline import DataConfig, open_dataset\n"
        "read = stored.decode\n"
        "def counted(path, **options):\n"
        "    os.write(1, b'read\\n'); time.sleep(0.05)\n"
        "    return read(path, **options)\n"
        "stored.decode = counted\n"
        f"section = DataConfig(**{data_section(name='video_folder', root=str(root))})\n"
        f"d = open_dataset(section, default_dir={str(tmp_path / 'prepared')!r})\n"
        "assert d.size('train') == 6\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=pytestconfig.rootpath
        )
        for _ in range(2)
    ]
    outputs = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert sorted(out.count(b"read") for out, _ in outputs) == [0, 8]


@pytest.mark.filterwarnings("ignore")  # Beam's own.
def test_beam_makes_the_same_records(root, tmp_path, monkeypatch):
    pytest.importorskip("apache_beam", reason="apache-beam is an extra: pip install apache-beam")
    monkeypatch.setattr("motion_jax.data.storage.parts._LEAST_VIDEOS", 2)
    (root / "train/a/0.avi").write_bytes(b"")
    section = data_config(name="video_folder", root=str(root), max_bad_fraction=0.2)
    options = ["--direct_num_workers=2", "--direct_running_mode=multi_threading"]
    prepare(section, default_dir=str(tmp_path / "beam"), beam_runner="DirectRunner", beam_options=options)
    beam, local = (open_dataset(section, default_dir=str(tmp_path / name)) for name in ("beam", "local"))
    for split, size in (("train", 5), ("val", 2)):
        assert beam.size(split) == local.size(split) == size
        for index in range(size):
            one, other = beam.example(split, index), local.example(split, index)
            assert (one["id"], one["label"]) == (other["id"], other["label"])
            np.testing.assert_array_equal(one["frames"], other["frames"])


def test_beam_that_is_absent_is_named(root, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    monkeypatch.setitem(sys.modules, "apache_beam.options.pipeline_options", None)
    section = data_config(name="video_folder", root=str(root))
    with pytest.raises(ValueError, match="Beam is not installed: pip install apache-beam"):
        prepare(section, default_dir=str(tmp_path), beam_runner="DirectRunner")


def test_real_clips_of_which_some_are_damaged(shared_data, tmp_path, caplog):
    """Five of ninety files: four cannot be read, one ends early; each is named once, and the rest is as ever."""
    root = tmp_path / "videos"
    shutil.copytree(shared_data / "ut_interaction", root)
    files = sorted(root.glob("*/*.avi"))
    assert len(files) == 90
    empty, text, index, headless, cut = files[3::18]
    empty.write_bytes(b"")
    text.write_text("no video")
    index.write_bytes(index.read_bytes()[:300])
    headless.write_bytes(headless.read_bytes()[5000:])
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size * 6 // 10])
    datasets = [opened(root, tmp_path / name, resize=(72, 96), threads=2) for name in ("one", "other")]
    for file in (empty, text, index, headless, cut):
        said = [message for message in caplog.messages if message.startswith(file.relative_to(root).as_posix())]
        assert len(said) == 2  # Once per preparation.
        assert all(("is kept" if file is cut else "is left out") in message for message in said)
    for dataset in datasets:
        assert dataset.labels == ("hand_shake", "hug", "kick", "point", "punch", "push")
        assert dataset.size("train") + dataset.size("val") == 86
    assert datasets[0].example("train", 0)["frames"].std() > 10
    streams = [train_batches(dataset, batch_size=8, seed=5) for dataset in datasets]
    for one, other in itertools.islice(zip(*streams, strict=True), 20):  # Two epochs.
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])
    assert [dataset.broken for dataset in datasets] == [0, 0]


def test_odd_videos_are_prepared_and_train(shared_data, tmp_path, caplog):
    """Every one, as its README says: with the frames it has, or left out and named."""
    root = tmp_path / "videos"
    for split, videos in (("train", (*ODD, "torchcodec_av1.mkv")), ("val", ("derived_vp9.webm",))):
        (root / split / "odd").mkdir(parents=True)
        for video in videos:
            (root / split / "odd" / video).symlink_to(shared_data / "odd_videos" / video)
    dataset = opened(root, tmp_path, crop="multi_scale", max_bad_fraction=0.3)
    examples = [dataset.example("train", index) for index in range(dataset.size("train"))]
    counts = {example["id"].removeprefix("train/odd/"): example["num_frames"] for example in examples}
    assert counts.pop("torchcodec_av1.mkv", 125) == 125  # Where this OpenCV has no decoder it is left out.
    assert counts == {name: expected[0] for name, expected in ODD.items() if expected}
    for name, expected in ODD.items():
        said = [message for message in caplog.messages if message.startswith(f"train/odd/{name} is")]
        odd = expected is None or expected[2]
        assert len(said) == odd, name
        assert all(("is left out: " if expected is None else "is kept: ") in message for message in said)
    batches = itertools.islice(train_batches(dataset, batch_size=len(examples), seed=0), 2)
    for batch in batches:
        assert sorted(batch["index"]) == list(range(len(examples)))
    assert dataset.broken == 0

"""Clips to show: those of evaluation, with times."""

import numpy as np
import pytest
from bench import data_config, write_video

from motion_jax.data.clips.shown_clips import clip_of_example, clip_of_frames, clips_of_files
from motion_jax.data.clips.single_video import read_single
from motion_jax.data.pipeline import eval_batches, open_dataset

SECTION = data_config(name="video_folder", resize=(20, 28))


def test_videos_files_and_lists(tmp_path, caplog):
    write_video(tmp_path / "some" / "a.avi", range(0, 240, 20), size=(30, 40))
    (tmp_path / "b.avi").touch()
    (tmp_path / "list.txt").write_text(f"{tmp_path / 'b.avi'}\n")
    (clip,) = clips_of_files([tmp_path / "list.txt", tmp_path / "some"], SECTION)
    assert clip.title == "a.avi"
    assert clip.frames.shape == (4, 16, 16, 3)
    # The middles of four segments of three frames, at 10 frames per second.
    assert np.round(clip.frames.mean(axis=(1, 2, 3)) / 20).tolist() == [1, 4, 7, 10]
    np.testing.assert_allclose(clip.times, [0.1, 0.4, 0.7, 1.0])
    assert clip.label is None
    assert "b.avi: the file is empty" in caplog.text
    with pytest.raises(ValueError, match=r"b\.avi: the file is empty"):
        clips_of_files([tmp_path / "b.avi"], SECTION)


def test_an_unknown_frame_rate_gives_no_times(tmp_path):
    write_video(tmp_path / "a.avi", range(0, 240, 20), size=(30, 40))
    stored = read_single(tmp_path / "a.avi", SECTION)
    assert clip_of_frames(stored.frames, 0.0, SECTION)[1] is None


def test_examples_are_those_of_evaluation(tmp_path):
    dataset = open_dataset(data_config(), default_dir=str(tmp_path))
    clip = clip_of_example(dataset, "val", 3)
    batch = next(iter(eval_batches(dataset, batch_size=7)))
    np.testing.assert_array_equal(clip.frames, batch["clips"][3, 0])
    assert (clip.label, clip.title) == (batch["label"][3], batch["id"][3].decode())
    assert clip.displacement.shape == (7, 4, 4, 2)
    assert clip.moving.shape == (7, 4, 4)
    np.testing.assert_allclose(np.diff(clip.times), 1 / 8)

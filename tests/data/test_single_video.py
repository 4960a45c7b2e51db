import numpy as np
import pytest

from motion_jax.data.clips.single_video import find_videos, read_single, shown_pair, views_of, whole_view
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.decoding import read_video
from motion_jax.data.storage.writing import write_video

SECTION = {
    "name": "video_folder",
    "root": "videos",
    "version": None,
    "dir": None,
    "frames": 4,
    "size": 16,
    "resize": (20, 28),
    "quality": 95,
    "sampling": "segment",
    "crop": "multi_scale",
    "color_jitter": None,
    "rand_augment": None,
    "flip": "skip",
    "clips": None,
    "threads": 0,
    "processes": 0,
    "max_bad_fraction": 0.0,
}


def levels(*values, height=30, width=40):
    return [np.full((height, width, 3), value, np.uint8) for value in values]


def test_videos_below_a_folder(tmp_path):
    for name in ("b/2.mp4", "b/10.AVI", "a/clip.webm", ".hidden/x.mp4", "b/.part.mp4", "b/frame.png", "c/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for number in range(2):
        (tmp_path / "c" / "frames").mkdir(exist_ok=True, parents=True)
        (tmp_path / "c" / "frames" / f"{number}.jpg").touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_videos(tmp_path)]
    assert found == ["a/clip.webm", "b/2.mp4", "b/10.AVI", "c/frames"]
    assert find_videos(tmp_path / "c" / "frames") == [tmp_path / "c" / "frames"]


def test_a_folder_without_videos(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match="holds neither videos nor frames of one: give files"):
        find_videos(tmp_path)


def test_frames_and_views_are_those_of_evaluation(tmp_path):
    write_video(tmp_path / "a.mp4", levels(*range(0, 240, 20)), fps=10.0)
    stored = read_single(tmp_path / "a.mp4", DataConfig(**SECTION))
    assert (len(stored.frames), stored.fps, stored.remark) == (12, 10.0, "")
    views = views_of(stored.frames, DataConfig(**SECTION), clips=2, crops=3)
    assert views.shape == (6, 4, 16, 16, 3)
    # The middles of four segments of three frames, then their starts; the crops of a clip beside each other.
    shown = np.round(views.mean(axis=(2, 3, 4)) / 20)
    assert shown.tolist() == [[1, 4, 7, 10]] * 3 + [[0, 3, 6, 9]] * 3
    whole = list(whole_view(stored.frames, DataConfig(**SECTION)))
    assert [round(frame.mean() / 20) for frame in whole] == list(range(12))
    np.testing.assert_array_equal(
        np.stack([whole[i] for i in (1, 4, 7, 10)]), views_of(stored.frames, DataConfig(**SECTION), clips=1, crops=1)[0]
    )


@pytest.mark.parametrize(
    ("count", "changes", "pairs"),
    [
        (12, {}, [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2]),  # sampled: 1, 4, 7, 10
        (4, {}, [0, 1, 2, 2]),
        (2, {}, [1, 2]),  # sampled: 0, 0, 1, 1
        (1, {}, [2]),
        (5, {"frames": 1}, [0] * 5),
        (70, {"sampling": "dense"}, [0] * 19 + [1] * 16 + [2] * 35),  # sampled: 3, 19, 35, 51
    ],
)
def test_the_pair_a_frame_lies_in(count, changes, pairs):
    assert shown_pair(count, DataConfig(**{**SECTION, **changes})).tolist() == pairs


def test_a_written_video_is_read_again(tmp_path):
    frames = levels(10, 120, 230, height=32, width=48)
    frames[1][:, :24] = (230, 20, 20)
    assert write_video(tmp_path / "a.mp4", iter(frames), fps=12.5) == 3
    video = read_video(tmp_path / "a.mp4")
    again = list(video)
    assert (video.fps, len(again), again[0].shape) == (12.5, 3, (32, 48, 3))
    for frame, expected in zip(again, frames, strict=True):
        assert np.abs(frame[4:-4, 4:20].astype(int) - expected[4:-4, 4:20]).max() < 20


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="no frame came"):
        write_video(tmp_path / "a.mp4", [], fps=10.0)
    with pytest.raises(ValueError, match=r"absent/a\.mp4 cannot be written: give a path ending in \.mp4"):
        write_video(tmp_path / "absent" / "a.mp4", levels(0), fps=10.0)

import numpy as np
import pytest
from bench import data_config, write_video

from motion_jax.data.clips.single_video import read_single, shown_pair, views_of, whole_view


def test_frames_and_views_are_those_of_evaluation(tmp_path):
    section = data_config(name="video_folder", resize=(20, 28))
    write_video(tmp_path / "a.mp4", range(0, 240, 20), size=(30, 40))
    stored = read_single(tmp_path / "a.mp4", section)
    assert (len(stored.frames), stored.fps, stored.remark) == (12, 10.0, "")
    views = views_of(stored.frames, section, clips=2, crops=3)
    assert views.shape == (6, 4, 16, 16, 3)
    # The middles of four segments of three frames, then their starts; the crops of a clip beside each other.
    shown = np.round(views.mean(axis=(2, 3, 4)) / 20)
    assert shown.tolist() == [[1, 4, 7, 10]] * 3 + [[0, 3, 6, 9]] * 3
    whole = list(whole_view(stored.frames, section))
    assert [round(frame.mean() / 20) for frame in whole] == list(range(12))
    np.testing.assert_array_equal(
        np.stack([whole[i] for i in (1, 4, 7, 10)]), views_of(stored.frames, section, clips=1, crops=1)[0]
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
    assert shown_pair(count, data_config(name="video_folder", **changes)).tolist() == pairs

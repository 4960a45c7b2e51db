import pickle
import subprocess
import sys
import zlib

import cv2
import numpy as np
import pytest
from bench import write_video
from odd_videos import ODD

import motion_jax.data.storage.video_files
from motion_jax.data.storage.frames import decode_jpeg, encode_jpeg
from motion_jax.data.storage.video_files import VideoError, find_videos, natural_order, read_video

LEVELS = [10, 60, 110, 160, 210]


def test_every_frame_is_known(tmp_path):
    write_video(tmp_path / "a.avi", LEVELS, size=(32, 48))
    video = read_video(tmp_path / "a.avi")
    frames = list(video)
    assert [round(frame.mean()) for frame in frames] == pytest.approx(LEVELS, abs=2)
    assert frames[0].shape == (32, 48, 3)
    assert frames[0].dtype == np.uint8
    assert (video.fps, video.declared, video.decoded) == (10.0, 5, 5)
    assert not video.incomplete


def test_colours_are_rgb(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "red.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 32))
    writer.write(np.full((32, 48, 3), (0, 0, 250), np.uint8))  # OpenCV's order is blue, green, red.
    writer.release()
    red, green, blue = next(iter(read_video(tmp_path / "red.avi"))).mean(axis=(0, 1))
    assert red > 230
    assert max(green, blue) < 20


def test_content_decides_not_the_name(tmp_path):
    write_video(tmp_path / "a.avi", LEVELS, size=(32, 48))
    (tmp_path / "a.avi").rename(tmp_path / "100% odd?name:1.mp4")
    assert len(list(read_video(tmp_path / "100% odd?name:1.mp4"))) == 5


def test_folder_of_frames_in_natural_order(tmp_path):
    for number, level in [(1, 10), (2, 60), (10, 110)]:
        cv2.imwrite(str(tmp_path / f"frame{number}.png"), np.full((8, 8, 3), level, np.uint8))
    (tmp_path / "notes.txt").write_text("not a frame")
    video = read_video(tmp_path)
    assert [round(frame.mean()) for frame in video] == [10, 60, 110]
    assert (video.fps, video.declared) == (0.0, 3)


def test_broken_and_odd_sized_frames_of_a_folder(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((8, 8, 3), 10, np.uint8))
    (tmp_path / "2.png").write_bytes(b"nothing")
    cv2.imwrite(str(tmp_path / "3.png"), np.full((4, 16), 30, np.uint8))
    video = read_video(tmp_path)
    assert [frame.shape for frame in video] == [(8, 8, 3), (8, 8, 3)]
    assert video.incomplete


def test_clean_errors(tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video at all" * 100)
    (tmp_path / "folder").mkdir()
    for name, reason in [
        ("empty.mp4", "0 bytes"),
        ("text.mp4", "no readable video stream"),
        ("folder", "no images"),
        ("absent.mp4", "no such file"),
    ]:
        with pytest.raises(VideoError, match=reason) as caught:
            list(read_video(tmp_path / name))
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
        copy = pickle.loads(pickle.dumps(caught.value))
        assert (str(copy), copy.reason) == (str(caught.value), caught.value.reason)


def test_jpeg(rng):
    frame = cv2.resize(rng.integers(0, 256, (4, 4, 3), np.uint8), (64, 48))
    again = decode_jpeg(encode_jpeg(frame))
    assert again.shape == frame.shape
    assert np.abs(again.astype(int) - frame).mean() < 4
    # A picture of 2**20 x 2**20 pixels, says its header.
    size = (2**20).to_bytes(4, "big")
    header = b"IHDR" + size + size + b"\x08\x02\x00\x00\x00"
    promise = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\x0d" + header + zlib.crc32(header).to_bytes(4, "big")
    for wrong in (b"", b"nothing", promise):
        with pytest.raises(ValueError, match=r"do not decode"):
            decode_jpeg(wrong)


def test_a_part_of_a_video(tmp_path):
    """Frame i is shown from i / 10 seconds on."""
    write_video(tmp_path / "a.avi", [37 * i % 256 for i in range(100)])
    whole = list(read_video(tmp_path / "a.avi"))
    for seconds, expected in [
        ((0.0, 0.3), [0, 1, 2]),
        ((0.35, 0.6), [4, 5]),
        ((2.5, 2.8), [25, 26, 27]),
        ((7.0, 7.1), [70]),
        ((9.8, 12.0), [98, 99]),
    ]:
        video = read_video(tmp_path / "a.avi", seconds=seconds)
        np.testing.assert_array_equal(list(video), [whole[i] for i in expected])
        assert video.declared == round(10 * (seconds[1] - seconds[0]))
        assert video.incomplete is (seconds[1] == 12)
    with pytest.raises(VideoError, match="no video frame"):
        list(read_video(tmp_path / "a.avi", seconds=(20.0, 21.0)))
    with pytest.raises(VideoError, match="a folder of frames has no times"):
        read_video(tmp_path, seconds=(0.0, 1.0))


@pytest.mark.parametrize("seconds", [(0.3, 0.9), (1.2, 1.7), (1.9, 2.05)])
def test_a_part_goes_by_time_stamps_where_the_rate_varies(shared_data, seconds):
    """20 frames at 30 per second, then 12 at 7.5: the average, by which OpenCV seeks, is neither."""
    path = shared_data / "odd_videos" / "derived_vfr.mp4"
    times = [i / 30 for i in range(20)] + [20 / 30 + i / 7.5 for i in range(12)]
    chosen = [i for i, time in enumerate(times) if seconds[0] - 0.0005 <= time < seconds[1] - 0.0005]
    whole = list(read_video(path))
    part = list(read_video(path, seconds=seconds))
    np.testing.assert_array_equal(part, [whole[i] for i in chosen])


def test_a_seek_that_lands_too_far_begins_at_the_beginning():
    """Where pictures are rare at first, a seek by the average rate lands behind the time that is meant."""

    class Capture:
        at = -1

        def set(self, what, value):
            self.at = 49 if what == cv2.CAP_PROP_POS_MSEC else int(value) - 1

        def get(self, what):
            return 100.0 * self.at

        def read(self):
            self.at += 1
            return self.at < 100, np.full((2, 2, 3), self.at, np.uint8)

        def release(self):
            pass

    frames = motion_jax.data.storage.video_files._read_frames(Capture(), (3.0, 3.3), lambda: None)
    assert [frame[0, 0, 0] for frame in frames] == [30, 31, 32]


def test_natural_order():
    assert sorted(["a10", "a9", "b1", "a", "10"], key=natural_order) == ["10", "a", "a9", "a10", "b1"]


@pytest.mark.parametrize(("name", "expected"), ODD.items())
def test_odd_videos(shared_data, name, expected):
    path = shared_data / "odd_videos" / name
    if expected is None:
        with pytest.raises(VideoError, match=name):
            list(read_video(path))
        return
    video = read_video(path)
    shapes = [frame.shape for frame in video]
    count, size, incomplete = expected
    assert len(shapes) == video.decoded == count
    assert set(shapes) == {(*size, 3)}
    assert video.incomplete is incomplete


def test_av1_decodes_or_says_why(shared_data):
    video = read_video(shared_data / "odd_videos" / "torchcodec_av1.mkv")
    try:
        assert len(list(video)) == 125
    except VideoError as error:
        assert "no video frame can be decoded" in str(error)  # noqa: PT017


def test_gray_has_three_equal_channels(shared_data):
    frame = next(iter(read_video(shared_data / "odd_videos" / "derived_gray_ffv1.mkv")))
    assert frame.std() > 0
    np.testing.assert_array_equal(frame[..., 0], frame[..., 1])
    np.testing.assert_array_equal(frame[..., 0], frame[..., 2])


def test_damaged_videos_are_read_without_noise(shared_data, pytestconfig):
    script = (
        "import sys; from motion_jax.data.storage.video_files import read_video, VideoError\n"
        "for path in sys.argv[1:]:\n"
        "    try: list(read_video(path))\n"
        "    except VideoError: pass\n"
    )
    folder = shared_data / "odd_videos"
    files = [
        str(folder / name) for name in ("text_file.mp4", "derived_truncated_faststart.mp4", "decord_corrupted.mp4")
    ]
    done = subprocess.run(
        [sys.executable, "-c", script, *files], capture_output=True, check=True, cwd=pytestconfig.rootpath
    )
    assert (done.stdout, done.stderr) == (b"", b"")


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

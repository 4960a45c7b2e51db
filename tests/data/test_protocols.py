"""The papers' test protocols, written out by hand: which frames, and which part of each, every view holds."""

import cv2
import numpy as np
import pytest
from bench import data_config

from motion_jax.data.pipeline import eval_batches


class OneVideo:
    """A data set of one video, whose pixels tell where they are: red twice the frame, green x, blue y."""

    labels = ("only",)

    def __init__(self, *, frames: int, height: int, width: int, **changes) -> None:
        common = {"name": "video_folder", "frames": 8, "size": 224, "resize": 256, "sampling": "dense"}
        self.section = data_config(**{**common, **changes})
        place = np.zeros((height, width, 3))
        place[..., 1] = np.linspace(0, 255, width)
        place[..., 2] = np.linspace(0, 255, height)[:, None]
        self.only = {"label": 0, "id": b"a/b", "frames": []}
        for number in range(frames):
            place[..., 0] = 2 * number
            bgr = cv2.cvtColor(np.rint(place).astype(np.uint8), cv2.COLOR_RGB2BGR)
            jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 100])[1]
            self.only["frames"].append(jpeg.tobytes())

    def size(self, split):
        return 1

    def record(self, split, index):
        return self.only


def views_of(dataset, **options):
    """The frames of each view (from 0), and where in the frame it begins and ends: left, right, top, bottom, 0 to 1."""
    (batch,) = eval_batches(dataset, batch_size=1, **options)
    frames, boxes = [], []
    for view in batch["clips"][0].astype(float):
        frames.append(np.rint(view[..., 0].mean((1, 2)) / 2).astype(int).tolist())
        # Of the first and the last column and row.
        green, blue = view[..., 1].mean((0, 1)) / 255, view[..., 2].mean((0, 2)) / 255
        boxes.append([green[0], green[-1], blue[0], blue[-1]])
    return batch["clips"].shape, frames, np.array(boxes)


def shares(x, y, size, *, height, width):
    """What ``views_of`` finds of a square of ``size`` pixels at (x, y)."""
    return [x / (width - 1), (x + size - 1) / (width - 1), y / (height - 1), (y + size - 1) / (height - 1)]


# 100 frames hold windows of 64 frames from 0 to 36: ten of them begin every 4 frames, with 8 frames 8 apart.
TEN_DENSE = [
    [0, 8, 16, 24, 32, 40, 48, 56],
    [4, 12, 20, 28, 36, 44, 52, 60],
    [8, 16, 24, 32, 40, 48, 56, 64],
    [12, 20, 28, 36, 44, 52, 60, 68],
    [16, 24, 32, 40, 48, 56, 64, 72],
    [20, 28, 36, 44, 52, 60, 68, 76],
    [24, 32, 40, 48, 56, 64, 72, 80],
    [28, 36, 44, 52, 60, 68, 76, 84],
    [32, 40, 48, 56, 64, 72, 80, 88],
    [36, 44, 52, 60, 68, 76, 84, 92],
]


def test_kinetics_ten_clips_of_three_crops_at_full_resolution():
    """340 x 256: squares of 256 pixels at the left, the right and in the middle."""
    dataset = OneVideo(frames=100, height=256, width=340)
    shape, frames, boxes = views_of(dataset, clips=10, crops=3, full_resolution=True)
    assert shape == (1, 30, 8, 256, 256, 3)
    assert frames == [clip for clip in TEN_DENSE for _ in range(3)]
    expected = [shares(x, 0, 256, height=256, width=340) for x in (0, 84, 42)]
    np.testing.assert_allclose(boxes, expected * 10, atol=0.004)


def test_kinetics_ten_clips_of_three_crops_at_the_size_of_training():
    """The short side becomes 224, the long one 298: squares at 0, 72 and 36."""
    dataset = OneVideo(frames=100, height=256, width=340)
    shape, frames, boxes = views_of(dataset, clips=10, crops=3)
    assert shape == (1, 30, 8, 224, 224, 3)
    assert frames == [clip for clip in TEN_DENSE for _ in range(3)]
    expected = [shares(x, 0, 224, height=224, width=298) for x in (0, 72, 36)]
    np.testing.assert_allclose(boxes, expected * 10, atol=0.006)


def test_an_upright_video_is_cropped_along_its_height():
    dataset = OneVideo(frames=70, height=340, width=256)
    _, frames, boxes = views_of(dataset, clips=1, crops=3, full_resolution=True)
    assert frames == [[3, 11, 19, 27, 35, 43, 51, 59]] * 3
    np.testing.assert_allclose(boxes, [shares(0, y, 256, height=340, width=256) for y in (0, 84, 42)], atol=0.004)


@pytest.mark.parametrize(("full", "size", "x", "y"), [(False, 224, 48, 8), (True, 240, 40, 0)])
def test_something_something_two_clips_of_the_centre(full, size, x, y):
    """Of 40 frames in 8 segments of 5: their middles, then their starts."""
    dataset = OneVideo(frames=40, height=240, width=320, sampling="segment", resize=(240, 320))
    shape, frames, boxes = views_of(dataset, clips=2, full_resolution=full)
    assert shape == (1, 2, 8, size, size, 3)
    assert frames == [[2, 7, 12, 17, 22, 27, 32, 37], [0, 5, 10, 15, 20, 25, 30, 35]]
    np.testing.assert_allclose(boxes, [shares(x, y, size, height=240, width=320)] * 2, atol=0.004)


@pytest.mark.parametrize(
    ("clips", "starts"),
    [(1, [2.5]), (2, [2.5, 0.0]), (5, [2.5, 3.5, 4.5, 0.5, 1.5]), (10, [2.5, 3, 3.5, 4, 4.5, 0, 0.5])],
)
def test_uniform_clips(clips, starts):
    """N clips over the whole video divide a segment of 5 frames evenly, from its middle on and round its end."""
    dataset = OneVideo(frames=40, height=240, width=320, sampling="segment", resize=(240, 320))
    _, frames, _ = views_of(dataset, clips=clips, crops=1)
    for got, start in zip(frames[: len(starts)], starts, strict=True):
        assert got == [int(start + 5 * segment) for segment in range(8)]


def test_full_resolution_needs_one_size():
    dataset = OneVideo(frames=8, height=240, width=320, resize=None)
    with pytest.raises(ValueError, match=r"full_resolution needs frames stored at one size, but data\.resize is None"):
        eval_batches(dataset, batch_size=1, full_resolution=True)

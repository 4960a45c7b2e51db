import json
import random

import cv2
import numpy as np
import pytest

from motion_jax.data.clips import transforms
from motion_jax.data.clips.transforms import Box
from motion_jax.data.storage import frames


@pytest.fixture
def crops(goldens) -> dict:
    return json.loads((goldens / "crops.json").read_text())


@pytest.mark.parametrize("name", ["320x240", "240x320", "340x256"])
def test_official_crop_candidates(crops, name):
    width, height = map(int, name.split("x"))
    expected = crops[name]
    assert [list(size) for size in transforms.multi_scale_sizes(height, width, size=224)] == expected["pairs"]
    assert len(expected["offsets"]) == 10
    for crop, offsets in expected["offsets"].items():
        crop_width, crop_height = map(int, crop.split("x"))
        got = transforms.fixed_offsets(height, width, crop_height=crop_height, crop_width=crop_width)
        assert [list(offset) for offset in got] == offsets


@pytest.mark.parametrize("seed", range(5))
def test_official_crop_draws(crops, seed):
    box = transforms.multi_scale_crop(240, 320, size=224, draw=random.Random(seed).randrange)
    assert [box.width, box.height, box.x, box.y] == crops[f"sample_crop_size_random.seed({seed})_320x240"]


def test_official_centres(crops):
    for name, expected in crops["center_crop_224_offsets_xy"].items():
        width, height = map(int, name.split("x"))
        box = transforms.center_crop(height, width, size=224)
        assert [box.x, box.y, box.width, box.height] == [*expected, 224, 224], name


def test_image_pipeline_is_near_pillow(goldens):
    golden = np.load(goldens / "image_pipeline.npz")
    scaled = frames.resize(golden["raw"], height=240, width=320)
    assert _difference(scaled, golden["scaled_240x320"]) < 0.1
    box = transforms.center_crop(240, 320, size=224)
    center = transforms.crop_and_resize(scaled, box, size=224)
    assert _difference(center, golden["center"]) < 0.1
    crop = transforms.crop_and_resize(golden["scaled_240x320"], Box(40, 30, 210, 180), size=224)
    assert _difference(crop, golden["crop_40_30_210x180_to224"]) < 0.1


def _difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return np.abs(ours.astype(int) - theirs).mean()


def test_shrinking_antialiases(rng):
    """The mean of 16 pixels has a quarter of their spread, that of the 4 a bilinear filter looks at one half."""
    noise = rng.integers(0, 256, (240, 240, 3), np.uint8)
    assert frames.resize(noise, height=60, width=60).std() == pytest.approx(noise.std() / 4, rel=0.05)


def test_any_small_frame_can_be_cropped(rng):
    for _ in range(100):
        box = transforms.multi_scale_crop(1, 3, size=64, draw=rng.integers)
        assert box.width >= 1
        assert box.height == 1
        assert box.x + box.width <= 3


def test_crops_lie_within_the_frame(rng):
    for _ in range(200):
        box = transforms.multi_scale_crop(240, 427, size=224, draw=rng.integers)
        assert 0 <= box.x <= box.x + box.width <= 427
        assert 0 <= box.y <= box.y + box.height <= 240


def test_random_resized_crops_follow_their_ranges(rng):
    boxes = [transforms.random_resized_crop(240, 320, rng=rng) for _ in range(2000)]
    assert all(0 <= b.x <= b.x + b.width <= 320 and 0 <= b.y <= b.y + b.height <= 240 for b in boxes)
    areas = np.array([b.width * b.height for b in boxes]) / (240 * 320)
    aspects = np.log([b.width / b.height for b in boxes])
    assert 0.079 < areas.min() < 0.09
    assert 0.9 < areas.max() <= 1
    # 1 % for sides rounded to pixels.
    assert np.log(3 / 4) - 0.01 < aspects.min() < np.log(3 / 4) + 0.02
    assert np.log(4 / 3) - 0.02 < aspects.max() < np.log(4 / 3) + 0.01
    small = areas < 0.4  # These always fit, so nothing is drawn anew: uniform area, aspect and place.
    assert np.median(areas[small]) == pytest.approx(0.24, abs=0.02)
    assert np.mean(aspects[small]) == pytest.approx(0, abs=0.02)
    left = np.array([b.x / (320 - b.width) for b in boxes if b.width < 300])
    assert np.mean(left) == pytest.approx(0.5, abs=0.03)
    assert left.min() == 0
    assert left.max() == 1


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [
        (100, 900, Box(383, 0, 133, 100)),  # 4:3
        (900, 100, Box(0, 383, 100, 133)),  # 3:4
        (1, 30, Box(14, 0, 1, 1)),
    ],
)
def test_random_resized_crop_where_nothing_fits(height, width, box):
    class Whole:
        """Always asks for the whole area, as a square."""

        def uniform(self, low, high):
            return 1.0 if high == 1.0 else 0.0

    assert transforms.random_resized_crop(height, width, rng=Whole()) == box


def test_three_crops_follow_the_longer_side():
    assert transforms.three_crops(256, 340, size=256) == [
        Box(0, 0, 256, 256),
        Box(84, 0, 256, 256),
        Box(42, 0, 256, 256),
    ]
    assert transforms.three_crops(340, 256, size=256) == [
        Box(0, 0, 256, 256),
        Box(0, 84, 256, 256),
        Box(0, 42, 256, 256),
    ]


def test_crop_larger_than_the_frame():
    for crop in (transforms.center_crop, transforms.three_crops):
        with pytest.raises(ValueError, match=r"100x300 is smaller than the crop of 101x101"):
            crop(100, 300, size=101)


def test_scaled_size_keeps_the_aspect():
    assert frames.scaled_size(720, 1280, resize=256) == (256, 455)
    assert frames.scaled_size(1280, 720, resize=256) == (455, 256)
    assert frames.scaled_size(10, 20, resize=(7, 9)) == (7, 9)


def test_flip(rng):
    frame = rng.integers(0, 256, (5, 7, 3), np.uint8)
    np.testing.assert_array_equal(transforms.flip(frame), frame[:, ::-1])


def test_resize_to_the_same_size_changes_nothing(rng):
    frame = rng.integers(0, 256, (8, 8, 3), np.uint8)
    assert frames.resize(frame, height=8, width=8) is frame
    np.testing.assert_array_equal(
        frames.resize(frame, height=16, width=16), cv2.resize(frame, (16, 16), interpolation=cv2.INTER_LINEAR)
    )


def test_sides_near_the_input_size_become_it():
    """258 * .875 = 225.75 and 222 lie within 2 pixels of 224; 227 does not."""
    assert transforms.multi_scale_sizes(258, 400, size=224)[5] == (224, 193)
    assert transforms.multi_scale_sizes(222, 400, size=224)[0] == (224, 224)
    assert transforms.multi_scale_sizes(227, 400, size=224)[0] == (227, 227)

"""Colour and shape of clips: Pillow as the twin where it has the operation, known answers otherwise."""

import itertools

import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from motion_jax.data.clips import augmentation


@pytest.fixture
def frame(rng):
    """Smooth colours with some noise, and gaps in the histogram."""
    wide = cv2.resize(rng.integers(20, 220, (6, 8, 3), np.uint8), (52, 40), interpolation=cv2.INTER_LINEAR)
    return (wide + rng.integers(0, 12, wide.shape)).astype(np.uint8)


def gray_mean(image):
    return round(np.mean(np.asarray(image.convert("L"))))


PILLOW = {
    "brightness .3": (lambda c: augmentation.brightness(c, 0.3), lambda i: ImageEnhance.Brightness(i).enhance(0.3)),
    "brightness 1.8": (lambda c: augmentation.brightness(c, 1.8), lambda i: ImageEnhance.Brightness(i).enhance(1.8)),
    "contrast .4": (lambda c: augmentation.contrast(c, 0.4), lambda i: ImageEnhance.Contrast(i).enhance(0.4)),
    "contrast 1.7": (lambda c: augmentation.contrast(c, 1.7), lambda i: ImageEnhance.Contrast(i).enhance(1.7)),
    "saturation 0": (lambda c: augmentation.saturation(c, 0.0), lambda i: ImageEnhance.Color(i).enhance(0.0)),
    "saturation 1.6": (lambda c: augmentation.saturation(c, 1.6), lambda i: ImageEnhance.Color(i).enhance(1.6)),
    "posterize": (lambda c: augmentation.posterize(c, 3), lambda i: ImageOps.posterize(i, 3)),
    "solarize": (lambda c: augmentation.solarize(c, 100), lambda i: ImageOps.solarize(i, 100)),
    "autocontrast": (augmentation.autocontrast, ImageOps.autocontrast),
    "equalize": (augmentation.equalize, ImageOps.equalize),
}


@pytest.mark.parametrize("name", PILLOW)
def test_equals_pillow(frame, name):
    ours, theirs = PILLOW[name]
    wanted = np.asarray(theirs(Image.fromarray(frame))).astype(int)
    # Pillow cuts fractions off where we round, also of the lightness that a saturation multiplies; some have none.
    allowed = {"saturation": 2, "posterize": 0, "solarize": 0, "equalize": 0}.get(name.split()[0], 1)
    assert np.abs(ours(frame[None])[0] - wanted).max() <= allowed
    assert np.abs(frame - wanted).max() > 10


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.9])
def test_sharpness_equals_pillow_inside(frame, factor):
    wanted = np.asarray(ImageEnhance.Sharpness(Image.fromarray(frame)).enhance(factor)).astype(int)
    got = augmentation.sharpness(frame[None], factor)[0]
    # Pillow leaves the border as it is, and rounds the smooth picture before it takes the distance.
    assert np.abs(got - wanted)[1:-1, 1:-1].max() <= 2


def test_a_third_of_a_turn_exchanges_the_channels():
    clip = np.array([[200, 30, 30], [30, 120, 60], [90, 90, 90], [255, 255, 0]], np.uint8).reshape(1, 2, 2, 3)
    for thirds in (1, 2, -1):
        got = augmentation.hue(clip, thirds / 3).astype(int)
        # In 8 bits a step of the hue is 6 levels of a pure colour.
        assert np.abs(got - np.roll(clip, thirds, axis=-1)).max() <= 9
    assert np.abs(augmentation.hue(clip, 0.0).astype(int) - clip).max() <= 3
    np.testing.assert_array_equal(augmentation.hue(clip, 0.5), augmentation.hue(clip, -0.5))


def test_nothing_to_change_changes_nothing(frame):
    clip = frame[None]
    for same in (
        augmentation.brightness(clip, 1.0),
        augmentation.contrast(clip, 1.0),
        augmentation.saturation(clip, 1.0),
        augmentation.sharpness(clip, 1.0),
        augmentation.posterize(clip, 8),
        augmentation.solarize(clip, 256),
        augmentation.shear(clip),
        augmentation.translate(clip),
        augmentation.rotate(clip, 0),
    ):
        np.testing.assert_array_equal(same, clip)


def test_one_color_stays():
    clip = np.full((2, 4, 4, 3), (7, 90, 201), np.uint8)
    np.testing.assert_array_equal(augmentation.autocontrast(clip), clip)
    np.testing.assert_array_equal(augmentation.equalize(clip), clip)


def test_statistics_are_those_of_the_clip():
    clip = np.stack([np.full((4, 4, 3), level, np.uint8) for level in (50, 150)])
    assert [frame[0, 0, 0] for frame in augmentation.contrast(clip, 0.5)] == [75, 125]
    assert [frame[0, 0, 0] for frame in augmentation.autocontrast(clip)] == [0, 255]


def test_geometry_by_hand():
    clip = np.zeros((2, 5, 5, 3), np.uint8)
    clip[:, 1, 3] = 200  # row 1, column 3: one above the centre and one right of it
    turned = augmentation.rotate(clip, 90)
    assert np.argwhere(turned[0, :, :, 0] == 200).tolist() == [[3, 3]]
    moved = augmentation.translate(clip, x=0.2, y=-0.2)
    assert np.argwhere(moved[1, :, :, 0]).tolist() == [[0, 4]]
    # One row above the centre: a shear of 1 moves it left by one.
    assert np.argwhere(augmentation.shear(clip, x=1.0)[0, :, :, 0]).tolist() == [[1, 2]]
    assert np.argwhere(augmentation.shear(clip, y=1.0)[0, :, :, 0]).tolist() == [[2, 3]]
    # What comes in is black, what goes out is gone.
    white = np.full((1, 5, 5, 3), 255, np.uint8)
    assert augmentation.translate(white, x=0.4)[0, :, :, 0].tolist() == [[0, 0, 255, 255, 255]] * 5


@pytest.mark.parametrize("operation", range(len(augmentation.OPERATIONS)))
@pytest.mark.parametrize("strength", [-1.0, 1.0, 0.3])
def test_every_operation_treats_all_frames_alike(frame, operation, strength):
    other = np.roll(frame, 9, axis=1)
    clip = np.stack([frame, other, frame])
    before = clip.copy()
    got = augmentation.OPERATIONS[operation](clip, strength)
    np.testing.assert_array_equal(clip, before)
    assert (got.dtype, got.shape) == (np.uint8, clip.shape)
    np.testing.assert_array_equal(got[0], got[2])
    assert (operation == 0) == np.array_equal(got, clip)


def test_operations_without_statistics_change_nothing_at_strength_0(frame):
    changed = [not np.array_equal(operation(frame[None], 0.0)[0], frame) for operation in augmentation.OPERATIONS]
    assert changed == [False] * 12 + [True] * 2  # autocontrast and equalize


def test_the_greatest_strengths():
    """.3 for shear, 150 of 331 pixels, 30 degrees, .9 for factors, 4 bits, every level inverted."""
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=-1)
    brighter, darker = (augmentation.OPERATIONS[6](ramp, sign) for sign in (1.0, -1.0))
    assert brighter[0, 6, 4, 0] == 190  # 100 * 1.9
    assert darker[0, 6, 4, 0] == 10
    assert set(np.unique(augmentation.OPERATIONS[10](ramp, -1.0))) == set(range(0, 256, 16))
    np.testing.assert_array_equal(augmentation.OPERATIONS[11](ramp, 1.0), 255 - ramp)
    dot = np.zeros((1, 331, 331, 3), np.uint8)
    dot[0, 165, 165] = 255
    assert np.argwhere(augmentation.OPERATIONS[3](dot, 1.0)[0, :, :, 0]).tolist() == [[165, 315]]
    assert np.argwhere(augmentation.OPERATIONS[4](dot, -1.0)[0, :, :, 0]).tolist() == [[15, 165]]
    dot = np.roll(dot, -100, axis=1)  # 100 pixels above the centre
    assert np.argwhere(augmentation.OPERATIONS[1](dot, 1.0)[0, :, :, 0]).tolist() == [[65, 135]]
    turned = np.argwhere(augmentation.OPERATIONS[5](dot, 1.0)[0, :, :, 0] > 60).mean(0)
    np.testing.assert_allclose(turned, [165 - 100 * np.cos(np.pi / 6), 165 + 50], atol=0.5)


class Draws:
    """Stands in for a generator: given answers to ``uniform`` and ``permutation``, and what was asked."""

    def __init__(self, uniform, order):
        self.answers, self.order, self.asked = iter(uniform), order, []

    def uniform(self, low, high):
        self.asked.append((low, high))
        return next(self.answers)

    def permutation(self, count):
        assert count == len(self.order)
        return np.array(self.order)


def test_color_jitter_is_its_four_changes_in_the_drawn_order(frame):
    draws = Draws([1.3, 0.6, 1.5, 0.1], order=[3, 1, 0, 2])
    got = augmentation.color_jitter(frame[None], strengths=(0.4, 1.5, 0.5, 0.2), rng=draws)
    assert np.array(draws.asked).round(6).tolist() == [[0.6, 1.4], [0.0, 2.5], [0.5, 1.5], [-0.2, 0.2]]
    wanted = augmentation.brightness(augmentation.contrast(augmentation.hue(frame[None], 0.1), 0.6), 1.3)
    np.testing.assert_array_equal(got, augmentation.saturation(wanted, 1.5))


def test_color_jitter_of_nothing_is_exact(frame, rng):
    got = augmentation.color_jitter(frame[None], strengths=(0.0, 0.0, 0.0, 0.0), rng=rng)
    np.testing.assert_array_equal(got, frame[None])


def test_rand_augment_is_drawn_operations_one_after_another(frame):
    for seed in range(5):
        rng = np.random.default_rng(seed)
        wanted = frame[None]
        for _ in range(3):
            operation, sign = rng.integers(14), rng.integers(2)
            wanted = augmentation.OPERATIONS[operation](wanted, (1 if sign else -1) * 0.4)
        got = augmentation.rand_augment(frame[None], operations=3, magnitude=12, rng=np.random.default_rng(seed))
        np.testing.assert_array_equal(got, wanted)


def test_rand_augment_takes_every_operation_and_both_signs(monkeypatch):
    seen = set()
    notes = [lambda clip, strength, n=n: seen.add((n, strength)) or clip for n in range(14)]
    monkeypatch.setattr(augmentation, "OPERATIONS", tuple(notes))
    augmentation.rand_augment(None, operations=400, magnitude=15, rng=np.random.default_rng(0))
    assert seen == set(itertools.product(range(14), (-0.5, 0.5)))

"""Corruptions: ImageMagick's own motion blur, a slow twin, and clips whose corruption is written out by hand."""

import math

import numpy as np
import pytest

from motion_jax.data.clips import corruption
from motion_jax.data.clips.corruption import LEVELS, Corruption


@pytest.fixture
def clip(rng):
    return rng.integers(1, 256, (8, 56, 56, 3), np.uint8)


def spoilt(clip, corrupted):
    return [frame for frame in range(len(clip)) if not np.array_equal(clip[frame], corrupted[frame])]


def test_levels_are_those_of_the_supplement():
    assert corruption.OCCLUSION == (40, 80, 120, 160, 200, 224)
    assert corruption.MOTION_BLUR == ((15, 5), (10, 8), (15, 12), (20, 15), (25, 20), (30, 25))


def test_motion_blur_equals_imagemagick(goldens):
    golden = np.load(goldens / "motion_blur.npz")
    for (radius, sigma, angle), wanted in zip(golden["radius_sigma_angle"], golden["blurred"], strict=True):
        got = corruption.motion_blur(golden["frame"], radius=int(radius), sigma=sigma, angle=angle)
        # ImageMagick cuts fractions off where we round.
        assert np.abs(got.astype(int) - wanted).max() <= 1
        assert np.abs(golden["frame"].astype(int) - wanted).max() > 50


def slow_motion_blur(frame, *, radius, sigma, angle):
    """One pixel at a time."""
    height, width, _ = frame.shape
    weights = [math.exp(-i * i / (2 * sigma * sigma)) for i in range(2 * radius + 1)]
    blurred = np.zeros(frame.shape)
    for y in range(height):
        for x in range(width):
            for i, weight in enumerate(weights):
                at_x = x + math.ceil(i * math.cos(math.radians(angle)) - 0.5)
                at_y = y + math.ceil(i * math.sin(math.radians(angle)) - 0.5)
                pixel = frame[min(max(at_y, 0), height - 1), min(max(at_x, 0), width - 1)]
                blurred[y, x] += weight / sum(weights) * pixel
    return blurred


@pytest.mark.parametrize(("radius", "sigma", "angle"), [(3, 2.0, 20.0), (7, 5.0, -41.0), (1, 0.5, 0.0), (4, 9.0, 45.0)])
def test_motion_blur_equals_a_slow_twin(rng, radius, sigma, angle):
    frame = rng.integers(0, 256, (9, 13, 3), np.uint8)
    got = corruption.motion_blur(frame, radius=radius, sigma=sigma, angle=angle)
    np.testing.assert_allclose(
        got, slow_motion_blur(frame, radius=radius, sigma=sigma, angle=angle), rtol=0, atol=0.501
    )


@pytest.mark.parametrize("angle", [-45, -20.0, 0, 33.0, 45])
def test_weights_of_the_blur(angle):
    for radius, sigma in corruption.MOTION_BLUR:
        kernel, (x, y) = corruption.motion_blur_kernel(radius=radius, sigma=sigma, angle=angle)
        assert kernel.sum() == pytest.approx(1)
        assert kernel[y, x] > 0
        # The line ends 2 * radius pixels away, in the right direction.
        rows, columns = np.nonzero(kernel)
        far = np.argmax(np.hypot(rows - y, columns - x))
        end = np.array([rows[far] - y, columns[far] - x])
        direction = np.array([math.sin(math.radians(angle)), math.cos(math.radians(angle))])
        np.testing.assert_allclose(end, 2 * radius * direction, atol=0.51)


def test_a_point_leaves_a_trail():
    """A dot is seen by the pixels from which it lies ahead: left of it at angle 0, weaker with the distance."""
    frame = np.zeros((5, 9, 3), np.uint8)
    frame[2, 6] = 255
    blurred = corruption.motion_blur(frame, radius=1, sigma=1.0, angle=0)[:, :, 0]
    assert np.argwhere(blurred).tolist() == [[2, 4], [2, 5], [2, 6]]
    weights = np.exp([-2.0, -0.5, 0.0])
    np.testing.assert_allclose(blurred[2, 4:7], 255 * weights / weights.sum(), atol=0.51)


def test_blur_leaves_an_even_frame_alone():
    frame = np.full((30, 30, 3), 77, np.uint8)
    np.testing.assert_array_equal(corruption.motion_blur(frame, radius=30, sigma=25, angle=12), frame)


@pytest.mark.parametrize(("level", "side"), [(1, 40), (2, 80), (3, 120), (4, 160), (5, 200), (6, 224)])
def test_occlusion_at_the_size_of_the_paper(level, side):
    clip = np.full((8, 224, 224, 3), 9, np.uint8)
    corrupted = Corruption("occlusion", level)(clip, index=0)
    assert spoilt(clip, corrupted) == [3]
    dark = np.argwhere((corrupted[3] == 0).all(-1))
    assert dark.min(0).tolist() == [112 - side // 2] * 2
    assert dark.max(0).tolist() == [112 + side // 2 - 1] * 2
    assert len(dark) == side**2


def test_sizes_scale_with_the_frame(clip):
    """56 pixels are a quarter of 224."""
    corrupted = Corruption("occlusion", 2)(clip, index=0)
    assert (corrupted[3] == 0).all(-1).sum() == 20**2
    angle = np.random.default_rng([5]).uniform(-45, 45)
    blurred = Corruption("motion_blur", 6)(clip, index=5)
    np.testing.assert_array_equal(blurred[3], corruption.motion_blur(clip[3], radius=8, sigma=6.25, angle=angle))
    assert spoilt(clip, blurred) == [3]


def test_every_example_has_its_own_angle_at_every_level(clip):
    angles = []
    for index in range(40):
        blurred = Corruption("motion_blur", 1)(clip, index=index)
        np.testing.assert_array_equal(blurred, Corruption("motion_blur", 1)(clip, index=index))
        angle = np.random.default_rng([index]).uniform(-45, 45)
        np.testing.assert_array_equal(blurred[3], corruption.motion_blur(clip[3], radius=4, sigma=1.25, angle=angle))
        angles.append(angle)
    assert min(angles) < -35
    assert max(angles) > 35


def numbered(frames=8):
    """Clips whose every pixel is the number of its frame, from 1."""
    return np.arange(1, frames + 1, dtype=np.uint8).reshape(-1, 1, 1, 1) * np.ones((1, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("drop:1", [1, 2, 3, 0, 5, 6, 7, 8]),
        ("drop:2", [1, 2, 3, 0, 0, 6, 7, 8]),
        ("drop:3", [1, 2, 0, 0, 0, 6, 7, 8]),
        ("drop:6", [1, 0, 0, 0, 0, 0, 0, 8]),
        ("drop:2:7", [1, 2, 3, 4, 5, 6, 0, 0]),
        ("drop:1:0", [0, 2, 3, 4, 5, 6, 7, 8]),
        ("duplicate:1", [1, 2, 3, 3, 5, 6, 7, 8]),
        ("duplicate:3", [1, 2, 2, 2, 2, 6, 7, 8]),
        ("duplicate:6", [1, 1, 1, 1, 1, 1, 1, 8]),
        ("duplicate:1:0", [1, 1, 3, 4, 5, 6, 7, 8]),
        ("reverse:1", [8, 7, 6, 5, 4, 3, 2, 1]),
        ("freeze:1", [2, 2, 2, 2, 6, 6, 6, 6]),
        ("freeze:2", [4, 4, 4, 4, 4, 4, 4, 4]),
    ],
)
def test_order_by_hand(text, shown):
    clip = numbered()
    corrupted = Corruption.parse(text)(clip, index=1)
    assert corrupted[:, 0, 0, 0].tolist() == shown
    assert (corrupted == corrupted[:, :1, :1, :1]).all()
    np.testing.assert_array_equal(clip, numbered())


def test_shuffle_keeps_the_frames_and_follows_the_example():
    orders = {tuple(Corruption("shuffle", 1)(numbered(), index=index)[:, 0, 0, 0]) for index in range(20)}
    assert all(sorted(order) == list(range(1, 9)) for order in orders)
    assert len(orders) == 20
    assert tuple(Corruption("shuffle", 1)(numbered(), index=7)[:, 0, 0, 0]) in orders


@pytest.mark.parametrize("frames", [2, 3])
def test_shuffle_never_keeps_the_order(frames):
    for index in range(50):
        shown = Corruption("shuffle", 1)(numbered(frames), index=index)[:, 0, 0, 0].tolist()
        assert shown != sorted(shown)


def test_freezing_an_odd_number_of_frames():
    assert Corruption("freeze", 1)(numbered(5), index=0)[:, 0, 0, 0].tolist() == [2, 2, 2, 4, 4]
    assert Corruption("freeze", 2)(numbered(5), index=0)[:, 0, 0, 0].tolist() == [3] * 5


@pytest.mark.parametrize(("frames", "middle"), [(1, 0), (2, 0), (4, 1), (8, 3), (16, 7)])
def test_the_default_is_the_4th_of_8(frames, middle):
    assert Corruption("occlusion", 1).frames(frames) == range(middle, middle + 1)


@pytest.mark.parametrize("name", LEVELS)
def test_every_level_is_written_and_read(name):
    for level in range(1, LEVELS[name] + 1):
        for each in (Corruption(name, level), Corruption(name, level, 2)):
            assert Corruption.parse(str(each)) == each


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fog:1", r"no corruption 'fog': choose one of occlusion, motion_blur"),
        ("occlusion", r"corruption is 'occlusion', expected NAME:LEVEL"),
        ("occlusion:x", r"expected NAME:LEVEL or NAME:LEVEL:FRAME"),
        ("occlusion:1:2:3", r"expected NAME:LEVEL"),
        ("occlusion:0", r"occlusion has levels 1 to 6, not 0"),
        ("reverse:2", r"reverse has level 1 alone, not 2"),
    ],
)
def test_other_corruptions_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Corruption.parse(text)


@pytest.mark.parametrize(
    ("text", "frames", "message"),
    [
        ("occlusion:1:8", 8, r"occlusion:1:8 corrupts frame 8, but a clip has frames 0 to 7"),
        ("drop:5", 4, r"drop:5 corrupts 5 frames, too many for a clip of 4"),
        ("duplicate:4", 4, r"duplicate:4 corrupts 4 frames, too many for a clip of 4"),
        ("freeze:1", 2, r"freeze:1 needs clips of 3 or more frames, not 2"),
        ("shuffle:1", 1, r"shuffle:1 needs clips of 2 or more frames, not 1"),
    ],
)
def test_clips_that_are_too_short(text, frames, message):
    with pytest.raises(ValueError, match=message):
        Corruption.parse(text)(numbered(frames), index=0)

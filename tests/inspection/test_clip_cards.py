"""Animations of clips for a page: the pictures hold what the network sees."""

import base64

import cv2
import numpy as np
import pytest

from motion_jax.inspection.clip_inspection import ClipInspection, Comparison
from motion_jax.inspection.colours import flow_colours
from motion_jax.inspection.pages import clip_cards


def decoded(url):
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(url.partition(",")[2]), np.uint8), cv2.IMREAD_UNCHANGED)
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA if picture.shape[-1] == 4 else cv2.COLOR_BGR2RGB)


def seen(rng, *, compares=True):
    """What a network sees in a clip of 4 frames; the least confident cells move farthest."""
    expected = rng.uniform(-3, 3, (4, 5, 6, 2, 2)).astype(np.float32)
    confidence = rng.uniform(0, 1, (4, 5, 6, 2)).astype(np.float32)
    expected[confidence < 0.05] = 50
    comparison = Comparison(
        site="res2",
        block="Block",
        frames=np.arange(4),
        offsets=(0, 1),
        step=1,
        similarities=np.zeros((4, 5, 6, 2, 3, 3), np.float32),
        expected=expected,
        confidence=confidence,
        estimated=True,
    )
    frames = np.zeros((4, 40, 48, 3), np.uint8)
    activation = rng.uniform(0, 2, (3, 2, 2, 3)).astype(np.float32)
    probabilities = np.full(3, 1 / 3, np.float32)
    return ClipInspection(frames, probabilities, probabilities[None], activation, comparison if compares else None)


def test_frames_lie_beside_each_other_and_are_reduced(rng):
    frames = np.repeat(np.arange(3, dtype=np.uint8)[:, None, None, None] * 100, 320 * 240 * 3).reshape(3, 240, 320, 3)
    made = clip_cards.frames_picture(frames)
    assert (made["count"], made["size"]) == (3, (120, 160))
    strip = decoded(made["frames"])
    assert strip.shape == (120, 3 * 160, 3)
    for index in range(3):
        np.testing.assert_allclose(strip[:, 160 * index + 2 : 160 * index + 158], 100 * index, atol=3)
    assert clip_cards.frames_picture(frames[:, :50, :60])["size"] == (50, 60)
    assert clip_cards.frames_picture(np.zeros((400, 64, 64, 3), np.uint8))["size"] == (40, 40)


def test_displacement_fades_where_nothing_moves_and_where_the_network_is_not_sure(rng):
    clip = seen(rng)
    clip.comparison.expected[0, 0, 0] = 0
    (made,) = clip_cards.overlays([clip], [2])
    assert made["counts"] == {"activation": 2, "displacement": 4}
    # The cells of 50 pixels are those of low confidence, and do not set the scale.
    assert 3 < made["longest"] < 4.3
    strip = decoded(made["displacement"])
    field = clip.comparison.expected[..., 1, :]
    confidence = clip.comparison.confidence[..., 1]
    low, high = np.percentile(confidence, (10, 90))
    for time, row, column in np.ndindex(4, 5, 6):
        pixel = strip[row, 6 * time + column]
        visible = min(max((confidence[time, row, column] - low) / (high - low), 0), 1)
        length = min(np.linalg.norm(field[time, row, column]) / made["longest"], 1)
        assert pixel[3] == pytest.approx(255 * visible * length, abs=0.51)
        np.testing.assert_array_equal(pixel[:3], flow_colours(field[time, row, column], longest=made["longest"]))
    assert strip[0, 0, 3] == 0


def test_activation_is_of_the_chosen_class(rng):
    clip = seen(rng, compares=False)
    (made,) = clip_cards.overlays([clip], [1])
    assert made["counts"] == {"activation": 2}
    assert made["longest"] is None
    strip = decoded(made["activation"])
    of_class = clip.activation[1] / clip.activation[1].max()
    for time, row, column in np.ndindex(2, 2, 3):
        value = of_class[time, row, column]
        assert strip[row, 3 * time + column, 3] == pytest.approx(255 * min(1.5 * value, 1), abs=0.51)
    brightest = np.unravel_index(of_class.argmax(), of_class.shape)
    assert tuple(strip[brightest[1], 3 * brightest[0] + brightest[2]]) == (252, 255, 164, 255)  # the end of inferno


def test_clips_share_the_scale_of_displacement(rng):
    small, large = seen(rng), seen(rng)
    large.comparison.expected[...] *= 10
    first, second = clip_cards.overlays([small, large], [0, 0])
    assert first["longest"] == second["longest"] > 10

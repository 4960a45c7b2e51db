"""The page of evaluate_motion and its videos in a browser."""

import base64

import numpy as np
import pytest
from drawn_clips import clip, comparison

from motion_jax.inspection.animation import write_animation
from motion_jax.inspection.motion_errors import agreement
from motion_jax.inspection.pages.motion import motion_page

pytestmark = pytest.mark.long
ABOUT = {"network": "msnet_tsm_r18", "block": "MotionSqueeze", "estimated": True, "reach": 3, "cell": 4.0}
ROW = {"clips": 20, "epe": 1.0, "motion": 4.0, "ratio": 0.25, "dis": 0.5, "farneback": 2.0}


@pytest.fixture
def page(tmp_path):
    cells = {number: {**ROW, "motion": 4.0 * number} for number in range(1, 6)}
    result = {
        "move left": ROW,
        "all translations": {**ROW, "by_cells": cells, "window": {"cells": 3, "pixels": 12.0}},
        "all motions": {**ROW, "verdict": "It moves.", "calibration": [{"confidence": 0.5, "epe": 2.0}] * 5},
    }
    path = tmp_path / "motion.html"
    text = motion_page(result, [clip(comparison(estimated=True))], {**ABOUT, "source": "20 clips"})
    path.write_text(text, encoding="utf-8")
    return path


def test_the_page_shows_what_was_measured(page, open_page):
    shown = open_page(page)
    assert shown.locator(".lead").inner_text() == "It moves."
    bars = shown.locator("#kinds .bar")
    widths = [bars.nth(number).bounding_box()["width"] for number in range(4)]
    assert np.array(widths) / widths[1] == pytest.approx([0.25, 1, 0.125, 0.5], rel=0.02)
    dots = shown.locator("#speeds circle.s2")
    assert dots.count() == 5
    ends = float(shown.locator("#speeds .end").get_attribute("d").split()[0][1:])
    assert ends == float(dots.nth(2).get_attribute("cx"))
    assert shown.locator("img.picture").evaluate("image => image.naturalWidth") == 1600


def test_the_page_is_accessible_and_fits(page, violations, screenshots):
    assert violations(page) == []
    screenshots(page)


def test_the_page_without_truth(tmp_path, violations):
    flow = np.random.default_rng(0).normal(0, 3, (4, 4, 6, 2))
    rows = [{"found": flow, "flow": flow, "valid": np.ones((4, 4, 6), bool), "passes": np.array(0.6)}]
    page = tmp_path / "motion.html"
    about = {**ABOUT, "estimated": False, "block": "Selfy", "source": "1 files"}
    page.write_text(motion_page({"agreement": agreement(rows)}, [clip(comparison())], about), encoding="utf-8")
    assert violations(page) == []


def test_a_video_plays(tmp_path, open_page):
    levels = np.linspace(0, 250, 20)
    frames = (np.full((64, 96, 3), round(level), np.uint8) for level in levels)
    write_animation(tmp_path / "seen.mp4", frames, fps=10)
    page = tmp_path / "video.html"
    page.write_text('<!doctype html><link rel="icon" href="data:,"><video muted></video>')
    shown = open_page(page)
    content = base64.b64encode((tmp_path / "seen.mp4").read_bytes()).decode()
    found = shown.evaluate(
        """async content => {
          const video = document.querySelector("video");
          video.src = `data:video/mp4;base64,${content}`;
          const level = async time => {
            video.currentTime = time;
            await new Promise(done => video.onseeked = done);
            const canvas = new OffscreenCanvas(96, 64).getContext("2d");
            canvas.drawImage(video, 0, 0);
            return canvas.getImageData(48, 32, 1, 1).data[0];
          };
          await new Promise((done, fail) => {
            video.oncanplay = done;
            video.onerror = () => fail(video.error.message);
          });
          return [video.readyState, video.videoWidth, await level(0.05), await level(1.95)];
        }""",
        content,
    )
    assert found[0] >= 2
    assert found[1] == 96
    assert found[2] < 10
    assert found[3] > 240

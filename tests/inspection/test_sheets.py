"""Pictures: what is written and drawn where, sizes, and every format."""

import io
import re

import cv2
import numpy as np
import pytest
from drawn_clips import clip, comparison

from motion_jax.inspection import animation, sheets


def words(figure):
    axes = [text for axis in figure.axes for text in axis.texts]
    return [text.get_text().replace("\n", " ") for text in (*figure.texts, *axes)]


def test_a_strip_has_a_row_per_kind_and_a_column_per_frame():
    figure = sheets.strip(clip(comparison(estimated=True)), width=4.0)
    assert figure.get_size_inches()[0] == 4.0
    found = words(figure)
    assert found[0] == "a clip   true class: kick"
    assert found[1:4] == ["✓ kick 70 %", "punch 20 %", "push 10 %"]
    for name in ("frame", "displacement", "confidence", "class activation", "8.0 px", "0.50", "max"):
        assert name in found, name
    assert [text for text in found if text.endswith(" s")] == ["0.00 s", "0.12 s", "0.25 s", "0.38 s"]
    # Four frames in the rows of frames and activation, three pairs in the others; a wheel and two scales.
    assert len([axis for axis in figure.axes if axis.images]) == 4 + 3 + 3 + 4 + 3
    arrows = [axis.collections[0] for axis in figure.axes if axis.collections]
    assert len(arrows) == 3
    assert arrows[0].U[0] > 0
    assert arrows[0].V[0] == 0


@pytest.mark.parametrize("width", [3.3, 7.0])
def test_text_stays_readable_and_inside(width):
    figure = sheets.strip(clip(comparison(), label=1, frames=8), width=width)
    assert words(figure)[1].startswith("✗ kick")
    renderer = figure.canvas.get_renderer()
    for text in figure.texts:
        assert text.get_fontsize() >= 6
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1, text
        assert box.x1 <= figure.bbox.width + 1, text
        assert box.y1 <= figure.bbox.height + 1, text
    assert "similarity of a cell" in words(figure)


def test_what_a_network_without_motion_shows():
    figure = sheets.strip(clip(), width=4.0)
    assert "displacement" not in words(figure)
    assert "class activation" in words(figure)


def test_an_overview_has_a_row_per_clip():
    figure = sheets.overview([clip(comparison(estimated=True)), clip(comparison(estimated=True), label=2)], width=7.0)
    found = words(figure)
    assert {"kick", "push", "frame", "displacement", "most probable classes"} <= set(found)
    assert [text for text in found if text[0] in "✓✗"] == ["✓ kick", "✗ kick"]
    assert found.count("70 %") == 2
    bars = [axis for axis in figure.axes if axis.patches]
    assert len(bars) == 2
    assert bars[0].patches[1].get_width() == pytest.approx(0.7)
    assert bars[0].patches[1].get_facecolor()[:3] == pytest.approx((0x17 / 255, 0x70 / 255, 0x3F / 255))


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_the_formats_of_pictures(tmp_path, kind):
    path = tmp_path / f"seen.{kind}"
    sheets.save(sheets.strip(clip(comparison(estimated=True)), width=3.0), path)
    content = path.read_bytes()
    if kind == "png":
        assert cv2.imread(str(path)).shape[1] == 600
    elif kind == "svg":
        assert b">displacement</text>" in content
        assert b"216pt" in content
    else:
        assert b"/Subtype /Type3" not in content
        assert b"FontFile2" in content  # TrueType
        assert re.search(rb"/MediaBox \[ ?0 0 216 ", content)
    again = io.BytesIO()
    sheets.save(sheets.strip(clip(comparison(estimated=True)), width=3.0), again, kind=kind)
    assert again.getvalue() == content


def moving(frames=5):
    for level in np.linspace(20, 220, frames):
        yield np.full((33 // 2 * 2, 48, 3), round(level), np.uint8)


@pytest.mark.parametrize("suffix", [".mp4", ".webp", ".gif"])
def test_the_formats_of_animations(tmp_path, suffix):
    path = animation.write_animation(tmp_path / f"größe{suffix}", moving(), fps=5)
    assert path.suffix == suffix
    if suffix == ".mp4":
        assert b"avc1" in path.read_bytes()
        assert path.read_bytes().index(b"moov") < path.read_bytes().index(b"mdat")
        video = cv2.VideoCapture(str(path))
        frames = [video.read()[1] for _ in range(5)]
        assert video.get(cv2.CAP_PROP_FPS) == 5
    else:
        from PIL import Image, ImageSequence

        with Image.open(path) as image:
            assert image.info["loop"] == 0
            frames = [np.asarray(frame.convert("RGB")) for frame in ImageSequence.Iterator(image)]
            assert image.info["duration"] == 200
    assert [round(frame.mean()) for frame in frames] == pytest.approx([20, 70, 120, 170, 220], abs=3)


def test_without_an_encoder_a_video_is_webm(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(animation, "_encoder", lambda: None)
    path = animation.write_animation(tmp_path / "seen.mp4", moving(), fps=5)
    assert path == tmp_path / "seen.webm"
    assert "there is no H.264 encoder" in caplog.text
    video = cv2.VideoCapture(str(path))
    assert [round(video.read()[1].mean()) for _ in range(5)] == pytest.approx([20, 70, 120, 170, 220], abs=5)


def test_animations_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="there are no frames to write"):
        animation.write_animation(tmp_path / "a.mp4", [], fps=5)
    with pytest.raises(ValueError, match=r"absent/a\.mp4 cannot be written \("):
        animation.write_animation(tmp_path / "absent" / "a.mp4", moving(), fps=5)
    with pytest.raises(ValueError, match=r"one of the extensions \.webp, \.gif, \.mp4"):
        animation.write_animation(tmp_path / "a.avi", moving(), fps=5)


def test_an_animation_changes_frame_and_arrows():
    drawn = clip(comparison(estimated=True))
    drawn.seen.comparison.expected[1, 1, 2, -1] = (0, 8)
    pictures = [np.full((32, 48, 3), level, np.uint8) for level in (0, 250)]
    frames = list(sheets.animation([drawn], [(0, [pictures[0]]), (1, [pictures[1]]), (3, [pictures[1]])], width=6.0))
    assert {frame.shape for frame in frames} == {(frames[0].shape[0], 900, 3)}
    assert frames[0].shape[0] % 2 == 0
    assert np.abs(frames[0].astype(int) - frames[1]).max() > 200
    assert len(list(sheets.frames_of([drawn]))) == 4

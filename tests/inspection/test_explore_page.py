"""The numbers and words of the explorer page, without a browser."""

import base64
import json
import re
import zlib

import cv2
import numpy as np
import pytest

from motion_jax.inspection.clip_inspection import ClipInspection, Comparison
from motion_jax.inspection.pages.explore import (
    Clip,
    Network,
    Verdict,
    compact,
    explorer_page,
    headline,
    verdict_of,
    where_strongest,
)

LABELS = ("kick", "punch", "hug")


def unpacked(text):
    dtype, shape, content = text.split(":")
    return np.frombuffer(zlib.decompress(base64.b64decode(content)), dtype).reshape([int(n) for n in shape.split(",")])


def inspection(*, size=32, classes=3, cells=4, window=5, offsets=(1,), frames=8, seed=0):
    rng = np.random.default_rng(seed)
    probabilities = rng.dirichlet(np.ones(classes), frames).astype(np.float32)
    coarse = rng.integers(0, 256, (frames, size // 8, size // 8, 3), np.uint8)
    clip = np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC) for frame in coarse])
    motion = Comparison(
        site="res3", block="MotionSqueeze", frames=np.arange(frames), offsets=offsets, step=1,
        similarities=rng.random((frames, cells, cells, len(offsets), window, window), np.float32),
        expected=rng.standard_normal((frames, cells, cells, len(offsets), 2)).astype(np.float32),
        confidence=rng.random((frames, cells, cells, len(offsets)), np.float32), estimated=True,
    )  # fmt: skip
    activation = rng.random((classes, frames, 7, 7), np.float32)
    return ClipInspection(clip, probabilities.mean(0), probabilities, activation, motion)


def data_of(page):
    return json.loads(re.search(r'<script type="application/json" class="data">(.*?)</script>', page)[1])


def test_few_values_are_kept_and_many_are_close():
    few = np.random.default_rng(0).random((3, 4), np.float32)
    stored = compact(few)
    np.testing.assert_array_equal(stored["low"] + stored["step"] * unpacked(stored["values"]), few)
    many = np.random.default_rng(0).normal(size=(1000, 1000)).astype(np.float32)
    stored = compact(many)
    steps = unpacked(stored["values"])
    assert steps.dtype == np.uint16
    np.testing.assert_allclose(stored["low"] + stored["step"] * steps, many, atol=np.ptp(many) / 2**16)
    stored = compact(np.full((1000, 1000), 3, np.float32))
    assert np.all(stored["low"] + stored["step"] * unpacked(stored["values"]) == 3)


def test_a_page_of_msnet_r50_is_small():
    """Frames of 224 pixels, maps of 28x28 cells, windows of 15x15, the 174 classes of Something-Something."""
    seen = inspection(size=224, classes=174, cells=28, window=15)
    labels = [f"Pushing something from left to right number {number}" for number in range(174)]
    page = explorer_page([Network("msnet_tsm_r50", "runs/x")], [Clip("a.mp4", 0, "", [seen])], labels)
    assert len(page.encode()) < 5e6


def test_networks_share_a_scale_of_displacement():
    small, large = inspection(), inspection(seed=1)
    large.comparison.expected[:] *= 10
    page = explorer_page([Network("a", "a"), Network("b", "b")], [Clip("a.mp4", None, "", [small, large])], LABELS)
    lengths = np.linalg.norm(large.comparison.expected[:-1, :, :, 0], axis=-1)
    assert data_of(page)["longest"] == pytest.approx(np.percentile(lengths, 95))
    assert "the networks" in page


def test_text_from_outside_is_escaped():
    seen = inspection()
    evil = "</script><script>alert(1)</script>"
    page = explorer_page([Network(evil, evil)], [Clip(evil, 0, "", [seen])], [evil, "b", "c"])
    assert "<script>alert" not in page
    assert page.count("<script>") == 2


def verdict(kind, predicted="kick", answer=None):
    return Verdict(kind, predicted, 0.5, answer, "")


def test_headings_tell_who_is_right():
    right, wrong = verdict("right", answer=("kick", 1, 0.5)), verdict("wrong", "hug", ("kick", 2, 0.2))
    assert "".join(headline([right])) == "Recognised as kickright"
    assert headline([wrong]) == ("Seen as ", "hug", "wrong", ", but it is kick")
    assert headline([verdict("unknown")]) == ("Recognised as ", "kick", "unknown", "")
    assert headline([right, wrong]) == ("", "kick", "unknown", ": one of two networks recognises it")
    assert headline([right, right]) == ("", "kick", "right", ": both networks recognise it")
    assert headline([wrong, wrong]) == ("", "kick", "wrong", ": no network recognises it")
    assert headline([verdict("unknown")] * 2) == ("", "kick", "unknown", ": the networks agree")
    unlike = headline([verdict("unknown"), verdict("unknown", "hug")])
    assert unlike == ("", "kick or hug", "unknown", ": the networks disagree")


def test_a_verdict_counts_the_rank():
    seen = inspection()
    order = np.argsort(-seen.probabilities)
    assert verdict_of(seen, LABELS, int(order[0])).kind == "right"
    wrong = verdict_of(seen, LABELS, int(order[2]))
    assert (wrong.kind, wrong.answer) == ("wrong", (LABELS[order[2]], 3, float(seen.probabilities[order[2]])))
    assert verdict_of(seen, LABELS, None).answer is None


def test_the_evidence_is_located():
    activation = np.zeros((2, 7, 7))
    assert where_strongest(activation, 8).startswith("nowhere")
    activation[1, 3, 3] = 1
    assert where_strongest(activation, 8) == "in frames 5 to 8 of 8, in the middle"
    activation[0, 6, 1] = 2
    assert where_strongest(activation, 2) == "in frame 1 of 2, at the bottom left"

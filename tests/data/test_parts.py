import json

import cv2
import numpy as np
import pytest

import motion_jax.data.storage.parts
from motion_jax.data.sources.layout import Entry, Layout
from motion_jax.data.storage.parts import Encoder, make_parts, read_summary, record_file, write_part, write_parts


@pytest.fixture
def entries(tmp_path):
    """Seven frame folders of one to seven frames; the third is empty."""
    for number in range(7):
        (tmp_path / str(number)).mkdir()
        for frame in range(0 if number == 2 else number + 1):
            cv2.imwrite(str(tmp_path / f"{number}/{frame}.png"), np.full((8, 12, 3), 10 * frame, np.uint8))
    return tuple(Entry("train", f"clip {number}", str(number), number % 2) for number in range(7))


@pytest.fixture
def encode(tmp_path):
    return Encoder(tmp_path, ("a", "b"), resize=(4, 6), quality=95)


def test_parts_hold_every_entry_once_in_order(monkeypatch):
    entries = [Entry("val" if i % 5 == 0 else "train", str(i), str(i), 0) for i in range(1000)]
    for most, least, sizes in ((256, 32, [32] * 25), (4, 32, [200] * 4), (256, 300, [300, 300, 200])):
        monkeypatch.setattr(motion_jax.data.storage.parts, "_MOST_PARTS", most)
        monkeypatch.setattr(motion_jax.data.storage.parts, "_LEAST_VIDEOS", least)
        parts = make_parts(entries, "train")
        assert [len(part.entries) for part in parts] == sizes
        assert [entry for part in parts for entry in part.entries] == [e for e in entries if e.split == "train"]
    assert parts[1].name == "train-00001-of-00003"


def test_only_parts_that_are_not_done_are_made(entries, encode, tmp_path, monkeypatch):
    monkeypatch.setattr(motion_jax.data.storage.parts, "_LEAST_VIDEOS", 2)
    parts = make_parts(entries, "train")
    write_part(parts[1], tmp_path, map(encode, parts[1].entries))
    seen = []
    read = motion_jax.data.storage.parts.decode
    monkeypatch.setattr(
        motion_jax.data.storage.parts, "decode", lambda path, **o: seen.append(path.name) or read(path, **o)
    )
    write_parts(parts, tmp_path, encode)
    assert sorted(seen) == ["0", "1", "4", "5", "6"]
    assert [len(read_summary(part, tmp_path).kept) for part in parts] == [2, 1, 2, 1]
    assert [sum(kept.frames for kept in read_summary(part, tmp_path).kept) for part in parts] == [1 + 2, 4, 5 + 6, 7]
    assert read_summary(parts[1], tmp_path).unreadable == (("2", "the folder holds no images"),)


def test_a_part_cut_off_leaves_nothing_that_looks_done(entries, encode, tmp_path):
    (part,) = make_parts(entries, "train")

    def killed():
        yield encode(part.entries[0])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_part(part, tmp_path, killed())
    assert read_summary(part, tmp_path) is None
    assert not record_file(part, tmp_path).exists()


def test_a_summary_a_power_failure_emptied_is_none(entries, encode, tmp_path):
    (part,) = make_parts(entries, "train")
    write_part(part, tmp_path, map(encode, part.entries))
    (tmp_path / f"{part.name}.json").write_text("")
    assert read_summary(part, tmp_path) is None


def test_a_part_without_readable_videos_has_no_records(encode, tmp_path):
    (tmp_path / "empty").mkdir()
    (part,) = make_parts([Entry("train", "x", "empty", 0)], "train")
    write_part(part, tmp_path, map(encode, part.entries))
    assert read_summary(part, tmp_path).kept == ()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "train-00000-of-00001.json"]


def test_a_summary_is_readable_by_others(entries, encode, tmp_path):
    (part,) = make_parts(entries, "train")
    write_part(part, tmp_path, map(encode, part.entries))
    summary = json.loads((tmp_path / "train-00000-of-00001.json").read_text())
    assert set(summary) == {"kept", "unreadable", "remarks"}
    assert [kept[:3] for kept in summary["kept"][:2]] == [["clip 0", 0, 1], ["clip 1", 1, 2]]
    assert sum(frames for _, _, frames, _, _ in summary["kept"]) == 1 + 2 + 4 + 5 + 6 + 7


@pytest.mark.parametrize(
    ("classes", "entries", "message"),
    [
        (("a", "a"), [Entry("train", "x", "x", 0)], "class 'a' .* appears twice"),
        (("a",), [Entry("train", "x", "x", 1)], "x of .* has the label 1, but there are 1 classes"),
        (("a",), [Entry("train", "x", "x", 0)] * 2, "split train of .* names x twice"),
        (("a",), [Entry("val", "x", "x", 0)], "no video of .* is in the train split"),
    ],
)
def test_wrong_layouts(tmp_path, classes, entries, message):
    with pytest.raises(ValueError, match=rf"^data\.root: .*{message}"):
        Layout(tmp_path, classes, tuple(entries), "alphabetical")

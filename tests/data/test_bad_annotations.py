"""Annotations that are damaged, hostile, or in another encoding: one line that names the file."""

import json
import random

import pytest

from motion_jax.data.sources import BUILDERS, annotations, layout
from motion_jax.data.sources.layout import Layout
from motion_jax.data.storage.parts import Entry

DIVING = {
    "Diving48_vocab.json": '[["back", "15som"], ["forward", "25som"]]',
    "Diving48_V2_train.json": '[{"vid_name": "a", "label": 0, "start_frame": 0}, {"vid_name": "b", "label": 1}]',
    "Diving48_V2_test.json": '[{"vid_name": "c", "label": 1}]',
}
V2 = {
    "something-something-v2-labels.json": '{"Pushing": "0", "Pulling": "1"}',
    "something-something-v2-train.json": '[{"id": "1", "template": "[Pushing]"}, {"id": "2", "template": "Pulling"}]',
    "something-something-v2-validation.json": '[{"id": "3", "template": "Pulling"}]',
}
KINETICS = {
    "train.csv": "label,youtube_id,time_start,time_end\nswimming,abc,0,10\nrunning,abd,1.5,11\n",
    "val.csv": "label,youtube_id,time_start,time_end\nswimming,abe,0,10\n",
    "train/abc_000000_000010.mp4": "",
    "train/abd_000001_000011.mp4": "",
    "val/abe_000000_000010.mp4": "",
}
LISTS = {"train.txt": "a.mp4 10 0\nb c.mp4 10 1\n", "val.txt": "d.mp4 10 1\n"}
MANIFEST = {"manifest.csv": "path,split\na/1.mp4,train\nb/1.mp4,val\n", "a/1.mp4": "", "b/1.mp4": ""}
TIMES = "finegym_annotation_info_v1.1.json"
GYM = {
    "gym99_categories.txt": "Clabel: 0; set: 1; Glabel: 1; (VT) round-off\nClabel: 1; set: 1; Glabel: 3; turn\n",
    "gym99_train_element_v1.1.txt": "v_E_000001_000002_A_0001_0002 0\n",
    "gym99_val_element.txt": "v_E_000001_000002_A_0003_0004 1\n",
    TIMES: json.dumps(
        {
            "v": {
                "E_000001_000002": {
                    "timestamps": [[10.0, 20.0]],
                    "segments": {name: {"timestamps": [[0.5, 2.5]]} for name in ("A_0001_0002", "A_0003_0004")},
                }
            }
        }
    ),
    "videos/v.mp4": "",
}
UCF = {
    "ucfTrainTestlist/classInd.txt": "1 Run\n2 Jump\n",
    "ucfTrainTestlist/trainlist01.txt": "Run/v_1.avi 1\nJump/v_2.avi 2\n",
    "ucfTrainTestlist/testlist01.txt": "Run/v_3.avi\n",
}
HMDB = {"run_test_split1.txt": "a.avi 1\nb.avi 2\n", "jump_test_split1.txt": "c.avi 1\nd.avi 0\n"}
V1 = {
    "something-something-v1-labels.csv": "Pulling\nPushing\n",
    "something-something-v1-train.csv": "1;Pulling\n2;Pushing\n",
    "something-something-v1-validation.csv": "3;Pulling\n",
}
SETS = {
    "diving48": ("v2", DIVING),
    "something_v2": (None, V2),
    "kinetics400": (None, KINETICS),
    "list_files": (None, LISTS),
    "video_folder": (None, MANIFEST),
    "finegym": ("gym99", GYM),
    "ucf101": ("split1", UCF),
    "hmdb51": ("split1", HMDB),
    "something_v1": (None, V1),
}


def read(root, name, changes=()):
    """Write the files of a data set, some of them changed, and read their layout."""
    version, files = SETS[name]
    for file, content in {**files, **dict(changes)}.items():
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    return BUILDERS[name].read_layout(root, version)


@pytest.mark.parametrize("name", SETS)
def test_sound_annotations_are_read(tmp_path, name):
    assert {entry.split for entry in read(tmp_path, name).entries} == {"train", "val"}


@pytest.mark.parametrize(
    ("name", "file", "content", "message"),
    [
        (
            "video_folder",
            "manifest.csv",
            f"path,split\n{'a' * 140_000},train\n",
            r"manifest.csv line 2 is not csv \(field",
        ),
        ("kinetics400", "val.csv", KINETICS["val.csv"] + "a" * 140_000, "val.csv line 3 is not csv"),
        ("diving48", "Diving48_vocab.json", "[" * 100_000, "Diving48_vocab.json nests too many lists"),
        ("diving48", "Diving48_vocab.json", "[1, 2]", "names a class 1; expected a list of its parts"),
        (
            "diving48",
            "Diving48_V2_test.json",
            '[{"vid_name": "c", "label": "' + "x" * 3000 + '"}]',
            "x{50,60}...; expected",
        ),
        (
            "video_folder",
            "manifest.csv",
            "path,split\na/1.mp4,train\nb/é.mp4,val\n".encode("latin1"),
            "line 3 is not UTF-8, and no",
        ),
        (
            "list_files",
            "val.txt",
            "d.mp4 10 1\né.mp4 10 1\n".encode("latin1"),
            "val.txt line 2 is not UTF-8, and no file",
        ),
        (
            "list_files",
            "labels.txt",
            "one\ntwo\né\n".encode("latin1"),
            r"labels.txt line 3 is not UTF-8 \(byte 0xe9\); save",
        ),
        ("something_v1", "something-something-v1-train.csv", "é".encode("utf-16"), "line 1 is not UTF-8"),
        (
            "list_files",
            "val.txt",
            "\nd.mp4 10 50000000\n",
            "val.txt line 2 has the label 50000000, but no video .* label 2",
        ),
        (
            "list_files",
            "val.txt",
            "d.mp4 10 " + "9" * 5000,
            r"val.txt line 1 is 'd.mp4 10 9{40,}\.\.\.; expected path frames",
        ),
        ("list_files", "val.txt", "d\0.mp4 10 1\n", r"the video 'd\\x00.mp4' is not below the root"),
        (
            "something_v2",
            "something-something-v2-validation.json",
            '[{"id": "../../x", "template": "Pulling"}]',
            "not below the root",
        ),
        (
            "something_v2",
            "something-something-v2-train.json",
            '[{"id": "1", "template": "Puling"}]',
            "did you mean Pulling?",
        ),
        ("finegym", TIMES, GYM[TIMES].replace("2.5", "NaN"), "no times of v_E"),
        ("finegym", TIMES, GYM[TIMES].replace("2.5", '"2"'), "no times of v_E"),
        (
            "kinetics400",
            "val.csv",
            KINETICS["val.csv"].replace("0,10", "0," + "9" * 400),
            "line 2 has times that are not numbers",
        ),
    ],
)
def test_damaged_annotations_are_named(tmp_path, name, file, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(tmp_path, name, {file: content})
    assert len(str(caught.value)) < 500
    assert "\n" not in str(caught.value)


def test_annotations_that_are_no_files_or_too_large(tmp_path, monkeypatch):
    monkeypatch.setattr(annotations, "MOST_BYTES", 20)
    with pytest.raises(ValueError, match=r"labels.json has 32 bytes, expected at most 20; fetch it again"):
        read(tmp_path, "something_v2")
    (tmp_path / "classInd").mkdir()
    with pytest.raises(ValueError, match="classInd is not a file; replace it"):
        annotations.read_text(tmp_path / "classInd")


def test_the_number_of_classes_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "MOST_CLASSES", 2)
    with pytest.raises(ValueError, match="has 3 classes, expected at most 2"):
        Layout(tmp_path, ("a", "b", "c"), (Entry("train", "1", "1", 0),), "")


def test_names_that_are_not_utf8_are_read_where_such_files_exist(tmp_path):
    name = "é.mp4".encode("latin1")
    (tmp_path / "odd").mkdir()
    for folder in ("", "b/"):
        (tmp_path / "odd" / folder).mkdir(exist_ok=True)
        open(f"{tmp_path}/odd/{folder}".encode() + name, "wb").close()
    root = tmp_path / "odd"
    entries = read(root, "list_files", {"val.txt": name + b" 10 1\n"}).entries
    assert (entries[-1].path, entries[-1].id) == ("\udce9.mp4", r"\xe9.mp4")
    (root / "val.txt").unlink()
    entries = read(root, "video_folder", {"manifest.csv": b"path,split\na/1.mp4,train\nb/" + name + b",val\n"}).entries
    assert entries[-1].path == "b/\udce9.mp4"


@pytest.mark.parametrize("name", SETS)
def test_mutated_annotations_are_read_or_refused(tmp_path, name):
    """Bytes are changed, repeated or cut at random, with words that mean something to one of the parsers."""
    words = [
        b"-1",
        b"1e999",
        b"NaN",
        b"null",
        b"[]",
        b"{}",
        b'"',
        b",",
        b";",
        b"\n",
        b"\0",
        b"\xe9",
        b"..",
        b"/",
        b"9" * 30,
    ]
    draw = random.Random(name)
    files = {file: text.encode() for file, text in SETS[name][1].items() if text}
    outcomes = set()
    for _ in range(300):
        file = draw.choice(sorted(files))
        content = bytearray(files[file])
        for _ in range(draw.randint(1, 3)):
            start = draw.randrange(len(content) + 1)
            content[start : start + draw.randrange(12)] = draw.choice([b"", *words, bytes(content[:start])])
        try:
            read(tmp_path, name, {file: bytes(content)})
            outcomes.add("read")
        except ValueError as error:
            outcomes.add("data.root: " in str(error))
        (tmp_path / file).write_bytes(files[file])
    assert outcomes == {"read", True}  # every refusal names data.root

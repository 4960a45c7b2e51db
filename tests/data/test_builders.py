"""Every data set from a made-up download of it: the files of its release, with few videos of a few frames."""

import json
import logging
import re

import cv2
import numpy as np
import pytest
from bench import data_config, write_video

from motion_jax.data.config import FILMED, VERSIONS
from motion_jax.data.pipeline import open_dataset
from motion_jax.data.sources import BUILDERS
from motion_jax.data.sources.preparation import prepare, report


def image(level: int) -> np.ndarray:
    return np.full((48, 64, 3), level % 256, np.uint8)


def video(path, *, frames: int = 3, fps: float = 10.0) -> None:
    """Frame i is 10 i bright, modulo 256."""
    write_video(path, range(0, 10 * frames, 10), fps=fps)


def frame_folder(path, *, frames: int) -> None:
    path.mkdir(parents=True)
    for frame in range(1, frames + 1):
        cv2.imwrite(str(path / f"{frame:05d}.jpg"), image(10 * frame))


def write(path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def read(name: str, root, version: str | None = None):
    return BUILDERS[name].read_layout(root, version)


def listed(layout) -> list[tuple[str, str, str, str]]:
    return [(entry.split, entry.id, entry.path, layout.classes[entry.label]) for entry in layout.entries]


def opened(name: str, root, tmp_path, **changes):
    section = data_config(**{"name": name, "root": str(root), "frames": 2, "max_bad_fraction": 0.5, **changes})
    return open_dataset(section, default_dir=str(tmp_path / "prepared"))


def contents(dataset, split: str) -> list[tuple[str, int, int]]:
    """Of each example: its name, its label and its number of frames."""
    examples = [dataset.example(split, index) for index in range(dataset.size(split))]
    return [(example["id"], example["label"], example["num_frames"]) for example in examples]


def test_every_name_has_its_builder():
    assert set(BUILDERS) == set(FILMED)
    for name, builder in BUILDERS.items():
        assert builder.name == name
        assert name == "video_folder" or builder.HOMEPAGE.startswith("http")
        assert name in ("video_folder", "list_files") or builder.CITATION


# Something-Something V1

V1_RELEASED = ("Turning the camera left while filming something", "Opening something", "Holding something")


@pytest.fixture
def something_v1(tmp_path):
    root = tmp_path / "v1"
    for number in (1, 2, 3, 10, 20):
        frame_folder(root / "20bn-something-something-v1" / str(number), frames=number % 9 + 1)
    write(root / "something-something-v1-labels.csv", *V1_RELEASED)
    write(
        root / "something-something-v1-train.csv", f"10;{V1_RELEASED[0]}", f"2;{V1_RELEASED[1]}", f"1;{V1_RELEASED[2]}"
    )
    write(root / "something-something-v1-validation.csv", f"3;{V1_RELEASED[1]}")
    write(root / "something-something-v1-test.csv", "20")
    return root


def test_something_v1(something_v1, tmp_path, caplog):
    dataset = opened("something_v1", something_v1, tmp_path)
    assert dataset.labels == ("Holding something", "Opening something", V1_RELEASED[0])
    assert contents(dataset, "train") == [("10", 2, 2), ("2", 1, 3), ("1", 0, 2)]
    assert contents(dataset, "val") == [("3", 1, 4)]
    example = dataset.example("train", 1)
    assert example["frames"].shape == (3, 24, 32, 3)
    assert [round(frame.mean()) for frame in example["frames"]] == pytest.approx([10, 20, 30], abs=1)
    with pytest.raises(ValueError, match="no split 'test'"):
        dataset.size("test")
    assert "3 classes, but the published data have 174" in caplog.text


@pytest.mark.parametrize("order", ["alphabetical", "as in the released labels.csv"])
def test_something_v1_tells_the_order_of_list_files(something_v1, order):
    names = sorted(V1_RELEASED) if order == "alphabetical" else V1_RELEASED
    numbers = {name: label for label, name in enumerate(names)}
    clips = {"train": [("10", 0), ("2", 1), ("1", 2)], "val": [("3", 1)]}
    for split, rows in clips.items():
        lines = (f"something/v1/img/{clip} 30 {numbers[V1_RELEASED[which]]}" for clip, which in rows)
        write(something_v1 / f"{split}_videofolder.txt", *lines)
    layout = read("something_v1", something_v1)
    assert layout.classes == tuple(names)
    assert layout.class_order.startswith(order)
    assert [(entry.id, layout.classes[entry.label]) for entry in layout.entries] == [
        ("10", V1_RELEASED[0]),
        ("2", V1_RELEASED[1]),
        ("1", V1_RELEASED[2]),
        ("3", V1_RELEASED[1]),
    ]


def test_something_v1_list_files_of_another_order(something_v1):
    write(something_v1 / "train_videofolder.txt", "a/10 30 1", "a/2 30 0", "a/1 30 2")
    write(something_v1 / "val_videofolder.txt", "a/3 30 0")
    refused = pytest.raises(ValueError, match=r"follow neither the alphabetical order .* add the category\.txt")
    with refused:
        read("something_v1", something_v1)
    # It may be of other lists than these: what the csv files say rules.
    write(something_v1 / "category.txt", V1_RELEASED[1], V1_RELEASED[0], V1_RELEASED[2])
    with refused:
        read("something_v1", something_v1)
    for path in something_v1.glob("*.csv"):
        path.unlink()
    layout = read("something_v1", something_v1)
    assert layout.class_order == "as in category.txt"
    assert listed(layout)[0] == ("train", "10", "20bn-something-something-v1/10", V1_RELEASED[0])


# Something-Something V2

V2_LABELS = {"Attaching something to something": "0", "Pushing something from left to right": "1", "Zooming": "2"}


@pytest.mark.parametrize("pattern", ["something-something-v2-{}.json", "labels/{}.json"])
def test_something_v2(tmp_path, pattern):
    root = tmp_path / "v2"
    for number in (7, 8, 9):
        video(root / f"20bn-something-something-v2/{number}.webm", frames=number)

    def rows(*clips):
        return json.dumps(
            [{"id": clip, "label": "x", "template": template, "placeholders": []} for clip, template in clips]
        )

    write(root / pattern.format("labels"), json.dumps(V2_LABELS))
    write(
        root / pattern.format("train"),
        rows(("9", "Pushing [something] from left to right"), ("8", "Attaching [something] to [something]")),
    )
    write(root / pattern.format("validation"), rows(("7", "Zooming"), ("70", "Zooming")))
    write(root / pattern.format("test"), json.dumps([{"id": "11"}]))
    dataset = opened("something_v2", root, tmp_path)
    assert dataset.labels == tuple(V2_LABELS)
    assert contents(dataset, "train") == [("9", 1, 9), ("8", 0, 8)]
    assert contents(dataset, "val") == [("7", 2, 7)]
    assert dataset.example("val", 0)["fps"] == 10.0
    # Absent files of an archive are no usual thing: they count as unreadable.
    layout = read("something_v2", root)
    assert layout.missing == ()
    assert listed(layout)[-1] == ("val", "70", "20bn-something-something-v2/70.webm", "Zooming")
    assert "alphabetical" in layout.class_order


# Kinetics-400


@pytest.fixture
def kinetics(tmp_path):
    root = tmp_path / "k400"
    header = "label,youtube_id,time_start,time_end,split,is_cc"
    write(root / "annotations/val.csv", header, "playing_drums,zzzzzzzzzzz,12,22,validate,0")
    write(root / "annotations/test.csv", "youtube_id,time_start,time_end,split", "qqqqqqqqqqq,1,11,test")
    video(root / "train/abseiling/dQw4w9WgXcQ_000100_000110.mkv", frames=4)
    video(root / "train/-a_b-c_000005_000015.mp4", frames=5)
    video(root / "val/playing drums/zzzzzzzzzzz_000012_000022.mp4", frames=6)
    write(
        root / "annotations/train.csv",
        header,
        "playing drums,-a_b-c,5,15,train,0",
        "abseiling,dQw4w9WgXcQ,100,110,train,0",
        "abseiling,gone1234567,0,10,train,0",
    )
    return root


def test_kinetics400(kinetics, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        dataset = opened("kinetics400", kinetics, tmp_path, max_bad_fraction=0)
    assert dataset.labels == ("abseiling", "playing drums")
    assert contents(dataset, "train") == [("-a_b-c_000005_000015", 1, 5), ("dQw4w9WgXcQ_000100_000110", 0, 4)]
    assert contents(dataset, "val") == [("zzzzzzzzzzz_000012_000022", 1, 6)]
    assert "1 videos of the annotations are absent: gone1234567_000000_000010" in caplog.text
    # A video that comes later is prepared.
    video(kinetics / "train/gone1234567_000000_000010.mp4", frames=2)
    assert opened("kinetics400", kinetics, tmp_path).size("train") == 3


def test_kinetics400_without_any_clip(kinetics):
    for path in kinetics.rglob("*.m??"):
        path.unlink()
    with pytest.raises(ValueError, match=r"none of the videos of split train; the first would be train/-a_b-c_000005"):
        read("kinetics400", kinetics)


def test_kinetics400_whose_validation_lies_elsewhere(kinetics):
    (kinetics / "val").rename(kinetics / "val_256")
    with pytest.raises(ValueError, match=r"none of the videos of split val; the first would be val/zzzzzzzzzzz_000012"):
        read("kinetics400", kinetics)
    (kinetics / "val_256").rename(kinetics / "validation")
    assert read("kinetics400", kinetics).splits() == ("train", "val")


# Diving-48


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_diving48(tmp_path, version):
    root = tmp_path / "diving"
    prefix = {"v1": "Diving48", "v2": "Diving48_V2"}[version]
    label = {"v1": 1, "v2": 0}[version]
    for name in ("Ie3XL7r-L2I_00000", "Ie3XL7r-L2I_00001", "2x00lRzlTVQ_00000"):
        video(root / f"rgb/{name}.mp4")
    write(
        root / "Diving48_vocab.json",
        json.dumps([["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "PIKE"]]),
    )
    row = {"start_frame": 0, "end_frame": 3}
    train = [
        {"vid_name": "Ie3XL7r-L2I_00001", "label": label, **row},
        {"vid_name": "Ie3XL7r-L2I_00000", "label": 1, **row},
    ]
    write(root / f"{prefix}_train.json", json.dumps(train))
    write(root / f"{prefix}_test.json", json.dumps([{"vid_name": "2x00lRzlTVQ_00000", "label": 0, **row}]))
    dataset = opened("diving48", root, tmp_path, version=version)
    assert dataset.labels == ("Back 15som 05Twis FREE", "Forward 25som NoTwis PIKE")
    assert contents(dataset, "train") == [("Ie3XL7r-L2I_00001", label, 3), ("Ie3XL7r-L2I_00000", 1, 3)]
    assert contents(dataset, "val") == [("2x00lRzlTVQ_00000", 0, 3)]
    (folder,) = (tmp_path / "prepared/diving48").iterdir()
    assert folder.name.startswith(f"{version}-")
    other = {"v1": "v2", "v2": "v1"}[version]
    with pytest.raises(ValueError, match=r"holds no Diving48.*_train.json"):
        read("diving48", root, other)


# FineGym


@pytest.fixture
def finegym(tmp_path):
    """A video of 20 seconds: an event from 5 s on, in it an element of one stage and a vault of three."""
    root = tmp_path / "gym"
    video(root / "videos/0LtLS9wROrk.mp4", frames=200, fps=10.0)
    segments = {
        "A_0000_0002": {"stages": 1, "timestamps": [[0.5, 1.75]]},
        "A_0003_0009": {"stages": 3, "timestamps": [[3.0, 4.0], [4.0, 6.0], [6.0, 8.5]]},
    }
    events = {"E_000005_000015": {"event": 1, "segments": segments, "timestamps": [[5.25, 15.0]]}}
    gone = {
        "E_000000_000009": {"event": 1, "segments": {"A_0000_0001": segments["A_0000_0002"]}, "timestamps": [[0, 9]]}
    }
    empty = {"E_000100_000105": {"event": 2, "segments": None, "timestamps": [[100, 105]]}}
    info = {"0LtLS9wROrk": events | empty, "gone_with_it": gone}
    write(root / "annotations/finegym_annotation_info_v1.1.json", json.dumps(info))
    write(
        root / "annotations/gym99_categories.txt",
        "Clabel:   0; set: 1; Glabel: 1; (VT) round-off, flic-flac on, stretched salto backward with 2 turn off",
        "Clabel:   1; set: 21; Glabel: 60; (FX) switch leap to ring position",
    )
    write(
        root / "annotations/gym99_train_element_v1.1.txt",
        "0LtLS9wROrk_E_000005_000015_A_0003_0009 0",
        "gone_with_it_E_000000_000009_A_0000_0001 1",
    )
    write(root / "annotations/gym99_val_element.txt", "0LtLS9wROrk_E_000005_000015_A_0000_0002 1")
    return root


def test_finegym_cuts_by_time(finegym, tmp_path, caplog):
    dataset = opened("finegym", finegym, tmp_path, version="gym99", max_bad_fraction=0)
    assert dataset.labels == (
        "(VT) round-off, flic-flac on, stretched salto backward with 2 turn off",
        "(FX) switch leap to ring position",
    )
    # From 5.25 + 3 to 5.25 + 8.5 and from 5.25 + 0.5 to 5.25 + 1.75 seconds, ten frames a second.
    assert contents(dataset, "train") == [("0LtLS9wROrk_E_000005_000015_A_0003_0009", 0, 137 - 82)]
    assert contents(dataset, "val") == [("0LtLS9wROrk_E_000005_000015_A_0000_0002", 1, 70 - 58)]
    assert "gone_with_it_E_000000_000009_A_0000_0001" in caplog.text
    entry = read("finegym", finegym, "gym99").entries[0]
    assert (entry.path, entry.seconds) == ("videos/0LtLS9wROrk.mp4", (8.25, 13.75))


def test_finegym_takes_elements_that_are_cut_already(finegym, tmp_path):
    for name in ("0LtLS9wROrk_E_000005_000015_A_0003_0009", "gone_with_it_E_000000_000009_A_0000_0001"):
        video(finegym / f"subactions/{name}.mp4", frames=7)
    dataset = opened("finegym", finegym, tmp_path, version="gym99")
    assert [count for _, _, count in contents(dataset, "train")] == [7, 7]
    assert [count for _, _, count in contents(dataset, "val")] == [12]


def test_finegym_names_an_element_without_times(finegym):
    write(finegym / "annotations/gym99_val_element.txt", "0LtLS9wROrk_E_000005_000015_A_0011_0012 1")
    with pytest.raises(
        ValueError, match=r"no times of 0LtLS9wROrk_E_000005_000015_A_0011_0012; take .* of one release"
    ):
        read("finegym", finegym, "gym99")


# UCF-101 and HMDB-51


def test_ucf101(tmp_path):
    root = tmp_path / "ucf"
    write(root / "ucfTrainTestlist/classInd.txt", "1 ApplyEyeMakeup", "2 YoYo")
    clips = {name: f"{name}/v_{name}_g{group}_c01.avi" for name in ("ApplyEyeMakeup", "YoYo") for group in ("08",)}
    for path in clips.values():
        video(root / "UCF-101" / path)
    video(root / "UCF-101/YoYo/v_YoYo_g01_c01.avi")
    write(root / "ucfTrainTestlist/trainlist01.txt", f"{clips['YoYo']} 2", f"{clips['ApplyEyeMakeup']} 1")
    write(root / "ucfTrainTestlist/testlist01.txt", "YoYo/v_YoYo_g01_c01.avi")
    write(root / "ucfTrainTestlist/trainlist03.txt", "YoYo/v_YoYo_g01_c01.avi 2")
    write(root / "ucfTrainTestlist/testlist03.txt", clips["ApplyEyeMakeup"])
    dataset = opened("ucf101", root, tmp_path, version="split1")
    assert dataset.labels == ("ApplyEyeMakeup", "YoYo")
    assert contents(dataset, "train") == [("v_YoYo_g08_c01", 1, 3), ("v_ApplyEyeMakeup_g08_c01", 0, 3)]
    assert contents(dataset, "val") == [("v_YoYo_g01_c01", 1, 3)]
    assert [entry.label for entry in read("ucf101", root, "split3").entries] == [1, 0]
    write(root / "ucfTrainTestlist/trainlist01.txt", f"{clips['YoYo']} 1")
    with pytest.raises(ValueError, match=r"c01.avi 1', but .*classInd.txt numbers it 2"):
        read("ucf101", root, "split1")
    write(root / "ucfTrainTestlist/trainlist01.txt", "Yoyo/v_Yoyo_g08_c01.avi 2")
    with pytest.raises(ValueError, match="class 'Yoyo', which is not among the 2"):
        read("ucf101", root, "split1")


@pytest.mark.parametrize("folder", ["testTrainMulti_7030_splits/", ""])
def test_hmdb51(tmp_path, folder):
    root = tmp_path / "hmdb"
    odd = "#20_Rhythm_clap_u_nm_np1_le_goo_6.avi"
    for path in ("brush_hair/one.avi", "brush_hair/two.avi", f"clap/{odd}", "clap/unused.avi"):
        video(root / path)
    write(root / f"{folder}clap_test_split2.txt", f"{odd} 1 ", "unused.avi 0 ")
    write(root / f"{folder}brush_hair_test_split2.txt", "one.avi 2 ", "two.avi 1 ")
    write(root / f"{folder}clap_test_split1.txt", f"{odd} 2 ")
    dataset = opened("hmdb51", root, tmp_path, version="split2")
    assert dataset.labels == ("brush_hair", "clap")
    assert contents(dataset, "train") == [("brush_hair/two", 0, 3), (f"clap/{odd.removesuffix('.avi')}", 1, 3)]
    assert contents(dataset, "val") == [("brush_hair/one", 0, 3)]
    with pytest.raises(ValueError, match=r"holds no .*_test_split3\.txt"):
        read("hmdb51", root, "split3")


# Lists of the official repositories


def test_list_files(tmp_path):
    root = tmp_path / "lists"
    frame_folder(root / "frames of one/1", frames=4)
    video(root / "videos/2.mp4", frames=5)
    video(root / "videos/3.mp4", frames=6)
    write(root / "train.txt", "frames of one/1 4 1", "videos/2.mp4 -1 0")
    write(root / "val.txt", "videos/3.mp4 6 2")
    dataset = opened("list_files", root, tmp_path)
    assert dataset.labels == ("0", "1", "2")
    assert contents(dataset, "train") == [("frames of one/1", 1, 4), ("videos/2.mp4", 0, 5)]
    assert contents(dataset, "val") == [("videos/3.mp4", 2, 6)]
    assert "leave data.flip at none" in read("list_files", root).remarks[0]
    write(root / "labels.txt", "push", "pull", "move left", "move right")
    write(root / "test.txt", "videos/3.mp4 6 3")
    layout = read("list_files", root)
    assert layout.classes == ("push", "pull", "move left", "move right")
    assert listed(layout)[-1] == ("test", "videos/3.mp4", "videos/3.mp4", "move right")
    assert layout.remarks == ()


# What is wrong is said


@pytest.mark.parametrize("name", FILMED)
def test_an_empty_folder_names_what_is_missing(tmp_path, name):
    version = VERSIONS.get(name, (None,))[0]
    for root in (tmp_path, tmp_path / "gone"):
        with pytest.raises(ValueError, match=rf"^data\.root: .*{re.escape(str(root))}") as caught:
            read(name, root, version)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "lines", "message"),
    [
        ("something-something-v1-train.csv", ["10;Closing something"], "clip 10, has the class 'Closing something'"),
        ("something-something-v1-train.csv", ["10 Holding something"], "expected id;label"),
        ("something-something-v1-train.csv", [], "holds no lines"),
        ("something-something-v1-train.csv", [f"10;{V1_RELEASED[0]}"] * 2, "names 10 twice"),
        (
            "something-something-v1-labels.csv",
            [*V1_RELEASED, "Holding something"],
            "'Holding something' .* appears twice",
        ),
        ("train_videofolder.txt", ["10 0"], "expected path frames label"),
    ],
)
def test_wrong_files_of_something_v1(something_v1, file, lines, message):
    write(something_v1 / "val_videofolder.txt", "3 4 1") if file.endswith("folder.txt") else None
    write(something_v1 / file, *lines)
    with pytest.raises(ValueError, match=rf"^data\.root: .*{message}"):
        read("something_v1", something_v1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"train\.json is not JSON"),
        ("{}", r"train\.json holds a dict, expected a list"),
        ('[{"id": "1"}]', r"clip 1, has no 'template'"),
        ('[{"id": "1", "template": "Dancing"}]', r"clip 1, has the class 'Dancing'"),
    ],
)
def test_wrong_files_of_something_v2(tmp_path, text, message):
    write(tmp_path / "labels/labels.json", json.dumps(V2_LABELS))
    write(tmp_path / "labels/validation.json", "[]")
    write(tmp_path / "labels/train.json", text)
    with pytest.raises(ValueError, match=rf"^data\.root: .*{message}"):
        read("something_v2", tmp_path)


def test_quality_and_size_are_options_of_the_records(something_v1, tmp_path):
    fine, coarse, large = (
        opened("something_v1", something_v1, tmp_path, **change) for change in ({}, {"quality": 20}, {"resize": 40})
    )
    assert len(list((tmp_path / "prepared/something_v1").iterdir())) == 3
    assert large.example("train", 0)["frames"].shape[1:] == (40, 53, 3)
    sizes = [len(dataset._sources["train"][0]["frames"][0]) for dataset in (fine, coarse)]
    assert sizes[1] < sizes[0]


def test_report(kinetics, tmp_path):
    (kinetics / "train/-a_b-c_000005_000015.mp4").write_bytes(b"")
    section = data_config(name="kinetics400", root=str(kinetics), max_bad_fraction=0.5)
    for _ in range(2):  # The second time from what was prepared.
        result = report(prepare(section, default_dir=str(tmp_path / "prepared")))
        folder = result.pop("folder")
        assert folder.startswith(str(tmp_path / "prepared/kinetics400"))
        size = result["splits"]["train"].pop("bytes")
        assert 2000 < size < 20000
        del result["splits"]["val"]["bytes"]
        assert json.loads(json.dumps(result)) == {
            "name": "kinetics400",
            "version": None,
            "classes": 2,
            "class_order": "alphabetical",
            "splits": {"train": {"videos": 1, "frames": 4}, "val": {"videos": 1, "frames": 6}},
            "unreadable": {"the file is empty (0 bytes)": ["train/-a_b-c_000005_000015.mp4"]},
            "missing": {"train": ["gone1234567_000000_000010"]},
            "remarks": {},
        }

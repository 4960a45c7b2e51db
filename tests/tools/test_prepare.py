"""tools.prepare: records in the folder of train.py, a report, and the directions of classes."""

import pathlib
import re
import shutil

import pytest
from bench import call, error_of, last_json, write_videos

from motion_jax.cli import read_config
from motion_jax.data.pipeline import open_dataset
from motion_jax.experiment import Experiment
from motion_jax.tools import prepare

CONFIG = "configs/video_folder.py:tsn_r18,2"


def test_train_finds_the_prepared_folder(tmp_path, monkeypatch):
    root = write_videos(tmp_path / "videos", train=3, val=2)
    (root / "train" / "left" / "1.avi").write_bytes(b"")
    options = (CONFIG, f"--config.data.root={root}", "--quality=80", "--json")
    done = call("prepare", *options, f"--workdir={tmp_path / 'run'}")
    lines, result = done.stdout.splitlines(), last_json(done)
    assert result["splits"]["train"].keys() == {"videos", "frames", "bytes"}
    assert [split["videos"] for split in result["splits"].values()] == [5, 4]
    assert [split["frames"] for split in result["splits"].values()] == [60, 48]
    assert result["unreadable"] == {"the file is empty (0 bytes)": ["train/left/1.avi"]}
    assert lines[0] == f"video_folder: 2 classes, alphabetical -> {result['folder']}"
    assert lines[4].split()[:3] == ["train", "5", "60"]
    assert "1 left out: the file is empty (0 bytes)" in lines
    assert "    train/left/1.avi" in lines
    assert done.stderr.count("train/left/1.avi is left out") == 1
    # train.py with the same config and workdir reads no video again.
    monkeypatch.setattr("motion_jax.data.storage.video_files.read_video", lambda path, **options: 1 / 0)
    config = read_config(CONFIG, {"data.root": str(root), "data.quality": "80"})
    opened = open_dataset(Experiment.from_config(config).data, default_dir=str(tmp_path / "run" / "data"))
    assert opened.size("train") == 5
    assert pathlib.Path(result["folder"]).is_relative_to(tmp_path / "run" / "data" / "video_folder")
    assert last_json(call("prepare", *options, f"--dir={tmp_path / 'run/data'}")) == result


def test_a_copy_of_the_records_needs_no_videos(tmp_path):
    root = write_videos(tmp_path / "videos", train=3, val=2)
    (root / "train" / "left" / "1.avi").write_bytes(b"")
    done = last_json(call("prepare", CONFIG, f"--root={root}", f"--dir={tmp_path / 'made'}", "--json"))
    copy = shutil.copytree(tmp_path / "made", tmp_path / "copy")
    shutil.rmtree(root)

    def opened(**changes):
        config = read_config(CONFIG, {f"data.{name}": str(value) for name, value in changes.items()})
        return open_dataset(Experiment.from_config(config).data, default_dir=str(copy))

    first = opened(dir=copy)
    assert (first.size("train"), first.labels) == (5, ("left", "right"))
    assert first.record("val", 0)["id"] == b"val/left/0.avi"
    assert opened(root=root).contents == first.contents
    # Records of other options do not fit.
    with pytest.raises(ValueError, match=r"data.root is None, expected the folder of video_folder, because .*copy hol"):
        opened(dir=copy, quality=80)
    with pytest.raises(ValueError, match="there is no folder"):
        opened(root=root, quality=80)
    folder = pathlib.Path(done["folder"]).parent.name
    shutil.copytree(copy / "video_folder" / folder, copy / "video_folder" / "other")
    with pytest.raises(ValueError, match=rf"holds 2 sets of records that fit \({folder}, other\).*: keep one of them"):
        opened(dir=copy)


def test_equal_videos_have_equal_contents(tmp_path):
    roots = [write_videos(tmp_path / name / "videos", train=3, val=2) for name in ("here", "there")]
    (roots[1] / "train" / "left" / "0.avi").touch()  # another time

    def contents(root):
        config = read_config(CONFIG, {"data.root": str(root)})
        return open_dataset(Experiment.from_config(config).data, default_dir=str(root.parent)).contents

    first = contents(roots[0])
    assert first == contents(roots[1])
    assert (first["labels"], first["clips of train"], first["clips of val"]) == (2, 6, 4)
    (roots[1] / "train" / "left" / "0.avi").rename(roots[1] / "train" / "left" / "9.avi")
    other = contents(roots[1])
    assert [name for name in first if first[name] != other[name]] == ["ids"]


def test_a_name_is_its_config(tmp_path):
    root = write_videos(tmp_path / "videos", train=1, val=1)
    options = (f"--root={root}", f"--dir={tmp_path / 'out'}", "--resize=none", "--json")
    assert last_json(call("prepare", "video_folder", *options))["name"] == "video_folder"
    read = prepare.read_section("something_v2", {"data.root": "x"})
    assert (read.name, read.resize) == ("something_v2", (240, 320))
    assert prepare.read_section("kinetics400", {"data.root": "x"}).resize == 256
    assert prepare.read_section("ucf101", {"data.root": "x", "data.version": "split3"}).version == "split3"


def test_generated_clips(tmp_path):
    result = last_json(call("prepare", "configs/moving_shapes.py:tsn_r18,8,smoke", f"--workdir={tmp_path}", "--json"))
    assert [(split["videos"], split["frames"]) for split in result["splits"].values()] == [(48, 384), (24, 192)]
    assert pathlib.Path(result["folder"]).is_relative_to(tmp_path / "data" / "moving_shapes")


@pytest.mark.parametrize(("text", "size"), [("240x320", (240, 320)), ("256", 256), ("none", None)])
def test_sizes(text, size):
    changes = {"data.root": "x", "data.resize": prepare._resize(text)}
    assert prepare.read_section("kinetics400", changes).resize == size


def test_directions():
    done = call("prepare", "moving_shapes", "--list-directions", "--json")
    lines, result = done.stdout.splitlines()[:-1], last_json(done)
    assert (result["classes"], result["others"]) == (12, 6)
    assert result["directions"][1] == {
        "label": 1,
        "class": "move right",
        "skip": None,
        "swap": "move left",
        "none": None,
        "always": "move right",
    }
    assert re.fullmatch(r" +1  move right +not mirrored  -> move left +not mirrored  keeps its label", lines[3])
    assert lines[-1].startswith("6 of 12 classes name left or right.")


def test_directions_of_something_something(tmp_path, goldens):
    """Only the annotations are read: no video is needed."""
    names = (goldens / "something_v1_labels.txt").read_text().splitlines()
    (tmp_path / "something-something-v1-labels.csv").write_text("\n".join(names))
    for split in ("train", "validation"):
        (tmp_path / f"something-something-v1-{split}.csv").write_text(f"1;{names[0]}\n")
    lines = call("prepare", "something_v1", f"--root={tmp_path}", "--list-directions").stdout.splitlines()
    assert [int(line.split()[0]) for line in lines[2:8]] == [86, 87, 93, 94, 166, 167]
    assert lines[-1].startswith("6 of 174 classes name left or right. The other 168 keep their label")


def test_bad_usage_is_one_line_and_status_2(tmp_path):
    for arguments, message in [
        (
            ["imagenet"],
            "'imagenet' is neither a config .* nor a data set; the data sets are moving_shapes, something_v1",
        ),
        (["configs/absent.py"], "there is no config file"),
        (["video_folder", "--dir=x"], r"data\.root is None, expected the folder of video_folder"),
        (["video_folder", f"--root={tmp_path}"], "give --dir, or the --workdir"),
        (["video_folder", f"--root={tmp_path}", "--dir=x", "--resize=240x"], "expected 240x320, a short side"),
        (["video_folder", f"--root={tmp_path}", "--dir=x", "--quality=0"], r"data\.quality is 0"),
        (
            ["ucf101", f"--root={tmp_path}", "--dir=x", "--version=v2"],
            r"data\.version is 'v2', expected one of split1",
        ),
        (["video_folder", f"--root={tmp_path / 'gone'}", "--dir=x"], "there is no folder"),
        (["moving_shapes", "--dir=x", "--beam_runner=DirectRunner"], "leave the Beam runner out"),
    ]:
        assert re.search(f"error: .*{message}", error_of(call("prepare", *arguments), only=False)), arguments

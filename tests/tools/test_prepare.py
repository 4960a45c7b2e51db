"""tools.prepare: records where train.py looks for them, a report, and the directions of classes."""

import json
import pathlib
import re

import pytest
from commands_support import write_videos

from motion_jax.cli import run
from motion_jax.data.pipeline import open_dataset
from motion_jax.experiment import Experiment
from motion_jax.tools import prepare
from motion_jax.tools.complexity import read_config

CONFIG = "configs/video_folder.py:tsn_r18,2"


@pytest.fixture
def tool(monkeypatch, capsys):
    """Runs the tool with arguments; gives its lines."""

    def call(*arguments: object) -> list[str]:
        monkeypatch.setattr("sys.argv", ["prepare", *map(str, arguments)])
        prepare.main()
        return capsys.readouterr().out.splitlines()

    return call


@pytest.fixture
def refused(monkeypatch, capsys, own_logging):
    """Runs the tool with arguments it must refuse; gives the one line it says."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", ["prepare", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            run(prepare.main)
        assert left.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        return line

    return call


def test_the_folder_is_the_one_train_finds(tool, tmp_path, monkeypatch, caplog):
    root = write_videos(tmp_path / "videos", train=3, val=2)
    (root / "train" / "left" / "1.avi").write_bytes(b"")
    lines = tool(CONFIG, f"--root={root}", f"--workdir={tmp_path / 'run'}", "--quality=80", "--json")
    result = json.loads(lines[-1])
    assert result["splits"]["train"].keys() == {"videos", "frames", "bytes"}
    assert [split["videos"] for split in result["splits"].values()] == [5, 4]
    assert [split["frames"] for split in result["splits"].values()] == [60, 48]
    assert result["unreadable"] == {"the file is empty (0 bytes)": ["train/left/1.avi"]}
    assert lines[0] == f"video_folder: 2 classes, alphabetical -> {result['folder']}"
    assert lines[4].split()[:3] == ["train", "5", "60"]
    assert "1 left out: the file is empty (0 bytes)" in lines
    assert "    train/left/1.avi" in lines
    assert caplog.text.count("train/left/1.avi is left out") == 1
    # What train.py does with the same config and workdir reads no video again.
    monkeypatch.setattr("motion_jax.data.storage.video_files.read_video", lambda path, **options: 1 / 0)
    config = read_config(*CONFIG.split(":")).to_dict()
    config["data"].update(root=str(root), quality=80)
    opened = open_dataset(Experiment.from_config(config).data, default_dir=str(tmp_path / "run" / "data"))
    assert opened.size("train") == 5
    assert pathlib.Path(result["folder"]).is_relative_to(tmp_path / "run" / "data" / "video_folder")
    assert (
        json.loads(tool(CONFIG, f"--root={root}", f"--dir={tmp_path / 'run/data'}", "--quality=80", "--json")[-1])
        == result
    )


def test_a_name_is_its_config(tool, tmp_path):
    root = write_videos(tmp_path / "videos", train=1, val=1)
    lines = tool("video_folder", f"--root={root}", f"--dir={tmp_path / 'out'}", "--resize=none", "--json")
    assert json.loads(lines[-1])["name"] == "video_folder"
    read = prepare.read_section("something_v2", {"root": "x"})
    assert (read.name, read.resize) == ("something_v2", (240, 320))
    assert prepare.read_section("kinetics400", {"root": "x"}).resize == 256
    assert prepare.read_section("ucf101", {"root": "x", "version": "split3"}).version == "split3"


def test_generated_clips(tool, tmp_path):
    lines = tool("configs/moving_shapes.py:tsn_r18,8,smoke", f"--workdir={tmp_path}", "--json")
    result = json.loads(lines[-1])
    assert [(split["videos"], split["frames"]) for split in result["splits"].values()] == [(48, 384), (24, 192)]
    assert pathlib.Path(result["folder"]).is_relative_to(tmp_path / "data" / "moving_shapes")


@pytest.mark.parametrize(("text", "size"), [("240x320", (240, 320)), ("256", 256), ("none", None)])
def test_sizes(text, size):
    assert prepare._resize(text) == size


def test_directions(tool):
    *lines, last = tool("moving_shapes", "--list-directions", "--json")
    result = json.loads(last)
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
    assert lines[-1].startswith("6 of 12 classes speak of left or right.")


def test_directions_of_something_something(tool, tmp_path, goldens):
    """From the annotations alone: no video is needed."""
    names = (goldens / "something_v1_labels.txt").read_text().splitlines()
    (tmp_path / "something-something-v1-labels.csv").write_text("\n".join(names))
    for split in ("train", "validation"):
        (tmp_path / f"something-something-v1-{split}.csv").write_text(f"1;{names[0]}\n")
    lines = tool("something_v1", f"--root={tmp_path}", "--list-directions")
    assert [int(line.split()[0]) for line in lines[2:8]] == [86, 87, 93, 94, 166, 167]
    assert lines[-1].startswith("6 of 174 classes speak of left or right. The other 168 may be mirrored")


def test_bad_usage_is_one_line_and_status_2(refused, tmp_path):
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
        assert re.search(f"error: .*{message}", refused(*arguments)), arguments

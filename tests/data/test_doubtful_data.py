"""Data that can be read but make little sense: a warning with counts and names."""

import logging
import shutil

from bench import data_config, write_video

from motion_jax.data.pipeline import open_dataset
from motion_jax.data.sources.preparation import prepare, report


def section(root):
    return data_config(name="video_folder", root=str(root))


def test_validation_videos_that_are_also_trained_on(tmp_path, caplog):
    root = tmp_path / "root"
    for name, base in (("a", 0), ("b", 100)):
        for number in range(3):
            write_video(root / "train" / name / f"{number}.avi", range(base + number, 250, 60))
        write_video(root / "val" / name / "new.avi", range(base + 30, 250, 60))
    shutil.copy(root / "train/a/1.avi", root / "val/a/copy.avi")
    shutil.copy(root / "train/a/1.avi", root / "val/b/renamed.avi")
    with caplog.at_level(logging.WARNING):
        open_dataset(section(root), default_dir=str(tmp_path / "prepared"))
    assert "2 of 4 videos of split val are also training videos" in caplog.text
    assert "val/a/copy.avi, val/b/renamed.avi" in caplog.text
    found = report(prepare(section(root), default_dir=str(tmp_path / "prepared")))["remarks"]
    assert found["val/a/copy.avi"] == "its frames are those of the training video train/a/1.avi"


def test_a_single_class(tmp_path, caplog):
    for split, first in (("train", 0), ("val", 30)):
        write_video(tmp_path / "root" / split / "a" / "1.avi", range(first, 250, 60))
    with caplog.at_level(logging.WARNING):
        open_dataset(section(tmp_path / "root"), default_dir=str(tmp_path / "prepared"))
    assert "all training videos are of the class 'a': there is nothing to tell apart" in caplog.text


def test_class_names_of_other_data(tmp_path, caplog):
    root = tmp_path / "root"
    lines = [f"{number}.avi 5 {number % 2}" for number in range(4)]
    for number in range(4):
        write_video(root / f"{number}.avi", range(number, 250, 60))
    (root / "train.txt").write_text("\n".join(lines[:3]))
    (root / "val.txt").write_text(lines[3])
    (root / "labels.txt").write_text("\n".join(f"class {number}" for number in range(9)))
    with caplog.at_level(logging.WARNING):
        open_dataset(data_config(name="list_files", root=str(root)), default_dir=str(tmp_path / "prepared"))
    assert "7 of 9 classes have no training video, are the class names of these data? class 2, class 3" in caplog.text

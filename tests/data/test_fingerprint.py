"""Prepared records that are not those that were written: found on opening or on reading, with the folder to delete."""

import json
import logging
import shutil

import pytest
from array_record.python import array_record_module
from bench import data_config, write_video

from motion_jax.data.pipeline import open_dataset
from motion_jax.data.storage.fingerprint import FILE, describe_shard


def section(root=None, **changes):
    if root is None:
        return data_config(**changes)
    return data_config(**{"name": "video_folder", "root": str(root), "max_bad_fraction": 0.5, **changes})


@pytest.fixture(params=["videos", "moving_shapes"])
def data(request, tmp_path):
    """Open a prepared data set anew, and the folder of its records."""
    root = None
    if request.param == "videos":
        root = tmp_path / "root"
        for split, first in (("train", 0), ("val", 50)):
            for name, base in (("a", 0), ("b", 100)):
                for number in range(2):
                    write_video(root / split / name / f"{number}.avi", range(base + first + number, 250, 60))

    def opened(folder="prepared", **changes):
        return open_dataset(section(root, **changes), default_dir=str(tmp_path / folder))

    opened()
    (info,) = (tmp_path / "prepared").rglob("dataset_info.json")
    return opened, info.parent


def shard(folder, split):
    (path,) = folder.glob(f"*-{split}.array_record-*")
    return path


def edit(path, change):
    path.write_bytes(change(path.read_bytes()))


def edit_json(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def swap(folder):
    train, val = (shard(folder, split) for split in ("train", "val"))
    train.rename(folder / "aside")
    val.rename(train)
    (folder / "aside").rename(val)


def lengthen(folder):
    edit_json(folder / "dataset_info.json", lambda info: info["splits"][0]["shardLengths"].__setitem__(0, "7"))


def empty(folder):
    for path in folder.iterdir():
        path.unlink()


FAULTS = {
    "cut": (
        lambda folder: edit(folder / "dataset_info.json", lambda old: old[:100]),
        r"dataset_info.json or .* cannot",
    ),
    "blank": (lambda folder: (folder / "dataset_info.json").write_text(""), "dataset_info.json or .* cannot be read"),
    "list": (lambda folder: (folder / "dataset_info.json").write_text("[]"), "dataset_info.json or .* cannot be read"),
    "absent": (lambda folder: (folder / "dataset_info.json").unlink(), "dataset_info.json is absent"),
    "emptied": (empty, "dataset_info.json is absent"),
    "count": (lengthen, "dataset_info.json counts .* records, but .* were written"),
    "swapped": (swap, "array_record-00000-of-00001 is not the file written"),
    "lost": (lambda folder: shard(folder, "val").unlink(), "val.array_record-00000-of-00001 cannot be read"),
    "cut shard": (lambda folder: edit(shard(folder, "train"), lambda old: old[:-1]), "train.* is not the file written"),
    "index": (
        lambda folder: edit(shard(folder, "val"), lambda old: old[:-9] + bytes([old[-9] ^ 1]) + old[-8:]),
        "val.* is not the file written",
    ),
    "metadata": (lambda folder: edit(folder / "metadata.json", lambda old: old[:-4]), "metadata.json cannot be read"),
    **{
        f"fingerprint {text}": (lambda folder, text=text: (folder / FILE).write_text(text), f"{FILE} cannot be read")
        for text in ("", "[]", "3", "{}", '{"splits": {"train": {"records": [-1], "shards": []}}}')
    },
    "records": (
        lambda folder: edit_json(folder / FILE, lambda of: of["splits"]["val"]["records"].reverse()),
        f"{FILE} belongs to other class names or other records",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_damage_is_found_on_opening(data, fault):
    opened, folder = data
    damage, message = FAULTS[fault]
    damage(folder)
    with pytest.raises(ValueError, match=f"the prepared records are damaged: .*{message}") as caught:
        opened()
    assert str(caught.value).endswith(f"; delete the folder {folder} to prepare it again")
    assert "\n" not in str(caught.value)
    shutil.rmtree(folder)
    assert opened().size("train") > 0


def test_damage_of_other_files_is_named(data):
    opened, folder = data
    edit(folder / "features.json", lambda old: old[:-40])
    with pytest.raises(ValueError, match=f"they cannot be opened .*delete the folder {folder} to prepare"):
        opened().record("train", 0)


def test_another_record_is_found_on_reading(data, caplog):
    """The first two records change places, in a shard that passes for the one that was written."""
    opened, folder = data
    path = shard(folder, "train")
    reader = array_record_module.ArrayRecordReader(str(path))
    records = reader.read_all()
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
    for record in [records[1], records[0], *records[2:]]:
        writer.write(record)
    writer.close()
    edit_json(
        folder / FILE,
        lambda of: of["splits"]["train"].update(shards=[describe_shard(path, len(records))]),
    )
    dataset = opened()
    with pytest.raises(ValueError, match=r"it is another record, b'train.*', than the one that was written there"):
        dataset.record("train", 0)
    assert dataset.record("train", 2)["id"].startswith(b"train")


def test_older_records_open_with_one_line(data, caplog):
    opened, folder = data
    before = opened().fingerprint
    (folder / FILE).unlink()
    with caplog.at_level(logging.WARNING):
        dataset = opened()
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith(f"the records in {folder} were prepared by an earlier version")
    assert dataset.record("val", 0)
    assert dataset.fingerprint.startswith("unchecked-")
    assert dataset.fingerprint != before


def test_damage_is_found_where_the_videos_are_absent(tmp_path):
    for split, first in (("train", 0), ("val", 50)):
        for name in ("a", "b"):
            write_video(tmp_path / "root" / split / name / "0.avi", range(first, 250, 60))
    open_dataset(section(tmp_path / "root"), default_dir=str(tmp_path / "prepared"))
    (info,) = (tmp_path / "prepared").rglob("dataset_info.json")
    for damage in (lambda: swap(info.parent), lambda: edit(info, lambda old: old[:100])):
        damage()
        with pytest.raises(ValueError, match=f"the prepared records are damaged: .*; delete the folder {info.parent} "):
            open_dataset(section(tmp_path / "absent"), default_dir=str(tmp_path / "prepared"))


def test_the_fingerprint_depends_on_the_data_alone(data, tmp_path):
    opened, _ = data
    first = opened()
    assert len(first.fingerprint) == 16
    assert opened("elsewhere").fingerprint == first.fingerprint
    changes = {"clips": (24, 8)} if first.section.name == "moving_shapes" else {"resize": 16, "quality": 50}
    if first.section.name == "moving_shapes":
        assert opened(**changes).fingerprint != first.fingerprint
        return
    assert opened(**changes).fingerprint == first.fingerprint
    (tmp_path / "root/val/a/0.avi").rename(tmp_path / "root/val/a/5.avi")
    assert opened().fingerprint != first.fingerprint

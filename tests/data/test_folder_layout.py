import os

import pytest

from motion_jax.data.sources import VideoFolder

read_layout = VideoFolder.read_layout


def touch(root, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


def listed(layout) -> list[tuple[str, str, str]]:
    return [(entry.split, entry.path, layout.classes[entry.label]) for entry in layout.entries]


def test_splits_from_folders(tmp_path):
    touch(
        tmp_path,
        "train/b/10.mp4",
        "train/b/9.avi",
        "train/a/x.webm",
        "val/a/y.MKV",
        "train/a/.hidden.mp4",
        "train/a/z.txt",
    )
    touch(tmp_path, "train/a/frames/1.jpg", "README.md", "other/c/1.mp4")
    layout = read_layout(tmp_path)
    assert layout.classes == ("a", "b")
    assert listed(layout) == [
        ("train", "train/a/frames", "a"),
        ("train", "train/a/x.webm", "a"),
        ("train", "train/b/9.avi", "b"),
        ("train", "train/b/10.mp4", "b"),
        ("val", "val/a/y.MKV", "a"),
    ]
    assert layout.splits() == ("train", "val")


def test_splits_from_the_manifest(tmp_path):
    touch(tmp_path, "a/1.mp4", "a/2.mp4", "a/3.mp4", "b/1.mp4", "docs/readme.txt")
    (tmp_path / "manifest.csv").write_text(
        "label,split,path\n0,train,a/1.mp4\n0,val,./a/2.mp4\n1,train,b/1.mp4\n1,test,b/gone.mp4\n"
    )
    layout = read_layout(tmp_path)
    assert listed(layout) == [
        ("train", "a/1.mp4", "a"),
        ("train", "b/1.mp4", "b"),
        ("val", "a/2.mp4", "a"),
        ("test", "b/gone.mp4", "b"),
    ]
    assert layout.remarks == ("manifest.csv does not list 1 videos, which are left out: a/3.mp4",)


def test_splits_from_a_hash(tmp_path):
    touch(tmp_path, *[f"a/{i}.mp4" for i in range(20)], "b/1.mp4", "b/2.mp4", "c/1.mp4")
    layout = read_layout(tmp_path)
    assert "write a manifest.csv" in layout.remarks[0]
    count = {name: [e.split for e in layout.entries if layout.classes[e.label] == name] for name in layout.classes}
    assert (count["a"].count("val"), count["b"].count("val"), count["c"]) == (4, 1, ["train"])
    assert read_layout(tmp_path) == layout


def test_digest_follows_the_files(tmp_path):
    touch(tmp_path, "train/a/1.mp4", "train/a/frames/1.jpg")
    seen = [read_layout(tmp_path).digest(None)]

    def changed() -> bool:
        seen.append(read_layout(tmp_path).digest(None))
        return len(set(seen)) == len(seen)

    assert read_layout(tmp_path).digest(None) == seen[0]
    assert read_layout(tmp_path).digest((240, 320)) != seen[0]
    touch(tmp_path, "train/a/2.mp4")
    assert changed()
    (tmp_path / "train/a/2.mp4").write_bytes(b"xx")
    assert changed()
    os.utime(tmp_path / "train/a/2.mp4", ns=(1, 1))
    assert changed()
    os.utime(tmp_path / "train/a/frames/1.jpg", ns=(1, 1))
    assert changed()
    touch(tmp_path, "train/a/frames/2.jpg")
    assert changed()
    (tmp_path / "train/a").rename(tmp_path / "train/b")
    assert changed()


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        ([], "no class folders"),
        (["val/a/1.mp4"], "no train folder"),
        (["train/1.mp4"], "no class folders"),
        (["a/1.mp4", "b/readme.txt"], "class folder 'b'.*no videos"),
        (["train/a/1.mp4", "val/b/readme.txt"], "class folder 'b' of split val"),
    ],
)
def test_wrong_folders(tmp_path, paths, message):
    touch(tmp_path, *paths)
    with pytest.raises(ValueError, match=message) as caught:
        read_layout(tmp_path)
    assert str(caught.value).startswith("data.root: ")
    assert "\n" not in str(caught.value)


def test_missing_root(tmp_path):
    with pytest.raises(ValueError, match=r"data.root: there is no folder .*gone"):
        read_layout(tmp_path / "gone")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,split\na/1.mp4,train\n", "columns file, split; expected path and split"),
        ("path,split\n", "lists no videos"),
        ("path,split\na/1.mp4,dev\n", "line 2: split 'dev'"),
        ("path,split\n1.mp4,train\n", "line 2: path '1.mp4'"),
        ("path,split\na/../../1.mp4,train\n", "line 2: path"),
        ("path,split\na/1.mp4,train\na/1.mp4,val\n", "line 3: a/1.mp4 is in train and in val"),
        ("path,split\na/1.mp4,val\n", "no video .* train split"),
    ],
)
def test_wrong_manifests(tmp_path, text, message):
    touch(tmp_path, "a/1.mp4")
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_layout(tmp_path)

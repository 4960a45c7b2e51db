"""tools.explore on untrained checkpoints: the page, its JSON, and inputs that do not fit."""

import json
import os
import re

import numpy as np
import pytest
from bench import call, error_of, last_json, moving_noise, save_untrained, write_video

from motion_jax.configs import video_folder
from motion_jax.data.clips.single_video import read_single, views_of
from motion_jax.experiment import load_trained
from motion_jax.inspection.clip_inspection import make_inspector
from motion_jax.tools import export
from motion_jax.weights.card import write_card

LABELS = ["left", "right"]


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """A clip in the folder of its class, and one in a folder of another name."""
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "right" / "a.avi", moving_noise(step=4, seed=1))
    write_video(root / "elsewhere" / "b.avi", moving_noise(step=-4, seed=2))
    return root


def checkpoint(folder, name, labels=LABELS, frames=4):
    config = video_folder.get_config(f"{name},{frames}").to_dict()
    config["model"]["width"] = 8
    config["data"] |= {"root": "x", "size": 32, "resize": (36, 44)}
    return save_untrained(config, labels, folder / name)


@pytest.fixture(scope="module")
def msnet(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("runs"), "msnet_tsm_r18")


@pytest.fixture(scope="module")
def tsn(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("runs"), "tsn_r18")


def test_the_page_of_a_folder(videos, msnet, tmp_path):
    (videos / "right" / "broken.mp4").write_bytes(b"no video")
    page = tmp_path / "new" / "page.html"
    done = call("explore", videos, f"--checkpoint={msnet}", f"--output={page}", "--json")
    (videos / "right" / "broken.mp4").unlink()
    printed = last_json(done)
    text = page.read_text()
    assert printed["page"] == str(page)
    assert printed["bytes"] == page.stat().st_size < 1e6
    elsewhere, right, broken = printed["videos"]
    assert (elsewhere["right"], right["right"]) == (None, "right")
    assert set(broken) == {"file", "error"}
    assert "broken.mp4: " in done.stderr
    assert "right/a.avi · the right class is the name of its folder" in text
    assert "elsewhere/b.avi<" in text
    assert str(msnet) in text
    trained = load_trained(msnet)
    stored = read_single(videos / "right" / "a.avi", trained.experiment.data)
    clip = views_of(stored.frames, trained.experiment.data, clips=1, crops=1)[0]
    expected = make_inspector(trained.model, trained.restored.variables)(clip).probabilities
    (network,) = right["networks"]
    assert network["label"] == LABELS[expected.argmax()]
    assert network["probability"] == pytest.approx(float(expected.max()), abs=1e-6)


def test_a_label_given(videos, tsn, tmp_path):
    page = tmp_path / "page.html"
    video = videos / "right" / "a.avi"
    printed = last_json(call("explore", video, f"--checkpoint={tsn}", "--label=left", f"--output={page}", "--json"))
    assert printed["videos"][0]["right"] == "left"
    assert "the right class is given by --label" in page.read_text()
    assert "This network has no block that compares frames" in page.read_text()
    error = error_of(call("explore", video, f"--checkpoint={tsn}", "--label=lefd", f"--output={page}"))
    assert "--label=lefd: did you mean left?" in error


def test_names_that_are_not_utf8(tsn, tmp_path):
    video = tmp_path / "right" / os.fsdecode(b"caf\xe9.avi")
    write_video(tmp_path / "right" / "a.avi", moving_noise(step=4, seed=1))
    (tmp_path / "right" / "a.avi").rename(video)
    page = tmp_path / os.fsdecode(b"p\xe9.html")
    done = call("explore", video, f"--checkpoint={tsn}", f"--output={page}", "--json")
    assert last_json(done)["videos"][0]["right"] == "right"
    assert "right/caf\\xe9.avi · the right class is the name of its folder" in page.read_text()


def test_two_networks(videos, msnet, tsn, tmp_path):
    page = tmp_path / "page.html"
    arguments = (f"--checkpoint={msnet}", f"--checkpoint={tsn}", f"--output={page}", "--json")
    printed = last_json(call("explore", videos / "right" / "a.avi", *arguments))
    assert len(printed["videos"][0]["networks"]) == 2
    assert page.read_text().count('<article class="network"') == 2
    again = call("explore", videos / "right" / "a.avi", *[f"--checkpoint={tsn}"] * 2, f"--output={page}")
    assert again.returncode == 0
    assert re.findall(r'<h2 id="[^"]*">([^<]*)</h2>', page.read_text()) == ["tsn_r18 (A)", "tsn_r18 (B)"]


def test_networks_of_other_classes_are_refused(videos, tsn, tmp_path):
    other = checkpoint(tmp_path, "tsn_r18", ["left", "up", "down"])
    arguments = (f"--checkpoint={tsn}", f"--checkpoint={other}", f"--output={tmp_path / 'page.html'}")
    error = error_of(call("explore", videos / "right" / "a.avi", *arguments))
    assert re.search(r"has 2 classes and .* has 3 others: give two checkpoints of the same classes", error)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.long
def test_fewer_maps_than_frames(videos, tmp_path):
    i3d = checkpoint(tmp_path, "i3d", frames=8)
    page = tmp_path / "page.html"
    call("explore", videos / "right" / "a.avi", f"--checkpoint={i3d}", f"--output={page}")
    data = json.loads(re.search(r'class="data">(.*?)</script>', page.read_text())[1])
    (seen,) = data["seen"]
    assert len(seen["frames"]) == 8
    assert seen["frame_probabilities"].startswith("float32:2,2:")


def test_inputs_that_do_not_fit(videos, tsn, tmp_path):
    video, page, given = videos / "right" / "a.avi", tmp_path / "page.html", f"--checkpoint={tsn}"
    for arguments, message in (
        ((video, given, f"--output={tmp_path / 'page.htm'}"), "--output takes a path ending in .html"),
        ((video, given, given, given, f"--output={page}"), "--checkpoint can be given at most 2 times; got 3"),
        ((tmp_path / "absent.mp4", given, f"--output={page}"), "absent.mp4: "),
        ((tmp_path, given, f"--output={page}"), "holds neither videos nor frames of one"),
        ((*[f"{number}.mp4" for number in range(13)], given, f"--output={page}"), "give at most 12"),
        ((page, given, f"--output={page}"), "would replace a video that is read"),
    ):
        assert message in error_of(call("explore", *arguments)), arguments
    assert not page.exists()


def test_an_export_is_refused(videos, tsn, tmp_path):
    opened, file = load_trained(tsn), tmp_path / "net.safetensors"
    card = export.describe(opened, "safetensors", opened.model, input_="uint8")
    export.write(file, opened.model, opened.restored.variables, card)
    write_card(file, card)
    done = call("explore", videos / "right" / "a.avi", f"--checkpoint={file}", f"--output={tmp_path / 'p.html'}")
    assert "net.safetensors is an export, which computes logits only: give the workdir" in error_of(done)


def test_a_list_stands_for_its_paths(videos, tsn, tmp_path):
    (tmp_path / "list.txt").write_text(f"{videos / 'right' / 'a.avi'}\n")
    page = tmp_path / "page.html"
    printed = last_json(call("explore", tmp_path / "list.txt", f"--checkpoint={tsn}", f"--output={page}", "--json"))
    assert [video["file"] for video in printed["videos"]] == [str(videos / "right" / "a.avi")]
    assert np.isfinite(printed["videos"][0]["networks"][0]["probability"])

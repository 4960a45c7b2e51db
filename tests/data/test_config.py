"""The section `data`: each wrong value is named, and paths are absolute."""

import dataclasses
import re

import pytest
from bench import data_config, data_section

from motion_jax.data.config import DataConfig


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", "imagenet"),
        ("root", "/somewhere"),
        ("dir", 3),
        ("frames", 0),
        ("frames", 2),
        ("frames", 8.0),
        ("size", 60),
        ("version", "v2"),
        ("resize", 64),
        ("quality", 90),
        ("sampling", "sparse"),
        ("crop", "corner"),
        ("color_jitter", (0.4, 0.4, 0.4)),
        ("color_jitter", (0.4, 0.4, -0.4, 0.1)),
        ("color_jitter", (0.4, 0.4, 0.4, 0.6)),
        ("rand_augment", (0, 9)),
        ("rand_augment", (2, 31)),
        ("rand_augment", 9),
        ("flip", True),
        ("clips", None),
        ("clips", (5,)),
        ("threads", -1),
        ("processes", True),
        ("max_bad_fraction", 1.5),
    ],
)
def test_each_wrong_value_is_named(field, value):
    with pytest.raises(ValueError, match=rf"^data\.{field} is .*, expected ") as caught:
        data_config(**{field: value})
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("root", None),
        ("root", ""),
        ("version", "split1"),
        ("clips", (1, 1)),
        ("resize", (16, 64)),
        ("resize", "256"),
        ("quality", 0),
        ("quality", 101),
    ],
)
def test_wrong_values_for_video_folder(field, value):
    good = data_section(name="video_folder", size=32, resize=(48, 64))
    DataConfig(**good)
    with pytest.raises(ValueError, match=rf"^data\.{field} is "):
        DataConfig(**{**good, field: value})


def test_dense_windows_hold_64_frames():
    with pytest.raises(ValueError, match=r"data.frames is 65, expected at most 64 with dense sampling"):
        data_config(sampling="dense", frames=65)


def test_unknown_and_missing_fields():
    with pytest.raises(TypeError, match="colour"):
        data_config(colour="red")
    with pytest.raises(TypeError, match="flip"):
        DataConfig(**{name: value for name, value in data_section().items() if name != "flip"})


def test_a_missing_root_names_the_flags():
    with pytest.raises(ValueError, match=r"data\.root is None, .* something_v1 .*--config\.data\.root=DIR, or --root"):
        data_config(name="something_v1", root=None)


def test_paths_do_not_depend_on_the_current_folder(tmp_path, monkeypatch):
    """A checkpoint keeps them, and may be used from elsewhere."""
    monkeypatch.chdir(tmp_path)
    section = data_config(name="video_folder", root="videos", dir="prepared/x")
    assert (section.root, section.dir) == (str(tmp_path / "videos"), str(tmp_path / "prepared/x"))
    monkeypatch.chdir("/")
    assert DataConfig(**dataclasses.asdict(section)) == section


def test_every_field_is_described_in_order():
    """Command lines print the descriptions."""
    attributes = DataConfig.__doc__.partition("Attributes:")[2]
    assert re.findall(r"^ {8}(\w+): ", attributes, re.MULTILINE) == [f.name for f in dataclasses.fields(DataConfig)]

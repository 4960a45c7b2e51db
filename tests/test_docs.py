"""The Python of README and docs runs as it stands."""

import pathlib
import re
from unittest import mock

import pytest
import yaml
from bench import call, last_json, moving_noise, save_untrained, write_video

import motion_jax
from motion_jax.configs import video_folder
from motion_jax.models import MODELS

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "```python\n" in page.read_text()
]


def test_there_are_pages_with_code():
    assert {"README.md", "add_a_motion_block.md"} <= {page.name for page in PAGES}


@pytest.fixture(scope="module")
def reader(tmp_path_factory):
    """A folder with what the pages name: a clip, a run and its export."""
    folder = tmp_path_factory.mktemp("reader")
    config = video_folder.get_config("tsm_r18,4").to_dict()
    config["model"]["width"] = 8
    config["data"] |= {"root": "VIDEOS", "size": 32, "resize": (36, 44)}
    save_untrained(config, ["kick", "push"], folder / "runs" / "mine")
    paths = (f"--checkpoint={folder / 'runs' / 'mine'}", f"--output={folder / 'my-net'}")
    last_json(call("export", *paths, "--format=hub", "--batch=1", "--json"))
    write_video(folder / "clip.mp4", moving_noise(step=3, seed=0, frames=30, side=64))
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.long
def test_code_runs_in_order(page, reader, monkeypatch):
    monkeypatch.chdir(reader)
    namespace = {"__name__": "docs"}
    # A page may add a model of its own to the table.
    with mock.patch.dict(MODELS):
        for block in re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL):
            exec(compile(block, page.name, "exec"), namespace)


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_the_citation_is_complete_and_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert (citation["cff-version"], citation["version"]) == ("1.2.0", motion_jax.__version__)
    readme = (ROOT / "README.md").read_text()
    for paper in citation["references"]:
        assert {"type", "title", "authors"} <= set(paper)
        assert f"{{{paper['title']}}}" in readme

"""The Python of README and docs runs as it stands."""

import pathlib
import re
from unittest import mock

import pytest

from motion_jax.models import MODELS

ROOT = pathlib.Path(__file__).resolve().parent.parent
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "```python\n" in page.read_text()
]


def test_there_are_pages_with_code():
    assert {"README.md", "add_a_motion_block.md"} <= {page.name for page in PAGES}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.long
def test_code_runs_in_order(page):
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

"""Tables of README and docs: written from the measurements, and by nobody else."""

import doctest
import json
import re
import shutil
import sys

import pytest
from bench import ROOT

from benchmarks import markdown, tables
from motion_jax.cli import run

PAGES = ("README.md", *(path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "docs").glob("*.md"))))


def seeds(*values, mean, spread):
    return {"seeds": list(values), "mean": mean, "spread": spread}


DEMO = {
    "command": "python -m benchmarks.demo",
    "date": "2026-01-02",
    "setting": {"device": "cpu", "jax": "0.10.2"},
    "recipe": {"width": 8, "size": 64, "frames": 8, "steps": 600, "batch_size": 16},
    "seeds": [5, 6],
    "networks": {
        "tsn_r18": {
            "top1": seeds(8.1, 8.5, mean=8.3, spread=0.2828),
            "within_pairs": seeds(49.0, 51.0, mean=50.0, spread=1.4142),
        },
        "msnet_tsm_r18": {
            "top1": seeds(97.25, 96.25, mean=96.75, spread=0.7071),
            "within_pairs": seeds(99.0, 98.0, mean=98.5, spread=0.7071),
        },
    },
    "motion": {
        "seeds": [5],
        "translations": {
            "epe": seeds(1.5, mean=1.5, spread=0.0),
            "zero": 4.5,
            "dis": 2.25,
            "farneback": 2.875,
            "papers_form": seeds(4.25, mean=4.25, spread=0.0),
        },
    },
}
DEMO_TABLE = """\
| network | top-1 | within pairs |
| --- | ---: | ---: |
| tsn_r18 | 8.3 ± 0.3 (8.1 to 8.5) | 50.0 ± 1.4 (49.0 to 51.0) |
| msnet_tsm_r18 | 96.8 ± 0.7 (96.2 to 97.2) | 98.5 ± 0.7 (98.0 to 99.0) |

Width 8, 8 frames of 64 pixels, 600 updates of 16 clips. Seeds 5, 6, trained on device cpu, jax 0.10.2, 2026-01-02."""
MOTION_TABLE = """\
| motion | end-point error, px | zero field | ratio | DIS | Farneback | papers' form |
| --- | ---: | ---: | ---: | ---: | ---: | ---: |
| translations | 1.50 ± 0.00 | 4.50 | 0.33 | 2.25 | 2.88 | 4.25 ± 0.00 |

Seeds 5, trained on device cpu, jax 0.10.2, 2026-01-02."""


@pytest.fixture
def checkout(tmp_path):
    """The pages and the measurements of this checkout, with a made-up demo."""
    for page in PAGES:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    results = shutil.copytree(ROOT / "benchmarks" / "results", tmp_path / "benchmarks" / "results")
    (results / "demo.json").write_text(json.dumps(DEMO))
    assert tables.update(tmp_path, check=False) == []
    return tmp_path


def test_the_example_of_a_table():
    assert doctest.testmod(markdown) == (0, 1)


def test_tables_of_the_demo():
    assert tables.TABLES["demo.json"](DEMO) == {"demo": DEMO_TABLE, "motion": MOTION_TABLE}


def test_the_text_between_the_lines_is_replaced():
    text = "a\n<!-- table: one -->\nold\n\ntext\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\nc\n"
    assert tables.regions(text, page="a.md") == {"one": "old\n\ntext", "two": ""}
    once = tables.replaced(text, {"one": r"| \1 |", "three": "| 3 |"})
    assert once == "a\n<!-- table: one -->\n| \\1 |\n<!-- end -->\nb\n<!-- table: two -->\n<!-- end -->\nc\n"
    assert tables.replaced(once, {"one": r"| \1 |"}) == once


def test_a_region_without_an_end_is_an_error():
    text = "<!-- table: one -->\n| 1 |\n<!-- table: two -->\n| 2 |\n<!-- end -->\n"
    with pytest.raises(ValueError, match=r"a\.md: table one has no line <!-- end -->"):
        tables.regions(text, page="a.md")


def test_pages_are_written_and_then_agree(checkout):
    for page in ("README.md", "docs/results.md"):
        assert f"<!-- table: demo -->\n{DEMO_TABLE}\n<!-- end -->\n" in (checkout / page).read_text()
    assert tables.update(checkout, check=True) == []


@pytest.mark.parametrize(
    ("page", "name"), [("README.md", "demo"), ("docs/results.md", "motion"), ("docs/performance.md", "peers_cpu")]
)
def test_one_other_digit_is_found(checkout, page, name):
    path = checkout / page
    start, line, rest = path.read_text().partition(f"<!-- table: {name} -->\n")
    path.write_text(start + line + re.sub(r"\d(?=\D*\n)", lambda match: str((int(match[0]) + 1) % 10), rest, count=1))
    before = path.read_text()
    assert tables.update(checkout, check=True) == [f"{page}: table {name} differs"]
    assert path.read_text() == before


def test_another_digit_in_the_page_of_the_blocks_is_found(checkout):
    path = checkout / "docs" / "blocks.md"
    text = path.read_text()
    at = text.index(" ± ") - 1  # the last digit of the first accuracy
    path.write_text(f"{text[:at]}{(int(text[at]) + 1) % 10}{text[at + 1 :]}")
    assert tables.update(checkout, check=True) == ["docs/blocks.md: the whole page differs"]


def test_a_table_without_measurements_is_named(checkout):
    (checkout / "benchmarks" / "results" / "peers_cpu.json").unlink()
    before = (checkout / "docs" / "performance.md").read_text()
    for check in (True, False):
        assert tables.update(checkout, check=check) == ["docs/performance.md: table peers_cpu has no measurements"]
    assert (checkout / "docs" / "performance.md").read_text() == before


def test_the_command_exits_with_2_and_names_page_and_table(checkout, monkeypatch, capsys):
    monkeypatch.setattr(tables, "ROOT", checkout)
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    run(tables.main)
    assert "all tables agree" in capsys.readouterr().out
    path = checkout / "README.md"
    path.write_text(path.read_text().replace("96.8 ±", "96.9 ±"))
    with pytest.raises(SystemExit) as exit_:
        run(tables.main)
    assert exit_.value.code == 2
    assert "README.md: table demo differs" in capsys.readouterr().err


def test_the_pages_agree_with_the_measurements():
    assert tables.update(ROOT, check=True) == [], "python -m benchmarks.tables writes the tables"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/blocks.md"])
def test_no_accuracy_is_written_by_hand(page):
    text = (ROOT / page).read_text()
    outside = tables.replaced(text, dict.fromkeys(tables.regions(text, page=page), ""))
    assert re.findall(r"\d+\.\d+ ± \d+\.\d+.*", outside) == []

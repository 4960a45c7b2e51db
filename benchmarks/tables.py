"""Write the tables of README.md and docs/ from the measurements in benchmarks/results/.

Examples:
    python -m benchmarks.tables
    python -m benchmarks.tables --check

A page has table NAME between the lines <!-- table: NAME --> and <!-- end -->. The command replaces the text between
them. It writes docs/blocks.md as a whole. --check writes nothing and exits with 2 if a page differs from the
measurements.
"""

import json
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks import blocks, demo, input_pipeline, peers, pods, real_clips, reliability, streaming, torch_comparison
from motion_jax.cli import Parser, print_json, run

ROOT = pathlib.Path(__file__).parent.parent
# File of measurements -> function from its content to the Markdown of each of its tables.
TABLES: dict[str, Callable[[dict[str, Any]], dict[str, str]]] = {
    "demo.json": demo.tables,
    "input_pipeline.json": input_pipeline.tables,
    "peers_cpu.json": peers.tables,
    "pods.json": pods.tables,
    "real_clips.json": real_clips.tables,
    "reliability.json": reliability.tables,
    "streaming.json": streaming.tables,
    "torch_training.json": torch_comparison.tables,
}
_REGION = re.compile(r"(<!-- table: (\w+) -->\n)((?:(?!<!-- table:).)*?)(?=<!-- end -->)", flags=re.DOTALL)


def main() -> None:
    """Write the pages, or compare them with the measurements."""
    parser = Parser(__doc__)
    parser.add_argument("--check", action="store_true", help="only compare; exit with 2 if a page differs")
    arguments = parser.parse_args()
    problems = update(ROOT, check=arguments.check)
    if problems:
        raise ValueError(f"{'; '.join(problems)}. python -m benchmarks.tables writes the tables from the measurements")
    print("all tables agree with benchmarks/results")
    if arguments.json:
        print_json({"agree": True})


def update(root: pathlib.Path, *, check: bool) -> list[str]:
    """Write README.md and docs/*.md below ``root`` from its benchmarks/results, and return the problems.

    Problems are tables without measurements and, if ``check``, tables that differ; nothing is written then.

    Raises:
        ValueError: if a region of a page has no end.
    """
    results = root / "benchmarks" / "results"
    tables: dict[str, str] = {}
    for file, make in TABLES.items():
        if (results / file).is_file():
            tables |= make(json.loads((results / file).read_text()))
    problems = []
    for path in (root / "README.md", *sorted((root / "docs").glob("*.md"))):
        page, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        if page == "docs/blocks.md":
            written = blocks.page(json.loads((results / blocks.RESULTS.name).read_text()))
            differing = ["the whole page differs"] if written != text else []
        else:
            found = regions(text, page=page)
            problems += [f"{page}: table {name} has no measurements" for name in found if name not in tables]
            differing = [f"table {name} differs" for name in found if tables.get(name, found[name]) != found[name]]
            written = replaced(text, tables)
        if not check:
            path.write_text(written, encoding="utf-8")
        else:
            problems += [f"{page}: {what}" for what in differing]
    return problems


def regions(text: str, *, page: str) -> dict[str, str]:
    """Return table name -> text of every region of a page.

    Raises:
        ValueError: if a region has no end.
    """
    found = {name: between.removesuffix("\n") for _, name, between in _REGION.findall(text)}
    if unclosed := set(re.findall(r"<!-- table: (\w+)", text)) - set(found):
        raise ValueError(f"{page}: table {', '.join(sorted(unclosed))} has no line <!-- end -->")
    return found


def replaced(text: str, tables: Mapping[str, str]) -> str:
    """Return a page with the tables in its regions; regions of other tables stay as they are."""
    return _REGION.sub(lambda match: f"{match[1]}{tables[match[2]]}\n" if match[2] in tables else match[0], text)


if __name__ == "__main__":
    run(main)

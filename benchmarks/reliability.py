"""The table of docs/reliability.md: faults of one process, as ``make chaos`` found them."""

from collections.abc import Mapping
from typing import Any

from benchmarks.markdown import markdown_table


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the Markdown table ``reliability`` of the results."""
    rows = [
        (row["fault"], *(str(row[name]) for name in ("tries", "survived", "lost")), f"`{row['test']}`")
        for row in sorted(results["faults"], key=lambda row: row["fault"])
    ]
    total = [str(sum(row[name] for row in results["faults"])) for name in ("tries", "survived", "lost")]
    table = markdown_table(("fault", "tries", "survived", "lost", "test"), [*rows, ("all", *total, "")])
    note = "Written by `make chaos`. To repeat a row: `MOTION_JAX_CHAOS=1 .venv/bin/python -m pytest tests/chaos/TEST`."
    return {"reliability": f"{table}\n\n{note}"}

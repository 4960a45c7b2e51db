"""The table of docs/pods.md: faults of several processes, as ``make chaos`` found them."""

from collections.abc import Mapping
from typing import Any

from benchmarks.markdown import markdown_table


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the Markdown table ``pods`` of the results."""
    names = ("processes", "tries", "survived", "seconds", "lost")
    rows = [(row["fault"], *(str(row[name]) for name in names)) for row in results["faults"]]
    header = ("fault", "processes", "tries", "survived", "seconds until all ended or went on", "states lost")
    note = f"On one machine, with --heartbeat_seconds={results['heartbeat_seconds']}. Written by `make chaos`."
    return {"pods": f"{markdown_table(header, rows)}\n\n{note}"}

"""The record of the tests of faults: what ``make chaos`` found, in benchmarks/results/."""

import json
import os
from collections.abc import Sequence
from typing import Any

import bench

# `make chaos` sets it: more tries, and delays as long as in real life.
CHAOS = bool(os.environ.get("MOTION_JAX_CHAOS"))


def note(file: str, row: dict[str, Any], *, key: Sequence[str] = ("fault",), **more: Any) -> None:
    """Replace the row of a fault in a file of results, if this is a run of ``make chaos``.

    Args:
        file: name of the file in benchmarks/results.
        row: what was done and what came of it.
        key: values of the row that name the fault.
        more: values of the file beside the rows.
    """
    if not CHAOS:
        return
    path = bench.ROOT / "benchmarks" / "results" / file
    content = json.loads(path.read_text()) if path.exists() else {"faults": []}
    rows = [other for other in content["faults"] if any(other[name] != row[name] for name in key)]
    path.write_text(json.dumps({**content, **more, "faults": [*rows, row]}, indent=1) + "\n")


def survived(fault: str, *, tries: int, lost: int, test: str) -> None:
    """Note the outcome of a fault of one process.

    Args:
        fault: what was done.
        tries: how often.
        lost: tries after which the state or a file was another one, or an error was not one line.
        test: the test that did it, as pytest names it.
    """
    note("reliability.json", {"fault": fault, "tries": tries, "survived": tries - lost, "lost": lost, "test": test})

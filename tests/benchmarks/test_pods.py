"""The table of faults, from made-up results."""

from benchmarks import pods


def test_table():
    row = {"fault": "kill -9 of one", "processes": 2, "tries": 25, "survived": 25, "seconds": 8.5, "lost": 0}
    table = pods.tables({"heartbeat_seconds": 6, "faults": [row]})["pods"]
    assert table.splitlines()[2:] == [
        "| kill -9 of one | 2 | 25 | 25 | 8.5 | 0 |",
        "",
        "On one machine, with --heartbeat_seconds=6. Written by `make chaos`.",
    ]

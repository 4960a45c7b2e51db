"""The table of faults of one process, from made-up results."""

from benchmarks import reliability


def test_table():
    rows = [
        {"fault": "mutated b", "tries": 130, "survived": 129, "lost": 1, "test": "test_b.py -k b"},
        {"fault": "SIGKILL: a", "tries": 10, "survived": 10, "lost": 0, "test": "test_a.py -k a"},
    ]
    table = reliability.tables({"faults": rows})["reliability"]
    assert table.splitlines()[2:6] == [
        "| SIGKILL: a | 10 | 10 | 0 | `test_a.py -k a` |",
        "| mutated b | 130 | 129 | 1 | `test_b.py -k b` |",
        "| all | 140 | 139 | 1 |  |",
        "",
    ]

"""Mutated files are read as they were, or refused in one line: ``make chaos`` reads ten times as many.

The files are read in a process with limited memory, so that a crash, a hang or a bomb counts and names its seed.
"""

import json
import re

import mutations
import numpy as np
import pytest
from forks import fork
from outcomes import CHAOS, survived

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("mutations")]

# Kinds whose every file takes about a second.
SLOW = {name for name in mutations.KINDS if "goes on" in name}


@pytest.mark.parametrize("kind", mutations.KINDS)
def test_mutated(kind, tmp_path):
    count = (30 if kind in SLOW else 200) // (1 if CHAOS else 10)
    outcomes, start = {}, 0
    while start < count:
        log = tmp_path / f"{start}.log"
        status = fork(mutations.attack, kind, tmp_path, start, count, log=log, timeout=600)
        lines = [json.loads(line) for line in log.read_text(errors="replace").splitlines() if line.startswith('{"')]
        outcomes |= {line["seed"]: line["outcome"] for line in lines if "seed" in line}
        if status:
            assert lines, log.read_text()
            outcomes[lines[-1]["begin"]] = f"the process ends with {status}: {log.read_text()[-2000:]}"
        start = max(outcomes) + 1
    bad = {seed: outcome for seed, outcome in outcomes.items() if outcome not in ("read", "refused")}
    test = f"test_mutations.py -k '{kind.split()[0]}'"
    survived(f"mutated {kind}", tries=count, lost=len(bad), test=test)
    assert len(outcomes) == count
    assert not bad


def test_mutations_are_repeatable():
    content = bytes(range(200))
    first, again = ([mutations.mutated(content, np.random.default_rng(seed)) for seed in range(50)] for _ in range(2))
    assert first == again
    assert content not in first


def test_what_counts_as_bad(tmp_path):
    def fail(error):
        def read(folder, path):
            raise error

        return mutations._outcome(read, tmp_path, tmp_path)

    assert fail(ValueError("no video")) == "refused"
    for error in (ValueError("two\nlines"), ValueError("it crashed the decoder (SIGSEGV)"), KeyError("a")):
        assert re.search("two|crashed|KeyError", fail(error))

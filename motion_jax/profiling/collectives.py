"""Count the bytes that devices exchange in a compiled program."""

import collections
import math
import re

import jax

_KINDS = "all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|ragged-all-to-all|collective-broadcast"
# `%name = type kind(operands)`. An asynchronous collective is two instructions. The type of `kind-done` is the result;
# that of `kind-start` may also hold the operands and flags.
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?\S+ = (.*?) ({_KINDS})(?:-done)?\(", re.MULTILINE)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]")


def collective_bytes(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Count the bytes that one device receives in each call of a program, by kind of collective.

    The count is the size of the collectives' results: an all-reduce counts its sum once, whatever route the hardware
    takes, and an all-gather counts the rows of all devices. A collective in the body of a loop counts once. Kinds that
    do not occur are absent. Programs for one device may hold collectives too; they cost nothing there.

    Args:
        compiled: a program as from ``jax.jit(f).lower(*arguments).compile()``.
    """
    counts = collections.Counter()
    for result, kind in _COLLECTIVE.findall(compiled.as_text()):
        counts[kind] += sum(map(_bytes_of, _ARRAY.findall(result)))
    return dict(counts)


def _bytes_of(array: tuple[str, str, str]) -> int:
    dtype, bits, shape = array
    size = math.prod(int(side) for side in shape.split(",") if side)
    return math.ceil(size * (8 if dtype == "pred" else int(bits)) / 8)

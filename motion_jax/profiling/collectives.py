"""What the devices of a run send to each other, read from a compiled program."""

import math
import re

import jax

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
# `%name = type kind(operands)`. An asynchronous one is two instructions; the type of the second, `kind-done`, is the
# result, where that of `kind-start` may hold the operands and flags too.
_COLLECTIVE = re.compile(rf"^\s*(?:ROOT )?\S+ = (.*?) ({'|'.join(KINDS)})(?:-done)?\(", re.MULTILINE)
_ARRAY = re.compile(r"\b(pred|[a-z]+(\d+)[a-z0-9]*)\[([\d,]*)\]")


def collective_bytes(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Count the bytes that one device receives in each call of a program, by kind of collective.

    They are the sizes of the collectives' results: what an all-reduce sums counts once, whatever path the hardware
    takes for it, and an all-gather counts the rows of all devices. Kinds that do not occur are left out. A collective
    in the body of a loop counts once. In a program for one device they may stand too, and then cost nothing.

    Args:
        compiled: as from ``jax.jit(f).lower(*arguments).compile()``.
    """
    counts: dict[str, int] = {}
    for result, kind in _COLLECTIVE.findall(compiled.as_text()):
        counts[kind] = counts.get(kind, 0) + sum(map(_bytes_of, _ARRAY.findall(result)))
    return counts


def _bytes_of(array: tuple[str, str, str]) -> int:
    dtype, bits, shape = array
    size = math.prod(int(side) for side in shape.split(",") if side)
    return math.ceil(size * (8 if dtype == "pred" else int(bits)) / 8)

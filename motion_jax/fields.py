"""Types and ranges of fields: declared beside the field, as its annotation, and checked when a value is given.

>>> Radius = Annotated[int, Range(1, 64)]
>>> fits(7, Radius | None), fits(65, Radius | None), fits(None, Radius | None)
(True, False, True)
>>> expected(Radius | None)
'an integer from 1 to 64, or None'
"""

import dataclasses
import types
import typing
from collections.abc import Collection, Mapping
from typing import Annotated, Any

from motion_jax.text import shown


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers from ``least`` to ``most``; with ``odd`` the odd ones, with ``above`` without ``least`` itself."""

    least: float
    most: float
    odd: bool = False
    above: bool = False

    def __contains__(self, value: float) -> bool:
        inside = self.least < value <= self.most if self.above else self.least <= value <= self.most
        return inside and not (self.odd and value % 2 == 0)

    def __str__(self) -> str:
        start = f"above {self.least:g}, at most" if self.above else f"from {self.least:g} to"
        return f"{start} {self.most:g}{', odd' if self.odd else ''}"


Channels = Annotated[int, Range(1, 2**16)]
"""A number of channels."""
Positive = Annotated[float, Range(0, 1e6, above=True)]
"""A positive number that every computation bears."""
OddSide = Annotated[int, Range(1, 63, odd=True)]
"""The side of a window or kernel with a centre."""
LARGEST = 2**31 - 1
"""The largest integer of a field without a range, in absolute value; seeds go to twice as many."""

_WORDS = {int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "None"}
_UNIONS = (types.UnionType, typing.Union)


def fits(value: object, kind: Any) -> bool:
    """Return whether a value is of an annotated type and in its range, and finite.

    An integer is also a number, a list also a tuple, and a mapping also a section.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        return any(fits(value, each) for each in arguments)
    if origin is Annotated:
        return fits(value, arguments[0]) and value in arguments[1]
    if origin is tuple:
        if not isinstance(value, list | tuple):
            return False
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        return len(value) == len(kinds) and all(map(fits, value, kinds))
    if isinstance(value, bool):
        return kind is bool
    if kind is float:
        # Neither infinity nor "not a number" passes.
        return isinstance(value, int | float) and abs(value) <= 1e308
    if kind is int:
        return isinstance(value, int) and abs(value) <= 2 * LARGEST + 1
    if dataclasses.is_dataclass(kind):
        return isinstance(value, Mapping)
    return isinstance(value, origin or kind)


def expected(kind: Any) -> str:
    """Describe the values of an annotated type.

    >>> expected(tuple[int, int] | None)
    'a tuple of 2 int, or None'
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in _UNIONS:
        return ", or ".join(map(expected, arguments))
    if origin is Annotated:
        return f"{expected(arguments[0])} {arguments[1]}"
    if origin is tuple:
        count = "" if arguments[-1] is ... else f"{len(arguments)} "
        kind, *ranges = typing.get_args(arguments[0]) or arguments[:1]
        return " ".join([f"a tuple of {count}{kind.__name__}", *map(str, ranges)])
    return _WORDS.get(kind, "a section")


def check_fields(module: Any, *, skip: Collection[str] = ("parent", "name", "norm", "dtype")) -> None:
    """Raise an error unless the fields of a dataclass fit their annotations.

    Args:
        module: the dataclass, such as a motion block.
        skip: names of fields that are not checked.

    Raises:
        ValueError: with the first field that does not fit, its value, and what is expected.
    """
    for field in dataclasses.fields(module):
        value = getattr(module, field.name)
        if field.name not in skip and not fits(value, field.type):
            name = type(module).__name__
            raise ValueError(f"{field.name} of {name} is {shown(value)}, expected {expected(field.type)}")


def with_tuples(value: Any) -> Any:
    """Turn every list into a tuple: configs hold tuples, JSON has lists only."""
    if isinstance(value, Mapping):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(map(with_tuples, value)) if isinstance(value, list | tuple) else value

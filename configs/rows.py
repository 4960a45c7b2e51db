"""Rows of the papers' tables as experiments: the printed figures of a network, and the config that trains it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from motion_jax.configs.common import finish, split_smoke


@dataclasses.dataclass(frozen=True)
class Printed:
    """Figures that a table prints for a network, with their digits; empty where it prints none.

    Attributes:
        top1: accuracy in percent.
        top5: accuracy in percent.
        gflops: operations per view, in units of 10^9.
        views: clips times crops of the evaluation.
        memory: GPU memory with 8 clips, in GB.
        runtime: time of one clip, in ms.
    """

    top1: str
    top5: str = ""
    gflops: str = ""
    views: str = ""
    memory: str = ""
    runtime: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        table: table of the supplement, such as ``Table 3a``.
        label: the row's name, as printed.
        printed: its figures.
        recipe: recipe for the data set and the paper: (model, frames) -> a config that is not locked yet.
        classes: number of classes of the data set.
        model: a named model.
        frames: frames per clip.
        sites: sites of the motion block, where they differ from the recipe's.
        block: fields of the motion block that differ from the recipe's.
        note: what the table leaves open, and the choice made.
        gflops_note: why our count does not round to the printed GFLOPs, where it does not.
    """

    table: str
    label: str
    printed: Printed
    _: dataclasses.KW_ONLY
    recipe: Callable[[str, int], ml_collections.ConfigDict]
    classes: int
    model: str
    frames: int
    sites: tuple[str, ...] | None = None
    block: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""
    gflops_note: str = ""


@dataclasses.dataclass(frozen=True)
class Stated:
    """A figure in the text of a supplement that follows from the GFLOPs of rows.

    Attributes:
        section: section of the supplement.
        label: meaning of the figure.
        printed: the figure, with its digits.
        unit: ``G`` for 10^9 operations, or ``%``.
        ours: the same figure from a function that maps a row's name to our GFLOPs.
        note: why ours does not round to the printed figure, where it does not.
    """

    section: str
    label: str
    printed: str
    unit: str
    ours: Callable[[Callable[[str], float]], float]
    note: str = ""


def rounds_to(value: float, printed: str) -> bool:
    """Return whether a value, rounded to the digits of a printed figure, is that figure.

    >>> [rounds_to(value, "14.6") for value in (14.589, 14.66)]
    [True, False]
    """
    decimals = len(printed.partition(".")[2])
    return f"{value:.{decimals}f}" == printed


def config_of(rows: Mapping[str, Row], arguments: str, default: str) -> ml_collections.ConfigDict:
    """Return the experiment of ``row[,smoke]``; no row means ``default``.

    Raises:
        ValueError: for a row that is not in ``rows``, or arguments of another form.
    """
    given, smoke = split_smoke(arguments)
    given = given or [default]
    if len(given) > 1 or given[0] not in rows:
        raise ValueError(
            f"config arguments are row[,smoke], such as {default}; got {arguments!r}; rows: {', '.join(rows)}"
        )
    row = rows[given[0]]
    config = row.recipe(row.model, row.frames)
    if row.sites is not None:
        config.model.sites = row.sites
    config.model.block.update(row.block)
    return finish(config, smoke)

"""Rows of the papers' tables as experiments: what is printed of a network, and the config that trains it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

from motion_jax.configs.common import use_smoke


@dataclasses.dataclass(frozen=True, kw_only=True)
class Printed:
    """What a table says of a network, with its digits; empty where it says nothing.

    Attributes:
        gflops: per view, in units of 10^9.
        views: clips times crops of the evaluation.
        memory: of a GPU with 8 clips, in GB.
        runtime: of one clip, in ms.
        top1: accuracy in percent.
        top5: accuracy in percent.
    """

    gflops: str = ""
    views: str = ""
    memory: str = ""
    runtime: str = ""
    top1: str = ""
    top5: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table.

    Attributes:
        table: of the supplement, such as ``Table 3a``.
        label: what tells the row from the others of its table, as printed.
        printed: its numbers.
        recipe: of the data set and the paper: (model, frames) -> a config that may still be changed.
        classes: of the data set.
        model: a named model.
        frames: per clip.
        sites: of the motion block, where not the recipe's.
        block: fields of the motion block, where not the recipe's.
        note: what the table leaves open, and the choice made.
    """

    table: str
    label: str
    printed: Printed
    recipe: Callable[[str, int], ml_collections.ConfigDict]
    classes: int
    model: str
    frames: int
    sites: tuple[str, ...] | None = None
    block: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quoted:
    """A row of a network that is not built here.

    Attributes:
        table: of the supplement.
        label: the network, as printed.
        printed: its numbers.
    """

    table: str
    label: str
    printed: Printed


def config_of(rows: Mapping[str, Row], arguments: str, default: str) -> ml_collections.ConfigDict:
    """The experiment of ``row[,smoke]``; no row means ``default``.

    Raises:
        ValueError: for a row that is not in ``rows``, or arguments of another form.
    """
    given = arguments.split(",") if arguments else []
    smoke = "smoke" in given
    given = [part for part in given if part != "smoke"] or [default]
    if len(given) > 1 or given[0] not in rows:
        raise ValueError(
            f"config arguments are row[,smoke], such as {default}; got {arguments!r}; rows: {', '.join(rows)}"
        )
    row = rows[given[0]]
    config = row.recipe(row.model, row.frames)
    if row.sites is not None:
        config.model.sites = row.sites
    config.model.block.update(row.block)
    if smoke:
        use_smoke(config)
    return config.lock()

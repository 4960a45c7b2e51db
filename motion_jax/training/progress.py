"""What a person at the terminal sees of long work."""

import sys
from collections.abc import Iterable
from typing import Any

import jax
from tqdm import tqdm


def log(message: str) -> None:
    """Print one line to stderr, above any bar, on the first process only."""
    if jax.process_index() == 0:
        tqdm.write(message, file=sys.stderr)
        sys.stderr.flush()


def bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """Make a tqdm bar with the remaining time; silent on other processes and where stderr is no terminal."""
    silent = jax.process_index() != 0 or not sys.stderr.isatty()
    return tqdm(iterable, disable=silent, dynamic_ncols=True, **options)

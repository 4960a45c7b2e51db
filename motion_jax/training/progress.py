"""Progress of long work, as shown in the terminal."""

import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import jax
from tqdm import tqdm


def log(message: str) -> None:
    """Print one line to stderr, above any progress bar, on the first process only."""
    if jax.process_index() == 0:
        tqdm.write(message, file=sys.stderr)
        sys.stderr.flush()


def bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """Make a tqdm bar; it shows nothing on other processes and where stderr is no terminal."""
    silent = jax.process_index() != 0 or not sys.stderr.isatty()
    return tqdm(iterable, disable=silent, dynamic_ncols=True, **options)


def log_compilation(function: Callable, what: str) -> Callable:
    """Wrap a compiled function so that its first call, which compiles it, logs ``what`` is compiled and how long."""
    compiled = False

    def call(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled:
            return function(*arguments)
        log(f"compiling {what} ...")
        began = time.perf_counter()
        outputs = function(*arguments)
        log(f"compiled {what} in {time.perf_counter() - began:.1f} s")
        compiled = True
        return outputs

    return call

"""Progress of long work, as shown in the terminal."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
from jaxlib import utils
from tqdm import tqdm

from motion_jax.text import printable

# Seconds between two updates of the time that a compilation has taken.
PERIOD = 1.0


def log(message: str) -> None:
    """Print one line to stderr, above any progress bar, on the first process only."""
    if jax.process_index() == 0:
        tqdm.write(printable(message), file=sys.stderr)
        sys.stderr.flush()


def bar(iterable: Iterable | None = None, **options: Any) -> tqdm:
    """Make a tqdm bar; it shows nothing on other processes and where stderr is no terminal."""
    silent = jax.process_index() != 0 or not sys.stderr.isatty()
    return tqdm(iterable, disable=silent, dynamic_ncols=True, **options)


def log_compilation(function: Callable, what: str) -> Callable:
    """Wrap a compiled function so that its first call, which compiles it, logs ``what`` is compiled and how long.

    During this call a terminal shows the time it has taken, and XLA does not print its alarm about slow compilations.
    """
    compiled = False

    def call(*arguments: Any) -> Any:
        nonlocal compiled
        if compiled:
            return function(*arguments)
        log(f"compiling {what} ...")
        began = time.perf_counter()
        with _show_time(f"compiling {what}", began=time.time()), _mute_alarm():
            outputs = function(*arguments)
        log(f"compiled {what} in {time.perf_counter() - began:.1f} s")
        compiled = True
        return outputs

    return call


@contextlib.contextmanager
def _show_time(what: str, *, began: float) -> Iterator[None]:
    """Show the time since ``began`` on a terminal, after two periods and then once per period."""
    done = threading.Event()

    def show() -> None:
        if done.wait(2 * PERIOD):
            return
        with bar(desc=what, bar_format="{desc} {elapsed}", leave=False) as shown:
            shown.start_t = began
            while not done.wait(PERIOD):
                shown.refresh()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@contextlib.contextmanager
def _mute_alarm() -> Iterator[None]:
    """Mute the alarm of XLA's slow_operation_alarm.cc, which it logs as an error after two minutes of compilation.

    It has no switch of its own, so all messages of XLA below "fatal" are hidden. A compilation that fails raises an
    exception as before. Plug-ins for GPU and TPU have their own log and are not muted.
    """
    utils.absl_set_min_log_level(3)
    try:
        yield
    finally:
        # JAX sets the variable when it is imported, if it is not set.
        utils.absl_set_min_log_level(int(os.environ["TF_CPP_MIN_LOG_LEVEL"]))

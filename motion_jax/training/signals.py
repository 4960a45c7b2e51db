"""Signals that end a run cleanly."""

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any, TypeVar

import jax

Item = TypeVar("Item")


class Stopped(Exception):
    """A signal arrived during an iteration over ``StopSignals.until_stopped``."""


class StopSignals:
    """Context in which the first SIGTERM or SIGINT is recorded; a second one acts as before.

    On several processes, which must agree on the step to stop at, JAX's preemption service handles the signals
    instead: see ``Checkpoints.reached_preemption``; ``name`` is then ``"preemption"`` in place of the signal's.
    """

    def __init__(self) -> None:
        self.requested = False
        self.name = "preemption"
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._record)
        return self

    def __exit__(self, *error: object) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def until_stopped(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield items until a signal arrives.

        Raises:
            Stopped: at the first item after the signal.
        """
        for item in items:
            if self.requested:
                raise Stopped
            yield item

    def _record(self, number: int, frame: FrameType | None) -> None:
        del frame
        self.requested, self.name = True, signal.Signals(number).name
        self.__exit__()

"""Goodput: how much of the time since a run began was spent on updates."""

import contextlib
import time
from collections.abc import Iterator, Mapping

# What the time of a run is spent on. "restart" is the time without a process, and from the start of a process to the
# end of its first update, with compilation and with the updates that were lost and are repeated.
KINDS = ("steps", "input", "evaluation", "saving", "restart")


class Goodput:
    """Seconds of a run by what they were spent on, added up over its restarts."""

    def __init__(self, logged: Mapping[str, float] | None) -> None:
        """Begin with the time of this process, or continue after the last log line that the run keeps."""
        expected = ("time", *(f"seconds_{kind}" for kind in KINDS))
        # Lines of older versions lack them.
        if not logged or not all(isinstance(logged.get(name), int | float) for name in expected):
            logged = {"time": time.time()}
        self._seconds = {kind: logged.get(f"seconds_{kind}", 0.0) for kind in KINDS}
        # Everything up to now is added to ``_kind``.
        self._kind, self._counted = "restart", logged["time"]

    def started(self) -> None:
        """Note that the first update is done; only the first call counts."""
        if self._kind == "restart":
            self._count()
            self._kind = "steps"

    @contextlib.contextmanager
    def spent(self, kind: str) -> Iterator[None]:
        """Context whose time counts as ``kind``."""
        self._count()
        before, self._kind = self._kind, kind
        try:
            yield
        finally:
            self._count()
            self._kind = before

    def waited(self, seconds: float) -> None:
        """Count seconds of the updates as waiting for input."""
        self._seconds["steps"] -= seconds
        self._seconds["input"] += seconds

    def values(self) -> dict[str, float]:
        """Return values of a log line.

        ``time`` is the time of the line in seconds since 1970, ``seconds_<kind>`` the time spent on each kind since the
        run began, and ``goodput`` the share of the steps in their sum.
        """
        self._count()
        goodput = self._seconds["steps"] / max(sum(self._seconds.values()), 1e-9)
        seconds = {f"seconds_{kind}": round(seconds, 3) for kind, seconds in self._seconds.items()}
        return {"goodput": round(goodput, 4), **seconds, "time": round(self._counted, 3)}

    def _count(self) -> None:
        # The clock of the machine, because a restart may be on another one; it may be set back.
        now = max(time.time(), self._counted)
        self._seconds[self._kind] += now - self._counted
        self._counted = now

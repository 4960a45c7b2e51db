"""The log that compiled code writes to file descriptor 2: held apart from Python's, so that an abort can be explained.

When the service that connects several processes loses one of them, JAX's client aborts the process with a stack trace.
No option and no callback of JAX 0.10 prevents it, so the log is filtered, and the signal of an abort is caught.
"""

import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable

# The start of a record, such as "E1124 14:36:06.096468    2717 coordination_service.cc:1549] text".
_RECORD = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ ([\w./-]+):\d+\]")
_OF_THE_SERVICE = re.compile(r"coordination_service\w*\.cc|preemption_sync_manager\.cc|(^|/)client\.h")
_LOST = "JAX distributed service detected fatal errors"


def divert(explain: Callable[[str], None]) -> None:
    """Filter what compiled code logs from now on, and explain an abort that the loss of another process causes.

    Records of the service that connects the processes are dropped: errors reach the user by other ways. All else is
    passed on. When JAX aborts the process because the service failed, ``explain`` is called with the text of that
    record in place of the stack trace; it must end the process. Any other abort takes its usual course.
    """
    log = _Log()

    def aborted(number: int) -> None:
        time.sleep(0.2)  # for the thread that reads the record
        if _LOST in log.dropped:
            explain(log.dropped)
        signal.signal(number, signal.SIG_DFL)

    # A handler of Python would run too late, after the abort. One of C runs in the thread that aborts.
    log.handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(aborted)
    ctypes.CDLL(None).signal(signal.SIGABRT, log.handler)
    threading.Thread(target=log.copy, daemon=True, name="native log").start()


class _Log:
    """The pipe in place of descriptor 2."""

    def __init__(self) -> None:
        self.dropped = ""
        self._terminal = os.dup(2)
        stream = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
        for handler in logging.root.handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
                handler.setStream(stream)
        sys.stderr.flush()
        sys.stderr = stream
        self._reader, writer = os.pipe()
        os.dup2(writer, 2)
        os.close(writer)

    def copy(self) -> None:
        """Pass lines on until the process ends."""
        drop = False
        with os.fdopen(self._reader, errors="backslashreplace") as lines, contextlib.suppress(OSError):
            for line in lines:
                if record := _RECORD.match(line):
                    drop = _OF_THE_SERVICE.search(record[1]) is not None
                if drop:
                    self.dropped += line
                else:
                    os.write(self._terminal, line.encode(errors="backslashreplace"))

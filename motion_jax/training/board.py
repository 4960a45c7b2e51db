"""Events for TensorBoard, written at once and in this thread.

tensorboardX's SummaryWriter writes from a thread of its own. If that fails, for example on a full disk, it prints a
traceback, and the run hangs when the queue is full.
"""

import os
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import scalar


class Board:
    """A file of events in a folder. Every method may raise OSError."""

    def __init__(self, folder: str, *, purge_step: int) -> None:
        """Begin a file; TensorBoard hides what earlier files hold from ``purge_step`` on."""
        os.makedirs(folder, exist_ok=True)
        self._writer = EventsWriter(os.path.join(folder, "events"))
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=purge_step, session_log=start))
        self._writer.flush()

    def write(self, values: Mapping[str, float], *, step: int) -> None:
        """Write values by tag."""
        for tag, value in values.items():
            self._writer.write_event(Event(wall_time=time.time(), step=step, summary=scalar(tag, value)))
        self._writer.flush()

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

"""Events for TensorBoard, written at once and in this thread.

tensorboardX's SummaryWriter writes from a thread of its own. If that fails, for example on a full disk, it prints a
traceback, and the run hangs when the queue is full.
"""

import os
import pathlib
import struct
import tempfile
import time
from collections.abc import Mapping

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary
from tensorboardX.record_writer import RecordWriter
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


def picture_events(picture: bytes, *, step: int) -> bytes:
    """Return a file of events that holds one picture, a PNG, under the tag ``seen``."""
    width, height = struct.unpack(">II", picture[16:24])
    image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=picture)
    summary = Summary(value=[Summary.Value(tag="seen", image=image)])
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "events")
        writer = RecordWriter(str(path))
        for event in (Event(file_version="brain.Event:2"), Event(step=step, summary=summary)):
            event.wall_time = time.time()
            writer.write(event.SerializeToString())
        writer.close()
        return path.read_bytes()

"""Pictures of what a network sees while it trains, drawn beside the updates."""

import concurrent.futures
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
from etils import epath

from motion_jax.places import write_whole
from motion_jax.training.board import picture_events

Variables = Mapping[str, Any]
MakePicture = Callable[[Variables], Callable[[], bytes]]

_log = logging.getLogger(__name__)


class Pictures:
    """Pictures of a run: ``pictures/step_<step>.png`` in the workdir, and the same in TensorBoard.

    The first process draws. The network runs on one of its devices, and a thread draws and writes. If a picture fails,
    a warning says so, and the run goes on without further pictures. A step whose picture exists is not drawn again.
    """

    def __init__(self, workdir: epath.Path, make: MakePicture | None) -> None:
        """Prepare pictures of a run.

        Args:
            workdir: the folder of the run.
            make: function that runs the network with variables on one device, and returns a function that draws a PNG;
                None for no pictures.
        """
        self._workdir = workdir
        self._make = make if jax.process_index() == 0 else None
        self._thread: concurrent.futures.ThreadPoolExecutor | None = None

    def add(self, variables: Variables, *, step: int) -> None:
        """Run the network with the replicated variables of a step, and draw in the thread."""
        if self._make is None:
            return
        try:
            path = self._workdir / "pictures" / f"step_{step}.png"
            if path.exists():
                return
            draw = self._make(jax.tree.map(lambda leaf: leaf.addressable_data(0), variables))
        except Exception as error:
            self._give_up(error)
            return
        self._thread = self._thread or concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="pictures")
        self._thread.submit(self._write, draw, path, step)

    def close(self) -> None:
        """Wait for the pictures that are being drawn."""
        if self._thread:
            self._thread.shutdown()

    def _write(self, draw: Callable[[], bytes], path: epath.Path, step: int) -> None:
        try:
            picture = draw()
            path.parent.mkdir(parents=True, exist_ok=True)
            # Every picture has a file of events of its own: files in a bucket cannot grow. The picture itself is
            # written last, because it marks the step as drawn.
            folder = self._workdir / "tensorboard" / "pictures"
            folder.mkdir(parents=True, exist_ok=True)
            write_whole(folder / f"events.out.tfevents.{int(time.time())}.{step}", picture_events(picture, step=step))
            write_whole(path, picture)
        except Exception as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        if self._make is not None:
            self._make = None
            _log.warning("no more pictures are drawn (%s: %s); the run goes on", type(error).__name__, error)

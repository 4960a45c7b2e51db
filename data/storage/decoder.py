"""Decoding of videos in worker processes, where a crash, a hang or a bomb costs the one file that caused it."""

import contextlib
import os
import pickle
import resource
import signal
import subprocess
import sys
import threading
import weakref
from pathlib import Path
from typing import Any, NoReturn

import cv2

import motion_jax
import motion_jax.data
from motion_jax.data.storage.video_files import StoredFrames, VideoError, store_frames

MEMORY = 4 * 2**30
"""Address space, in bytes, that a worker may use for a file."""
SECONDS = 60
"""Time in which a worker must open a file, and then decode each frame."""

# What FFmpeg may open: containers that name no other files.
_FORMATS = (
    "mov,matroska,avi,asf,dv,flv,live_flv,gif,mpegts,mpeg,mpegvideo,m4v,mjpeg,jpeg_pipe,mxf,ogg,yuv4mpegpipe,h264,hevc,"
    "obu,av1,ivf,nut,rm,wtv,vc1,apng"
)
# Importing motion_jax would import JAX: the worker gets empty packages with the same folders.
_START = """
import sys, types
for name, folder in zip(("motion_jax", "motion_jax.data"), sys.argv[1:], strict=True):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from motion_jax.data.storage.decoder import serve
serve()
"""
_CURES = "convert it to H.264 in MP4, or remove it"
_of_thread = threading.local()


def decode(path: str | os.PathLike, *, max_pixels: int, **options: Any) -> StoredFrames:
    """Do what :func:`store_frames` does in a worker process that belongs to the calling thread.

    A worker that dies is replaced at the next call. It may take ``SECONDS`` per frame and ``MEMORY`` bytes per file.

    Raises:
        VideoError: if no frame can be read, or the worker died or exceeded its limits.
        OSError: if the file system refuses to give the file.
    """
    worker = getattr(_of_thread, "worker", None)
    if worker is None or worker.max_pixels != max_pixels or not worker.alive:
        worker = _of_thread.worker = _Worker(max_pixels)
    try:
        return worker.store_frames(os.path.abspath(path), options)
    except VideoError as error:
        raise VideoError(path, error.reason, error.cure) from error


class _Worker:
    """A process that stores the frames of one file at a time. It ends with this object."""

    def __init__(self, max_pixels: int) -> None:
        self.max_pixels = max_pixels
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
            # Further fences, for what a header does not declare.
            "OPENCV_IO_MAX_IMAGE_PIXELS": str(max_pixels),
            "OPENCV_FFMPEG_CAPTURE_OPTIONS": f"protocol_whitelist;file|format_whitelist;{_FORMATS}",
        }
        folders = [Path(package.__file__).parent for package in (motion_jax, motion_jax.data)]
        self._process = subprocess.Popen(
            # -P: a module in the current folder must not shadow one of Python's.
            [sys.executable, "-P", "-c", _START, *map(str, folders)],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        weakref.finalize(self, _end, self._process)
        try:
            pickle.load(self._process.stdout)
        except EOFError as error:
            raise RuntimeError(f"no process for decoding starts: exit status {self._process.wait()}") from error

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def store_frames(self, path: str, options: dict[str, Any]) -> StoredFrames:
        """Return the frames of a file, or raise what the worker raised."""
        try:
            pickle.dump((path, {**options, "max_pixels": self.max_pixels}), self._process.stdin)
            self._process.stdin.flush()
            result = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            self._process.kill()
            raise VideoError(path, _cause_of_death(self._process.wait()), _CURES) from error
        if isinstance(result, Exception):
            raise result
        return result


def _end(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):  # what was not sent
        process.stdin.close()
    process.stdout.close()


def _cause_of_death(status: int) -> str:
    if status == -signal.SIGALRM:
        return f"decoding one frame took more than {SECONDS} s"
    name = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return f"it crashed the decoder ({name})"


def serve() -> NoReturn:
    """Store the frames of the files that stdin names, until it ends."""
    # The parent decides what an interrupt means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests, results = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # Nothing that a library prints may come between the results.
    cv2.setNumThreads(1)
    _limit_memory()
    pickle.dump("ready", results)
    results.flush()
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            path, options = pickle.load(requests)
            signal.alarm(SECONDS)
            result = _result(path, options)
            signal.alarm(0)
            pickle.dump(result, results, protocol=pickle.HIGHEST_PROTOCOL)
            results.flush()
    os._exit(0)


def _result(path: str, options: dict[str, Any]) -> StoredFrames | Exception:
    try:
        return store_frames(path, **options, tick=lambda: signal.alarm(SECONDS))
    except (VideoError, OSError) as error:
        return error
    except (MemoryError, cv2.error) as error:
        if isinstance(error, cv2.error) and error.code != cv2.Error.StsNoMem:
            return VideoError(path, f"OpenCV fails on it ({error.err})", _CURES)
    return VideoError(path, f"decoding it takes more than {MEMORY / 2**30:.0f} GiB of memory", _CURES)


def _limit_memory() -> None:
    """Limit the address space to what the libraries take and ``MEMORY``, where the system can."""
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    except OSError:
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = taken + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit if hard == resource.RLIM_INFINITY else min(limit, hard), hard))

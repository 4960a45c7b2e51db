"""Animations as files: WebP, GIF, and video that a browser plays."""

import contextlib
import itertools
import logging
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator

import cv2
import numpy as np

FORMATS = (".webp", ".gif", ".mp4")

_log = logging.getLogger(__name__)


def write_animation(path: pathlib.Path, frames: Iterable[np.ndarray], *, fps: float) -> pathlib.Path:
    """Write RGB uint8 frames (h, w, 3) of one size with even sides, in the format of the extension.

    ``.webp`` and ``.gif`` repeat for ever. ``.mp4`` is H.264, 4:2:0, with its index at the start. Without an encoder
    for it, the file is a ``.webm`` in VP8, and a warning says so. Browsers play both.

    Returns:
        The path of the file.

    Raises:
        ValueError: if there are no frames, the extension is another one, or the file cannot be written.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: there are no frames to write, expected one or more")
    frames = itertools.chain([first], frames)
    kind = path.suffix.lower()
    if kind in (".webp", ".gif"):
        _write_images(path, frames, fps=fps)
    elif kind == ".mp4":
        encoder = _encoder()
        if encoder is None:
            _log.warning("%s: there is no H.264 encoder (package imageio-ffmpeg), so it is written as .webm", path)
            path = path.with_suffix(".webm")
            _write_webm(path, frames, size=first.shape[1::-1], fps=fps)
            return path
        _write_h264(path, frames, encoder=encoder, size=first.shape[1::-1], fps=fps)
    else:
        raise ValueError(f"{path}: an animation has one of the extensions {', '.join(FORMATS)}")
    return path


def _encoder() -> str | None:
    """Return the path of ffmpeg, or None without it."""
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError):  # No package, or no program for this platform.
        return None


def _write_images(path: pathlib.Path, frames: Iterator[np.ndarray], *, fps: float) -> None:
    from PIL import Image

    first, *others = map(Image.fromarray, frames)
    options = {"quality": 88, "method": 4} if path.suffix.lower() == ".webp" else {"optimize": True}
    first.save(path, save_all=True, append_images=others, duration=round(1000 / fps), loop=0, **options)


def _write_h264(
    path: pathlib.Path, frames: Iterator[np.ndarray], *, encoder: str, size: tuple[int, int], fps: float
) -> None:
    given = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{size[0]}x{size[1]}", "-r", f"{fps}", "-i", "pipe:"]
    made = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "18", "-movflags", "+faststart"]
    command = [encoder, "-y", "-loglevel", "error", *given, *made, str(path.absolute())]
    # With close_fds the process would be forked, which is unsafe beside the threads of JAX.
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, close_fds=False)
    with contextlib.suppress(BrokenPipeError):  # The encoder ended early; its message says why.
        for frame in frames:
            process.stdin.write(frame.tobytes())
    _, message = process.communicate()
    if process.returncode:
        *_, reason = message.decode(errors="replace").splitlines() or [f"status {process.returncode}"]
        raise ValueError(f"{path} cannot be written ({reason}): give a path in a writable folder")


def _write_webm(path: pathlib.Path, frames: Iterator[np.ndarray], *, size: tuple[int, int], fps: float) -> None:
    # OpenCV crashes on names that are not UTF-8.
    with tempfile.TemporaryDirectory() as folder:
        made = pathlib.Path(folder, "made.webm")
        writer = cv2.VideoWriter(str(made), cv2.VideoWriter_fourcc(*"VP80"), fps, size)
        for frame in frames:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        writer.release()
        shutil.copy(made, path)

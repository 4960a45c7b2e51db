"""JPEG bytes and video files to RGB uint8 frames, with libjpeg-turbo and OpenCV: the one place that knows codecs."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

# FFmpeg reports every damaged packet on stderr; what matters of it comes back as VideoError or `damaged` below.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np
import simplejpeg

from motion_jax.data.storage.containers import video_streams

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
_NO_FRAME = "no video frame can be decoded"
# A failed read may be a damaged packet in the middle or the end of the file: so many in a row are the end.
_READ_ATTEMPTS = 64
# Seeking goes by average frame rate, so aim so many seconds before; times are equal within half a millisecond.
_AHEAD, _SAME = 1.0, 0.0005


class VideoError(ValueError):
    """A video that gives no frame; the message names the file, the reason and the cure."""

    def __init__(self, path: str | os.PathLike, reason: str, cure: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}; {cure}")
        self.path = os.fspath(path)
        self.reason = reason
        self.cure = cure

    def __reduce__(self) -> tuple:
        # The default rebuilds from the message alone and would not cross a process border.
        return type(self), (self.path, self.reason, self.cure)


class Video:
    """A video being read: iterate it once for RGB uint8 frames (h, w, 3), all of one size, in presentation order.

    Attributes:
        path: the file, or the folder of frames.
        fps: frames per second on average; 0.0 where unknown (folders of frames).
        stream: which of the file's video streams is read: always 0, the first.
        streams: number of the file's video streams; None where its container does not say.
        declared: number of frames the header states or lets us estimate; None where it says nothing.
        decoded: number of frames read until now.
        damaged: whether a packet in the middle of the file could not be decoded.
    """

    stream = 0

    def __init__(
        self,
        path: Path,
        frames: Iterator[np.ndarray],
        *,
        fps: float,
        declared: int | None,
        streams: int | None = None,
    ) -> None:
        self.path = path
        self.fps = fps
        self.streams = streams
        self.declared = declared
        self.decoded = 0
        self.damaged = False
        self._frames = frames

    def __iter__(self) -> Iterator[np.ndarray]:
        shape = None
        for frame in self._frames:
            if frame is None:
                self.damaged = True
                continue
            shape = shape or frame.shape
            if frame.shape != shape:
                # Streams may change size midway; a clip is one array.
                frame = cv2.resize(frame, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
            self.decoded += 1
            yield frame
        if self.decoded == 0:
            raise VideoError(self.path, _NO_FRAME, "replace it, or convert it to H.264 if its codec is unusual")

    @property
    def incomplete(self) -> bool:
        """After the last frame: whether frames are missing.

        Headers estimate, and count empty packets: two frames or 5 % less than declared are no sign of damage.
        """
        missing = (self.declared or 0) - self.decoded
        return self.damaged or missing > max(2, 0.05 * self.decoded)


def read_video(path: str | os.PathLike, *, seconds: tuple[float, float] | None = None) -> Video:
    """Open a video file in any container OpenCV's FFmpeg reads, or a folder of frames.

    Files are judged by content, not by extension. Rotation flags are honoured, gray becomes three equal channels,
    deeper pixels become 8 bits. Of several video streams the first is read. A folder's images are taken in natural
    order (2 before 10).

    Args:
        path: the file or folder.
        seconds: (start, end) of the part to read: the frames shown from start on and before end, by their time stamps;
            None reads all. Folders have no times.

    Raises:
        ValueError: (:class:`VideoError`) if there is nothing to read: at once where the file cannot be opened, at the
            first frame where it opens and does not decode.
    """
    path = Path(path)
    if path.is_dir():
        if seconds is not None:
            raise VideoError(path, "a folder of frames has no times to cut by", "give the video file")
        return _read_folder(path)
    if not path.is_file():
        raise VideoError(path, "there is no such file", "check the path")
    if path.stat().st_size == 0:
        raise VideoError(path, "the file is empty (0 bytes)", "fetch it again or remove it")
    # One thread per file: whoever reads many files reads them side by side.
    capture = cv2.VideoCapture(str(path.absolute()), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise VideoError(
            path,
            "it holds no readable video stream (not a video, cut off before its index, or sound only)",
            "fetch it again, convert it to H.264 in MP4, or remove it",
        )
    declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if np.isfinite(fps) and fps > 0 else 0.0
    if seconds is not None:
        declared = round((seconds[1] - seconds[0]) * fps)
    return Video(
        path,
        _read_frames(capture, seconds),
        fps=fps,
        declared=declared if declared > 0 else None,
        streams=video_streams(path),
    )


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Sorting key under which numbers inside names count as numbers.

    >>> sorted(["f10.jpg", "f2.jpg"], key=natural_order)
    ['f2.jpg', 'f10.jpg']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", name) if part]


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder in natural order."""
    files = [
        file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    return sorted(files, key=lambda file: (natural_order(file.name), file.name))


def encode_jpeg(frame: np.ndarray, *, quality: int = 95) -> bytes:
    """RGB uint8 (h, w, 3) as JPEG bytes."""
    done, data = cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError(
            f"a frame of shape {frame.shape} and dtype {frame.dtype} cannot be a JPEG: pass uint8 (h, w, 3)"
        )
    return data.tobytes()


def decode_jpeg(data: bytes) -> np.ndarray:
    """Bytes of a JPEG, or of any image OpenCV reads, as RGB uint8 (h, w, 3).

    Raises:
        ValueError: if the bytes are no image.
    """
    # libjpeg-turbo's own interface takes a fifth less time than OpenCV for the same pixels. It knows no orientation and
    # is stricter: what it refuses, OpenCV judges. An orientation stands before the start of scan.
    if data[:2] == b"\xff\xd8" and b"Exif" not in data[: data.find(b"\xff\xda")]:
        with contextlib.suppress(ValueError):
            return simplejpeg.decode_jpeg(data)
    # imdecode throws on empty input and on a header that promises a gigapixel, and returns None on what it cannot read.
    frame = None
    with contextlib.suppress(cv2.error):
        frame = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
    if frame is None:
        raise ValueError(
            f"{len(data)} bytes do not decode as an image: the record is damaged, prepare the data set again"
        )
    return frame


def _read_frames(capture: cv2.VideoCapture, seconds: tuple[float, float] | None = None) -> Iterator[np.ndarray | None]:
    """RGB frames, with None in place of damaged packets between them."""
    start, end = seconds or (0.0, np.inf)
    sought = start > _AHEAD
    try:
        failed = 0
        if sought:
            capture.set(cv2.CAP_PROP_POS_MSEC, (start - _AHEAD) * 1000)
        while failed < _READ_ATTEMPTS:
            done, frame = capture.read()
            if not done:
                failed += 1
                continue
            if seconds is not None:
                time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if sought and time > start:
                    # It landed too far: begin at the beginning.
                    capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                    sought = False
                    continue
                sought = False
                if time < start - _SAME:
                    continue
                if time >= end - _SAME:
                    break
            if failed:
                yield None
            failed = 0
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    finally:
        capture.release()


def _read_folder(folder: Path) -> Video:
    files = frame_files(folder)
    if not files:
        raise VideoError(
            folder, "the folder holds no images", f"put frames there ({', '.join(sorted(IMAGE_SUFFIXES))}) or remove it"
        )

    def frames() -> Iterator[np.ndarray | None]:
        for file in files:
            try:
                yield decode_jpeg(file.read_bytes())
            except ValueError:
                yield None

    return Video(folder, frames(), fps=0.0, declared=len(files))

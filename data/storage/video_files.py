"""Video files and folders of frames: reading, writing, and conversion to the frames of a record, with OpenCV."""

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

# FFmpeg reports every damaged packet on stderr. What matters is reported as VideoError or `Video.damaged`.
os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")

import cv2
import numpy as np

from motion_jax.data.config import MAX_PIXELS
from motion_jax.data.storage.frames import UnreadableError, decode_jpeg, encode_jpeg, resize, scaled_size
from motion_jax.data.storage.image_size import image_size

cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})
# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v", ".m4v", ".mjpeg", ".mjpg",
    ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv", ".ts", ".vob", ".webm", ".wmv", ".y4m",
})
# fmt: on
# FFmpeg opens the files and addresses that such a text names: concat, HLS, SDP, DASH and IMF.
_PLAYLIST = re.compile(rb"\s*(ffconcat|#EXTM3U|\[playlist\]|v=0\s|<\?xml|<MPD|<CompositionPlaylist)|(?s:.*)\nc=IN IP")
# A failed read may be a damaged packet in the middle of the file. This many failures in a row mean the end.
_READ_ATTEMPTS = 64
# OpenCV seeks by the average frame rate: aim this many seconds before the start.
_SEEK_MARGIN = 1.0
# Time stamps within half a millisecond are equal.
_TIME_TOLERANCE = 0.0005


class VideoError(ValueError):
    """A video without a readable frame. The message names the file, the reason and the cure."""

    def __init__(self, path: str | os.PathLike, reason: str, cure: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}; {cure}")
        self.path = os.fspath(path)
        self.reason = reason
        self.cure = cure

    def __reduce__(self) -> tuple:
        # The default passes the message alone, which would not cross a process border.
        return type(self), (self.path, self.reason, self.cure)


class Video:
    """An open video. Iterate it once for RGB uint8 frames (h, w, 3) of one size in presentation order.

    Attributes:
        path: the file, or the folder of frames.
        fps: average frames per second; 0.0 where unknown (folders of frames).
        declared: number of frames the header states or allows to estimate; None where it states nothing.
        decoded: number of frames read so far.
        damaged: whether a packet in the middle of the file could not be decoded.
    """

    def __init__(self, path: Path, frames: Iterator[np.ndarray | None], *, fps: float, declared: int | None) -> None:
        self.path = path
        self.fps = fps
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
                # The size of a stream may change, but a clip is one array.
                frame = cv2.resize(frame, (shape[1], shape[0]), interpolation=cv2.INTER_LINEAR)
            self.decoded += 1
            yield frame
        if self.decoded == 0:
            cure = "replace it, or convert it to H.264 if its codec is unusual"
            raise VideoError(self.path, "no video frame can be decoded", cure)

    @property
    def incomplete(self) -> bool:
        """Whether frames are missing; valid after the last frame.

        Headers estimate the number of frames and count empty packets, so a difference of two frames or 5 % is allowed.
        """
        missing = (self.declared or 0) - self.decoded
        return self.damaged or missing > max(2, 0.05 * self.decoded)


def read_video(
    path: str | os.PathLike,
    *,
    seconds: tuple[float, float] | None = None,
    max_pixels: int = MAX_PIXELS,
    tick: Callable[[], object] = lambda: None,
) -> Video:
    """Open a video file in any container that OpenCV's FFmpeg reads, or a folder of frames.

    The content of a file decides, not its extension. Rotation flags are applied, gray becomes three equal channels,
    and deeper pixels become 8 bits. If there are several video streams, the first is read. The images of a folder are
    taken in natural order (2 before 10).

    Args:
        path: the file or folder.
        seconds: (start, end) of the part to read, by time stamps: frames shown at start or later and before end. None
            reads all. Folders have no times.
        max_pixels: frames that declare more are refused before they are decoded.
        tick: called before each frame, also before those that ``seconds`` leaves out.

    Raises:
        VideoError: if there is nothing to read. It is raised at once where the file cannot be opened, and at the first
            frame where the file opens but does not decode.
        OSError: if the file system refuses to tell what the path is.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:  # ValueError: a null character in the name
        raise VideoError(path, "there is no such file", "check the path") from error
    if stat.S_ISDIR(status.st_mode):
        if seconds is not None:
            raise VideoError(path, "a folder of frames has no times to cut by", "give the video file")
        return _read_folder(path, max_pixels=max_pixels, tick=tick)
    if not stat.S_ISREG(status.st_mode):
        raise VideoError(path, "it is a pipe, a socket or a device, not a file", "give a file, or remove it")
    if status.st_size == 0:
        raise VideoError(path, "the file is empty (0 bytes)", "fetch it again or remove it")
    with path.open("rb") as file:
        if _PLAYLIST.match(file.read(1024).removeprefix(b"\xef\xbb\xbf")):
            raise VideoError(path, "it is a list of other files or addresses, not a video", "give the videos it names")
    # One thread per file: callers with many files read several files at a time.
    with _utf8_name(path) as name:
        capture = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        reason = "it holds no readable video stream (not a video, cut off before its index, or sound only)"
        raise VideoError(path, reason, "fetch it again, convert it to H.264 in MP4, or remove it")
    size = (int(capture.get(side)) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
    _check_pixels(path, *size, max_pixels=max_pixels)
    declared = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    fps = capture.get(cv2.CAP_PROP_FPS)
    fps = fps if np.isfinite(fps) and fps > 0 else 0.0
    if seconds is not None:
        declared = round((seconds[1] - seconds[0]) * fps)
    return Video(path, _read_frames(capture, seconds, tick), fps=fps, declared=declared if declared > 0 else None)


@dataclass(frozen=True)
class StoredFrames:
    """A video as a record holds it: JPEG bytes of each frame, and average frames per second (0.0 where unknown).

    ``remark`` is what is unusual about a video that is used nevertheless, or "".
    """

    frames: list[bytes]
    fps: float
    remark: str


def store_frames(
    path: str | os.PathLike,
    *,
    resize_to: tuple[int, int] | int | None,
    quality: int = 95,
    seconds: tuple[float, float] | None = None,
    max_pixels: int = MAX_PIXELS,
    tick: Callable[[], object] = lambda: None,
) -> StoredFrames:
    """Read a video file or a folder of frames, and resize and encode every frame.

    Args:
        path, seconds, max_pixels, tick: as for :func:`read_video`.
        resize_to: (height, width), or the short side with the aspect kept, or None for the size of the file.
        quality: JPEG quality, 1 to 100.

    Raises:
        VideoError: if no frame can be read.
    """
    frames = []
    video = read_video(path, seconds=seconds, max_pixels=max_pixels, tick=tick)
    for frame in video:
        try:
            frames.append(stored_frame(frame, resize_to=resize_to, quality=quality))
        except ValueError as error:
            raise VideoError(path, f"a frame of {frame.shape[1]}x{frame.shape[0]} is too large", "cut it") from error
    remark = f"{video.decoded} of {video.declared} declared frames can be decoded" if video.incomplete else ""
    return StoredFrames(frames, video.fps, remark)


def stored_frame(frame: np.ndarray, *, resize_to: tuple[int, int] | int | None, quality: int) -> bytes:
    """Return a frame, uint8 (h, w, 3), as a record holds it: resized, as JPEG bytes.

    Raises:
        ValueError: if the frame is too large for a JPEG.
    """
    if resize_to is not None:
        height, width = scaled_size(*frame.shape[:2], resize=resize_to)
        frame = resize(frame, height=height, width=width)
    return encode_jpeg(frame, quality=quality)


def find_videos(folder: str | os.PathLike) -> list[Path]:
    """Return all videos below a folder in natural order: files with a video extension, and folders of images.

    A folder that holds images and no video files is one video; this may be ``folder`` itself. Hidden files and folders
    are ignored. A folder that several links lead to is searched once.

    Raises:
        ValueError: if there are none.
    """
    videos: list[Path] = []
    searched = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        status = os.stat(place)
        if (status.st_dev, status.st_ino) in searched:
            folders.clear()
            continue
        searched.add((status.st_dev, status.st_ino))
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = [name for name in names if not name.startswith(".") and Path(name).suffix.lower() in VIDEO_SUFFIXES]
        if files:
            videos += [Path(place, name) for name in files]
        elif frame_files(Path(place)):
            videos.append(Path(place))
    if not videos:
        raise ValueError(f"{folder} holds neither videos nor frames of one: give files or a folder with some below it")
    return sorted(videos, key=lambda path: (natural_order(str(path)), str(path)))


def natural_order(name: str) -> list[tuple[int, int | str]]:
    """Return a sorting key that compares the numbers inside names as numbers.

    >>> sorted(["f10.jpg", "f2.jpg"], key=natural_order)
    ['f2.jpg', 'f10.jpg']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part.lower()) for part in re.split(r"(\d+)", name) if part]


def frame_files(folder: Path) -> list[Path]:
    """Return the images of a folder in natural order; pipes and devices are no images."""
    files = [file for file in folder.iterdir() if not file.name.startswith(".")]
    files = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()]
    return sorted(files, key=lambda file: (natural_order(file.name), file.name))


@contextlib.contextmanager
def _utf8_name(path: Path) -> Iterator[str]:
    """Give an absolute name of a file that is valid UTF-8: OpenCV crashes on others."""
    path = path.absolute()
    try:
        yield os.fsencode(path).decode()
    except UnicodeDecodeError:
        with tempfile.TemporaryDirectory(prefix="motion_jax") as folder:
            # FFmpeg may ask for the extension.
            link = Path(folder, f"video{path.suffix if path.suffix.lower() in VIDEO_SUFFIXES else ''}")
            link.symlink_to(path)
            yield str(link)


def _check_pixels(path: Path, width: int, height: int, *, max_pixels: int, file: str = "it") -> None:
    if width * height > max_pixels:
        reason = f"{file} declares {width}x{height} pixels, more than data.max_pixels = {max_pixels}"
        raise VideoError(path, reason, "shrink it, remove it, or raise data.max_pixels")


def _read_frames(
    capture: cv2.VideoCapture, seconds: tuple[float, float] | None, tick: Callable[[], object]
) -> Iterator[np.ndarray | None]:
    """Yield RGB frames, with None in place of each run of damaged packets between them."""
    start, end = seconds or (0.0, np.inf)
    sought = start > _SEEK_MARGIN
    try:
        failed = 0
        if sought:
            capture.set(cv2.CAP_PROP_POS_MSEC, (start - _SEEK_MARGIN) * 1000)
        while failed < _READ_ATTEMPTS:
            tick()
            done, frame = capture.read()
            if not done:
                failed += 1
                continue
            if seconds is not None:
                time = capture.get(cv2.CAP_PROP_POS_MSEC) / 1000
                if sought and time > start:
                    # The seek went too far: read from the beginning.
                    capture.set(cv2.CAP_PROP_POS_FRAMES, 0)
                    sought = False
                    continue
                sought = False
                if time < start - _TIME_TOLERANCE:
                    continue
                if time >= end - _TIME_TOLERANCE:
                    break
            if failed:
                yield None
            failed = 0
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if frame.ndim == 3 else cv2.cvtColor(frame, cv2.COLOR_GRAY2RGB)
    finally:
        capture.release()


def _read_folder(folder: Path, *, max_pixels: int, tick: Callable[[], object]) -> Video:
    files = frame_files(folder)
    if not files:
        cure = f"put frames there ({', '.join(sorted(IMAGE_SUFFIXES))}) or remove it"
        raise VideoError(folder, "the folder holds no images", cure)

    def frames() -> Iterator[np.ndarray | None]:
        for file in files:
            tick()
            data = file.read_bytes()
            _check_pixels(folder, *(image_size(data) or (0, 0)), max_pixels=max_pixels, file=file.name)
            try:
                yield decode_jpeg(data)
            except UnreadableError:
                yield None

    return Video(folder, frames(), fps=0.0, declared=len(files))

"""The frames of a video as a prepared data set keeps them: resized on the way in, as JPEG bytes."""

import os
from dataclasses import dataclass

from motion_jax.data.clips import transforms
from motion_jax.data.storage.decoding import VideoError, encode_jpeg, read_video


@dataclass(frozen=True)
class StoredFrames:
    """A video as a record holds it.

    Attributes:
        frames: JPEG bytes, one per frame, in presentation order.
        fps: frames per second on average; 0.0 where unknown.
        remark: what is odd about a video that is used all the same; empty if nothing is.
    """

    frames: list[bytes]
    fps: float
    remark: str


def store_frames(
    path: str | os.PathLike,
    *,
    resize: tuple[int, int] | int | None,
    quality: int = 95,
    seconds: tuple[float, float] | None = None,
) -> StoredFrames:
    """Read a video file or a folder of frames, resize and encode every frame.

    Args:
        path: see :func:`read_video`.
        resize: frame size to store: (height, width), or the short side with the aspect kept, or None as filmed.
        quality: of the JPEGs, 1 to 100.
        seconds: (start, end) of the part to store; None is all.

    Raises:
        ValueError: (:class:`VideoError`) if no frame can be read.
    """
    frames = []
    video = read_video(path, seconds=seconds)
    for frame in video:
        if resize is not None:
            height, width = transforms.scaled_size(*frame.shape[:2], resize=resize)
            frame = transforms.resize(frame, height=height, width=width)
        try:
            frames.append(encode_jpeg(frame, quality=quality))
        except ValueError as error:
            raise VideoError(path, f"a frame of {frame.shape[1]}x{frame.shape[0]} is too large", "cut it") from error
    remarks = []
    if video.incomplete:
        remarks.append(f"{video.decoded} of {video.declared} declared frames can be decoded")
    if (video.streams or 1) > 1:
        remarks.append(f"the first of its {video.streams} video streams is read")
    return StoredFrames(frames, video.fps, "; ".join(remarks))

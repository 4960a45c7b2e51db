"""Videos that a command is given: files, folders and lists, some of which may be unreadable."""

import os
from collections.abc import Iterable
from pathlib import Path

from motion_jax.data.clips.single_video import read_single
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.video_files import StoredFrames, VideoError, find_videos


def list_videos(given: Iterable[Path]) -> list[Path]:
    """Return the videos that files, folders and ``.txt`` lists of paths stand for, each once.

    Raises:
        ValueError: if a folder or a list stands for none.
    """
    files: dict[Path, None] = {}
    for path in given:
        if path.is_dir():
            files.update(dict.fromkeys(find_videos(path)))
        elif path.suffix == ".txt" and path.is_file():
            # A name may hold any bytes but a line feed.
            lines = [os.fsdecode(line.strip()) for line in path.read_bytes().split(b"\n")]
            if not any(lines):
                raise ValueError(f"the list {path} is empty; write one path per line")
            files.update(dict.fromkeys(Path(line) for line in lines if line))
        else:
            files[path] = None
    return list(files)


def try_read(path: str | os.PathLike, section: DataConfig) -> StoredFrames | str:
    """Return the stored frames of a video, or the reason why it cannot be read, with a remedy."""
    try:
        return read_single(path, section)
    except VideoError as error:
        return f"{error.reason}; {error.cure}"
    except OSError as error:
        return error.strerror or str(error)

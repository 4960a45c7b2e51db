"""Choice of the frames of a clip. Indices are 0-based; random draws are an argument.

A draw is a function that returns a uniform integer in [0, k) for a positive integer k, such as
``numpy_generator.integers``, ``numpy_random_state.randint`` and ``python_random.randrange``.
"""

from collections.abc import Callable

import numpy as np

from motion_jax.data.config import WINDOW

Draw = Callable[[int], int]


def segment_train(num_frames: int, segments: int, *, draw: Draw) -> np.ndarray:
    """Draw one frame of each of ``segments`` equal parts of the video: int64 (segments,).

    A part is ``num_frames // segments`` frames long; frames after the last part are never drawn. A video with fewer
    frames than segments repeats its first frame.

    Source: MotionSqueeze, dataset.py, ``_sample_indices`` (there 1-based).

    >>> segment_train(17, 8, draw=lambda k: k - 1).tolist()
    [1, 3, 5, 7, 9, 11, 13, 15]
    """
    _check(num_frames, segments)
    length = num_frames // segments
    if length == 0:
        return np.zeros(segments, np.int64)
    return np.array([segment * length + int(draw(length)) for segment in range(segments)], np.int64)


def segment_test(num_frames: int, segments: int, *, clips: int) -> np.ndarray:
    """Return evenly spaced frames of the whole video, with another phase for each clip: int64 (clips, segments).

    With ``tick = num_frames / segments`` clip ``c`` takes frames ``int(tick * (phase + i))``, where phase is
    ``(1/2 + c / clips) mod 1``: one clip takes the middle of each segment, two clips the middles and the starts. These
    are the official one-clip and two-clip protocols. Short videos repeat frames.

    Source: MotionSqueeze and TSM, dataset.py, ``_get_test_indices`` (there 1-based, at most two clips).

    >>> segment_test(5, 8, clips=1).tolist()
    [[0, 0, 1, 2, 2, 3, 4, 4]]
    >>> segment_test(16, 4, clips=2).tolist()
    [[2, 6, 10, 14], [0, 4, 8, 12]]
    """
    _check(num_frames, segments, clips)
    tick = num_frames / segments
    phases = [(0.5 + clip / clips) % 1.0 for clip in range(clips)]
    return np.array([[int(tick * phase + tick * i) for i in range(segments)] for phase in phases], np.int64)


def dense_train(num_frames: int, frames: int, *, draw: Draw) -> np.ndarray:
    """Draw a 64-frame window and take every ``64 // frames``-th frame of it: int64 (frames,).

    The start lies in [0, num_frames - 64), or is 0 if the video has at most 64 frames; indices wrap around at
    the end of the video. The official code validates with this too.

    Source: MotionSqueeze, dataset.py, ``_sample_indices`` with dense sampling (there 1-based).

    >>> dense_train(80, 8, draw=lambda k: k - 1).tolist()
    [15, 23, 31, 39, 47, 55, 63, 71]
    """
    _check(num_frames, frames)
    start = int(draw(num_frames - WINDOW)) if num_frames > WINDOW else 0
    return _window(num_frames, frames, start)


def dense_test(num_frames: int, frames: int, *, clips: int) -> np.ndarray:
    """Return ``clips`` 64-frame windows with evenly spaced starts: int64 (clips, frames).

    Starts are ``clips`` integers from 0 to ``num_frames - 64``, both included, rounded down; ten are the official
    protocol. A single clip is the middle window; the official formula would give the first.

    Source: MotionSqueeze, dataset.py, ``_get_test_indices`` with dense sampling (there 1-based, ten clips).

    >>> dense_test(100, 4, clips=2).tolist()
    [[0, 16, 32, 48], [36, 52, 68, 84]]
    """
    _check(num_frames, frames, clips)
    last = max(0, num_frames - WINDOW)
    starts = [last // 2] if clips == 1 else np.linspace(0, last, clips, dtype=np.int64)
    return np.stack([_window(num_frames, frames, int(start)) for start in starts])


def _window(num_frames: int, frames: int, start: int) -> np.ndarray:
    if frames > WINDOW:
        raise ValueError(f"dense sampling takes at most {WINDOW} frames of a {WINDOW}-frame window, not {frames}")
    return (start + np.arange(frames, dtype=np.int64) * (WINDOW // frames)) % num_frames


def _check(num_frames: int, frames: int, clips: int = 1) -> None:
    if num_frames < 1:
        raise ValueError(f"a video of {num_frames} frames cannot be sampled: leave it out of the data set")
    if frames < 1 or clips < 1:
        raise ValueError(f"clips = {clips} and frames = {frames}: both must be at least 1")

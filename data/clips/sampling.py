"""Which frames of a video make a clip. Indices are 0-based; random draws come in as an argument.

A draw is a function of one positive integer k that returns a uniform integer in [0, k): ``numpy_generator.integers``,
``numpy_random_state.randint`` and ``python_random.randrange`` all are one.
"""

from collections.abc import Callable

import numpy as np

Draw = Callable[[int], int]

WINDOW = 64
"""Frames a dense clip spans."""


def segment_train(num_frames: int, segments: int, *, draw: Draw) -> np.ndarray:
    """One random frame of each of ``segments`` equal parts of the video: int64 (segments,).

    A part is ``num_frames // segments`` frames long; frames past the last part are never drawn. A video with fewer
    frames than segments gives its first frame, repeated.

    Source: MotionSqueeze, dataset.py, ``_sample_indices`` (there 1-based).

    >>> segment_train(17, 8, draw=lambda k: k - 1).tolist()
    [1, 3, 5, 7, 9, 11, 13, 15]
    """
    _check(num_frames, segments)
    length = num_frames // segments
    if length == 0:
        return np.zeros(segments, np.int64)
    return np.array([segment * length + int(draw(length)) for segment in range(segments)], np.int64)


def segment_val(num_frames: int, segments: int) -> np.ndarray:
    """The middle frame of each segment, or the first frame repeated unless the video has more frames than segments.

    What the official loops validate with, int64 (segments,). :func:`segment_test` treats short videos better.

    Source: MotionSqueeze, dataset.py, ``_get_val_indices`` (there 1-based).

    >>> segment_val(5, 8).tolist(), segment_val(12, 4).tolist()
    ([0, 0, 0, 0, 0, 0, 0, 0], [1, 4, 7, 10])
    """
    if num_frames > segments:
        return segment_test(num_frames, segments, clips=1)[0]
    _check(num_frames, segments)
    return np.zeros(segments, np.int64)


def segment_test(num_frames: int, segments: int, *, clips: int) -> np.ndarray:
    """Evenly spaced frames of the whole video, ``clips`` times with another phase: int64 (clips, segments).

    With ``tick = num_frames / segments`` clip ``c`` takes frames ``int(tick * (phase + i))``, where phase is
    ``(1/2 + c / clips) mod 1``: one clip takes the middle of each segment, two clips the middles and the starts, which
    are the official one-clip and two-clip protocols. Short videos repeat frames.

    Source: MotionSqueeze and TSM, dataset.py, ``_get_test_indices`` (there 1-based); more than two clips are ours.

    >>> segment_test(5, 8, clips=1).tolist()
    [[0, 0, 1, 2, 2, 3, 4, 4]]
    >>> segment_test(16, 4, clips=2).tolist()
    [[2, 6, 10, 14], [0, 4, 8, 12]]
    """
    _check(num_frames, segments, clips)
    tick = num_frames / segments
    return np.array(
        [[int(tick * ((0.5 + clip / clips) % 1.0) + tick * i) for i in range(segments)] for clip in range(clips)],
        np.int64,
    )


def dense_train(num_frames: int, frames: int, *, draw: Draw) -> np.ndarray:
    """Every ``64 // frames``-th frame of a 64-frame window at a random start: int64 (frames,).

    The start lies in [0, num_frames - 64), or is 0 where the window is as long as the video or longer; indices wrap
    round at the end of the video. The official loops validate with this too.

    Source: MotionSqueeze, dataset.py, ``_sample_indices`` with dense sampling (there 1-based).

    >>> dense_train(80, 8, draw=lambda k: k - 1).tolist()
    [15, 23, 31, 39, 47, 55, 63, 71]
    """
    _check(num_frames, frames)
    start = int(draw(num_frames - WINDOW)) if num_frames > WINDOW else 0
    return _window(num_frames, frames, start)


def dense_test(num_frames: int, frames: int, *, clips: int) -> np.ndarray:
    """``clips`` 64-frame windows with evenly spaced starts: int64 (clips, frames).

    Starts are ``clips`` integers from 0 to ``num_frames - 64``, both included, rounded down; ten are the official
    protocol. A single clip is the middle window, where the official formula would give the first.

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
        raise ValueError(
            f"dense sampling takes at most {WINDOW} frames of a {WINDOW}-frame window, but {frames} were asked for"
        )
    return (start + np.arange(frames, dtype=np.int64) * (WINDOW // frames)) % num_frames


def _check(num_frames: int, frames: int, clips: int = 1) -> None:
    if num_frames < 1:
        raise ValueError(f"a video of {num_frames} frames cannot be sampled: leave it out of the data set")
    if frames < 1 or clips < 1:
        raise ValueError(f"{clips} clips of {frames} frames were asked for: both must be at least 1")

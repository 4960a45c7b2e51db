"""Pictures and videos of a prediction: frames, displacement and predicted class."""

import itertools
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from motion_jax.inspection.displacement import draw_field, scale_of

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLUMNS = 8
_SIDE = 3.2  # inches per panel of a video
_DPI = 100


def prediction_figure(frames: np.ndarray, displacement: np.ndarray | None, *, title: str) -> "Figure":
    """Draw the frames of a clip, each above the displacement to the next frame.

    Args:
        frames: frames (t, H, W, 3) uint8.
        displacement: fields (t-1, h, w, 2) in pixels, or None.
        title: the prediction.
    """
    bands = 1 if displacement is None else 2
    rows = -(-len(frames) // _COLUMNS)
    columns = min(len(frames), _COLUMNS)
    figure = _figure(1.5 * max(columns, 3), 1.5 * rows * bands + 0.4, title)
    axes = figure.subplots(rows * bands, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    for index, frame in enumerate(frames):
        row, column = divmod(index, _COLUMNS)
        axes[row * bands, column].imshow(frame)
        if displacement is not None and index < len(displacement):
            _draw(axes[row * bands + 1, column], displacement[index], frame, scale_of(displacement))
    return figure


def prediction_frames(
    frames: Iterable[np.ndarray], displacement: np.ndarray | None, pairs: Iterable[int], *, title: str
) -> Iterator[np.ndarray]:
    """Yield the frames of a video with the prediction above and the displacement beside them.

    Frames are uint8 (h, w, 3) of one size with even sides.

    Args:
        frames: frames (H, W, 3) uint8.
        displacement: fields (p, h, w, 2) in pixels, or None.
        pairs: for each frame, the index of its field.
        title: the prediction.
    """
    frames = iter(frames)
    first = next(frames)
    panels = 1 if displacement is None else 2
    figure = _figure(_SIDE * panels, _SIDE + 0.4, title)
    left, *right = figure.subplots(1, panels, squeeze=False)[0]
    left.set_axis_off()
    shown = left.imshow(first)
    drawn, artists = None, ()
    for frame, pair in zip(itertools.chain([first], frames), pairs, strict=True):
        shown.set_data(frame)
        if displacement is not None and pair != drawn:
            for artist in artists:
                artist.remove()
            drawn, artists = pair, _draw(right[0], displacement[pair], frame, scale_of(displacement))
        figure.canvas.draw()
        figure.set_layout_engine("none")  # Keep the layout of the first frame: it is slow to compute.
        yield np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()


def _figure(width: float, height: float, title: str) -> "Figure":
    """Make an empty figure of a size in inches, with even numbers of pixels, which video codecs need."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(round(width * _DPI / 2) * 2 / _DPI, round(height * _DPI / 2) * 2 / _DPI), dpi=_DPI)
    figure.set_layout_engine("constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize="medium")
    return figure


def _draw(axis: "Axes", field: np.ndarray, frame: np.ndarray, longest: float) -> "tuple[Artist, Artist]":
    axis.set_axis_off()
    height, width = frame.shape[:2]
    artists = draw_field(axis, field, size=(height, width), longest=longest)
    axis.set(xlim=(0, width), ylim=(height, 0))
    return artists

"""Pictures of what a network sees, for papers and logs: a strip of one clip, an overview of several, an animation."""

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from motion_jax.inspection.colours import wheel_picture
from motion_jax.inspection.panels import (
    ACTIVATION_COLOURS,
    CONFIDENCE_COLOURS,
    DrawnClip,
    Painter,
    Panel,
    marked_cell,
)

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Inches and points.
_SMALLEST_PANEL = 0.5
_LABEL = 0.3
_MARGIN = 0.04
_GAP = 0.05
_LINE = 0.135
_SCALES = 0.52
_TEXT, _SMALL = 7.0, 6.0
_RIGHT, _WRONG, _OTHER = "#17703f", "#b3312a", "#8a857d"
_INK = "#1d1c1b"
_DPI = 200
# TrueType fonts in PDF, text as text in SVG.
_STYLE = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "motion-jax",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "text.color": _INK,
    "text.parse_math": False,
}


def strip(clip: DrawnClip, *, width: float, label: int | None = None, cell: tuple[int, int] | None = None) -> "Figure":
    """Draw one clip: a column per frame and a row per kind of panel.

    For a block without a displacement of its own, the last row shows the similarities of one cell. If the clip has more
    frames than fit at half an inch, evenly spaced ones are drawn, or the neighbours of that cell's frame.

    Args:
        clip: the clip.
        width: width of the picture in inches.
        label: class of the activation; the most probable one if None.
        cell: row and column of the cell whose similarities are drawn; the one that moves most if None.
    """
    with _style():
        painter = Painter([clip], label=label)
        rows = [(name, lambda frame, name=name: painter.panel(name, clip, frame)) for name in painter.names]
        comparison = clip.seen.comparison
        if comparison and not comparison.estimated and "confidence" in painter.names:
            at, most = marked_cell(comparison)
            query, cell = int(comparison.frames[at]), cell or most
            rows.append(("similarity of a cell", lambda frame: painter.similarity(clip, frame, query=query, cell=cell)))
        total = len(clip.seen.frames)
        scales = _SCALES if len(rows) > 1 else 0
        room = width - _LABEL - scales
        columns = int(np.clip(room // _SMALLEST_PANEL, 1, total))
        if rows[-1][0].startswith("similarity"):  # Of neighbouring frames.
            frames = np.arange(columns) + int(np.clip(query - columns // 2, 0, total - columns))
        else:
            frames = np.unique(np.linspace(0, total - 1, columns).round().astype(int))
        side = min((room - _GAP * len(frames)) / len(frames), 2.0)
        high = side * clip.seen.frames.shape[1] / clip.seen.frames.shape[2]
        head = 3 * _LINE + _MARGIN
        page = _Page(width, head + len(rows) * (high + _GAP))
        _write_prediction(page, clip)
        for row, (name, panel) in enumerate(rows):
            top = head + row * (high + _GAP)
            style = {"rotation": 90, "va": "center", "ha": "right", "ma": "center"}
            style["size"] = _TEXT if high > 0.65 else _SMALL
            page.text(_LABEL - 0.06, top + high / 2, _broken(name), **style)
            for column, frame in enumerate(frames):
                left = _LABEL + column * (side + _GAP)
                if row == 0:
                    page.text(left + side / 2, head - 0.03, clip.time_of(frame), size=_SMALL, ha="center", va="bottom")
                if (drawn := panel(int(frame))) is not None:
                    show(page.axes(left, top, side, high), drawn)
            left = _LABEL + len(frames) * (side + _GAP) + 0.03
            _draw_scale(page, name, painter, left, top, min(high, 0.62), upright=True)
        return page.figure


def overview(
    clips: Sequence[DrawnClip], *, width: float, frame: int | None = None, label: int | None = None, most: int = 5
) -> "Figure":
    """Draw one row per clip: panels of one frame, and the most probable classes.

    Args:
        clips: the clips, of one network and one size.
        width: width of the picture in inches.
        frame: the frame that is drawn; None for the middle of the clip.
        label: class of the activation; the most probable one of each clip if None.
        most: largest number of classes.
    """
    with _style():
        return _Overview(clips, width=width, label=label, most=most).at(frame)


def animation(
    clips: Sequence[DrawnClip],
    moments: Iterable[tuple[int, Sequence[np.ndarray]]],
    *,
    width: float,
    label: int | None = None,
    dpi: int = 150,
) -> Iterator[np.ndarray]:
    """Yield the frames of an animated overview, RGB uint8 with even sides.

    Args:
        clips: the clips, of one network and one size.
        moments: for each frame of the animation the frame of the clips and the pictures to show, one per clip.
        width: width of the picture in inches.
        label: class of the activation; the most probable one of each clip if None.
        dpi: pixels per inch.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with _style():
        sheet = _Overview(clips, width=width, label=label, most=5)
        figure = sheet.page.figure
        figure.set_dpi(dpi)
        canvas = FigureCanvasAgg(figure)
    for frame, pictures in moments:
        with _style():
            sheet.at(frame, pictures)
            canvas.draw()
        image = np.asarray(canvas.buffer_rgba())[..., :3]
        yield image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2].copy()


def save(figure: "Figure", path: Any, *, kind: str | None = None) -> None:
    """Write a picture as PNG, SVG or PDF.

    Args:
        figure: the picture.
        path: a path or a file object.
        kind: ``"png"``, ``"svg"`` or ``"pdf"``; None for the extension of the path.
    """
    with _style():
        undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
        kind = kind or str(path).rpartition(".")[2].lower()
        figure.savefig(path, format=kind, dpi=_DPI, metadata=undated.get(kind))


def show(axis: "Axes", panel: Panel) -> "list[Artist]":
    """Draw a panel into axes that span one unit in both directions, and return what was drawn."""
    artists: list[Any] = [axis.imshow(panel.image, extent=(0, 1, 1, 0), aspect="auto", interpolation="antialiased")]
    if len(panel.arrows):
        x, y, dx, dy = panel.arrows.T
        paint = [(0.07, 0.07, 0.07, opacity) for opacity in 0.35 + 0.65 * panel.strength]
        options = {"angles": "xy", "scale_units": "xy", "scale": 1, "units": "width", "width": 0.016, "headwidth": 3.6}
        shape = {"headlength": 4, "headaxislength": 3.6, "minlength": 0.5, "color": paint}
        artists.append(axis.quiver(x, y, dx, dy, **options, **shape))
    if panel.box:
        x, y, width, height = panel.box
        artists += axis.plot([x, x + width, x + width, x, x], [y, y, y + height, y + height, y], color="white", lw=1.2)
    axis.set(xlim=(0, 1), ylim=(1, 0))
    return artists


class _Page:
    """A figure whose places are given in inches from the top left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height), facecolor="white")
        FigureCanvasAgg(self.figure)

    def axes(self, left: float, top: float, width: float, height: float) -> "Axes":
        place = (left / self.width, 1 - (top + height) / self.height, width / self.width, height / self.height)
        axis = self.figure.add_axes(place)
        axis.set_axis_off()
        return axis

    def text(self, left: float, top: float, text: str, *, size: float = _TEXT, **options: Any) -> "Artist":
        return self.figure.text(left / self.width, 1 - top / self.height, text, fontsize=size, **options)


class _Overview:
    """The axes of an overview, filled with one frame after the other."""

    def __init__(self, clips: Sequence[DrawnClip], *, width: float, label: int | None, most: int) -> None:
        self.clips = clips
        self.painter = Painter(clips, label=label)
        names = self.painter.names
        bars = float(np.clip(0.2 * width, 0.85, 1.4))
        side = min((width - 0.2 - bars - _MARGIN - _GAP * len(names)) / len(names), 3.0)
        frames = clips[0].seen.frames
        high = side * frames.shape[1] / frames.shape[2]
        head = 2 * _LINE + _MARGIN + 0.04
        foot = 0.46 if len(names) > 1 else 0.02
        page = self.page = _Page(width, head + len(clips) * (high + 0.1) + foot)
        self.axes: list[dict[str, Axes]] = []
        for row, clip in enumerate(clips):
            top = head + row * (high + 0.1)
            true = clip.title if clip.label is None else clip.labels[clip.label]
            page.text(0.13, top + high / 2, _cut(true, high), rotation=90, ha="right", va="center")
            lefts = {name: 0.2 + column * (side + _GAP) for column, name in enumerate(names)}
            self.axes.append({name: page.axes(left, top, side, high) for name, left in lefts.items()})
            left = 0.2 + len(names) * (side + _GAP) + 0.06
            _draw_bars(page.axes(left, top, bars - 0.06, high), clip, most=most, size=(bars - 0.06, high))
        for name, left in lefts.items():
            page.text(left + side / 2, head - 0.04, _broken(name), ha="center", va="bottom", linespacing=1)
            if name != "true displacement":
                _draw_scale(page, name, self.painter, left, page.height - foot + 0.02, side, upright=False)
        page.text(left + side + 0.11, head - 0.04, "most probable classes", ha="left", va="bottom")
        self._drawn: list[Artist] = []

    def at(self, frame: int | None, pictures: Sequence[np.ndarray] | None = None) -> "Figure":
        """Show a frame, with other ``pictures`` for the panels named frame."""
        for artist in self._drawn:
            artist.remove()
        self._drawn = []
        for row, (clip, axes) in enumerate(zip(self.clips, self.axes, strict=True)):
            comparison, total = clip.seen.comparison, len(clip.seen.frames)
            shown = (total - 1) // 2 if frame is None else frame
            nearest = shown
            if "confidence" in axes:  # The frame whose map has a partner.
                pairs = comparison.frames[comparison.pairs()]
                at = shown * len(comparison.frames) // total
                nearest = shown if at in comparison.pairs() else int(pairs[np.abs(pairs - shown).argmin()])
            for name, axis in axes.items():
                panel = self.painter.panel(name, clip, shown if name in ("frame", "class activation") else nearest)
                if name == "frame" and pictures is not None:
                    panel = Panel(pictures[row])
                if panel is not None:
                    self._drawn += show(axis, panel)
        return self.page.figure


def _write_prediction(page: _Page, clip: DrawnClip) -> None:
    """Write what the clip is and the most probable classes, right or wrong if the true class is known."""
    about = clip.title if clip.label is None else f"{clip.title}   true class: {clip.labels[clip.label]}"
    page.text(_LABEL, _MARGIN, _cut(about, page.width - _LABEL), va="top", weight="bold")
    room, left = page.width - _LABEL, _LABEL
    for rank, (label, probability) in enumerate(clip.best(5)):
        text = f"{_sign(clip, label) if rank == 0 else ''}{clip.labels[label]} {_percent(probability)}"
        needed = 0.5 * len(text) * _TEXT / 72 + 0.22
        if rank and left + needed > room:
            break
        written = page.text(left, _MARGIN + _LINE, text, va="top", color=_colour(clip, label, first=rank == 0))
        extent = written.get_window_extent(page.figure.canvas.get_renderer())
        left += extent.width / page.figure.dpi + 0.16


def _draw_bars(axis: "Axes", clip: DrawnClip, *, most: int, size: tuple[float, float]) -> None:
    """Draw the most probable classes as bars below their names."""
    lines = int(np.clip(size[1] // 0.17, 1, most))
    axis.set(xlim=(0, 1), ylim=(lines if lines == most else size[1] / 0.17, 0))
    for rank, (label, probability) in enumerate(clip.best(lines)):
        colour = _colour(clip, label, first=rank == 0)
        axis.barh(rank + 0.84, 1, height=0.14, color="#ecebe8")
        axis.barh(rank + 0.84, probability, height=0.14, color=colour)
        text = f"{_sign(clip, label) if rank == 0 else ''}{clip.labels[label]}"
        weight = {"fontsize": _SMALL, "va": "center", "color": colour if rank == 0 or label == clip.label else _INK}
        axis.text(0, rank + 0.42, _cut(text, size[0] - 0.3, size=_SMALL), ha="left", **weight)
        axis.text(1, rank + 0.42, _percent(probability), ha="right", **weight)


def _draw_scale(
    page: _Page, name: str, painter: Painter, left: float, top: float, side: float, *, upright: bool
) -> None:
    """Draw the wheel of a displacement with its length, or the colours of a map with their values."""
    if name == "frame" or name == "true displacement":
        return
    if name.endswith("displacement"):
        wheel = min(0.36, side)
        page.axes(left, top, wheel, wheel).imshow(wheel_picture(160), interpolation="antialiased")
        text = f"{painter.longest:.1f} px"
        if upright:
            page.text(left + wheel / 2, top + wheel + 0.02, text, size=_SMALL, ha="center", va="top")
        else:
            page.text(left + wheel + 0.05, top + wheel / 2, f"rim:\n{text}", size=_SMALL, ha="left", va="center")
        return
    low, high = (f"{value:.2f}" for value in painter.levels) if name == "confidence" else ("0", "max")
    colours = _scale_of(CONFIDENCE_COLOURS if name == "confidence" else ACTIVATION_COLOURS)
    if upright:
        axis = page.axes(left, top, 0.09, side)
        axis.imshow(colours[::-1, None], extent=(0, 1, 0, 1), aspect="auto")
        page.text(left + 0.13, top, high, size=_SMALL, va="top")
        page.text(left + 0.13, top + side, low, size=_SMALL, va="bottom")
    else:
        axis = page.axes(left, top, side, 0.08)
        axis.imshow(colours[None], extent=(0, 1, 0, 1), aspect="auto")
        page.text(left, top + 0.11, low, size=_SMALL, va="top", ha="left")
        page.text(left + side, top + 0.11, high, size=_SMALL, va="top", ha="right")


def _scale_of(colours: str) -> np.ndarray:
    from matplotlib import colormaps

    return colormaps[colours](np.linspace(0, 1, 256), bytes=True)[:, :3]


def _sign(clip: DrawnClip, label: int) -> str:
    return "" if clip.label is None else "✓ " if label == clip.label else "✗ "


def _colour(clip: DrawnClip, label: int, *, first: bool) -> str:
    if clip.label == label:
        return _RIGHT
    return (_INK if clip.label is None else _WRONG) if first else _OTHER


def _percent(probability: float) -> str:
    return f"{100 * probability:.0f} %"


def _broken(name: str) -> str:
    """Write a name of two words or more on two lines."""
    first, _, rest = name.partition(" ")
    return f"{first}\n{rest}" if rest else first


def _cut(text: str, width: float, *, size: float = _TEXT) -> str:
    """Cut a text that does not fit into a width in inches."""
    most = max(int(width * 72 / (0.58 * size)), 3)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _style() -> Any:
    from matplotlib import rc_context

    return rc_context(_STYLE)


def frames_of(clips: Sequence[DrawnClip]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """Return the moments of an animation that shows every frame of the clips."""
    for frame in range(len(clips[0].seen.frames)):
        yield frame, [clip.seen.frames[frame] for clip in clips]

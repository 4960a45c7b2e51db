"""Panels of a picture: what a network sees in one frame of a clip, as an image with arrows."""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np

from motion_jax.inspection.clip_inspection import ClipInspection, Comparison
from motion_jax.inspection.colours import flow_colours, length_scale

# Pixels of the shorter side of a panel's image, at least.
SIDE = 256
CONFIDENCE_COLOURS = "viridis"
ACTIVATION_COLOURS = "inferno"
# Opacity of an overlay where it is strongest.
OPACITY = 0.75
# Gray levels of the dimmed frame below an overlay; displacement needs a bright one, which its colours multiply.
_DIMMED = (0.1, 0.75)
_BRIGHT = (0.72, 1.0)
# Distance between arrows, and length of the shortest, as a share of the shorter side.
_GAP = 0.09
_SHORTEST = 0.025


@dataclasses.dataclass(frozen=True)
class DrawnClip:
    """A clip to draw.

    Attributes:
        seen: what the network sees in it; ``activation`` and ``comparison`` may be None.
        labels: class names (k,).
        title: what the clip is called.
        times: seconds of each frame (t,), or None if they are not known.
        label: the true class, or None if it is not known.
        truth: true displacement (t-1, h, w, 2) in pixels from each frame to the next, or None if it is not known.
    """

    seen: ClipInspection
    labels: Sequence[str]
    title: str
    times: Sequence[float] | None = None
    label: int | None = None
    truth: np.ndarray | None = None

    @property
    def predicted(self) -> int:
        """The most probable class."""
        return int(self.seen.probabilities.argmax())

    def best(self, count: int) -> list[tuple[int, float]]:
        """Return the most probable classes with their probabilities, best first."""
        order = np.argsort(-self.seen.probabilities, kind="stable")[:count]
        return [(int(label), float(self.seen.probabilities[label])) for label in order]

    def time_of(self, frame: int) -> str:
        """Return the time of a frame as text, or its number if times are not known.

        >>> DrawnClip(None, (), "", times=[0.0, 0.125]).time_of(1)
        '0.12 s'
        """
        return f"frame {frame}" if self.times is None else f"{self.times[frame]:.2f} s"


@dataclasses.dataclass(frozen=True)
class Panel:
    """One image of a picture.

    Attributes:
        image: RGB uint8 (H, W, 3).
        arrows: arrows (n, 4) as (x, y, dx, dy) in shares of width and height.
        strength: opacity of each arrow (n,).
        box: a marked cell (x, y, width, height) in shares of width and height, or None.
    """

    image: np.ndarray
    arrows: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((0, 4)))
    strength: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    box: tuple[float, float, float, float] | None = None


class Painter:
    """Panels of clips in one scale of colours.

    Attributes:
        names: the kinds of panels that every clip has, in order.
        longest: displacement in pixels at which colours are full.
        levels: confidence of the darkest and the brightest colour.
    """

    def __init__(self, clips: Sequence[DrawnClip], *, label: int | None = None) -> None:
        """Compute the scales. Activation is that of the class ``label``, or of each clip's most probable class."""
        self._label = label
        self._tops = {id(clip): self._activation(clip).max() for clip in clips if clip.seen.activation is not None}
        first = clips[0].seen
        self.names = ["frame"]
        self.longest, self.levels = 1.0, (0.0, 1.0)
        if first.comparison and all(len(clip.seen.comparison.pairs()) for clip in clips):
            backward = first.comparison.offsets[first.comparison.main_offset] < 0
            derived = "backward displacement" if backward else "expected displacement"
            self.names += ["displacement" if first.comparison.estimated else derived]
            fields = [field_of(clip.seen.comparison) for clip in clips]
            truths = [clip.truth for clip in clips if clip.truth is not None]
            if truths:
                self.names += ["true displacement"]
            self.longest = length_scale(np.concatenate([each.reshape(-1, 2) for each in truths or fields]))
            confidence = np.concatenate([_confidence_of(clip).ravel() for clip in clips])
            low, high = np.percentile(confidence, (5, 95))
            self.levels = (float(low), float(max(high, low + 1e-6)))
            self.names += ["confidence"]
        if first.activation is not None:
            self.names += ["class activation"]

    def panel(self, name: str, clip: DrawnClip, frame: int) -> Panel | None:
        """Return a panel of a frame; None if the frame has none, such as the last frame of its next displacement."""
        picture = clip.seen.frames[frame]
        if name == "frame":
            return Panel(enlarged(picture))
        if name == "class activation":
            maps = self._activation(clip)
            values = maps[frame * len(maps) // len(clip.seen.frames)] / max(self._tops[id(clip)], 1e-12)
            return Panel(overlay(picture, values, colours=ACTIVATION_COLOURS))
        if name == "true displacement":
            if clip.truth is None or frame >= len(clip.truth):
                return None
            return displacement_panel(picture, clip.truth[frame], longest=self.longest)
        comparison = clip.seen.comparison
        at = frame * len(comparison.frames) // len(clip.seen.frames)
        if at not in comparison.pairs():
            return None
        confidence = comparison.confidence[at, :, :, comparison.main_offset]
        if name == "confidence":
            low, high = self.levels
            values = np.clip((confidence - low) / (high - low), 0, 1)
            return Panel(_painted(_cells(values, picture), CONFIDENCE_COLOURS))
        field = comparison.expected[at, :, :, comparison.main_offset]
        return displacement_panel(picture, field, longest=self.longest, confidence=confidence)

    def similarity(self, clip: DrawnClip, frame: int, *, query: int, cell: tuple[int, int]) -> Panel | None:
        """Return the similarities of a cell (row, column) of the map of frame ``query``, drawn where they point in
        another frame; None if the window does not reach that frame. The cell is marked in its own frame."""
        comparison = clip.seen.comparison
        maps = len(comparison.frames)
        start, at = (each * maps // len(clip.seen.frames) for each in (query, frame))
        height, width = comparison.similarities.shape[1:3]
        values = np.zeros((height, width))
        if at - start in comparison.offsets:
            grid = similarity_map(comparison, at=start, offset=at - start, cell=cell)
            values = np.nan_to_num(np.clip(grid, 0, None)) / max(comparison.similarities[start][cell].max(), 1e-12)
        elif at != start:
            return None
        image = overlay(clip.seen.frames[frame], values, colours=ACTIVATION_COLOURS, nearest=True)
        box = (cell[1] / width, cell[0] / height, 1 / width, 1 / height)
        return Panel(image, box=box if frame == query else None)

    def _activation(self, clip: DrawnClip) -> np.ndarray:
        return clip.seen.activation[clip.predicted if self._label is None else self._label]


def field_of(comparison: Comparison) -> np.ndarray:
    """Return the expected displacement (p, h, w, 2) of all pairs at the main offset."""
    return comparison.expected[comparison.pairs()][:, :, :, comparison.main_offset]


def similarity_map(comparison: Comparison, *, at: int, offset: int, cell: tuple[int, int]) -> np.ndarray:
    """Return the similarities of a cell with the cells of the map ``offset`` frames later (h, w).

    Cells outside of the window are NaN.
    """
    values = comparison.similarities[at, cell[0], cell[1], comparison.offsets.index(offset)]
    _, height, width = comparison.similarities.shape[:3]
    grid = np.full((height, width), np.nan)
    rows = cell[0] + (np.arange(values.shape[0]) - values.shape[0] // 2) * comparison.step
    columns = cell[1] + (np.arange(values.shape[1]) - values.shape[1] // 2) * comparison.step
    inside = np.ix_((rows >= 0) & (rows < height), (columns >= 0) & (columns < width))
    grid[np.ix_(rows[inside[0][:, 0]], columns[inside[1][0]])] = values[inside]
    return grid


def marked_cell(comparison: Comparison) -> tuple[int, tuple[int, int]]:
    """Return the frame of the map and the cell (row, column) that moves most, of a pair in the middle of the clip.

    Cells at the border, and cells whose confidence is below the median, are not considered.
    """
    pairs = comparison.pairs()
    at = int(pairs[len(pairs) // 2])
    lengths = np.linalg.norm(comparison.expected[at, :, :, comparison.main_offset], axis=-1)
    confidence = comparison.confidence[at, :, :, comparison.main_offset]
    inner = np.zeros(lengths.shape, bool)
    inner[1:-1, 1:-1] = True
    considered = inner & (confidence >= np.median(confidence))
    if not considered.any():
        considered = np.ones_like(inner)
    row, column = np.unravel_index(np.where(considered, lengths, -1).argmax(), lengths.shape)
    return at, (int(row), int(column))


def overlay(frame: np.ndarray, values: np.ndarray, *, colours: str, nearest: bool = False) -> np.ndarray:
    """Draw a map (h, w) in [0, 1] over the dimmed gray frame: RGB uint8. Where it is 0, the frame is seen."""
    values = _cells(values, frame) if nearest else _smooth(values, frame)
    opacity = OPACITY * values[..., None]
    painted = (1 - opacity) * _gray(frame, *_DIMMED) + opacity * _painted(values, colours) / 255
    return _bytes(painted)


def displacement_panel(
    frame: np.ndarray, field: np.ndarray, *, longest: float, confidence: np.ndarray | None = None
) -> Panel:
    """Multiply the bright gray frame by the colours of a field (h, w, 2) in pixels, and place arrows.

    Colours and arrows fade where the ``confidence`` (h, w) is low for this field.
    """
    visible = np.ones(field.shape[:2]) if confidence is None else visibility(confidence)
    colours = 1 - visible[..., None] * (1 - flow_colours(field, longest=longest) / 255)
    image = _bytes(_gray(frame, *_BRIGHT) * np.stack([_cells(colours[..., c], frame) for c in range(3)], axis=-1))
    rows, columns = field.shape[:2]
    y, x = (np.mgrid[:rows, :columns] + 0.5) / np.array([rows, columns])[:, None, None]
    size = np.array([frame.shape[1], frame.shape[0]])
    arrows = np.concatenate([np.stack([x, y], axis=-1), field / size], axis=-1).reshape(-1, 4)
    strength = visible.ravel()
    scaled = arrows * np.tile(size / size.min(), 2)  # in shares of the shorter side
    chosen = thinned(scaled, strength, gap=_GAP, shortest=_SHORTEST)
    return Panel(image, arrows[chosen], strength[chosen])


def visibility(confidence: np.ndarray) -> np.ndarray:
    """Return 0 for the least and 1 for the most confident tenth of the cells, linear between; 1 if all are equal."""
    low, high = np.percentile(confidence, (10, 90))
    return np.clip((confidence - low) / (high - low), 0, 1) if high > low else np.ones_like(confidence)


def thinned(arrows: np.ndarray, strength: np.ndarray, *, gap: float, shortest: float) -> np.ndarray:
    """Return the positions of arrows that keep a distance from each other, so that none crosses another.

    Long and strong arrows are chosen first.

    Args:
        arrows: (n, 4) as (x, y, dx, dy).
        strength: opacity of each arrow (n,).
        gap: smallest distance between two arrows.
        shortest: shorter arrows are left out, as are those with a strength below 0.15.
    """
    lengths = np.hypot(arrows[:, 2], arrows[:, 3])
    order = np.argsort(
        -strength * np.minimum(lengths, np.percentile(lengths, 90) if len(lengths) else 0), kind="stable"
    )
    chosen: list[int] = []
    starts, ends = arrows[:, :2], arrows[:, :2] + arrows[:, 2:]
    for index in order:
        if lengths[index] < shortest or strength[index] < 0.15:
            continue
        others = np.array(chosen, int)
        if _distances(starts[index], ends[index], starts[others], ends[others]).min(initial=np.inf) >= gap:
            chosen.append(int(index))
    return np.array(chosen, int)


def _distances(start: np.ndarray, end: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Return the distance of a segment to others (n,); 0 where they cross."""

    def cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]

    def to_segment(points: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        along = np.einsum("...i,...i->...", points - a, b - a) / np.maximum(((b - a) ** 2).sum(-1), 1e-12)
        return np.linalg.norm(points - a - np.clip(along, 0, 1)[..., None] * (b - a), axis=-1)

    crossing = (cross(end - start, starts - start) * cross(end - start, ends - start) < 0) & (
        cross(ends - starts, start - starts) * cross(ends - starts, end - starts) < 0
    )
    distance = np.min(
        [
            to_segment(starts, start, end),
            to_segment(ends, start, end),
            to_segment(start, starts, ends),
            to_segment(end, starts, ends),
        ],
        axis=0,
    )
    return np.where(crossing, 0.0, distance)


def _confidence_of(clip: DrawnClip) -> np.ndarray:
    comparison = clip.seen.comparison
    return comparison.confidence[comparison.pairs()][..., comparison.main_offset]


def _size(frame: np.ndarray) -> tuple[int, int]:
    """Return (width, height) of the image of a panel: a whole multiple of the frame's."""
    factor = -(-SIDE // min(frame.shape[:2]))
    return frame.shape[1] * factor, frame.shape[0] * factor


def enlarged(frame: np.ndarray) -> np.ndarray:
    return cv2.resize(frame, _size(frame), interpolation=cv2.INTER_CUBIC)


def _gray(frame: np.ndarray, low: float, high: float) -> np.ndarray:
    """Return the enlarged frame in gray levels from ``low`` to ``high``: (H, W, 1)."""
    gray = cv2.cvtColor(enlarged(frame), cv2.COLOR_RGB2GRAY)[..., None] / 255
    return low + (high - low) * gray


def _cells(values: np.ndarray, frame: np.ndarray) -> np.ndarray:
    """Repeat the cells of a map (h, w) to the size of a panel."""
    width, height = _size(frame)
    rows = (np.arange(height) + 0.5) * values.shape[0] // height
    columns = (np.arange(width) + 0.5) * values.shape[1] // width
    return values[np.ix_(rows.astype(int), columns.astype(int))]


def _smooth(values: np.ndarray, frame: np.ndarray) -> np.ndarray:
    return np.clip(cv2.resize(np.asarray(values, np.float32), _size(frame), interpolation=cv2.INTER_LINEAR), 0, 1)


def _painted(values: np.ndarray, colours: str) -> np.ndarray:
    """Return the colours of values in [0, 1]: RGB uint8."""
    from matplotlib import colormaps

    return colormaps[colours](values, bytes=True)[..., :3]


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)

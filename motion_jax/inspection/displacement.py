"""The displacement field of a MotionSqueeze block: in pixels, its end-point error, and pictures of it."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from motion_jax.blocks.protocol import declared
from motion_jax.models import VideoClassifier

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MOST_ARROWS = 8  # on a side of a picture
WEIGHT_OF_CONFIDENCE = 20.0


def has_displacement(model: VideoClassifier) -> bool:
    """Return whether a network has a motion block that estimates displacement."""
    return any(declared(block, "displacement_reach") for block in model.backbone.blocks.values())


def make_estimator(
    model: VideoClassifier, variables: Mapping[str, Any]
) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Make a function from clips to displacement in pixels and confidence.

    It takes clips (n, t, H, W, 3) and returns displacement (n, t-1, h, w, 2) and confidence (n, t-1, h, w). It raises a
    ValueError if the network has no displacement.
    """
    apply = jax.jit(lambda variables, clips: model.apply(variables, clips, train=False, method="features")[1])

    def estimate(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        aux = apply(variables, clips)
        if "displacement" not in aux:
            raise ValueError("this network has no displacement: choose one with a MotionSqueeze block (msnet_...)")
        block = next(iter(model.backbone.blocks.values()))
        return (
            in_pixels(np.asarray(aux["displacement"]), radius=block.displacement_reach(), image_size=clips.shape[2:4]),
            np.asarray(aux["confidence"])[..., 0],
        )

    return estimate


def in_pixels(displacement: np.ndarray, *, radius: int, image_size: tuple[int, int]) -> np.ndarray:
    """Convert (..., h, w, 2) in units of the radius to pixels of an image of ``image_size`` (height, width).

    A cell of the map covers ``image_size / (h, w)`` pixels, and one unit is ``radius`` cells.
    """
    height, width = displacement.shape[-3:-1]
    cell = np.array([image_size[1] / width, image_size[0] / height])
    return np.asarray(displacement, np.float64) * radius * cell


def on_grid(field: np.ndarray, *, grid: tuple[int, int], confidence: np.ndarray | None = None) -> np.ndarray:
    """Average (..., h, w, 2) over the cells of a coarser grid (rows, columns), or repeat it on a finer one.

    With the ``confidence`` (..., h, w), a cell with 0.1 more confidence has ``exp(2)`` times the weight in an average.

    Raises:
        ValueError: if the number of rows or columns of one grid is no multiple of that of the other.
    """
    if confidence is not None:
        weight = np.exp(WEIGHT_OF_CONFIDENCE * (confidence - confidence.max()))[..., None]
        return on_grid(field * weight, grid=grid) / on_grid(weight, grid=grid)
    *lead, height, width, _ = field.shape
    for axis, (have, want) in enumerate(zip((height, width), grid, strict=True), start=len(lead)):
        if have % want == 0:
            shape = field.shape
            field = field.reshape(*shape[:axis], want, have // want, *shape[axis + 1 :]).mean(axis + 1)
        elif want % have == 0:
            field = np.repeat(field, want // have, axis)
        else:
            raise ValueError(f"a displacement field of {(height, width)} cells does not fit a grid of {grid}")
    return field


def end_point_error(estimate: np.ndarray, truth: np.ndarray, moving: np.ndarray) -> float:
    """Return the mean distance in pixels between two fields (..., h, w, 2) over the cells ``moving`` (..., h, w).

    Raises:
        ValueError: if nothing moves.
    """
    if not np.any(moving):
        raise ValueError("nothing moves in these clips: there is no end-point error")
    return float(np.linalg.norm(estimate - truth, axis=-1)[np.asarray(moving, bool)].mean())


def calibration(confidence: np.ndarray, error: np.ndarray, *, groups: int = 5) -> list[dict[str, float]]:
    """Return the mean confidence and the mean end-point error of cells in groups of equal size, least confident first.

    Args:
        confidence: (cells,).
        error: end-point error of the same cells, (cells,).
        groups: number of groups.

    >>> calibration(np.array([0.2, 0.9, 0.8, 0.1]), np.array([5.0, 1.0, 3.0, 7.0]), groups=2)[0]["epe"]
    6.0
    """
    parts = np.array_split(np.argsort(confidence, kind="stable"), groups)
    return [{"confidence": float(confidence[part].mean()), "epe": float(error[part].mean())} for part in parts]


def colours(displacement: np.ndarray, *, longest: float) -> np.ndarray:
    """Colour a field (..., 2) in pixels as RGB (..., 3) in [0, 1]: hue is direction, saturation is length.

    Right is red, down green-yellow, left cyan, up violet, and no motion white. Saturation is full at ``longest``.
    """
    from matplotlib.colors import hsv_to_rgb

    hue = np.mod(np.arctan2(displacement[..., 1], displacement[..., 0]) / (2 * np.pi), 1)
    strength = np.clip(np.linalg.norm(displacement, axis=-1) / longest, 0, 1)
    return hsv_to_rgb(np.stack([hue, strength, np.ones_like(hue)], axis=-1))


def draw_field(
    axis: "Axes", field: np.ndarray, *, size: tuple[int, int], longest: float, confidence: np.ndarray | None = None
) -> "tuple[Artist, Artist]":
    """Draw colours and arrows of a field (h, w, 2) in pixels over an image of ``size`` (height, width).

    Colours and arrows fade where the ``confidence`` (h, w) is low for this field. At most 8 arrows stand on a side.
    """
    height, width = size
    rows, cells = field.shape[:2]
    x, y = (np.arange(cells) + 0.5) * width / cells, (np.arange(rows) + 0.5) * height / rows
    visible = np.ones((rows, cells)) if confidence is None else _visibility(confidence)
    painted = 1 - visible[..., None] * (1 - colours(field, longest=longest))
    shown = axis.imshow(painted, extent=(0, width, height, 0), interpolation="nearest")
    step = -(-max(rows, cells) // MOST_ARROWS)
    some = (slice(step // 2, None, step),) * 2
    paint = [(0.15, 0.15, 0.15, opacity) for opacity in visible[some].ravel()]
    options = {"angles": "xy", "scale_units": "xy", "scale": 1, "width": 0.008, "color": paint}
    arrows = axis.quiver(x[some[0]], y[some[0]], field[some][..., 0], field[some][..., 1], **options)
    return shown, arrows


def _visibility(confidence: np.ndarray) -> np.ndarray:
    """Return 0 for the least and 1 for the most confident tenth of the cells, linear between; 1 if all are equal."""
    low, high = np.percentile(confidence, (10, 90))
    return np.clip((confidence - low) / (high - low), 0, 1) if high > low else np.ones_like(confidence)


def scale_of(fields: Sequence[np.ndarray]) -> float:
    """Return the length in pixels at which colours are full: the 95th percentile of the lengths above 0."""
    lengths = np.concatenate([np.linalg.norm(field, axis=-1).ravel() for field in fields])
    return float(np.percentile(lengths[lengths > 0], 95)) if lengths.any() else 1.0


def displacement_figure(
    frames: Sequence[np.ndarray],
    estimates: Sequence[np.ndarray],
    confidences: Sequence[np.ndarray],
    truths: Sequence[np.ndarray] | None,
    titles: Sequence[str],
) -> "Figure":
    """Draw one row per clip: a frame, the displacement to the next frame, the true one if known, and the confidence.

    The true fields set the scale of the colours if they are known. A wheel shows the colour of each direction.

    Args:
        frames: a frame (H, W, 3) uint8 per clip.
        estimates: a field (h, w, 2) in pixels per clip.
        confidences: a map (h, w) per clip.
        truths: a true field (h, w, 2) in pixels per clip, or None if they are not known.
        titles: a title per clip.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = ["frame", "displacement", *(["truth"] if truths is not None else []), "confidence"]
    longest = scale_of(estimates if truths is None else truths)
    levels = np.percentile(np.stack(confidences), (5, 95))
    figure = Figure(figsize=(2.2 * len(columns), 2.2 * len(frames) + 0.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(frames), len(columns), squeeze=False)
    for row, frame in enumerate(frames):
        size = height, width = frame.shape[:2]
        extent = (0, width, height, 0)
        axes[row, 0].imshow(frame, extent=extent, interpolation="bicubic")
        axes[row, 0].set_ylabel(titles[row])
        draw_field(axes[row, 1], estimates[row], size=size, longest=longest, confidence=confidences[row])
        if truths is not None:
            draw_field(axes[row, 2], truths[row], size=size, longest=longest)
        options = {"cmap": "gray", "vmin": levels[0], "vmax": levels[1], "interpolation": "nearest"}
        shade = axes[row, -1].imshow(confidences[row], extent=extent, **options)
        for axis in axes[row]:
            axis.set(xticks=[], yticks=[], xlim=(0, width), ylim=(height, 0))
    for axis, name in zip(axes[0], columns, strict=True):
        axis.set_title(name)
    _draw_wheel(axes[-1, 1].inset_axes([0.0, -0.24, 0.2, 0.2]), longest=longest)
    scale = axes[-1, -1].inset_axes([0.0, -0.09, 1.0, 0.05])
    figure.colorbar(shade, cax=scale, orientation="horizontal").ax.tick_params(labelsize="small")
    return figure


def _draw_wheel(axis: "Axes", *, longest: float) -> None:
    """Draw the colour of every direction, with the length at the rim."""
    y, x = np.mgrid[-1:1:65j, -1:1:65j]
    wheel = colours(np.stack([x, y], axis=-1), longest=1)
    axis.imshow(np.dstack([wheel, np.hypot(x, y) <= 1]), extent=(-1, 1, 1, -1))
    axis.set_axis_off()
    axis.text(1.4, 0, f"up to {longest:.1f} px", va="center", fontsize="small")

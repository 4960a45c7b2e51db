"""The generated data set `moving_shapes`: lit, textured objects that move over a textured ground.

There are twelve classes in six pairs. Clips 2k and 2k + 1 show one scene, with one class of a pair each. With an even
number of frames they show the same frames in another order, except for noise. So neither a single frame nor an average
over single frames separates the classes of a pair, but motion does. In the last two pairs, both classes also contain
the same motions between neighbouring frames, and only their order differs.

All objects of a clip move together. They lie on one layer that repeats in both directions, so an object that leaves at
one border enters at the other. Positions are centred in time. A drift of the camera moves objects and ground alike.

Textures have the amplitude spectrum of natural images, which falls as 1 / f (Field, 1987).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

from motion_jax.data.storage.fingerprint import Fingerprint, describe_shard, naming_folder, record_checksum
from motion_jax.data.storage.frames import encode_jpeg
from motion_jax.data.storage.parts import video_features
from motion_jax.data.storage.work import progress_bar

CLASSES = (
    *("move left", "move right", "move up", "move down", "rotate left", "rotate right", "zoom in", "zoom out"),
    *("left then right", "right then left", "up then down", "down then up"),
)
"""Class names in label order; labels 2k and 2k + 1 are partners."""

CELL = 8
"""Pixels per side of a cell of the stored truth."""

FPS = 8.0
_SPLITS = ("train", "val")
_OBJECTS = 6
# Largest opacity of the shadow around an object, which does not count as the object.
_SHADOW = 0.45
# Rows: red, green, blue. Columns: luminance, red to blue, green to magenta, as in the colours of natural images.
_COLOUR_AXES = np.array([[1.0, 0.45, 0.1], [1.0, 0.0, -0.25], [1.0, -0.45, 0.1]])


@dataclass(frozen=True)
class Scene:
    """The content of a clip without noise.

    Attributes:
        ground: uint8 (s, s, 3), repeats in both directions.
        objects: uint8 (s, s, 4), colors times opacity, then opacity; repeats in both directions.
        light: float32 (s, s), brightness of every pixel of the frame.
        poses: float64 (t, 2, 3), the affine map from a pixel (x, y, 1) of each frame to a point of `objects`.
        drift: float64 (t, 2), the point of `ground` at pixel (0, 0) of each frame.
    """

    ground: np.ndarray
    objects: np.ndarray
    light: np.ndarray
    poses: np.ndarray
    drift: np.ndarray

    @cached_property
    def shown(self) -> np.ndarray:
        """Objects of each frame: uint8 (t, s, s, 4)."""
        return np.stack([_warp(self.objects, pose) for pose in self.poses])

    @cached_property
    def ground_poses(self) -> np.ndarray:
        """The affine map from a pixel of each frame to a point of the ground: float64 (t, 2, 3)."""
        poses = np.tile(np.eye(2, 3), (len(self.drift), 1, 1))
        poses[:, :, 2] = self.drift
        return poses


def make_scene(
    name: str, *, frames: int, size: int, rng: np.random.Generator, drift: float = 0.0, speed: int | None = None
) -> Scene:
    """Draw a scene of a class. The classes of a pair use the same draws, so equal generators give partner scenes.

    Args:
        name: one of ``CLASSES``.
        frames, size: of the clip; size is its height and width in pixels.
        rng: generator of all draws.
        drift: largest speed of the camera, in 64ths of the frame per frame, in a random direction.
        speed: pixels per frame of the classes that translate; None draws from 4 to 8 64ths of the frame.

    Raises:
        ValueError: if the name is unknown, ``frames`` is below 3, or ``size`` is below 32 or no multiple of 8.
    """
    if name not in CLASSES:
        raise ValueError(f"class is {name!r}, expected one of {', '.join(CLASSES)}")
    if frames < 3:
        raise ValueError(f"frames is {frames}, expected 3 frames or more for moving_shapes, so that motion can reverse")
    if size < 4 * CELL or size % CELL:
        raise ValueError(f"size is {size}, expected {4 * CELL} or more, which {CELL} divides, for moving_shapes")
    # Motion is drawn first, so that it does not depend on the number of pixels.
    poses, halves = _poses(name, frames, size, rng, speed)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform() * drift * size / 64
    path = halves[:, None] * (length / 2 * np.array([np.cos(angle), np.sin(angle)]))
    poses[:, :, 2] += np.einsum("tij,tj->ti", poses[:, :, :2], path)
    ground = rng.uniform(0.15, 0.45) + _colour(rng.uniform(), 0.25, 0.3) + 0.06 * _texture(size, rng)
    objects, light = _objects(size, rng), _light(size, rng)
    return Scene(_as_bytes(ground), objects, light, poses, path)


def render(scene: Scene) -> np.ndarray:
    """Render the frames of a scene without noise: uint8 (t, s, s, 3)."""
    ground = scene.ground[None]
    if scene.drift.any():
        ground = np.stack([_warp(scene.ground, pose) for pose in scene.ground_poses])
    through = (255 - scene.shown[..., 3:]) * np.float32(1 / 255)
    lit = (scene.shown[..., :3] + ground * through) * scene.light[..., None]
    return np.minimum(lit + 0.5, 255).astype(np.uint8)


def truth(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the displacement of each cell of 8x8 pixels from frame t to frame t + 1.

    Returns:
        displacement: float32 (t-1, s/8, s/8, 2), (dx, dy) in pixels at the centre of each cell, right and down
            positive; where no object covers the cell, that of the ground, which is 0 without a drift of the camera.
        moving: bool (t-1, s/8, s/8), whether objects cover at least half of the cell in frame t.
    """
    cells = len(scene.ground) // CELL
    opaque = scene.shown[:-1, ..., 3] > 255 * (1 + _SHADOW) / 2
    moving = opaque.reshape(-1, cells, CELL, cells, CELL).mean(axis=(2, 4)) >= 0.5
    objects, ground = (_displacement(poses, cells) for poses in (scene.poses, scene.ground_poses))
    return np.where(moving[..., None], objects, ground).astype(np.float32), moving


def _displacement(poses: np.ndarray, cells: int) -> np.ndarray:
    """Return the way of each cell's centre to the next frame for a layer: (t-1, cells, cells, 2)."""
    centres = np.arange(cells) * CELL + (CELL - 1) / 2
    x, y = np.meshgrid(centres, centres)
    points = np.stack([x, y, np.ones_like(x)], axis=-1)
    square = np.concatenate([poses, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(poses), 1, 3))], axis=1)
    step = np.linalg.solve(square[1:], square[:-1])  # frame t -> layer -> frame t + 1
    return (np.einsum("tij,hwj->thwi", step, points) - points)[..., :2]


def make_example(index: int, *, split: str, seed: int, frames: int, size: int, drift: float = 0.0) -> dict[str, Any]:
    """Make example ``index`` of a split, a pure function of the arguments; its label is ``index`` modulo 12."""
    name, label = _identity(split, index)
    rng = np.random.default_rng([seed, _SPLITS.index(split), index // 2])
    scene = make_scene(CLASSES[label], frames=frames, size=size, rng=rng, drift=drift)
    clip = render(scene).reshape(-1, size, 3)
    # Noise from -4 to 4 in saturating arithmetic.
    noisy = cv2.add(clip, rng.integers(0, 9, clip.shape, np.uint8))
    clip = cv2.subtract(noisy, (4, 4, 4, 0)).reshape(-1, size, size, 3)
    displacement, moving = truth(scene)
    return {
        "id": name.decode(),
        "frames": [encode_jpeg(frame) for frame in clip],
        "label": label,
        "num_frames": frames,
        "fps": FPS,
        "displacement": displacement,
        "moving": moving,
    }


def _identity(split: str, index: int) -> tuple[bytes, int]:
    """Return the id of an example in UTF-8, and its label."""
    return f"{split}_{index:06d}".encode(), index % len(CLASSES)


class MovingShapes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of moving_shapes for one choice of size, frames, clips and drift (as in ``DataConfig``) and seed."""

    # Raise this when the same arguments give other pixels.
    VERSION = tfds.core.Version("2.0.0")

    def __init__(
        self,
        *,
        size: int = 64,
        frames: int = 8,
        clips: tuple[int, int],
        drift: float = 0.0,
        seed: int = 0,
        data_dir: str | Path,
    ) -> None:
        self._clips = dict(zip(_SPLITS, clips, strict=True))
        self._options = {"size": size, "frames": frames, "drift": drift, "seed": seed}
        name = f"{size}px_{frames}frames_{clips[0]}_{clips[1]}_seed{seed}" + (f"_drift{drift:g}" if drift else "")
        with naming_folder(lambda: getattr(self, "_data_dir", "")):
            config = tfds.core.BuilderConfig(name=name)
            super().__init__(data_dir=str(data_dir), file_format="array_record", config=config)

    def _info(self) -> tfds.core.DatasetInfo:
        cells, frames = self._options["size"] // CELL, self._options["frames"]
        return tfds.core.DatasetInfo(
            builder=self,
            description="Lit, textured objects moving over a textured ground; see data/README.md.",
            features=video_features(
                CLASSES,
                displacement=tfds.features.Tensor(shape=(frames - 1, cells, cells, 2), dtype=np.float32),
                moving=tfds.features.Tensor(shape=(frames - 1, cells, cells), dtype=np.bool_),
            ),
            metadata=tfds.core.MetadataDict(frames={name: n * frames for name, n in self._clips.items()}),
            # Records keep the order of the indices.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in _SPLITS}

    def _download_and_prepare(self, *arguments: Any, **options: Any) -> None:
        super()._download_and_prepare(*arguments, **options)
        frames = self._options["frames"]
        checksums = {
            split: np.array([record_checksum(*_identity(split, index), frames) for index in range(count)], "<u4")
            for split, count in self._clips.items()
        }
        shards = {
            name: tuple(map(describe_shard, map(Path, split.filepaths), split.shard_lengths))
            for name, split in self.info.splits.items()
        }
        Fingerprint(CLASSES, checksums, shards).write(Path(self.data_path))

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        # Serial: at this size most of the time is spent in Python, and threads were measured to gain nothing.
        with progress_bar(self._clips[split], label=f"moving_shapes {split}") as bar:
            for index in range(self._clips[split]):
                yield index, make_example(index, split=split, **self._options)
                bar.update()


def _poses(
    name: str, frames: int, size: int, rng: np.random.Generator, speed: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw the poses of the objects, and return them with the time of each frame from the middle, in half steps."""
    sign = 1 if CLASSES.index(name) % 2 else -1
    # With an even number of frames, one of the two halves is longer. Draw which.
    turn = (frames - 1) // 2 + int(rng.integers(2)) * (1 - frames % 2)
    drawn = round(rng.integers(4, 9) * size / 64)
    speed = drawn if speed is None else speed  # pixels per frame
    angle = np.radians(rng.uniform(14, 26))  # per frame
    growth = np.log(rng.uniform(1.14, 1.22))  # per frame
    start = rng.integers(0, size, 2)
    tilt = rng.uniform(0, 2 * np.pi)
    centre = rng.uniform(0.375, 0.625, 2) * (size - 1)

    time = np.arange(frames)
    if "then" in name:
        time = turn - np.abs(time - turn)
    # Centred in time, in half steps, so that whole pixels are exact.
    halves = sign * (2 * time - (time.max() + time.min()))
    if name.startswith(("rotate", "zoom")):
        # The odd partners rotate clockwise and shrink.
        turned = tilt - (angle * halves / 2 if name.startswith("rotate") else np.zeros(frames))
        larger = np.exp(-growth * halves / 2) if name.startswith("zoom") else np.ones(frames)
        cos, sin = np.cos(turned) / larger, np.sin(turned) / larger
        linear = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)
        return np.concatenate([linear, (start - linear @ centre)[..., None]], axis=-1), halves
    # The odd partners go right and down first. Add half a pixel if the middle of the path lies between pixels.
    way = halves * speed
    along = (way + (way[0] % 2)) // 2
    axis = 0 if "left" in name or "right" in name else 1
    poses = np.tile(np.eye(2, 3), (frames, 1, 1))
    poses[:, :, 2] = start
    poses[:, axis, 2] -= along
    return poses, halves


def _objects(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw discs, polygons and flowers with shading, outline and shadow on a layer: uint8 (s, s, 4)."""
    layer = np.zeros((size, size, 4), np.float32)
    texture = _texture(size, rng)
    hues = (np.arange(_OBJECTS) + rng.uniform()) / _OBJECTS
    for hue in hues:
        radius = rng.uniform(0.13, 0.21) * size
        reach = int(1.4 * radius + 0.12 * size)
        middle = rng.integers(0, size, 2)
        rows, columns = ((np.arange(-reach, reach + 1) + at) % size for at in middle)
        window = np.ix_(rows, columns)
        inside = _distance_inside(reach, radius, rng)[..., None]
        opaque = np.clip(inside + 0.5, 0, 1)
        shadow = _SHADOW * np.exp(-np.square(np.minimum(inside, 0) / (0.05 * size)))
        shading = 0.55 + 0.45 * np.sqrt(np.clip(inside / (0.7 * radius), 0, 1))
        outline = 0.6 * np.clip(1.2 - np.abs(inside - 0.6), 0, 1)
        colour = _colour(hue, rng.uniform(0.55, 0.95), rng.uniform(0.75, 1.0))
        body = np.clip(colour * shading * (1 + 0.28 * texture[window]), 0, 1) * (1 - outline)
        behind = layer[window] * (1 - shadow)
        behind[..., 3:] += shadow
        layer[window] = behind * (1 - opaque) + np.concatenate([body, np.ones_like(opaque)], axis=-1) * opaque
    return _as_bytes(layer)


def _distance_inside(reach: int, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Draw a disc, polygon or flower: the distance of each pixel to its outline in pixels, positive inside."""
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
    kind, count, tilt = rng.integers(3), int(rng.integers(3, 6)), rng.uniform(0, 2 * np.pi)
    angle = np.arctan2(y, x) - np.float32(tilt)
    if kind == 0:
        edge = np.float32(radius)
    elif kind == 1:
        edge = 1.15 * radius * np.cos(np.pi / count) / np.cos(angle % (2 * np.pi / count) - np.pi / count)
    else:
        edge = radius * (0.8 + 0.3 * np.cos(count * angle))
    return edge - np.hypot(x, y)


def _light(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw the brightness of a frame, which rises along a random direction from 0.7 to 1.3 at most: (s, s)."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:size, :size] / (size - 1) - 0.5
    return (1 + 0.42 * (np.cos(angle) * x + np.sin(angle) * y)).astype(np.float32)


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draw colors that repeat in both directions, of mean 0 and variance 1, mostly luminance: float32 (s, s, 3)."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    frequency[0, 0] = np.inf
    spectrum = np.fft.rfft2(rng.normal(size=(3, size, size))) / frequency
    texture = np.moveaxis(np.fft.irfft2(spectrum, s=(size, size)), 0, -1) @ _COLOUR_AXES.T
    return (texture / texture.std()).astype(np.float32)


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Return red, green and blue of a colour, all in [0, 1]."""
    return cv2.cvtColor(np.array([[[360 * hue, saturation, value]]], np.float32), cv2.COLOR_HSV2RGB)[0, 0]


def _as_bytes(image: np.ndarray) -> np.ndarray:
    return np.round(255 * np.clip(image, 0, 1)).astype(np.uint8)


def _warp(layer: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return what a frame shows of a layer that repeats in both directions."""
    options = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_WRAP}
    return cv2.warpAffine(layer, pose, layer.shape[1::-1], **options)

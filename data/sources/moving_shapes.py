"""The generated data set `moving_shapes`: textured sprites that move over a still textured background.

There are twelve classes in six pairs. Clips 2k and 2k + 1 show one scene, with one class of a pair each. With an even
number of frames they show the same frames in another order, except for noise. So neither a single frame nor an average
over single frames separates the classes of a pair, but motion does. In the last two pairs, both classes also contain
the same motions between neighbouring frames, and only their order differs.

All sprites of a clip move together. They lie on one layer that repeats in both directions, so a sprite that leaves at
one border enters at the other. Positions are centred in time.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds

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
_SPRITES = 8


@dataclass(frozen=True)
class Scene:
    """The content of a clip without noise.

    Attributes:
        background: uint8 (s, s, 3).
        sprites: uint8 (s, s, 4), colors times opacity, then opacity; repeats in both directions.
        poses: float64 (t, 2, 3), the affine map from a pixel (x, y, 1) of each frame to a point of `sprites`.
    """

    background: np.ndarray
    sprites: np.ndarray
    poses: np.ndarray

    @cached_property
    def shown(self) -> np.ndarray:
        """Sprites of each frame: uint8 (t, s, s, 4)."""
        options = {"flags": cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, "borderMode": cv2.BORDER_WRAP}
        size = self.sprites.shape[1::-1]
        return np.stack([cv2.warpAffine(self.sprites, pose, size, **options) for pose in self.poses])


def make_scene(name: str, *, frames: int, size: int, rng: np.random.Generator) -> Scene:
    """Draw a scene of a class. The classes of a pair use the same draws, so equal generators give partner scenes.

    Raises:
        ValueError: if the name is unknown, ``frames`` is below 3, or ``size`` is below 32 or no multiple of 8.
    """
    if name not in CLASSES:
        raise ValueError(f"class is {name!r}, expected one of {', '.join(CLASSES)}")
    if frames < 3:
        raise ValueError(f"frames is {frames}, expected 3 frames or more for moving_shapes, so that motion can reverse")
    if size < 4 * CELL or size % CELL:
        raise ValueError(f"size is {size}, expected {4 * CELL} or more, which {CELL} divides, for moving_shapes")
    texture = _texture(size, rng, cell=size // 8)
    plain = np.full((size, size, 3), rng.integers(0, 256, 3, np.uint8))
    background = cv2.addWeighted(texture, 0.4, plain, 0.6, 0)
    return Scene(background, _sprites(size, rng), _poses(name, frames, size, rng))


def render(scene: Scene) -> np.ndarray:
    """Render the frames of a scene without noise: uint8 (t, s, s, 3)."""
    size = len(scene.background)
    # One tall image, because OpenCV's arithmetic has no batches.
    shown = scene.shown.reshape(-1, size, 4)
    through = cv2.cvtColor(255 - shown[..., 3], cv2.COLOR_GRAY2RGB)
    behind = cv2.multiply(np.tile(scene.background, (len(scene.poses), 1, 1)), through, scale=1 / 255)
    return cv2.add(np.ascontiguousarray(shown[..., :3]), behind).reshape(-1, size, size, 3)


def truth(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Return the displacement of each cell of 8x8 pixels from frame t to frame t + 1.

    Returns:
        displacement: float32 (t-1, s/8, s/8, 2), (dx, dy) in pixels at the centre of each cell, right and down
            positive, 0 where the cell does not move.
        moving: bool (t-1, s/8, s/8), whether sprites cover at least half of the cell in frame t.
    """
    size = len(scene.background)
    cells = size // CELL
    centres = np.arange(cells) * CELL + (CELL - 1) / 2
    x, y = np.meshgrid(centres, centres)
    points = np.stack([x, y, np.ones_like(x)], axis=-1)
    square = np.concatenate([scene.poses, np.broadcast_to([[[0.0, 0.0, 1.0]]], (len(scene.poses), 1, 3))], axis=1)
    step = np.linalg.solve(square[1:], square[:-1])  # frame t -> sprites -> frame t + 1
    displacement = (np.einsum("tij,hwj->thwi", step, points) - points)[..., :2].astype(np.float32)
    moving = scene.shown[:-1, ..., 3].reshape(-1, cells, CELL, cells, CELL).mean(axis=(2, 4)) >= 127.5
    return displacement * moving[..., None], moving


def make_example(index: int, *, split: str, seed: int, frames: int, size: int) -> dict[str, Any]:
    """Make example ``index`` of a split, a pure function of the arguments; its label is ``index`` modulo 12."""
    label = index % len(CLASSES)
    rng = np.random.default_rng([seed, _SPLITS.index(split), index // 2])
    scene = make_scene(CLASSES[label], frames=frames, size=size, rng=rng)
    clip = render(scene)
    noise = rng.integers(0, 16, clip.shape, np.uint8)
    noisy = cv2.add(clip.reshape(-1, size, 3), noise.reshape(-1, size, 3))
    clip = cv2.subtract(noisy, (8, 8, 8, 0)).reshape(clip.shape)
    displacement, moving = truth(scene)
    return {
        "id": f"{split}_{index:06d}",
        "frames": [encode_jpeg(frame) for frame in clip],
        "label": label,
        "num_frames": frames,
        "fps": FPS,
        "displacement": displacement,
        "moving": moving,
    }


class MovingShapes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of moving_shapes for one choice of size, frames and clips (as in ``DataConfig``) and seed."""

    # Raise this when the same arguments give other pixels.
    VERSION = tfds.core.Version("1.0.0")

    def __init__(
        self, *, size: int = 64, frames: int = 8, clips: tuple[int, int], seed: int = 0, data_dir: str | Path
    ) -> None:
        self._size, self._frames, self._clips, self._seed = size, frames, dict(zip(_SPLITS, clips, strict=True)), seed
        name = f"{size}px_{frames}frames_{clips[0]}_{clips[1]}_seed{seed}"
        super().__init__(data_dir=str(data_dir), file_format="array_record", config=tfds.core.BuilderConfig(name=name))

    def _info(self) -> tfds.core.DatasetInfo:
        cells = self._size // CELL
        return tfds.core.DatasetInfo(
            builder=self,
            description="Textured sprites moving over a still background; see data/README.md.",
            features=video_features(
                CLASSES,
                displacement=tfds.features.Tensor(shape=(self._frames - 1, cells, cells, 2), dtype=np.float32),
                moving=tfds.features.Tensor(shape=(self._frames - 1, cells, cells), dtype=np.bool_),
            ),
            metadata=tfds.core.MetadataDict(frames={name: n * self._frames for name, n in self._clips.items()}),
            # Records keep the order of the indices.
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in _SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        # Serial: at this size most of the time is spent in Python, and threads were measured to gain nothing.
        with progress_bar(self._clips[split], label=f"moving_shapes {split}") as bar:
            for index in range(self._clips[split]):
                yield index, make_example(index, split=split, seed=self._seed, frames=self._frames, size=self._size)
                bar.update()


def _poses(name: str, frames: int, size: int, rng: np.random.Generator) -> np.ndarray:
    sign = 1 if CLASSES.index(name) % 2 else -1
    # With an even number of frames, one of the two halves is longer. Draw which.
    turn = (frames - 1) // 2 + int(rng.integers(2)) * (1 - frames % 2)
    speed = round(rng.integers(3, 7) * size / 64)  # pixels per frame
    angle = np.radians(rng.uniform(12, 25))  # per frame
    growth = np.log(rng.uniform(1.08, 1.12))  # per frame
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
        return np.concatenate([linear, (start - linear @ centre)[..., None]], axis=-1)
    # The odd partners go right and down first. Add half a pixel if the middle of the path lies between pixels.
    way = halves * speed
    along = (way + (way[0] % 2)) // 2
    axis = 0 if "left" in name or "right" in name else 1
    poses = np.tile(np.eye(2, 3), (frames, 1, 1))
    poses[:, :, 2] = start
    poses[:, axis, 2] -= along
    return poses


def _sprites(size: int, rng: np.random.Generator) -> np.ndarray:
    texture = _texture(size, rng, cell=size // 16)
    layer = np.zeros((size, size, 4), np.uint8)
    for corners, radius, tilt, (x, y), colour in zip(
        rng.integers(3, 8, _SPRITES),
        rng.uniform(0.14, 0.24, _SPRITES) * size,
        rng.uniform(0, 2 * np.pi, _SPRITES),
        rng.integers(0, size, (_SPRITES, 2)),
        rng.integers(0, 256, (_SPRITES, 3)),
        strict=True,
    ):
        reach = int(np.ceil(radius))
        angles = tilt + np.arange(corners) * (2 * np.pi / corners)
        outline = np.round(reach + radius * np.stack([np.cos(angles), np.sin(angles)], -1)).astype(np.int32)
        shape = cv2.fillConvexPoly(np.zeros((2 * reach + 1, 2 * reach + 1), np.uint8), outline, 1).astype(bool)
        rows, columns = np.nonzero(shape)
        rows, columns = (rows + y) % size, (columns + x) % size
        layer[rows, columns, :3] = (texture[rows, columns].astype(np.uint16) * 3 + colour * 2) // 5
        layer[rows, columns, 3] = 255
    return layer


def _texture(size: int, rng: np.random.Generator, *, cell: int) -> np.ndarray:
    """Draw smooth colors that repeat in both directions: uint8 (s, s, 3), one draw per `cell` pixels."""
    coarse = rng.integers(0, 256, (-(-size // cell), -(-size // cell), 3), np.uint8)
    padded = cv2.copyMakeBorder(coarse, 2, 2, 2, 2, cv2.BORDER_WRAP)
    fine = cv2.resize(padded, None, fx=cell, fy=cell, interpolation=cv2.INTER_CUBIC)
    return fine[2 * cell : 2 * cell + size, 2 * cell : 2 * cell + size]

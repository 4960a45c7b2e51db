"""What a network sees in one clip: predictions, class activation, and what its motion block compares."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from motion_jax.blocks.protocol import Similarities, declared
from motion_jax.inspection.class_activation import class_activation
from motion_jax.models import VideoClassifier
from motion_jax.models.classifier import block_variables
from motion_jax.ops import kernel_soft_argmax


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What a motion block compares, in one clip of t' frames of its map, as NumPy arrays in float32.

    Attributes:
        site: the stage of the backbone that holds the block.
        block: class name of the block.
        frames: the frame of the clip that each frame of the map stands for (t',).
        offsets: temporal offsets of the window, in frames of the map (l,).
        step: cells of the map between neighbours of the window.
        similarities: (t', h, w, l, u, v); 0 where the other frame or cell does not exist.
        expected: expected displacement in pixels as (dx, dy), per offset (t', h, w, l, 2); 0 without another frame.
        confidence: largest similarity per offset (t', h, w, l).
        estimated: whether the network itself computes ``expected`` (MotionSqueeze). For other blocks it is the
            soft-argmax of the similarities.
    """

    site: str
    block: str
    frames: np.ndarray
    offsets: tuple[int, ...]
    step: int
    similarities: np.ndarray
    expected: np.ndarray
    confidence: np.ndarray
    estimated: bool

    @property
    def main_offset(self) -> int:
        """Position in ``offsets`` of the next frame, or of the nearest other frame if the window lacks it."""
        distance = [(offset == 0, abs(offset - 1), offset) for offset in self.offsets]
        return distance.index(min(distance))

    @property
    def reach(self) -> int:
        """Distance from the centre of the window to its border, in cells of the map."""
        return self.similarities.shape[-1] // 2 * self.step

    def pairs(self) -> np.ndarray:
        """Return the frames of the map that have a partner at the main offset."""
        offset, count = self.offsets[self.main_offset], len(self.frames)
        return np.array([frame for frame in range(count) if 0 <= frame + offset < count], int)


@dataclasses.dataclass(frozen=True)
class ClipInspection:
    """What a network sees in one clip.

    Attributes:
        frames: the clip (t, H, W, 3), uint8.
        probabilities: softmax of the clip's logits (k,).
        frame_probabilities: softmax of the logits of each frame (t', k); t' is a quarter of t in I3D.
        activation: Grad-CAM of every class (k, t', h, w), float32; None if it was not asked for.
        comparison: what the first motion block compares; None for a network without one, or one that cannot say.
    """

    frames: np.ndarray
    probabilities: np.ndarray
    frame_probabilities: np.ndarray
    activation: np.ndarray | None
    comparison: Comparison | None


def make_inspector(
    model: VideoClassifier, variables: Mapping[str, Any], *, activation: bool = True
) -> Callable[[np.ndarray], ClipInspection]:
    """Make a function from a clip (t, H, W, 3) uint8 to what the network sees in it, compiled once per shape.

    Without ``activation`` the class activation is not computed. The function takes other ``variables`` of the model as
    its second argument.
    """
    site, block = next(iter((model.backbone.blocks or {}).items()), (None, None))
    similarities = declared(block, "similarities")
    layout: dict[str, Similarities] = {}

    @jax.jit
    def run(variables: Mapping[str, Any], clip: jax.Array) -> dict[str, Any]:
        logits, aux = model.apply(variables, clip[None], train=False, method="features")
        *_, last = aux["stages"].values()
        seen = {
            "probabilities": jax.nn.softmax(logits[0]),
            "frame_probabilities": jax.nn.softmax(aux["frame_logits"][0], axis=-1),
        }
        if activation:
            seen["activation"] = class_activation(model, variables, last[0])
        if similarities:
            found = similarities(block_variables(variables, site), aux["stages"][site])
            layout["found"] = dataclasses.replace(found, values=None)
            seen |= {"similarities": found.values[0], "expected": _expected(found), "confidence": _confidence(found)}
        return seen

    def inspect(clip: np.ndarray, variables: Mapping[str, Any] = variables) -> ClipInspection:
        seen = {name: np.asarray(value, np.float32) for name, value in run(variables, clip).items()}
        comparison = None
        if similarities:
            found = layout["found"]
            height, width = seen["expected"].shape[1:3]
            cell = np.array([clip.shape[2] / width, clip.shape[1] / height], np.float32)
            maps = len(seen["expected"])
            comparison = Comparison(
                site=site,
                block=type(block).__name__,
                frames=np.arange(maps) * (len(clip) // maps),
                offsets=found.offsets,
                step=found.step,
                similarities=seen["similarities"],
                expected=seen["expected"] * cell,
                confidence=seen["confidence"],
                estimated=declared(block, "displacement_reach") is not None,
            )
        return ClipInspection(
            np.asarray(clip), seen["probabilities"], seen["frame_probabilities"], seen.get("activation"), comparison
        )

    return inspect


def _expected(found: Similarities) -> jax.Array:
    """Return the expected displacement of the first clip, in cells, per offset: (t, h, w, l, 2)."""
    scores = jax.nn.relu(jnp.moveaxis(found.values[0], 3, 1))  # (t, l, h, w, u, v)
    frames, offsets, height, width, *window = scores.shape
    side = max(*window, 3)
    if not found.cosine:  # Of any range, so the largest of each window becomes 1.
        scores = scores / jnp.maximum(scores.max(axis=(-2, -1), keepdims=True), jnp.finfo(scores.dtype).tiny)
    margins = [(side - have) // 2 for have in window]
    scores = jnp.pad(scores, [(0, 0)] * 4 + [(margin, margin) for margin in margins])
    displacement = kernel_soft_argmax(
        scores.reshape(-1, height, width, side, side), sigma=found.sigma, temperature=found.temperature
    )
    cells = displacement.reshape(frames, offsets, height, width, 2) * (side // 2) * found.step
    time = np.arange(frames)[:, None] + np.array(found.offsets)
    exists = ((time >= 0) & (time < frames))[:, :, None, None, None]
    return jnp.moveaxis(jnp.where(exists, cells, 0), 1, 3)


def _confidence(found: Similarities) -> jax.Array:
    return jax.nn.relu(found.values[0]).max(axis=(-2, -1))

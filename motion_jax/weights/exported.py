"""Reading exports, each with its own runtime: a card, and a function of clips or of one frame at a time."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from motion_jax.places import is_bucket
from motion_jax.weights import stablehlo
from motion_jax.weights.card import Card, read_card
from motion_jax.weights.converters import onnx_graph, saved_model
from motion_jax.weights.hub import is_hub_folder, read_hub_folder
from motion_jax.weights.load import load_torch


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export that is ready to use: ``predict`` for clips, or ``init`` and ``step`` if its card says streaming.

    Attributes:
        card: description of the export.
        run: function from clips (b, t, h, w, 3) of the export's dtype to logits (b, num_classes), both NumPy. Of a
            streaming export it is a function from the state and frames (b, h, w, 3) to logits and the next state.
    """

    card: Card
    run: Callable[..., Any]

    def predict(self, clips: np.ndarray) -> np.ndarray:
        """Return logits (b, num_classes) float32 for clips (b, t, h, w, 3).

        Args:
            clips: uint8 in 0..255, which are normalised here if the export takes floats; or normalised floats, which
                exports for uint8 do not take.

        Raises:
            ValueError: if the clips do not have the export's shape or dtype, or it is a streaming export.
        """
        if self.card.streaming:
            raise ValueError("this export takes one frame at a time: use its init and step (tools.predict --stream)")
        wanted = self.card.preprocessing
        clips = self._given(clips, (wanted.frames, wanted.size, wanted.size, len(wanted.mean)), "clips")
        return np.asarray(self.run(clips), np.float32)

    def init(self, *, batch: int = 1) -> dict[str, np.ndarray]:
        """Return the state of ``batch`` streams before their first frame.

        Raises:
            ValueError: if the export takes clips.
        """
        state = self._streaming()["state"]
        return {name: np.full((batch, *like["shape"]), like["start"], like["dtype"]) for name, like in state.items()}

    def step(self, state: Mapping[str, np.ndarray], frame: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the logits (b, num_classes) float32 of the next frame of each stream, and the state after it.

        Args:
            state: from ``init`` or the step before.
            frame: (b, h, w, 3), of the dtypes of ``predict``.

        Raises:
            ValueError: if the frames do not have the export's shape or dtype, or the export takes clips.
        """
        frame = self._given(frame, tuple(self._streaming()["frame"]), "frame")
        logits, state = self.run(dict(state), frame)
        return np.asarray(logits, np.float32), state

    def _streaming(self) -> Mapping[str, Any]:
        if not self.card.streaming:
            raise ValueError("this export takes clips: use its predict, or export with tools.export --streaming")
        return self.card.streaming

    def _given(self, given: np.ndarray, shape: tuple[int, ...], what: str) -> np.ndarray:
        """Return clips or frames as the export takes them."""
        given, wanted = np.asarray(given), self.card.preprocessing
        if given.shape[1:] != shape:
            raise ValueError(f"{what} must be (b, {', '.join(map(str, shape))}) for this export; got {given.shape}")
        if given.dtype == np.uint8:
            if wanted.input == "uint8":
                return given
            mean, std = (np.asarray(values, np.float32) for values in (wanted.mean, wanted.std))
            return (given.astype(np.float32) / 255 - mean) / std
        if wanted.input == "uint8" or not np.issubdtype(given.dtype, np.floating):
            expected = "uint8" if wanted.input == "uint8" else "uint8 or normalised floats"
            raise ValueError(f"this export takes {expected}; got {given.dtype}")
        return given.astype(np.float32)


def load_exported(path: str | os.PathLike) -> Exported:
    """Open an export of ``tools.export`` with its card: safetensors, a hub folder, StableHLO, ONNX or SavedModel.

    Raises:
        ValueError: if there is no such file or no card, the file is damaged, its runtime is not installed, or it is a
            PyTorch file, which holds weights without a network.
    """
    path = os.fspath(path)
    if is_bucket(path):
        raise ValueError(f"{path}: exports are read from this machine only: copy it and its card")
    if not os.path.exists(path):
        raise ValueError(f"there is no export {path}")
    if is_hub_folder(path):
        model, variables, card = read_hub_folder(path)
        return Exported(card, _compiled(model, variables))
    card = read_card(path)
    if card.format == "pytorch":
        raise ValueError(
            f"{path} holds weights for PyTorch code and no network: bring it in with tools.import_weights, "
            "or export as safetensors"
        )
    openers = {
        "safetensors": lambda path: _from_safetensors(path, card),
        "stablehlo": stablehlo.load,
        "onnx": onnx_graph.load_stream if card.streaming else onnx_graph.load,
        "saved_model": saved_model.load,
    }
    return Exported(card, openers[card.format](path))


def _from_safetensors(path: str, card: Card) -> Callable[[np.ndarray], np.ndarray]:
    model = card.build()
    return _compiled(model, load_torch(path, model))


def _compiled(model: nn.Module, variables: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    predict = jax.jit(lambda variables, clips: model.apply(variables, clips, train=False))
    return lambda clips: np.asarray(predict(variables, clips))

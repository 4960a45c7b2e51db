"""Reading exports, each with its own runtime: a card and a function from clips to logits."""

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

Predict = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Exported:
    """An export that is ready to use.

    Attributes:
        card: description of the export.
        run: function from clips (b, t, h, w, 3) of the export's dtype to logits (b, num_classes), both NumPy.
    """

    card: Card
    run: Predict

    def predict(self, clips: np.ndarray) -> np.ndarray:
        """Return logits (b, num_classes) float32 for clips (b, t, h, w, 3).

        Args:
            clips: uint8 in 0..255, which are normalised here if the export takes floats; or normalised floats, which
                exports for uint8 do not take.

        Raises:
            ValueError: if the clips do not have the export's shape or dtype.
        """
        clips, wanted = np.asarray(clips), self.card.preprocessing
        shape = (wanted.frames, wanted.size, wanted.size, len(wanted.mean))
        if clips.ndim != 5 or clips.shape[1:] != shape:
            raise ValueError(f"clips must be (b, {', '.join(map(str, shape))}) for this export; got {clips.shape}")
        if clips.dtype == np.uint8:
            if wanted.input != "uint8":
                mean, std = (np.asarray(values, np.float32) for values in (wanted.mean, wanted.std))
                clips = (clips.astype(np.float32) / 255 - mean) / std
        elif wanted.input == "uint8" or not np.issubdtype(clips.dtype, np.floating):
            expected = "uint8" if wanted.input == "uint8" else "uint8 or normalised floats"
            raise ValueError(f"this export takes {expected}; got {clips.dtype}")
        return np.asarray(self.run(clips if clips.dtype == np.uint8 else clips.astype(np.float32)), np.float32)


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
        "onnx": onnx_graph.load,
        "saved_model": saved_model.load,
    }
    return Exported(card, openers[card.format](path))


def _from_safetensors(path: str, card: Card) -> Predict:
    model = card.build()
    return _compiled(model, load_torch(path, model))


def _compiled(model: nn.Module, variables: Mapping[str, Any]) -> Predict:
    predict = jax.jit(lambda variables, clips: model.apply(variables, clips, train=False))
    return lambda clips: np.asarray(predict(variables, clips))

"""The card of an export: a JSON file beside it with its model, labels, preprocessing and metrics."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

FORMATS = ("pytorch", "safetensors", "stablehlo", "onnx", "saved_model")
INPUTS = ("uint8", "float32")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How the evaluation made clips from videos.

    Attributes:
        frames: frames per clip.
        size: height and width in pixels.
        resize: size of the frames before the crop: (height, width), the short side, or None for their own size.
        sampling: ``segment`` over the whole video, or ``dense`` within a window of 64 frames.
        crop: ``center``, or ``none``, which resizes the whole frame to ``size``.
        mean: mean per colour, on the scale [0, 1].
        std: standard deviation per colour, on the scale [0, 1].
        input: dtype of the export's clips: ``uint8`` in 0..255, which it normalises itself, or normalised ``float32``.
    """

    frames: int
    size: int
    resize: tuple[int, int] | int | None
    sampling: str
    crop: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    input: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """Description of an export.

    Attributes:
        format: one of ``FORMATS``.
        model: section ``model`` of the config: name, width, fields of the motion block.
        labels: class names in the order of the logits.
        preprocessing: how clips are made.
        metrics: results of the evaluation in the workdir, empty without one.
        versions: versions of the packages that wrote the export.
        config: whole config of the training run.
    """

    format: str
    model: Mapping[str, Any]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    config: Mapping[str, Any]


def card_path(export: str | os.PathLike) -> pathlib.Path:
    """Return the path of an export's card: ``out.onnx`` has ``out.onnx.json``.

    Exports of one network in several formats can share a folder, each with its own card.
    """
    export = pathlib.Path(export)
    return export.with_name(f"{export.name}.json")


def write_card(export: str | os.PathLike, card: Card) -> pathlib.Path:
    """Write the card of an export beside it."""
    path = card_path(export)
    path.write_text(json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_card(export: str | os.PathLike) -> Card:
    """Read the card of an export.

    Raises:
        ValueError: if there is no card, or the file is not a card.
    """
    path = card_path(export)
    if not path.is_file():
        raise ValueError(f"{export} has no card: {path} is expected beside it, where tools.export wrote it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        values = {name: tuple(v) if isinstance(v, list) else v for name, v in content["preprocessing"].items()}
        preprocessing = Preprocessing(**values)
        card = Card(**{**content, "preprocessing": preprocessing, "labels": tuple(content["labels"])})
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the card of an export: {' '.join(str(error).split())}") from error
    if card.format not in FORMATS or preprocessing.input not in INPUTS:
        raise ValueError(
            f"{path} has the format {card.format!r} with input {preprocessing.input!r}; "
            f"known are {', '.join(FORMATS)} with {' or '.join(INPUTS)}"
        )
    return card

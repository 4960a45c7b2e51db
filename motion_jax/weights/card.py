"""The card of an export: a JSON file beside it that says what it is, what it wants and how good it is."""

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
    """How a clip is made of a video, as the network was evaluated.

    Attributes:
        frames: frames per clip.
        size: height and width in pixels.
        resize: size of the frames before the crop: (height, width), the short side, or None as filmed.
        sampling: ``segment`` over the whole video, or ``dense`` within a window of 64 frames.
        crop: ``center``, or ``none``, which squeezes the whole frame.
        mean: subtracted per colour, on the scale [0, 1], before the division by ``std``.
        std: see ``mean``.
        input: what the export takes: ``uint8`` clips of 0..255, which it normalises itself, or ``float32`` ones,
            normalised.
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
    """What an export is.

    Attributes:
        format: one of ``FORMATS``.
        model: the section ``model`` of the config: name, width, fields of the motion block.
        labels: class names in the order of the logits.
        preprocessing: how clips are made.
        metrics: of the evaluation in the workdir, empty where there was none.
        versions: of the packages that wrote the export.
        config: the whole config of the training run.
    """

    format: str
    model: Mapping[str, Any]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    config: Mapping[str, Any]


def card_path(export: str | os.PathLike) -> pathlib.Path:
    """Where the card of an export lies: ``out.onnx`` has ``out.onnx.json``.

    Exports of one network in several formats may so lie side by side, each with its own card.
    """
    export = pathlib.Path(export)
    return export.with_name(f"{export.name}.json")


def write_card(export: str | os.PathLike, card: Card) -> pathlib.Path:
    """Write the card of an export beside it."""
    path = card_path(export)
    path.write_text(json.dumps(dataclasses.asdict(card), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def read_card(export: str | os.PathLike) -> Card:
    """The card of an export.

    Raises:
        ValueError: if there is none, or it is no card.
    """
    path = card_path(export)
    if not path.is_file():
        raise ValueError(f"{export} has no card: {path} is expected beside it, where tools.export wrote it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        preprocessing = Preprocessing(**_with_tuples(content["preprocessing"]))
        card = Card(**{**content, "preprocessing": preprocessing, "labels": tuple(content["labels"])})
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is not the card of an export: {' '.join(str(error).split())}") from error
    if card.format not in FORMATS or preprocessing.input not in INPUTS:
        raise ValueError(
            f"{path} has the format {card.format!r} with input {preprocessing.input!r}; "
            f"known are {', '.join(FORMATS)} with {' or '.join(INPUTS)}"
        )
    return card


def _with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}

"""The card of an export: a JSON file beside it with its model, labels, preprocessing and metrics."""

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from motion_jax.fields import with_tuples
from motion_jax.models import ModelConfig, VideoClassifier

FORMATS = ("pytorch", "safetensors", "stablehlo", "onnx", "saved_model", "hub")
FORMAT_VERSION = 1
"""Version of the cards; a card with a larger one may have another meaning."""
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
        streaming: of an export that takes one frame at a time: ``frame``, the shape of a frame, and ``state``, name ->
            ``shape``, ``dtype`` and ``start``, the value of the whole tensor before the first frame. Shapes have no
            batch axis. None for an export that takes clips.
        sha256: checksum of the export, see ``checksum``; None before it is written, and in cards of older versions.
        format_version: version of the card.
    """

    format: str
    model: Mapping[str, Any]
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    metrics: Mapping[str, Any]
    versions: Mapping[str, str]
    config: Mapping[str, Any]
    streaming: Mapping[str, Any] | None = None
    sha256: str | None = None
    format_version: int = FORMAT_VERSION

    def build(self) -> VideoClassifier:
        """Build the model.

        Raises:
            ValueError: if the card describes none that this version knows.
        """
        try:
            return ModelConfig(**with_tuples(self.model)).build(len(self.labels))
        except TypeError as error:
            raise ValueError(f"the card describes no model: {error}") from error


def checksum(export: str | os.PathLike) -> str:
    """Return the SHA-256 of a file, or of the names and bytes of all files in a folder."""
    export = pathlib.Path(export)
    if export.is_file():
        return _sha256(export)
    files = sorted(path for path in export.rglob("*") if path.is_file())
    lines = [f"{_sha256(path)} {path.relative_to(export).as_posix()}\n" for path in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def card_path(export: str | os.PathLike) -> pathlib.Path:
    """Return the path of an export's card: ``out.onnx`` has ``out.onnx.json``.

    Exports of one network in several formats can share a folder, each with its own card.
    """
    export = pathlib.Path(export)
    return export.with_name(f"{export.name}.json")


def write_card(export: str | os.PathLike, card: Card, *, path: pathlib.Path | None = None) -> pathlib.Path:
    """Write the card of an export, with the checksum of the export and one of the card itself.

    It is written beside the export, or to ``path``.
    """
    path = path or card_path(export)
    content = {**dataclasses.asdict(card), "sha256": checksum(export)}
    content["card_sha256"] = _content_sha256(content)
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def _content_sha256(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a card, whatever its layout."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_card(export: str | os.PathLike, *, path: pathlib.Path | None = None) -> Card:
    """Read the card of an export, beside it or at ``path``, and check both against their checksums.

    Raises:
        ValueError: if there is no card, the file is not a card or one of a newer version, or one of the two is not as
            it was written.
    """
    path = path or card_path(export)
    if not path.is_file():
        raise ValueError(f"{export} has no card: {path} is expected beside it, where tools.export wrote it")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.get("format_version", FORMAT_VERSION) > FORMAT_VERSION:
            raise ValueError(
                f"it has version {content['format_version']}, and this motion-jax reads up to {FORMAT_VERSION}: "
                "pip install --upgrade motion-jax"
            )
        expected = content.pop("card_sha256", None)
        if expected is not None and expected != _content_sha256(content):
            raise ValueError("its values are not those that were written; copy or export it again")
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
    if card.sha256 is not None and card.sha256 != checksum(export):
        raise ValueError(f"{export} is not as it was written, says its card {path}: copy or export it again")
    return card

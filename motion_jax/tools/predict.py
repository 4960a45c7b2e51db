"""Predict the classes of video files with a checkpoint or an export.

Examples:
    python -m motion_jax.tools.predict VIDEO.mp4 --checkpoint=runs/demo/msnet_tsm_r18
    python -m motion_jax.tools.predict VIDEOS MORE.txt --checkpoint=runs/mine --json
    python -m motion_jax.tools.predict VIDEO.mp4 --checkpoint=runs/mine --clips=10 --crops=3
    python -m motion_jax.tools.predict VIDEO.mp4 --checkpoint=runs/mine --save=seen.mp4

A folder stands for all videos below it, a .txt file for the paths it lists, one per line. Frames are resized, sampled
and cropped as the checkpoint's config says, so that a video has the same scores as in eval.py. Files that cannot be
read are reported and skipped; if none can be read, the exit status is 2.
"""

import argparse
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from motion_jax.cli import Parser, any_place, positive, print_json, run, table, this_machine
from motion_jax.data.clips.given_videos import list_videos, try_read
from motion_jax.data.clips.shown_clips import clip_of_frames
from motion_jax.data.clips.single_video import shown_pair, views_of, whole_view
from motion_jax.data.clips.views import at_full_resolution
from motion_jax.data.config import DataConfig
from motion_jax.data.storage.video_files import StoredFrames
from motion_jax.data.storage.work import parallel_map
from motion_jax.experiment import Experiment, load_trained
from motion_jax.inspection import sheets
from motion_jax.inspection.animation import FORMATS, write_animation
from motion_jax.inspection.clip_inspection import ClipInspection, make_inspector
from motion_jax.inspection.panels import DrawnClip
from motion_jax.text import printable
from motion_jax.training.evaluation import EvalConfig
from motion_jax.training.progress import bar, log
from motion_jax.weights import load_exported

TOP = 5
PICTURES = (".png", ".svg", ".pdf", *FORMATS)
WIDTH = 7.0  # inches of a picture
# Frame rate of a saved video if the file has none, or one that no player shows.
DEFAULT_FPS = 10.0


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that predicts, with the protocol of its clips.

    Attributes:
        labels: names of the classes.
        data: how frames are stored, sampled and cropped.
        protocol: the number of views per video and their average.
        logits: function from clips (n, t, h, w, 3) uint8 to logits (n, k).
        inspect: function from a clip (t, h, w, 3) uint8 to what the network sees in it; None for an export.
    """

    labels: tuple[str, ...]
    data: DataConfig
    protocol: EvalConfig
    logits: Callable[[np.ndarray], np.ndarray]
    inspect: Callable[[np.ndarray], ClipInspection] | None


@dataclasses.dataclass(frozen=True)
class Seen:
    """The views of a video (v, t, h, w, 3), with its stored frames."""

    views: np.ndarray
    stored: StoredFrames


def main() -> None:
    """Print the classes of the files with their probabilities."""
    arguments = parse_arguments()
    files = list_videos(arguments.files)
    pictures = dict(zip(files, picture_paths(files, arguments.save), strict=True)) if arguments.save else {}
    network = open_network(arguments.checkpoint)
    options = ("clips", "crops", "full_resolution")
    given = {name: value for name in options if (value := getattr(arguments, name)) is not None}
    protocol = dataclasses.replace(network.protocol, **given)
    data = at_full_resolution(network.data) if protocol.full_resolution else network.data
    network = dataclasses.replace(network, data=data, protocol=protocol)

    results: dict[pathlib.Path, dict[str, Any]] = {}
    with bar(total=len(files), desc="predict", unit="video", leave=False) as progress:
        for file, result, seen in predict(network, files, batch_size=min(arguments.batch, len(files))):
            results[file] = {"file": str(file), **result}
            if seen and pictures:
                draw(network, seen.stored, results[file], pictures[file])
            if result.get("remark") or (seen is None and len(files) > 1):
                log(f"{file}: {result.get('remark') or result['error']}")
            progress.update()

    predictions = [results[file] for file in files]
    done = [result for result in predictions if "error" not in result]
    if done:
        print(as_table(done))
    if pictures and done:
        print(f"seen -> {printable(arguments.save if len(files) == 1 else arguments.save.with_suffix(''))}")
    if arguments.json:
        print_json({"predictions": predictions})
    if not done:
        one = f"{files[0]}: {predictions[0]['error']}"
        raise ValueError(one if len(files) == 1 else f"none of the {len(files)} videos can be read")


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    files = "a video, a folder of videos or frames, a .txt list"
    parser.add_argument("files", nargs="+", type=this_machine, metavar="FILE", help=files)
    source = "a workdir, a checkpoint in one, or an export"
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help=source)
    parser.add_argument("--clips", type=positive, metavar="N", help="clips per video; default: as the config says")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops per clip; default: as the config says")
    whole = "crop views from the whole stored short side; default: as the config says"
    parser.add_argument("--full_resolution", action=argparse.BooleanOptionalAction, help=whole)
    parser.add_argument("--batch", type=positive, default=8, metavar="N", help="videos per batch; default: 8")
    save = "draw the prediction and what the network sees; several videos go into the folder OUT"
    parser.add_argument("--save", type=this_machine, metavar="OUT.png|.svg|.pdf|.webp|.gif|.mp4", help=save)
    arguments = parser.parse_args()
    if arguments.save and arguments.save.suffix not in PICTURES:
        parser.error(f"--save takes a path ending in {', '.join(PICTURES)}; got {str(arguments.save)!r}")
    return arguments


def picture_paths(files: Sequence[pathlib.Path], save: pathlib.Path) -> list[pathlib.Path]:
    """Return the path of each video's picture: ``save`` for one video, else below a folder of that name."""
    if save.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"--save={save} would replace a video that is read: choose another name")
    if len(files) == 1:
        return [save]
    places = [pathlib.Path(os.path.abspath(file)) for file in files]
    common = os.path.commonpath([place.parent for place in places])
    folder = save.with_suffix("")
    return [folder / f"{place.relative_to(common)}{save.suffix}" for place in places]


def open_network(path: epath.Path) -> Network:
    """Open a workdir, a checkpoint or an export for prediction; ValueError if it is none of them."""
    if path.is_file() or (path / "saved_model.pb").is_file():
        exported = load_exported(path)
        experiment = Experiment.from_config(exported.card.config)
        return Network(exported.card.labels, experiment.data, experiment.eval, exported.predict, inspect=None)
    trained = load_trained(path)
    model, variables = trained.model, jax.device_put(trained.restored.variables)
    apply = jax.jit(lambda variables, clips: model.apply(variables, clips, train=False))
    return Network(
        labels=trained.restored.labels,
        data=trained.experiment.data,
        protocol=trained.experiment.eval,
        logits=lambda clips: np.asarray(apply(variables, clips)),
        inspect=make_inspector(model, variables),
    )


def predict(
    network: Network, files: Sequence[pathlib.Path], *, batch_size: int
) -> Iterator[tuple[pathlib.Path, dict[str, Any], Seen | None]]:
    """Predict files in batches, and yield each file with its result and its views.

    A result holds ``label``, ``probability``, ``top5`` as (label, probability) pairs, and a ``remark`` if part of the
    file cannot be read. If none of it can be read, the result holds ``error`` and there are no views.
    """
    batch: list[tuple[pathlib.Path, Seen]] = []
    for file, seen in zip(files, parallel_map(lambda file: read(file, network), files), strict=True):
        if isinstance(seen, str):
            yield file, {"error": seen}, None
            continue
        batch.append((file, seen))
        if len(batch) == batch_size:
            yield from predict_batch(network, batch, batch_size=batch_size)
            batch = []
    if batch:
        yield from predict_batch(network, batch, batch_size=batch_size)


def predict_batch(
    network: Network, batch: Sequence[tuple[pathlib.Path, Seen]], *, batch_size: int
) -> Iterator[tuple[pathlib.Path, dict[str, Any], Seen]]:
    """Predict at most ``batch_size`` videos. Batches are padded to one shape, so that one program serves all."""
    views = [seen.views for _, seen in batch]
    clips = np.stack([*views, *[np.zeros_like(views[0])] * (batch_size - len(views))])
    logits = network.logits(clips.reshape(-1, *clips.shape[2:])).reshape(*clips.shape[:2], -1)
    for (file, seen), scores in zip(batch, average(logits, network.protocol.average), strict=False):
        best = np.argsort(-scores, kind="stable")[:TOP]
        top5 = [(network.labels[label], float(scores[label])) for label in best]
        remark = {"remark": seen.stored.remark} if seen.stored.remark else {}
        yield file, {"label": top5[0][0], "probability": top5[0][1], "top5": top5, **remark}, seen


def read(file: pathlib.Path, network: Network) -> Seen | str:
    """Return the views of a file, or the reason why it cannot be read."""
    stored = try_read(file, network.data)
    if isinstance(stored, str):
        return stored
    protocol = network.protocol
    return Seen(views_of(stored.frames, network.data, clips=protocol.clips, crops=protocol.crops), stored)


def average(logits: np.ndarray, kind: str) -> np.ndarray:
    """Average logits of views (n, v, k) to probabilities (n, k): before the softmax (``"logits"``) or after it."""
    if kind == "logits":
        logits = logits.mean(axis=1, keepdims=True)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights / weights.sum(axis=-1, keepdims=True)).mean(axis=1)


def draw(network: Network, stored: StoredFrames, result: dict[str, Any], target: pathlib.Path) -> None:
    """Save a picture or an animation of the centre view, with the prediction and what the network sees."""
    target.parent.mkdir(parents=True, exist_ok=True)
    frames, times = clip_of_frames(stored.frames, stored.fps, network.data)
    probabilities = np.zeros(len(network.labels))
    for name, probability in result["top5"]:
        probabilities[network.labels.index(name)] = probability
    if network.inspect:
        seen = dataclasses.replace(network.inspect(frames), probabilities=probabilities)
    else:
        seen = ClipInspection(frames, probabilities, probabilities[None], activation=None, comparison=None)
    clip = DrawnClip(seen, network.labels, printable(pathlib.Path(result["file"]).name), times)
    if target.suffix not in FORMATS:
        sheets.save(sheets.strip(clip, width=WIDTH), target)
        return
    shown = shown_pair(len(stored.frames), network.data)
    moments = ((int(at), [frame]) for at, frame in zip(shown, whole_view(stored.frames, network.data), strict=True))
    fps = stored.fps if 1 <= stored.fps <= 120 else DEFAULT_FPS
    write_animation(target, sheets.animation([clip], moments, width=WIDTH), fps=fps)


def as_table(predictions: Sequence[dict[str, Any]]) -> str:
    """Format the best classes of every file, one per row."""
    rows = [
        ("" if rank else result["file"], label, round(probability, 4))
        for result in predictions
        for rank, (label, probability) in enumerate(result["top5"])
    ]
    return table(("file", "label", "probability"), rows)


if __name__ == "__main__":
    run(main)

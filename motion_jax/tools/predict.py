"""Predict the classes of video files with a checkpoint or an export.

Examples:
    python -m motion_jax.tools.predict VIDEO.mp4 --checkpoint=runs/demo/msnet_tsm_r18
    python -m motion_jax.tools.predict VIDEOS MORE.txt --checkpoint=runs/mine --json
    python -m motion_jax.tools.predict VIDEO.mp4 --checkpoint=runs/mine --clips=10 --crops=3
    python -m motion_jax.tools.predict VIDEO.mp4 --checkpoint=runs/mine --save=seen.mp4
    python -m motion_jax.tools.predict --stream VIDEO.mp4 --checkpoint=runs/stream --smoothing=0.5 --save=seen.mp4
    python -m motion_jax.tools.predict --stream 0 --checkpoint=runs/stream --every=2 --hysteresis=0.1,5

A folder stands for all videos below it, a .txt file for the paths it lists, one per line. Frames are resized, sampled
and cropped as the checkpoint's config says, so that a video has the same scores as in eval.py. Files that cannot be
read are reported and skipped; if none can be read, the exit status is 2.

--stream follows one video, or the camera of that number, with a causal network: one decision per frame. It prints each
change of the decision until the video ends or Ctrl-C is pressed, and then the latency, from the decoded frame to the
decision.
"""

import argparse
import collections
import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from motion_jax.cli import Parser, any_place, positive, print_json, run, table, this_machine
from motion_jax.data.clips.given_videos import list_videos, try_read
from motion_jax.data.clips.live_frames import play
from motion_jax.data.clips.shown_clips import clip_of_frames
from motion_jax.data.clips.single_video import shown_pair, whole_view
from motion_jax.data.storage.video_files import StoredFrames
from motion_jax.data.storage.work import parallel_map
from motion_jax.inspection import sheets
from motion_jax.inspection.animation import FORMATS, write_animation
from motion_jax.inspection.clip_inspection import ClipInspection, make_inspector
from motion_jax.inspection.decisions import Decisions
from motion_jax.inspection.panels import DrawnClip
from motion_jax.inspection.stream_picture import StreamPainter
from motion_jax.live import Decided, decide, open_stream_network
from motion_jax.prediction import Predictor, best_first, load_run
from motion_jax.text import printable
from motion_jax.training.progress import bar, log
from motion_jax.weights import load_exported
from motion_jax.weights.hub import is_hub_folder

TOP = 5
PICTURES = (".png", ".svg", ".pdf", *FORMATS)
WIDTH = 7.0  # inches of a picture
# Frame rate of a saved video if the file has none, or one that no player shows.
DEFAULT_FPS = 10.0

# Function from a clip (t, h, w, 3) uint8 to what the network sees in it.
Inspect = Callable[[np.ndarray], ClipInspection]


@dataclasses.dataclass(frozen=True)
class Seen:
    """The views of a video (v, t, h, w, 3), with its stored frames."""

    views: np.ndarray
    stored: StoredFrames


def main() -> None:
    """Print the classes of the files with their probabilities."""
    arguments = parse_arguments()
    if arguments.stream is not None:
        result = stream(arguments)
        if arguments.json:
            print_json({"stream": result})
        return
    files = list_videos(arguments.files)
    pictures = dict(zip(files, picture_paths(files, arguments.save), strict=True)) if arguments.save else {}
    options = {name: getattr(arguments, name) for name in ("clips", "crops", "full_resolution")}
    predictor, inspect = open_network(arguments.checkpoint, **options)

    results: dict[pathlib.Path, dict[str, Any]] = {}
    with bar(total=len(files), desc="predict", unit="video", leave=False) as progress:
        for file, result, seen in predict(predictor, files, batch_size=min(arguments.batch, len(files))):
            results[file] = {"file": str(file), **result}
            if seen and pictures:
                draw(predictor, inspect, seen.stored, results[file], pictures[file])
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
    parser.add_argument("files", nargs="*", type=this_machine, metavar="FILE", help=files)
    source = "a workdir, a checkpoint in one, or an export"
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help=source)
    parser.add_argument("--clips", type=positive, metavar="N", help="clips per video; default: as the config says")
    parser.add_argument("--crops", type=int, choices=(1, 3), help="crops per clip; default: as the config says")
    whole = "crop views from the whole stored short side; default: as the config says"
    parser.add_argument("--full_resolution", action=argparse.BooleanOptionalAction, help=whole)
    parser.add_argument("--batch", type=positive, default=8, metavar="N", help="videos per batch; default: 8")
    save = "draw the prediction and what the network sees; several videos go into the folder OUT"
    parser.add_argument("--save", type=this_machine, metavar="OUT.png|.svg|.pdf|.webp|.gif|.mp4", help=save)
    group = parser.add_argument_group("one frame at a time")
    group.add_argument("--stream", type=video_or_camera, metavar="FILE|CAMERA", help="a video, or a camera: 0, 1, ...")
    every = "take every N-th frame, to match the distance of the frames in training; default: 1"
    group.add_argument("--every", type=positive, metavar="N", help=every)
    smoothing = "average the probabilities; the weight of a frame falls to 37 %% in this time; default: 0"
    group.add_argument("--smoothing", type=seconds, metavar="SECONDS", help=smoothing)
    hysteresis = "change the decision when a class has led by this margin for this many frames; default: 0,1"
    group.add_argument("--hysteresis", type=margin_and_frames, metavar="MARGIN,FRAMES", help=hysteresis)
    arguments = parser.parse_args()
    of_videos, of_streams = ("files", "clips", "crops", "full_resolution"), ("every", "smoothing", "hysteresis")
    streaming = arguments.stream is not None
    if not streaming and not arguments.files:
        parser.error("the following arguments are required: FILE, or --stream")
    for name in of_videos if streaming else of_streams:
        if getattr(arguments, name) not in (None, []):
            name = "FILE" if name == "files" else f"--{name}"
            parser.error(f"{name} and --stream exclude each other" if streaming else f"{name} needs --stream")
    pictures = (".mp4",) if streaming else PICTURES
    if arguments.save and arguments.save.suffix not in pictures:
        parser.error(f"--save takes a path ending in {', '.join(pictures)}; got {str(arguments.save)!r}")
    return arguments


def video_or_camera(text: str) -> pathlib.Path | int:
    """Parse the source of a stream."""
    return int(text) if text.isdecimal() else this_machine(text)


def seconds(text: str) -> float:
    """Parse a time."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected seconds, 0 or more; got {text!r}")
    return value


def margin_and_frames(text: str) -> tuple[float, int]:
    """Parse a margin and a number of frames."""
    margin, _, frames = text.partition(",")
    try:
        rule = float(margin), int(frames)
    except ValueError:
        rule = -1.0, 0
    if not (0 <= rule[0] <= 1 and rule[1] >= 1):
        raise argparse.ArgumentTypeError(
            f"expected a margin from 0 to 1 and a number of frames, as 0.1,5; got {text!r}"
        )
    return rule


def stream(arguments: argparse.Namespace) -> dict[str, Any]:
    """Follow a video or a camera, print each change of the decision, and return all decisions with their latency."""
    source = arguments.stream
    name = f"camera {source}" if isinstance(source, int) else str(source)
    if arguments.save and not isinstance(source, int):
        picture_paths([source], arguments.save)
    network = open_stream_network(arguments.checkpoint, motion=bool(arguments.save))
    fps, frames = play(source, network.data, every=arguments.every or 1)
    margin, hold = arguments.hysteresis or (0.0, 1)
    decisions = Decisions(smoothing=arguments.smoothing or 0.0, margin=margin, hold=hold)
    times, found = [], []

    def decided() -> Iterator[Decided]:
        label = None
        with bar(bar_format="{desc}", leave=False) as line:
            for each in decide(network, frames, decisions):
                text = f"{each.time:9.2f} s  {each.label}  {each.probability:.1%}"
                if each.label != label:
                    line.write(printable(text))
                line.set_description_str(printable(f"{text}  {each.milliseconds:.1f} ms"))
                label = each.label
                times.append(each.milliseconds)
                found.append({"time": each.time, "label": each.label, "probability": each.probability})
                yield each

    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        painter = StreamPainter()
        pictures = (
            painter.draw(
                each.view, f"{each.time:.2f} s  {each.label}  {each.probability:.0%}", each.probability, each.motion
            )
            for each in decided()
        )
        seen = write_animation(arguments.save, pictures, fps=min(max(fps, 1), 120))
        print(f"seen -> {printable(seen)}")
    else:
        collections.deque(decided(), maxlen=0)
    if not found:
        raise ValueError(f"{name}: there was no frame to decide about")
    latency = {"median": float(np.median(times)), "p95": float(np.percentile(times, 95))}
    print(
        f"{len(found)} frames; latency {latency['median']:.1f} ms (median), {latency['p95']:.1f} ms (95th percentile)"
    )
    return {"file": name, "frames": len(found), "fps": fps, "latency_ms": latency, "decisions": found}


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


def open_network(path: epath.Path, **options: Any) -> tuple[Predictor, Inspect | None]:
    """Open a workdir, a checkpoint, or an export, a hub folder included, for prediction.

    Args:
        path: the network.
        options: of the ``Predictor``.

    Returns:
        The predictor, and the function that shows what the network sees in a clip; None for an export.

    Raises:
        ValueError: if it is none of them.
    """
    if path.is_file() or (path / "saved_model.pb").is_file() or is_hub_folder(path):
        return Predictor(load_exported(path), **options), None
    trained = load_run(path)
    return Predictor(trained, **options), make_inspector(trained.model, jax.device_put(trained.variables))


def predict(
    predictor: Predictor, files: Sequence[pathlib.Path], *, batch_size: int
) -> Iterator[tuple[pathlib.Path, dict[str, Any], Seen | None]]:
    """Predict files in batches, and yield each file with its result and its views.

    A result holds ``label``, ``probability``, ``top5`` as (label, probability) pairs, and a ``remark`` if part of the
    file cannot be read. If none of it can be read, the result holds ``error`` and there are no views.
    """
    batch: list[tuple[pathlib.Path, Seen]] = []
    for file, seen in zip(files, parallel_map(lambda file: read(file, predictor), files), strict=True):
        if isinstance(seen, str):
            yield file, {"error": seen}, None
            continue
        batch.append((file, seen))
        if len(batch) == batch_size:
            yield from predict_batch(predictor, batch, batch_size=batch_size)
            batch = []
    if batch:
        yield from predict_batch(predictor, batch, batch_size=batch_size)


def predict_batch(
    predictor: Predictor, batch: Sequence[tuple[pathlib.Path, Seen]], *, batch_size: int
) -> Iterator[tuple[pathlib.Path, dict[str, Any], Seen]]:
    """Predict at most ``batch_size`` videos. Batches are padded to one shape, so that one program serves all."""
    views = [seen.views for _, seen in batch]
    clips = np.stack([*views, *[np.zeros_like(views[0])] * (batch_size - len(views))])
    for (file, seen), scores in zip(batch, predictor.scores(clips), strict=False):
        top5 = [(predictor.labels[label], float(scores[label])) for label in best_first(scores)[:TOP]]
        remark = {"remark": seen.stored.remark} if seen.stored.remark else {}
        yield file, {"label": top5[0][0], "probability": top5[0][1], "top5": top5, **remark}, seen


def read(file: pathlib.Path, predictor: Predictor) -> Seen | str:
    """Return the views of a file, or the reason why it cannot be read."""
    stored = try_read(file, predictor.data)
    return stored if isinstance(stored, str) else Seen(predictor.views(stored.frames), stored)


def draw(
    predictor: Predictor,
    inspect: Inspect | None,
    stored: StoredFrames,
    result: dict[str, Any],
    target: pathlib.Path,
) -> None:
    """Save a picture or an animation of the centre view, with the prediction and what the network sees."""
    target.parent.mkdir(parents=True, exist_ok=True)
    frames, times = clip_of_frames(stored.frames, stored.fps, predictor.data)
    probabilities = np.zeros(len(predictor.labels))
    for name, probability in result["top5"]:
        probabilities[predictor.labels.index(name)] = probability
    if inspect:
        seen = dataclasses.replace(inspect(frames), probabilities=probabilities)
    else:
        seen = ClipInspection(frames, probabilities, probabilities[None], activation=None, comparison=None)
    clip = DrawnClip(seen, predictor.labels, printable(pathlib.Path(result["file"]).name), times)
    if target.suffix not in FORMATS:
        sheets.save(sheets.strip(clip, width=WIDTH), target)
        return
    shown = shown_pair(len(stored.frames), predictor.data)
    moments = ((int(at), [frame]) for at, frame in zip(shown, whole_view(stored.frames, predictor.data), strict=True))
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

"""Export a trained network for other programs and check that the export computes the same logits.

Examples:
    python -m motion_jax.tools.export --checkpoint=runs/demo/msnet_tsm_r18 --format=safetensors --output=net.safetensors
    python -m motion_jax.tools.export --checkpoint=runs/demo/msnet_tsm_r18 --format=stablehlo --output=net.stablehlo \\
        --input=uint8
    python -m motion_jax.tools.export --checkpoint=runs/demo/msnet_tsm_r18 --format=onnx --output=net.onnx
    python -m motion_jax.tools.export --checkpoint=runs/demo/msnet_tsm_r18 --format=pytorch --output=net.pth.tar \\
        --prefix=module.base_model.
    python -m motion_jax.tools.export --checkpoint=runs/stream --format=onnx --output=net.onnx --streaming
    python -m motion_jax.tools.export --checkpoint=runs/demo/msnet_tsm_r18 --format=hub --output=net --license=mit

Formats: pytorch (weights for the official code), safetensors (weights under the names of this library), stablehlo
(jax.export, for CPU, CUDA and TPU), onnx, saved_model (a folder), and hub (a folder for the Hugging Face hub, which
--push=org/name uploads with the token HF_TOKEN). A card is written beside the file, <file>.json, or into the folder of
the hub: model, labels, preprocessing, metrics, versions and the whole config. The export is read back by its own
runtime and run on random clips; if a logit differs by more than 1e-4, or 1e-6 of the largest logit if that is more,
nothing is written. With --streaming, a causal network is exported as a function of one frame: its state is an input and
an output (stablehlo and onnx). Everything is exported in float32.
"""

import argparse
import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

import motion_jax
from motion_jax.cli import Parser, any_place, print_json, run, this_machine
from motion_jax.data.clips.shown_clips import clip_of_example
from motion_jax.experiment import Trained, load_trained, workdir_of
from motion_jax.inspection import sheets
from motion_jax.inspection.clip_inspection import make_inspector
from motion_jax.inspection.panels import DrawnClip
from motion_jax.models import VideoClassifier
from motion_jax.training.progress import log
from motion_jax.training.workdir import read_json
from motion_jax.weights import Exported, hub, load_exported, load_torch, save_torch, stablehlo
from motion_jax.weights.card import INPUTS, Card, Preprocessing, card_path, write_card
from motion_jax.weights.converters import onnx_graph, saved_model
from motion_jax.weights.near_ties import ROUNDING, logits_and_gap
from motion_jax.weights.save import save_safetensors

# Largest difference of a logit: absolute, and as a share of the largest logit, which is the precision of float32.
TOLERANCE, SHARE = 1e-4, 1e-6
SUFFIXES = {
    "pytorch": (".pth", ".pt", ".pth.tar"),
    "safetensors": (".safetensors",),
    "stablehlo": (".stablehlo",),
    "onnx": (".onnx",),
    "saved_model": ("",),
    "hub": ("",),
}
GRAPHS = {"stablehlo": stablehlo, "onnx": onnx_graph, "saved_model": saved_model}
STREAMS = {"stablehlo": stablehlo, "onnx": onnx_graph}
# Packages whose versions are written into the card.
PACKAGES = {
    "pytorch": ("torch",),
    "safetensors": ("safetensors",),
    "stablehlo": (),
    "onnx": ("jax2onnx", "onnx", "onnxruntime"),
    "saved_model": ("tensorflow", "tensorflow-cpu"),
    "hub": ("safetensors",),
}
# Frames of the clips on which streaming exports are compared.
STREAMED = 5
WIDTH = 5.0  # inches of the preview picture
# Clips are drawn until enough of them have no near-tie in the matching.
MOST_DRAWS = 100


def main() -> None:
    """Write the export and its card, and compare."""
    parser = Parser(__doc__)
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help="a workdir or checkpoint")
    parser.add_argument("--format", required=True, choices=SUFFIXES)
    parser.add_argument("--output", required=True, type=this_machine, metavar="FILE", help="replaced if it exists")
    clips = "clips that stablehlo, onnx and saved_model take: uint8 of 0..255, or normalised float32 (default)"
    parser.add_argument("--input", default="float32", choices=INPUTS, help=clips)
    parser.add_argument("--prefix", default="", help="of the names in a pytorch file, such as module.base_model.")
    parser.add_argument("--batch", type=int, default=3, help="compare batches of one clip and of this many; default: 3")
    streaming = "take one frame and the state, and give the next state; for causal networks (stablehlo and onnx)"
    parser.add_argument("--streaming", action="store_true", help=streaming)
    of_hub = parser.add_argument_group("the hub")
    push = "upload the folder to this repository, which is created if it is absent"
    of_hub.add_argument("--push", metavar="ORG/NAME", help=push)
    of_hub.add_argument("--revision", metavar="BRANCH", help="branch to upload to; default: the main one")
    of_hub.add_argument("--private", action="store_true", help="create a private repository")
    of_hub.add_argument(
        "--license", metavar="ID", help="such as apache-2.0; default: the page says that none is stated"
    )
    picture = "without the picture of a validation clip"
    of_hub.add_argument("--no-preview", dest="preview", action="store_false", help=picture)
    arguments = parser.parse_args()
    _check(arguments, parser)
    trained = load_trained(arguments.checkpoint)
    section = dataclasses.replace(trained.experiment.model, dtype="float32")
    model = section.build(len(trained.restored.labels))
    card = describe(trained, arguments.format, model, input_=arguments.input, streaming=arguments.streaming)
    output = arguments.output
    output.parent.mkdir(parents=True, exist_ok=True)
    with _folder_beside(output) as folder:
        written = folder / output.name
        log(f"writing {output}")
        if card.format == "hub":
            written.mkdir()
            if arguments.preview:
                draw_preview(trained, model, written / hub.PICTURE)
            name = arguments.push or output.resolve().name
            hub.write_hub_folder(written, trained.variables, card, name=name, license=arguments.license)
        else:
            write(written, model, trained.restored.variables, card, prefix=arguments.prefix)
            write_card(written, card)
        log("reading it back and comparing")
        result = compare(written, model, trained.restored.variables, card, batch=arguments.batch)
        allowed = max(TOLERANCE, SHARE * result["largest_logit"])
        if not result["difference"] <= allowed:  # nor is NaN
            raise ValueError(
                f"{output} is not written: read back as {card.format}, its logits differ from those of the network by "
                f"{result['difference']:.1e}, more than {allowed:.0e}"
            )
        if card.format == "hub":
            hub.move_hub_folder(written, output)
        else:
            for path in (written, card_path(written)):
                target = output.parent / path.name
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(path, target)
    path = output / hub.CARD if card.format == "hub" else card_path(output)
    size = sum(each.stat().st_size for each in (output, *output.rglob("*")) if each.is_file())
    result = {"output": str(output), "card": str(path), "bytes": size, **result}
    print(
        f"{output}: {result['bytes'] / 1e6:.1f} MB, logits differ by {result['difference']:.1e} at most "
        f"(largest {result['largest_logit']:.3g}, batches of 1 and {arguments.batch}), "
        f"loaded in {result['load_seconds']:.1f} s; card {path}"
    )
    if arguments.push:
        log(f"uploading to {arguments.push}")
        result["commit"] = hub.push(output, arguments.push, revision=arguments.revision, private=arguments.private)
        print(f"{arguments.push}: {result['commit']}")
    if arguments.json:
        print_json(result)


def draw_preview(trained: Trained, model: VideoClassifier, path: pathlib.Path) -> None:
    """Draw what the network sees in the first validation clip, or log why not."""
    try:
        if not trained.has_data:
            raise ValueError("its prepared data are not here")
        clip = clip_of_example(trained.dataset, "val", 0)
    except (ValueError, OSError) as error:
        log(f"no preview picture: {error}")
        return
    seen = make_inspector(model, trained.variables)(clip.frames)
    drawn = DrawnClip(seen, trained.labels, clip.title, clip.times, clip.label, clip.displacement)
    sheets.save(sheets.strip(drawn, width=WIDTH), path)


@contextlib.contextmanager
def _folder_beside(output: pathlib.Path) -> Iterator[pathlib.Path]:
    """Return a context with a folder for an export until it has been compared.

    A killed export leaves it behind. Its name is fixed, so that the next export deletes it.
    """
    folder = output.with_name(f".export-{output.name}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _check(arguments: argparse.Namespace, parser: Parser) -> None:
    format_, name = arguments.format, arguments.output.name
    if not (name.endswith(SUFFIXES[format_]) if format_ != "saved_model" else not arguments.output.suffix):
        expected = " or ".join(SUFFIXES[format_]) if format_ != "saved_model" else "no suffix: it is a folder"
        parser.error(f"--format={format_} needs an --output with {expected}; got {name}")
    if arguments.prefix and format_ != "pytorch":
        parser.error("--prefix is for --format=pytorch only")
    if arguments.input == "uint8" and format_ == "pytorch":
        parser.error("--input=uint8 is for formats that hold the network; the official code normalises its input")
    if arguments.streaming and format_ not in STREAMS:
        parser.error(f"--streaming is for --format={' or '.join(STREAMS)}; got {format_}")
    given = {name for name in ("push", "revision", "private", "license") if getattr(arguments, name)}
    if format_ != "hub" and given:
        parser.error(f"--{min(given)} is for --format=hub only")
    if not arguments.push and given & {"revision", "private"}:
        parser.error("--revision and --private are for --push")
    if format_ == "hub":
        hub.check_target(arguments.output)
    if arguments.push:
        hub.check_push(arguments.push)
    if arguments.batch < 1:
        parser.error(f"--batch must be 1 or more; got {arguments.batch}")


def describe(trained: Trained, format_: str, model: VideoClassifier, *, input_: str, streaming: bool = False) -> Card:
    """Return the card of an export of a checkpoint.

    Raises:
        ValueError: for ``streaming`` with a network that is not causal.
    """
    data = trained.experiment.data
    preprocessing = Preprocessing(
        **{name: getattr(data, name) for name in ("frames", "size", "resize", "sampling")},
        crop="none" if data.crop == "none" else "center",
        mean=model.mean,
        std=model.std,
        # The weights belong to a network of this library, which takes both.
        input="uint8" if format_ in ("safetensors", "hub") else input_,
    )
    return Card(
        format=format_,
        model={**trained.restored.config["model"], "dtype": "float32"},
        labels=trained.restored.labels,
        preprocessing=preprocessing,
        metrics=_metrics(trained),
        versions={"motion_jax": motion_jax.__version__, **_versions("jax", "flax", "numpy", *PACKAGES[format_])},
        config=trained.restored.config,
        streaming=_describe_stream(model, trained.restored.variables, data.size) if streaming else None,
    )


def _describe_stream(model: VideoClassifier, variables: Mapping[str, Any], size: int) -> dict[str, Any]:
    state = flatten(motion_jax.streaming.init(model, variables, size=(size, size)))
    return {
        "frame": (size, size, len(model.mean)),
        "state": {
            name: {"shape": value.shape[1:], "dtype": value.dtype.name, "start": 0} for name, value in state.items()
        },
    }


def flatten(state: Mapping[str, Any]) -> dict[str, Any]:
    """Name the tensors of a state by their paths, such as ``backbone/layer1_0/shifted``."""
    return flatten_dict(dict(state), sep="/")


def _metrics(trained: Trained) -> Mapping[str, Any]:
    """Return the metrics that eval.py wrote for this checkpoint; empty if there are none."""
    metrics = read_json(workdir_of(trained.restored.path) / "eval.json", dict)
    return metrics if metrics.get("protocol", {}).get("step") == trained.restored.step else {}


def _versions(*packages: str) -> dict[str, str]:
    installed = {each.metadata["Name"].lower() for each in importlib.metadata.distributions() if each.metadata["Name"]}
    return {name: importlib.metadata.version(name) for name in packages if name in installed}


def write(
    path: pathlib.Path, model: VideoClassifier, variables: Mapping[str, Any], card: Card, *, prefix: str = ""
) -> None:
    """Write a network in the format of its card."""
    if card.format == "pytorch":
        save_torch(path, model, variables, prefix=prefix)
    elif card.format == "safetensors":
        save_safetensors(path, variables)
    elif card.streaming:
        state = {
            name: jax.ShapeDtypeStruct(like["shape"], like["dtype"]) for name, like in card.streaming["state"].items()
        }
        frame = tuple(card.streaming["frame"])
        STREAMS[card.format].save_stream(
            path, stream_of(model, variables), state, frame, dtype=card.preprocessing.input
        )
    else:
        wanted = card.preprocessing
        shape = (wanted.frames, wanted.size, wanted.size, len(wanted.mean))
        # The weights become constants of the graph.
        GRAPHS[card.format].save(
            path, lambda clips: model.apply(variables, clips, train=False), shape, dtype=wanted.input
        )


def stream_of(model: VideoClassifier, variables: Mapping[str, Any]) -> Callable[..., tuple[jax.Array, dict[str, Any]]]:
    """Return the function from a flat state and frames (b, h, w, 3) to logits and the next flat state."""

    def step(state: Mapping[str, jax.Array], frame: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        logits, after = motion_jax.streaming.step(model, variables, unflatten_dict(state, sep="/"), frame)
        return logits, flatten(after)

    return step


def compare(
    path: pathlib.Path, model: VideoClassifier, variables: Mapping[str, Any], card: Card, *, batch: int
) -> dict[str, float]:
    """Run the export and the network itself on random clips, in batches of one and of ``batch`` clips.

    A streaming export gets ``STREAMED`` frames one after another, and its logits of each are compared with those that
    the network computes for the whole clips.

    Returns:
        ``difference`` and ``largest_logit``, the largest absolute values, and ``load_seconds``, the time that its own
        runtime takes to load the export.
    """
    reference = reference_of(model, of_frames=card.streaming is not None)
    wanted = dataclasses.replace(card.preprocessing, frames=STREAMED) if card.streaming else card.preprocessing
    clips, expected = _steady_clips(lambda clips: reference(variables, clips), wanted, count=batch)
    start = time.perf_counter()
    if card.format == "pytorch":
        # The file holds tensors only: they are run in the network itself.
        read = load_torch(path, model)
        seconds = time.perf_counter() - start
        found = [np.concatenate([np.asarray(reference(read, clip[None])[0]) for clip in clips])]
    else:
        exported = load_exported(path)
        seconds = time.perf_counter() - start
        predict = functools.partial(_stream, exported) if card.streaming else exported.predict
        found = [predict(clips[:1]), predict(clips)]
    difference = max(float(np.abs(logits - expected[: len(logits)]).max()) for logits in found)
    return {"difference": difference, "largest_logit": float(np.abs(expected).max()), "load_seconds": seconds}


def _stream(exported: Exported, clips: np.ndarray) -> np.ndarray:
    """Return the logits of each frame (b, t, num_classes) of clips, which are given frame by frame."""
    state, logits = exported.init(batch=len(clips)), []
    for frame in np.moveaxis(clips, 1, 0):
        of_frame, state = exported.step(state, frame)
        logits.append(of_frame)
    return np.stack(logits, axis=1)


def reference_of(model: VideoClassifier, *, of_frames: bool = False) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Compile the network as a function of variables and clips to logits and the matching margin of each clip."""
    return jax.jit(lambda variables, clips: logits_and_gap(model, variables, clips, of_frames=of_frames))


def _steady_clips(
    reference: Callable[[np.ndarray], tuple[jax.Array, jax.Array]], wanted: Preprocessing, *, count: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draw uint8 clips without near-ties in the matching, and return them with the network's logits."""
    rng = np.random.default_rng(0)
    clips, logits = [], []
    for _ in range(MOST_DRAWS):
        clip = _moving_clip(rng, wanted)
        its_logits, gap = reference(clip)
        if float(gap[0]) > ROUNDING:
            clips.append(clip)
            logits.append(np.asarray(its_logits))
        if len(clips) == count:
            return np.concatenate(clips), np.concatenate(logits)
    raise ValueError(
        f"of {MOST_DRAWS} random clips only {len(clips)} of {count} have a clear best match everywhere, so that the "
        "export cannot be compared; train the network further, or give a smaller --batch"
    )


def _moving_clip(rng: np.random.Generator, wanted: Preprocessing) -> np.ndarray:
    """Draw a clip of random 8-pixel cells that move evenly by up to 8 pixels per frame: (1, t, h, w, 3) uint8."""
    cells = wanted.size // 8 + 2 * (wanted.frames + 1)
    canvas = rng.integers(0, 256, (cells, cells, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    corner, (down, right), size = 8 * wanted.frames, rng.integers(-8, 9, 2), wanted.size
    frames = [canvas[corner + down * t :, corner + right * t :][:size, :size] for t in range(wanted.frames)]
    return np.stack(frames)[None]


if __name__ == "__main__":
    run(main)

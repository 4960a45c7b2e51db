"""Write a page that shows what one or two networks see in videos.

Examples:
    python -m motion_jax.tools.explore VIDEO.mp4 --checkpoint=runs/mine --output=page.html
    python -m motion_jax.tools.explore VIDEO.mp4 --checkpoint=runs/mine --label=kick --output=page.html
    python -m motion_jax.tools.explore VIDEOS --checkpoint=runs/mine --checkpoint=runs/other --output=page.html

The page is one file that needs no network: the clip as a player with displacement, confidence and class activation,
the similarities that a motion block computes for any cell, and the best classes per frame. Two checkpoints of the same
classes are shown side by side.

A folder stands for all videos below it, a .txt file for the paths it lists, one per line. Each clip is the centre view
of evaluation. The right class is that of --label, or the name of the folder that holds the video if it is a class.
"""

import argparse
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from motion_jax.cli import Parser, any_place, print_json, run, this_machine
from motion_jax.data.clips.given_videos import list_videos, try_read
from motion_jax.data.clips.single_video import views_of
from motion_jax.data.config import DataConfig
from motion_jax.experiment import Trained, load_trained
from motion_jax.inspection.clip_inspection import ClipInspection, make_inspector
from motion_jax.inspection.pages.explore import MOST_CLIPS, Clip, Network, explorer_page
from motion_jax.places import write_whole
from motion_jax.text import did_you_mean, printable
from motion_jax.training.progress import bar, log, log_compilation

MOST_CHECKPOINTS = 2


def main() -> None:
    """Write the page."""
    arguments = parse_arguments()
    files = list_videos(arguments.files)
    if arguments.output.resolve() in [file.resolve() for file in files]:
        raise ValueError(f"--output={arguments.output} would replace a video that is read: choose another name")
    if len(files) > MOST_CLIPS:
        raise ValueError(f"{len(files)} videos are too many for one page: give at most {MOST_CLIPS}")
    networks = [open_network(path) for path in arguments.checkpoint]
    labels = same_labels(networks)
    known = right_label(arguments.label, labels)

    clips, results = [], []
    inspectors = [inspector(network) for network in networks]
    with bar(total=len(files) * len(networks), desc="explore", unit="clip", leave=False) as progress:
        for file in files:
            seen = inspect(file, networks, inspectors, progress.update)
            if isinstance(seen, str):
                results.append({"file": str(file), "error": seen})
                if len(files) > 1:
                    log(f"{file}: {seen}")
                continue
            label, origin = (known, "given by --label") if known is not None else label_of_folder(file, labels)
            clips.append(Clip(printable(shown_name(file)), label, origin, seen))
            results.append(summary(file, clips[-1], labels))
    if not clips:
        error = f"{files[0]}: {results[0]['error']}"
        raise ValueError(error if len(files) == 1 else f"none of the {len(files)} videos can be read")
    page = explorer_page(names_of(networks, arguments.checkpoint), clips, list(map(printable, labels)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    write_whole(epath.Path(arguments.output), page)
    for result in results:
        if "error" not in result:
            print(f"{printable(result['file'])}: {', '.join(describe(each) for each in result['networks'])}")
    print(f"page -> {printable(arguments.output)} ({len(page) / 1e6:.1f} MB)")
    if arguments.json:
        print_json({"page": str(arguments.output), "bytes": len(page.encode()), "videos": results})


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    files = "a video, a folder of videos or frames, a .txt list"
    parser.add_argument("files", nargs="+", type=this_machine, metavar="VIDEO", help=files)
    source = "a workdir or a checkpoint in one; twice for two networks side by side"
    parser.add_argument("--checkpoint", required=True, action="append", type=any_place, metavar="PATH", help=source)
    parser.add_argument("--output", required=True, type=this_machine, metavar="PAGE.html", help="the page to write")
    parser.add_argument("--label", metavar="CLASS", help="right class of the videos; default: name of their folder")
    arguments = parser.parse_args()
    if arguments.output.suffix != ".html":
        parser.error(f"--output takes a path ending in .html; got {str(arguments.output)!r}")
    if len(arguments.checkpoint) > MOST_CHECKPOINTS:
        parser.error(f"--checkpoint can be given at most {MOST_CHECKPOINTS} times; got {len(arguments.checkpoint)}")
    return arguments


def open_network(path: epath.Path) -> Trained:
    """Restore a checkpoint; ValueError for an export, which gives no features."""
    if path.is_file() or (path / "saved_model.pb").is_file():
        raise ValueError(f"{path} is an export, which computes logits only: give the workdir that it was exported from")
    return load_trained(path)


def same_labels(networks: Sequence[Trained]) -> tuple[str, ...]:
    """Return the classes of the networks; ValueError if they differ."""
    first, *others = networks
    for other in others:
        if other.restored.labels != first.restored.labels:
            raise ValueError(
                f"{first.restored.path} has {len(first.restored.labels)} classes and {other.restored.path} has "
                f"{len(other.restored.labels)} others: give two checkpoints of the same classes"
            )
    return tuple(first.restored.labels)


def right_label(name: str | None, labels: Sequence[str]) -> int | None:
    """Return the position of a class given by name, None for none; ValueError if there is no such class."""
    if name is None:
        return None
    if name not in labels:
        raise ValueError(f"--label={name}: {did_you_mean(name, labels, otherwise=f'classes are {shown_list(labels)}')}")
    return labels.index(name)


def shown_list(labels: Sequence[str], most: int = 8) -> str:
    """Return the first names of a list."""
    return ", ".join(labels[:most]) + (f" and {len(labels) - most} more" if len(labels) > most else "")


def label_of_folder(file: pathlib.Path, labels: Sequence[str]) -> tuple[int | None, str]:
    """Return the class that the folder of a video names, with its origin in words; (None, "") if it names none."""
    folder = pathlib.Path(os.path.abspath(file)).parent.name
    return (labels.index(folder), "the name of its folder") if folder in labels else (None, "")


def shown_name(file: pathlib.Path) -> str:
    """Return a file with its folder."""
    return "/".join(pathlib.Path(os.path.abspath(file)).parts[-2:])


def inspector(network: Trained) -> Callable[[np.ndarray], ClipInspection]:
    """Make the function from a clip to what the network sees, which logs its compilation."""
    variables = jax.device_put(network.restored.variables)
    return log_compilation(make_inspector(network.model, variables), network.experiment.model.name)


def inspect(
    file: pathlib.Path,
    networks: Sequence[Trained],
    inspectors: Sequence[Callable[[np.ndarray], ClipInspection]],
    done: Callable[[], Any],
) -> list[ClipInspection] | str:
    """Return what each network sees in a video, or the reason why the video cannot be read."""
    seen = []
    for network, inspect_clip in zip(networks, inspectors, strict=True):
        clip = centre_view(file, network.experiment.data)
        if isinstance(clip, str):
            return clip
        seen.append(inspect_clip(clip))
        done()
    return seen


def centre_view(file: pathlib.Path, section: DataConfig) -> np.ndarray | str:
    """Return the centre view of evaluation (t, h, w, 3), or the reason why the video cannot be read."""
    stored = try_read(file, section)
    return stored if isinstance(stored, str) else views_of(stored.frames, section, clips=1, crops=1)[0]


def names_of(networks: Sequence[Trained], paths: Sequence[epath.Path]) -> list[Network]:
    """Return the networks, named as their models, with a letter where two models are the same."""
    models = [network.experiment.model.name for network in networks]
    if len(set(models)) < len(models):
        models = [f"{model} ({'AB'[number]})" for number, model in enumerate(models)]
    shown = [printable(os.fspath(path).removeprefix(f"{os.getcwd()}{os.sep}")) for path in paths]
    return [Network(model, path) for model, path in zip(models, shown, strict=True)]


def summary(file: pathlib.Path, clip: Clip, labels: Sequence[str]) -> dict[str, Any]:
    """Return the result of a video for ``--json``."""
    best = [int(seen.probabilities.argmax()) for seen in clip.seen]
    networks = [
        {"label": labels[label], "probability": float(seen.probabilities[label])}
        for label, seen in zip(best, clip.seen, strict=True)
    ]
    return {"file": str(file), "right": None if clip.label is None else labels[clip.label], "networks": networks}


def describe(result: dict[str, Any]) -> str:
    """Return the best class of a network in words."""
    return f"{printable(result['label'])} {result['probability']:.1%}"


if __name__ == "__main__":
    run(main)

"""Measure how good a network's displacement is.

Examples:
    python -m motion_jax.tools.evaluate_motion --checkpoint=runs/demo/msnet_tsm_r18
    python -m motion_jax.tools.evaluate_motion --checkpoint=runs/demo/msnet_tsm_r18 --clips=100 --output=motion.html
    python -m motion_jax.tools.evaluate_motion VIDEO.mp4 MORE.mp4 --checkpoint=runs/mine

Where the data hold true displacements, as moving_shapes does, the error is the mean distance in pixels between
estimated and true displacement over the cells that move. Where the network's cells are smaller than those of the truth,
they are averaged with weights that grow with their confidence. "zero field" is the error of an estimate of no motion at
all, and "ratio" is the network's error over it: below 1 the network sees motion. DIS and Farneback are OpenCV's optical
flow on the same clips. The second table translates new scenes by whole cells of the network's map, up to two cells
beyond its window and less than half of the frame. The third table sorts the moving cells by confidence: a calibrated
confidence is high where the error is low. A sentence concludes.

For video files, and for data without truth, the displacement is compared with DIS flow at the pixels that pass a
forward-backward check (Sundaram et al., ECCV 2010), beside a zero field and beside the network's own displacement of
other pairs of frames.

Blocks without a displacement of their own (SELFY, CorrNet's block) have the one that their similarities imply. Results
on a data set are written to motion.json in the workdir, and --output writes a page.
"""

import argparse
import itertools
import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from motion_jax.blocks.protocol import declared
from motion_jax.cli import Parser, any_place, positive, print_json, run, table, this_machine
from motion_jax.data.clips.shown_clips import ShownClip, clip_of_example, clips_of_files
from motion_jax.data.sources.moving_shapes import make_scene, render, truth
from motion_jax.data.storage.frames import UnreadableError
from motion_jax.experiment import Trained, load_trained, workdir_of
from motion_jax.inspection import motion_errors
from motion_jax.inspection.clip_inspection import ClipInspection, make_inspector
from motion_jax.inspection.displacement import calibration
from motion_jax.inspection.pages.motion import motion_page
from motion_jax.inspection.panels import DrawnClip
from motion_jax.places import write_whole
from motion_jax.training.progress import bar

GROUPS = {
    "all translations": ("move left", "move right", "move up", "move down"),
    "all rotations": ("rotate left", "rotate right"),
    "all zooms": ("zoom in", "zoom out"),
    "all turning back": ("left then right", "right then left", "up then down", "down then up"),
}
BEYOND = 2  # cells beyond the window
MOST_CELLS = 8
SCENES = 5  # per direction and number of cells
DRAWN = 4  # clips in the picture of the page


def main() -> None:
    """Print the errors, or the agreement with optical flow."""
    arguments = parse_arguments()
    trained = load_trained(arguments.checkpoint)
    _check_block(trained)
    inspect = make_inspector(trained.model, trained.restored.variables, activation=False)
    if arguments.files:
        clips = clips_of_files(arguments.files, trained.experiment.data)
        known, total = False, len(clips)
    else:
        known = "displacement" in trained.dataset.example("val", 0)
        total = min(arguments.clips, trained.dataset.size("val"))
        clips = examples_of(trained, total)
    shown: list[tuple[ShownClip, ClipInspection]] = []
    rows = []
    for clip in bar(clips, total=total, desc="evaluate_motion", unit="clip", leave=False):
        seen = inspect(clip.frames)
        if known:
            truth_of_clip = {"displacement": clip.displacement, "moving": clip.moving}
            row = motion_errors.beside_truth(seen.comparison, clip.frames, **truth_of_clip)
            rows.append(row | {"class": trained.dataset.labels[clip.label]})
        else:
            rows.append(motion_errors.beside_flow(seen.comparison, clip.frames))
        if len(shown) < DRAWN:
            shown.append((clip, seen))
    if not rows:
        raise ValueError("no clip of the split val can be read")
    comparison = shown[0][1].comparison
    about = {
        "network": trained.experiment.model.name,
        "block": comparison.block,
        "estimated": comparison.estimated,
        "reach": comparison.reach,
        "cell": trained.experiment.data.size / comparison.similarities.shape[2],
        "source": f"{len(rows)} {'videos' if arguments.files else 'clips of the split val'}",
    }
    result = _errors_of(rows, trained, inspect, about) if known else {"agreement": motion_errors.agreement(rows)}
    if not comparison.estimated:
        print(f"The displacement is derived: {comparison.block} has similarities, whose soft-argmax this is.\n")
    print(as_text(result))
    if not arguments.files:
        path = workdir_of(trained.restored.path) / "motion.json"
        write_whole(path, json.dumps(result, indent=1) + "\n")
        print(f"\n-> {path}")
    if arguments.output:
        labels = trained.restored.labels
        drawn = [DrawnClip(seen, labels, clip.title, clip.times, clip.label, clip.displacement) for clip, seen in shown]
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(motion_page(result, drawn, about), encoding="utf-8")
        print(f"page -> {arguments.output}")
    if arguments.json:
        print_json(result)


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__)
    files = "videos, folders of videos or frames, .txt lists; default: the split val of the checkpoint's data"
    parser.add_argument("files", nargs="*", type=this_machine, metavar="FILE", help=files)
    parser.add_argument("--checkpoint", required=True, type=any_place, metavar="PATH", help="a workdir or checkpoint")
    clips = "clips of the split val; default: 480"
    parser.add_argument("--clips", type=positive, default=480, metavar="N", help=clips)
    page = "write the result as a page"
    parser.add_argument("--output", type=this_machine, metavar="PAGE.html", help=page)
    return parser.parse_args()


def _check_block(trained: Trained) -> None:
    """Raise a ValueError before data are opened if the network has no displacement."""
    block = next(iter((trained.model.backbone.blocks or {}).values()), None)
    if declared(block, "similarities") is None:
        raise ValueError(
            f"{trained.experiment.model.name} has no motion block that compares cells, and so no displacement: choose "
            "a network with MotionSqueeze (msnet_...), SELFY (selfynet_...) or CorrNet's block (corrblock_...)"
        )


def examples_of(trained: Trained, count: int) -> Iterable[ShownClip]:
    """Yield the first clips of the split val that can be read."""
    dataset = trained.dataset
    for index in range(count):
        try:
            yield clip_of_example(dataset, "val", index)
        except UnreadableError as error:
            dataset.report_unreadable("val", index, error)


def _errors_of(rows: list[dict[str, Any]], trained: Trained, inspect: Any, about: dict[str, Any]) -> dict[str, Any]:
    """Return the content of motion.json for data with truth."""
    labels = trained.dataset.labels
    groups = {**{name: (name,) for name in labels}, **GROUPS, "all motions": labels}
    chosen = {name: [row for row in rows if row["class"] in classes] for name, classes in groups.items()}
    errors = {name: motion_errors.errors(found) for name, found in chosen.items() if found}
    by_cells = _errors_by_cells(trained, inspect, about)
    moving = np.concatenate([row["moving"] for row in rows])
    error = np.concatenate([np.linalg.norm(row["found"] - row["truth"], axis=-1) for row in rows])
    levels = calibration(np.concatenate([row["confidence"] for row in rows])[moving], error[moving])
    kinds = {
        name.removeprefix("all "): motion_errors.is_better_than_none(chosen[name]) for name in GROUPS if chosen[name]
    }
    if "all translations" in errors:
        errors["all translations"]["by_cells"] = by_cells
        errors["all translations"]["window"] = {"cells": about["reach"], "pixels": about["reach"] * about["cell"]}
    errors["all motions"]["calibration"] = levels
    verdict = motion_errors.verdict(kinds, by_cells, reach=about["reach"], levels=levels)
    errors["all motions"]["verdict"] = verdict
    return errors


def _errors_by_cells(trained: Trained, inspect: Any, about: dict[str, Any]) -> dict[int, dict[str, float]]:
    """Return the errors on new scenes that translate by 1, 2, ... whole cells of the map.

    Scenes repeat after the size of the frame, so motions of half of it or more are ambiguous and left out.
    """
    data = trained.experiment.data
    options = {"frames": data.frames, "size": data.size}
    cell = round(about["cell"])
    half = -(-data.size // (2 * cell)) - 1
    errors = {}
    for cells in range(1, min(about["reach"] + BEYOND, MOST_CELLS, half) + 1):
        rows = []
        for key, name in itertools.product(range(SCENES), GROUPS["all translations"]):
            scene = make_scene(name, rng=np.random.default_rng([cells, key]), speed=cells * cell, **options)
            clip = render(scene)
            known = dict(zip(("displacement", "moving"), truth(scene), strict=True))
            rows.append(motion_errors.beside_truth(inspect(clip).comparison, clip, flows=(), **known))
        errors[cells] = motion_errors.errors(rows)
    return errors


def as_text(result: dict[str, Any]) -> str:
    """Format a result as tables with a conclusion."""
    if "agreement" in result:
        return _agreement_as_text(result["agreement"])
    header = ("class", "clips", "end-point error (px)", "zero field (px)", "ratio", "DIS (px)", "Farneback (px)")
    parts = [table(header, [(name, *_rounded(row)) for name, row in result.items()])]
    translations = result.get("all translations", {})
    if by_cells := translations.get("by_cells"):
        header = ("translation, cells", "clips", "end-point error (px)", "zero field (px)", "ratio")
        window = translations["window"]
        ends = f"The window ends at {window['cells']} cells ({window['pixels']:g} px):"
        parts.append(f"{ends}\n{table(header, [(cells, *_rounded(row)) for cells, row in by_cells.items()])}")
    header = ("confidence", "end-point error (px)")
    levels = [_rounded(level) for level in result["all motions"]["calibration"]]
    parts.append(f"Moving cells in groups of equal size:\n{table(header, levels)}")
    parts.append(result["all motions"]["verdict"])
    return "\n\n".join(parts)


def _agreement_as_text(found: dict[str, Any]) -> str:
    header = ("cells", "number", "compared", "distance (px)", "angle (degrees)", "correlation")
    names = {"found": "network", "zero": "zero field", "shuffled": "network, other pairs"}
    rows = []
    for kind, field in itertools.product(("all", "moving"), names):
        values = found[kind][field] or {}
        cells = [
            "-" if (value := values.get(name)) is None else round(value, 2)
            for name in ("distance", "angle", "correlation")
        ]
        rows.append((kind, found[kind]["cells"], names[field], *cells))
    return (
        f"{found['passes']:.0%} of the pixels of {found['pairs']} pairs of frames pass the forward-backward check of "
        f"DIS. Cells of which half passes are compared; {motion_errors.MOVING}.\n{table(header, rows)}\n\n"
        f"{motion_errors.agreement_verdict(found)}"
    )


def _rounded(row: dict[str, Any]) -> list[float]:
    return [round(value, 2) for value in row.values() if isinstance(value, int | float)]


if __name__ == "__main__":
    run(main)

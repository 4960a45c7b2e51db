"""How well networks hold when frames are spoilt: accuracy against the severity of each corruption, as curves.

Examples:
    python -m motion_jax.tools.robustness runs/msnet --output=runs/robustness
    python -m motion_jax.tools.robustness runs/tsm runs/selfynet --output=runs/robustness \\
        --corruptions=occlusion,motion_blur --levels=1-6 --json

Writes robustness.csv, a row for each network and level (level 0: clean clips), and robustness.png, a curve for each
network. The area under a curve is its mean height between clean clips and the highest level, in percent. Started again
with the same --output, it measures only what the CSV does not hold yet. Corruptions: occlusion, motion_blur, drop,
duplicate (6 levels each), shuffle, reverse (1); they spoil the 4th of 8 frames unless --frame says otherwise. Every
network keeps the protocol of its own config.
"""

import csv
import io
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from motion_jax.cli import Parser, print_json, run, table
from motion_jax.data.clips.corruption import LEVELS, Corruption
from motion_jax.data.pipeline import eval_batches
from motion_jax.experiment import Trained, load_trained
from motion_jax.training import parallel as par
from motion_jax.training.evaluation import evaluate
from motion_jax.training.metrics import write_atomically
from motion_jax.training.progress import bar, log
from motion_jax.training.state import fingerprint
from motion_jax.training.step import make_eval_step

METRICS = ("top1", "top5", "mean_class", "clips")
# What a measurement depends on, and what it found.
KEY = ("checkpoint", "weights", "split", "protocol", "corruption", "level", "frame")
COLUMNS = (*KEY, "model", *METRICS)
NUMBERS = {"level": int, "top1": float, "top5": float, "mean_class": float, "clips": int}
CLEAN = "clean"
Row = dict[str, Any]


def main() -> None:
    """Checkpoints -> CSV, curves and areas."""
    parser = Parser(__doc__)
    parser.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT", help="a workdir or a checkpoint in one")
    parser.add_argument("--output", required=True, type=pathlib.Path, metavar="DIR", help="folder of CSV and curves")
    parser.add_argument("--corruptions", default="occlusion,motion_blur", metavar="NAMES", help="default: %(default)s")
    parser.add_argument("--levels", default="1-6", metavar="FROM-TO", help="as far as a corruption has them")
    parser.add_argument("--frame", type=int, metavar="N", help="the frame to spoil, from 0")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    corruptions = grid(arguments.corruptions, arguments.levels, frame=arguments.frame)
    networks = {path: load_trained(path) for path in arguments.checkpoints}
    for trained in networks.values():
        for corruption in corruptions:
            corruption.frames(trained.experiment.data.frames)
        trained.dataset.size(arguments.split)
    arguments.output.mkdir(parents=True, exist_ok=True)
    rows = measure(networks, corruptions, split=arguments.split, path=arguments.output / "robustness.csv")
    results = curves(rows)
    draw(results, arguments.output / "robustness.png")
    print(areas_table(results))
    print(f"-> {arguments.output / 'robustness.csv'}, {arguments.output / 'robustness.png'}")
    if arguments.json:
        print_json({"curves": results})


def grid(names: str, levels: str, *, frame: int | None) -> list[Corruption]:
    """Every corruption at every level it has among ``levels``.

    Raises:
        ValueError: if there is no such corruption, or it has none of the levels.

    >>> [str(each) for each in grid("occlusion,reverse", "1-2", frame=None)]
    ['occlusion:1', 'occlusion:2', 'reverse:1']
    """
    first, dash, last = levels.partition("-")
    last = last if dash else first
    if not (first.isdecimal() and last.isdecimal() and 1 <= int(first) <= int(last)):
        raise ValueError(f"--levels={levels}: write a level, or two with a dash, such as 1-6")
    corruptions = []
    for name in dict.fromkeys(names.split(",")):
        Corruption(name, 1)  # refuses a name that does not exist
        at = range(int(first), min(int(last), LEVELS[name]) + 1)
        if not at:
            raise ValueError(f"--levels={levels}: the highest level of {name} is {LEVELS[name]}")
        corruptions += [Corruption(name, level, frame) for level in at]
    return corruptions


def measure(
    networks: Mapping[str, Trained], corruptions: Iterable[Corruption], *, split: str, path: pathlib.Path
) -> list[Row]:
    """Evaluate every network clean and under every corruption; what the CSV at ``path`` holds already is taken from it.

    Each row is on disk as soon as it is measured.
    """
    known = {key_of(row): row for row in read(path)}
    # Every curve begins with clean clips.
    cells = [None, *corruptions]
    rows = []
    steps: list[tuple[Any, Callable]] = []
    with bar(total=len(networks) * len(cells), desc="robustness", unit="evaluation") as progress:
        for name, trained in networks.items():
            digest = fingerprint(trained.restored.variables)[:12]
            variables = None
            for corruption in cells:
                row = describe(name, trained, digest, corruption, split=split)
                if (kept := known.get(key_of(row))) is not None:
                    rows.append(kept)
                    progress.update()
                    continue
                parallel = trained.experiment.parallel
                if variables is None:
                    step = eval_step(trained, steps)
                    variables = par.place_state(trained.restored.variables, parallel)
                section = trained.experiment.eval
                batches = eval_batches(
                    trained.dataset,
                    split=split,
                    batch_size=section.batch_size,
                    clips=section.clips,
                    crops=section.crops,
                    full_resolution=section.full_resolution,
                    corruption=corruption,
                )
                total = -(-trained.dataset.size(split) // section.batch_size)
                metrics, _, _ = evaluate(
                    step, variables, batches, parallel=parallel, total=total, description=str(corruption or CLEAN)
                )
                row.update({metric: metrics[metric] for metric in METRICS})
                rows.append(row)
                known[key_of(row)] = row
                write(path, known.values())
                progress.update()
                log(f"{name}, {corruption or CLEAN}: top1 {row['top1']:.2f} on {row['clips']} clips")
    return rows


def eval_step(trained: Trained, steps: list[tuple[Any, Callable]]) -> Callable:
    """The compiled evaluation of a network; networks that differ in their weights alone share it through ``steps``."""
    experiment = trained.experiment
    network = (experiment.model, len(trained.restored.labels), experiment.eval, experiment.parallel)
    for made, step in steps:
        if made == network:
            return step
    par.check_batch_size(experiment.eval.batch_size, experiment.parallel, field="eval.batch_size")
    step = make_eval_step(trained.model, average=experiment.eval.average)
    steps.append((network, par.replicate(step, experiment.parallel, split=(False, True), donate=False)))
    return steps[-1][1]


def describe(name: str, trained: Trained, digest: str, corruption: Corruption | None, *, split: str) -> Row:
    """What a measurement depends on; the rest of its row is to be measured."""
    section = trained.experiment.eval
    protocol = f"{section.clips}x{section.crops} {section.average}" + " full" * section.full_resolution
    return {
        "checkpoint": name,
        "weights": digest,
        "split": split,
        "protocol": protocol,
        "corruption": corruption.name if corruption else CLEAN,
        "level": corruption.level if corruption else 0,
        "frame": "" if corruption is None or corruption.frame is None else corruption.frame,
        "model": trained.experiment.model.name,
    }


def key_of(row: Row) -> tuple[str, ...]:
    """What a measurement depends on, as the CSV writes it."""
    return tuple(str(row[column]) for column in KEY)


def read(path: pathlib.Path) -> list[Row]:
    """The rows of a CSV of ours; none where it is absent.

    Raises:
        ValueError: if the file is another one.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"{path} has not the columns {', '.join(COLUMNS)}: choose another --output, or remove it")
        return [{**row, **{name: kind(row[name]) for name, kind in NUMBERS.items()}} for row in reader]


def write(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Replace the CSV by one of these rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


def curves(rows: list[Row]) -> list[dict[str, Any]]:
    """The rows of :func:`measure` as one curve for each network and corruption.

    Returns:
        checkpoint, model, corruption, levels (from 0), top1 at each level in percent, and ``area``: that below the
        curve by trapezoids over the span of the levels, so a mean top-1 in percent.
    """
    made = []
    for name in dict.fromkeys(row["checkpoint"] for row in rows):
        clean, *spoilt = (row for row in rows if row["checkpoint"] == name)
        for corruption in dict.fromkeys(row["corruption"] for row in spoilt):
            points = [clean, *(row for row in spoilt if row["corruption"] == corruption)]
            levels, top1 = [row["level"] for row in points], [row["top1"] for row in points]
            area = float(np.trapezoid(top1, levels)) / (levels[-1] - levels[0])
            made.append(
                {
                    "checkpoint": name,
                    "model": clean["model"],
                    "corruption": corruption,
                    "levels": levels,
                    "top1": top1,
                    "area": area,
                }
            )
    return made


def areas_table(results: list[dict[str, Any]]) -> str:
    """One row for each curve."""
    rows = [
        (
            curve["checkpoint"],
            curve["model"],
            curve["corruption"],
            round(curve["top1"][0], 2),
            round(curve["top1"][-1], 2),
            round(curve["area"], 2),
        )
        for curve in results
    ]
    return table(("checkpoint", "model", "corruption", "clean top1", "at the highest level", "area"), rows)


def draw(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Write one picture: a plot for each corruption, a curve for each network."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(curve["corruption"] for curve in results))
    figure = Figure(figsize=(4.5 * len(names), 4), layout="constrained")
    plots = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for plot, name in zip(plots, names, strict=True):
        for curve in results:
            if curve["corruption"] == name:
                label = f"{curve['model']} ({curve['checkpoint']}), area {curve['area']:.1f}"
                plot.plot(curve["levels"], curve["top1"], marker="o", label=label)
        plot.set(title=name.replace("_", " "), xlabel="level (0: clean)", ylim=(0, 100))
        plot.set_xticks(range(LEVELS[name] + 1))
        plot.grid(alpha=0.3)
        plot.legend(fontsize="x-small")
    plots[0].set_ylabel("top-1 in percent")
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    run(main)

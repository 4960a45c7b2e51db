"""Measure the accuracy of networks on corrupted clips, by corruption and level.

Examples:
    python -m motion_jax.tools.robustness runs/demo/msnet_tsm_r18 --output=runs/robustness
    python -m motion_jax.tools.robustness runs/demo/tsm_r18 runs/demo/selfynet_tsm_r18 \\
        --output=runs/robustness --corruptions=occlusion,motion_blur --levels=1,3,6 --json
    python -m motion_jax.tools.robustness runs/demo/tsn_r18 runs/demo/msnet_tsm_r18 --motion-probe --output=runs/probe

The command writes robustness.csv, a row for each network and level (level 0: clean clips), and robustness.png, a curve
for each network. The area under a curve is its mean height from clean clips to the highest level, in percent. A second
call with the same --output measures only what the CSV lacks. Corruptions are occlusion, motion_blur, drop, duplicate
(6 levels each), freeze (2 levels), shuffle and reverse (1 level); those of single frames corrupt the 4th of 8 frames
unless --frame is given. Every network is evaluated by the protocol of its own config.

--motion-probe asks whether a network uses motion. It evaluates the same clips in order, reversed, shuffled (an order
drawn for each clip, never the original one), frozen (each half of the clip shows its middle frame: two moments and one
jump) and as one frame (the middle frame, repeated: no motion). The motion score is the points of top-1 lost from "in
order" to "one frame", with the interval of a paired bootstrap over the clips. The command writes motion_probe.csv, a
row for each network, class (empty: all clips) and condition, and motion_probe.png.
"""

import csv
import io
import pathlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from motion_jax.cli import Parser, add_runs, print_json, run, runs_of, table, this_machine
from motion_jax.data.clips.corruption import LEVELS, Corruption
from motion_jax.data.pipeline import eval_batches
from motion_jax.experiment import Trained, load_trained
from motion_jax.inspection.motion_probe import CONDITIONS, ONE_FRAME, of_all_clips, probe_figure, probe_rows, verdict
from motion_jax.places import write_whole
from motion_jax.text import short_names
from motion_jax.training import parallel as par
from motion_jax.training.evaluation import evaluate
from motion_jax.training.progress import bar, log
from motion_jax.training.state import fingerprint
from motion_jax.training.step import make_eval_step

METRICS = ("top1", "top5", "mean_class", "clips")
# KEY identifies a measurement.
KEY = ("checkpoint", "weights", "split", "protocol", "corruption", "level", "frame")
COLUMNS = (*KEY, "model", *METRICS)
NUMBERS = {"level": int, "top1": float, "top5": float, "mean_class": float, "clips": int}
CLEAN = "clean"
Row = dict[str, Any]


def main() -> None:
    """Measure, write CSV and curves, and print the areas."""
    parser = Parser(__doc__)
    add_runs(parser, help="a workdir or a checkpoint in one")
    parser.add_argument("--output", required=True, type=this_machine, metavar="DIR", help="folder for CSV and curves")
    parser.add_argument("--corruptions", metavar="NAMES", help="default: occlusion,motion_blur")
    parser.add_argument("--levels", metavar="LEVELS", help="such as 1,3 or 1-6 (default)")
    parser.add_argument("--frame", type=int, metavar="N", help="the frame to corrupt, counted from 0")
    parser.add_argument("--split", default="val", help="default: %(default)s")
    parser.add_argument(
        "--motion-probe", "--motion_probe", action="store_true", help="measure the order of frames in place of levels"
    )
    arguments = parser.parse_args()
    given = [arguments.corruptions, arguments.levels, arguments.frame]
    if arguments.motion_probe and given != [None] * 3:
        parser.error("--motion-probe has its own corruptions: leave out --corruptions, --levels and --frame")
    if arguments.motion_probe:
        corruptions = [Corruption.parse(text) for text in CONDITIONS.values() if text]
    else:
        names, levels = arguments.corruptions or "occlusion,motion_blur", arguments.levels or "1-6"
        corruptions = grid(names, levels, frame=arguments.frame)
    networks = {path: load_trained(path) for path in runs_of(parser, arguments)}
    for trained in networks.values():
        for corruption in corruptions:
            corruption.frames(trained.experiment.data.frames)
        trained.dataset.size(arguments.split)
    arguments.output.mkdir(parents=True, exist_ok=True)
    if arguments.motion_probe:
        probe(networks, split=arguments.split, output=arguments.output, as_json=arguments.json)
        return
    rows = measure(networks, corruptions, split=arguments.split, path=arguments.output / "robustness.csv")
    results = curves(rows)
    draw(results, arguments.output / "robustness.png")
    print(areas_table(results))
    print(f"-> {arguments.output / 'robustness.csv'}, {arguments.output / 'robustness.png'}")
    if arguments.json:
        print_json({"curves": results})


def probe(networks: Mapping[str, Trained], *, split: str, output: pathlib.Path, as_json: bool) -> None:
    """Run the motion probe: write its CSV and its picture, and print a table and a verdict per network."""
    models = [trained.experiment.model.name for trained in networks.values()]
    names = short_names(models, list(networks))
    probes, described = {}, []
    steps: list[tuple[Any, Callable]] = []
    with bar(total=len(networks) * len(CONDITIONS), desc="motion probe", unit="evaluation") as progress:
        for name, (path, trained) in zip(names, networks.items(), strict=True):
            step = eval_step(trained, steps)
            variables = par.place_state(trained.restored.variables, trained.experiment.parallel)
            right = {}
            for condition, text in CONDITIONS.items():
                corruption = Corruption.parse(text) if text else None
                metrics, scores, labels = _evaluate(trained, step, variables, corruption, split=split)
                right[condition] = scores.argmax(axis=1) == labels
                progress.update()
                log(f"{name}, {condition}: top1 {metrics['top1']:.2f} on {metrics['clips']} clips")
            probes[name] = probe_rows(right, labels, trained.restored.labels)
            digest = fingerprint(trained.restored.variables)[:12]
            row = describe(path, trained, digest, None, split=split)
            described += [
                {**{key: row[key] for key in ("checkpoint", "model", "weights", "split", "protocol")}, **each}
                for each in probes[name]
            ]
    _write_csv(output / "motion_probe.csv", list(described[0]), described)
    probe_figure(probes).savefig(output / "motion_probe.png", dpi=150)
    header = ("network", *CONDITIONS, "motion score", "interval")
    lines = []
    for name, rows in probes.items():
        top1, score = [round(of_all_clips(rows, each)["top1"], 1) for each in CONDITIONS], of_all_clips(rows, ONE_FRAME)
        between = f"{score['drop_low']:.1f} to {score['drop_high']:.1f}"
        lines.append((name, *top1, round(score["drop"], 1), between))
    verdicts = {name: verdict(name, rows) for name, rows in probes.items()}
    print(table(header, lines), *verdicts.values(), sep="\n")
    print(f"-> {output / 'motion_probe.csv'}, {output / 'motion_probe.png'}")
    if as_json:
        print_json({"probes": probes, "verdicts": verdicts})


def grid(names: str, levels: str, *, frame: int | None) -> list[Corruption]:
    """Return every corruption at those of ``levels`` that it has; ValueError for an unknown one, or if it has none.

    >>> [str(each) for each in grid("occlusion,reverse", "1,3-4", frame=None)]
    ['occlusion:1', 'occlusion:3', 'occlusion:4', 'reverse:1']
    """
    if not re.fullmatch(r"[1-9]\d*(-[1-9]\d*)?(,[1-9]\d*(-[1-9]\d*)?)*", levels):
        raise ValueError(f"--levels={levels}: write levels such as 1,3 or 1-6")
    asked: set[int] = set()
    for part in levels.split(","):
        first, _, last = part.partition("-")
        asked.update(range(int(first), int(last or first) + 1))
    corruptions = []
    for name in dict.fromkeys(names.split(",")):
        Corruption(name, 1)  # raises for an unknown name
        at = [level for level in sorted(asked) if level <= LEVELS[name]]
        if not at:
            raise ValueError(f"--levels={levels}: the levels of {name} are 1 to {LEVELS[name]}")
        corruptions += [Corruption(name, level, frame) for level in at]
    return corruptions


def measure(
    networks: Mapping[str, Trained], corruptions: Iterable[Corruption], *, split: str, path: pathlib.Path
) -> list[Row]:
    """Evaluate every network on clean clips and under every corruption.

    Rows that the CSV at ``path`` holds are not measured again. Each new row is written as soon as it is measured.
    """
    known = {key_of(row): row for row in read(path)}
    cells = [None, *corruptions]  # every curve starts with clean clips
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
                if variables is None:
                    step = eval_step(trained, steps)
                    variables = par.place_state(trained.restored.variables, trained.experiment.parallel)
                metrics, _, _ = _evaluate(trained, step, variables, corruption, split=split)
                row.update({metric: metrics[metric] for metric in METRICS})
                rows.append(row)
                known[key_of(row)] = row
                write(path, known.values())
                progress.update()
                log(f"{name}, {corruption or CLEAN}: top1 {row['top1']:.2f} on {row['clips']} clips")
    return rows


def _evaluate(
    trained: Trained, step: Callable, variables: Mapping[str, Any], corruption: Corruption | None, *, split: str
) -> tuple[dict[str, float], np.ndarray, np.ndarray]:
    """Evaluate a network on the clips of a split under a corruption, by the protocol of its config."""
    section = trained.experiment.eval
    views = {name: getattr(section, name) for name in ("batch_size", "clips", "crops", "full_resolution")}
    return evaluate(
        step,
        variables,
        eval_batches(trained.dataset, split=split, **views, corruption=corruption),
        parallel=trained.experiment.parallel,
        total=-(-trained.dataset.size(split) // section.batch_size),
        description=str(corruption or CLEAN),
    )


def eval_step(trained: Trained, steps: list[tuple[Any, Callable]]) -> Callable:
    """Return the compiled evaluation of a network. Networks that differ only in their weights share it in ``steps``."""
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
    """Return the row of a measurement without its metrics."""
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
    """Return the columns that identify a measurement, as the CSV writes them."""
    return tuple(str(row[column]) for column in KEY)


def read(path: pathlib.Path) -> list[Row]:
    """Read the rows of robustness.csv; empty if it is absent, ValueError if it has other columns."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(
                f"{path} does not have the columns {', '.join(COLUMNS)}: choose another --output, or remove it"
            )
        return [{**row, **{name: kind(row[name]) for name, kind in NUMBERS.items()}} for row in reader]


def write(path: pathlib.Path, rows: Iterable[Row]) -> None:
    """Write robustness.csv with these rows."""
    _write_csv(path, COLUMNS, rows)


def _write_csv(path: pathlib.Path, columns: Sequence[str], rows: Iterable[Row]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(path, text.getvalue())


def curves(rows: list[Row]) -> list[dict[str, Any]]:
    """Arrange the rows of :func:`measure` as one curve for each network and corruption.

    Returns:
        checkpoint, model, corruption, levels (from 0), top1 at each level in percent, and ``area``: the area under the
        curve by trapezoids, divided by the range of the levels, which is a mean top-1 in percent.
    """
    made = []
    for name in dict.fromkeys(row["checkpoint"] for row in rows):
        clean, *spoilt = (row for row in rows if row["checkpoint"] == name)
        for corruption in dict.fromkeys(row["corruption"] for row in spoilt):
            points = [clean, *(row for row in spoilt if row["corruption"] == corruption)]
            levels, top1 = [row["level"] for row in points], [row["top1"] for row in points]
            area = float(np.trapezoid(top1, levels)) / (levels[-1] - levels[0])
            curve = {"checkpoint": name, "model": clean["model"], "corruption": corruption}
            made.append({**curve, "levels": levels, "top1": top1, "area": area})
    return made


def areas_table(results: list[dict[str, Any]]) -> str:
    """Format one row for each curve."""
    rows = [
        (
            *(curve[name] for name in ("checkpoint", "model", "corruption")),
            *(round(percent, 2) for percent in (curve["top1"][0], curve["top1"][-1], curve["area"])),
        )
        for curve in results
    ]
    return table(("checkpoint", "model", "corruption", "clean top1", "at the highest level", "area"), rows)


def draw(results: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Draw a plot for each corruption with a curve for each network."""
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

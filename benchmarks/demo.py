"""Measure the demo's networks over several seeds, or compare one demo with that measurement.

Examples:
    python -m benchmarks.demo
    python -m benchmarks.demo --compare=runs/demo

The first command trains the four networks of `make demo` with six seeds, and MSNet also in the papers' form (matching
after res3, without surroundings). It writes benchmarks/results/demo.json, from which `python -m benchmarks.tables`
writes the tables of the pages. The second command is the last step of `make demo`: it prints each result beside the
range that is expected of any seed.
"""

import datetime
import json
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from benchmarks.accuracy import ROOT, mean_and_spread, over_seeds, train_all
from benchmarks.markdown import markdown_table
from motion_jax.cli import Parser, print_json, run, table, this_machine
from motion_jax.configs import moving_shapes
from motion_jax.profiling.timing import as_line, describe_setting
from motion_jax.tools.report import read_run

RESULTS = ROOT / "benchmarks" / "results" / "demo.json"
WORKDIR = pathlib.Path("runs/seeds")
NETWORKS = ("tsn_r18", "tsm_r18", "msnet_tsm_r18", "selfynet_tsm_r18")
MOTION_NETWORK = "msnet_tsm_r18"
# Runs as ``train_all`` takes them: name -> config, options of train.py.
RUNS = {name: (f"configs/moving_shapes.py:{name},8", ()) for name in NETWORKS}
PAPERS_FORM = {
    "msnet_papers_form": (
        RUNS[MOTION_NETWORK][0],
        ("--config.model.sites=('res3',)", "--config.model.block.reduction_kernel=1"),
    )
}
# Seeds that no choice of the recipe has seen, after the seed of `make demo`.
UNSEEN = (101, 102, 103, 104, 105)
SEEDS = (0, *UNSEEN)
# Kinds of motion -> group of evaluate_motion.
KINDS = {
    "translations": "all translations",
    "rotations": "all rotations",
    "zooms": "all zooms",
    "turning back": "all turning back",
}
# Other fields of the same clips: column -> key of the results.
OTHER_FIELDS = {"DIS": "dis", "Farneback": "farneback", "papers' form": "papers_form"}
# A verdict allows three standard deviations, and two points where the seeds hardly differ.
DEVIATIONS, LEAST_POINTS = 3, 2.0
WITHIN_PAIRS_OF_TSN = (45.0, 55.0)


def main() -> None:
    """Measure all seeds, or compare one demo with them."""
    parser = Parser(__doc__)
    parser.add_argument("--compare", type=this_machine, metavar="DIR", help="folder of a finished demo")
    parser.add_argument("--workdir", type=this_machine, default=WORKDIR, help="folder for all runs")
    arguments = parser.parse_args()
    if arguments.compare:
        rows = compare(arguments.compare, json.loads(RESULTS.read_text()))
        print(f"{table(('result', 'this run', 'expected', 'verdict'), rows)}")
        if arguments.json:
            print_json({"rows": rows})
        return
    results = measure(arguments.workdir)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print("\n\n".join(tables(results).values()))
    print(f"-> {RESULTS}; python -m benchmarks.tables writes the pages")
    if arguments.json:
        print_json(results)


def measure(workdir: pathlib.Path) -> dict[str, Any]:
    """Train and evaluate every network with every seed, and return the content of ``demo.json``."""
    rows = train_all({**RUNS, **PAPERS_FORM}, seeds=SEEDS, workdir=workdir)
    names = (MOTION_NETWORK, *PAPERS_FORM)
    ours, theirs = ([motion_of(workdir / name / str(seed)) for seed in SEEDS] for name in names)
    return {
        "command": "python -m benchmarks.demo",
        "date": datetime.date.today().isoformat(),
        "setting": describe_setting(),
        "recipe": recipe(),
        "seeds": list(SEEDS),
        "networks": {name: rows[name] for name in NETWORKS},
        "motion": {
            "seeds": list(SEEDS),
            **{
                kind: {
                    "epe": over_seeds([motion[group]["epe"] for motion in ours]),
                    "zero": ours[0][group]["motion"],
                    "dis": ours[0][group]["dis"],
                    "farneback": ours[0][group]["farneback"],
                    "papers_form": over_seeds([motion[group]["epe"] for motion in theirs]),
                }
                for kind, group in KINDS.items()
            },
        },
    }


def recipe() -> dict[str, int]:
    """Return the numbers of the recipe that the page reports."""
    config = moving_shapes.get_config(f"{MOTION_NETWORK},8")
    return {
        "width": config.model.width,
        **{name: config.data[name] for name in ("size", "frames")},
        **{name: config.train[name] for name in ("steps", "batch_size")},
    }


def motion_of(workdir: pathlib.Path) -> dict[str, Any]:
    """Return the errors that evaluate_motion writes into a workdir, and run it if it did not yet."""
    path = workdir / "motion.json"
    if not path.is_file():
        command = [sys.executable, "-m", "motion_jax.tools.evaluate_motion", f"--checkpoint={workdir}"]
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return json.loads(path.read_text())


def compare(demo: pathlib.Path, measured: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return one row per result of a demo: its name, its value, the expected range and a verdict."""
    rows = []
    for name in NETWORKS:
        result = read_run(demo / name)
        rows.append(_row(f"{name}, top-1", result["top1"], expected(measured["networks"][name]["top1"]), digits=1))
        if name == "tsn_r18":
            within = sum(result["pairs"].values()) / len(result["pairs"])
            rows.append(_row(f"{name}, within pairs", within, WITHIN_PAIRS_OF_TSN, digits=1))
    motion = motion_of(demo / MOTION_NETWORK)
    for kind, group in KINDS.items():
        name = f"{MOTION_NETWORK}, {kind}: error / zero field"
        epe, zero = measured["motion"][kind]["epe"], measured["motion"][kind]["zero"]
        bounds = (epe["mean"] - DEVIATIONS * epe["spread"]) / zero, (epe["mean"] + DEVIATIONS * epe["spread"]) / zero
        rows.append(_row(name, motion[group]["ratio"], bounds, digits=2))
    return rows


def expected(values: Mapping[str, Any]) -> tuple[float, float]:
    """Return the lowest and the highest accuracy in percent that is expected of any seed.

    >>> expected({"mean": 98.0, "spread": 0.5})
    (96.0, 100.0)
    """
    margin = max(DEVIATIONS * values["spread"], LEAST_POINTS)
    return max(0.0, values["mean"] - margin), min(100.0, values["mean"] + margin)


def _row(name: str, value: float, bounds: tuple[float, float], *, digits: int) -> tuple[str, ...]:
    low, high = bounds
    verdict = "as expected" if low <= value <= high else "below the range" if value < low else "above the range"
    return name, f"{value:.{digits}f}", f"{low:.{digits}f} to {high:.{digits}f}", verdict


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the Markdown of the regions ``demo`` and ``motion`` for the content of ``demo.json``."""
    recipe = results["recipe"]
    accuracies = [
        (name, *(_mean_and_range(row[measure]) for measure in ("top1", "within_pairs")))
        for name, row in results["networks"].items()
    ]
    motion = dict(results["motion"])
    seeds = motion.pop("seeds")
    errors = [
        (
            kind,
            _error(row["epe"]),
            _error(row["zero"]),
            f"{row['epe']['mean'] / row['zero']:.2f}",
            *(_error(row[key]) for key in OTHER_FIELDS.values()),
        )
        for kind, row in motion.items()
    ]
    where = f"{as_line(results['setting'])}, {results['date']}"
    return {
        "demo": f"""\
{markdown_table(("network", "top-1", "within pairs"), accuracies)}

Width {recipe["width"]}, {recipe["frames"]} frames of {recipe["size"]} pixels, {recipe["steps"]} updates of \
{recipe["batch_size"]} clips. Seeds {_listed(results["seeds"])}, trained on {where}.""",
        "motion": f"""\
{markdown_table(("motion", "end-point error, px", "zero field", "ratio", *OTHER_FIELDS), errors)}

Seeds {_listed(seeds)}, trained on {where}.""",
    }


def _mean_and_range(values: dict[str, Any]) -> str:
    """Format a result of ``over_seeds`` in percent, with the lowest and the highest value."""
    return f"{mean_and_spread(values)} ({min(values['seeds']):.1f} to {max(values['seeds']):.1f})"


def _error(value: dict[str, Any] | float) -> str:
    """Format an error in pixels: of one field, or of the fields of several seeds as in ``over_seeds``."""
    return f"{value['mean']:.2f} ± {value['spread']:.2f}" if isinstance(value, dict) else f"{value:.2f}"


def _listed(seeds: list[int]) -> str:
    return ", ".join(map(str, seeds))


if __name__ == "__main__":
    run(main)

"""Train several networks with one recipe and several seeds, and print mean and standard deviation of the accuracy.

Examples:
    python -m benchmarks.accuracy tsn_r18 msnet_tsm_r18 --config=configs/moving_shapes.py --workdir=runs/three_seeds
    python -m benchmarks.accuracy tsn_r18 tsm_r18 --config=configs/video_folder.py --workdir=runs/mine \\
        --config.data.root=VIDEOS

Options that are not listed here go to train.py. Each run has its own workdir, <workdir>/<network>/<seed>. Finished runs
are not repeated.
"""

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from motion_jax.cli import Parser, positive, print_json, run, table, this_machine
from motion_jax.tools.report import read_run
from motion_jax.training.progress import bar

ROOT = pathlib.Path(__file__).parent.parent


def main() -> None:
    """Train the networks and print their table."""
    parser = Parser(__doc__)
    parser.add_argument("networks", nargs="+", metavar="NETWORK", help="a named model")
    parser.add_argument("--config", required=True, help="a config file with arguments model,frames")
    parser.add_argument("--frames", type=positive, default=8, help="frames per clip; default: 8")
    parser.add_argument("--seeds", type=positive, default=3, help="runs per network, with seeds 0, 1, ...; default: 3")
    parser.add_argument("--workdir", required=True, type=this_machine, help="folder for all runs")
    arguments, options = parser.parse_known_args()
    runs = {network: (f"{arguments.config}:{network},{arguments.frames}", options) for network in arguments.networks}
    rows = train_all(runs, seeds=range(arguments.seeds), workdir=arguments.workdir)
    print(accuracy_table(rows))
    if arguments.json:
        print_json({"networks": rows})


def train_all(
    runs: dict[str, tuple[str, Sequence[str]]], *, seeds: Sequence[int], workdir: pathlib.Path
) -> dict[str, dict[str, Any]]:
    """Train and evaluate every run with every seed, and return the result of ``read_seeds`` by name.

    Args:
        runs: name -> (config with its arguments, options of train.py).
        seeds: seed of each run of a name.
        workdir: folder for all runs, which share its prepared data and compiled programs.

    Raises:
        ValueError: if a run fails, with its last lines of output.
    """
    workdir = workdir.absolute()
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(workdir / "compile_cache")}
    for seed, name in bar([(seed, name) for seed in seeds for name in runs], desc="runs", unit="run"):
        config, options = runs[name]
        folder = workdir / name / str(seed)
        if not (folder / "eval.json").is_file():
            common = [f"--workdir={folder}"]
            train = [f"--config={config}", f"--config.seed={seed}", f"--config.data.dir={workdir / 'data'}", *options]
            _succeed("train.py", *train, *common, environment=environment)
            _succeed("eval.py", *common, environment=environment)
    return {name: read_seeds([workdir / name / str(seed) for seed in seeds]) for name in runs}


def read_seeds(folders: Sequence[pathlib.Path]) -> dict[str, Any]:
    """Read the accuracies of one network from its evaluated workdirs, one per seed.

    Returns:
        ``clips``, the number of evaluated clips; ``top1``; and, if the classes form pairs with equal single frames,
        ``within_pairs``, the mean accuracy between the two classes of a pair, and ``long_range_pairs``, the same over
        the pairs whose classes differ only in the order of their motions. Accuracies are as in ``over_seeds``.
    """
    results = [read_run(folder) for folder in folders]
    accuracies = {"clips": results[0]["clips"], "top1": over_seeds([result["top1"] for result in results])}
    if results[0]["pairs"]:
        accuracies["within_pairs"] = over_seeds([float(np.mean([*result["pairs"].values()])) for result in results])
        long_range = [[value for pair, value in result["pairs"].items() if "then" in pair] for result in results]
        accuracies["long_range_pairs"] = over_seeds([float(np.mean(values)) for values in long_range])
    return accuracies


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return the values as ``seeds``, their ``mean``, and their standard deviation as ``spread``."""
    # ddof=1: the seeds are a sample.
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {"seeds": list(values), "mean": float(np.mean(values)), "spread": spread}


def accuracy_table(rows: dict[str, dict[str, Any]]) -> str:
    """Format one line per network: mean and standard deviation in percent, and the top-1 of each seed."""
    return table(
        ("network", "top-1", "within pairs", "seeds", "clips"),
        [
            (
                name,
                mean_and_spread(row["top1"]),
                mean_and_spread(row["within_pairs"]) if "within_pairs" in row else "",
                ", ".join(f"{value:.1f}" for value in row["top1"]["seeds"]),
                row["clips"],
            )
            for name, row in rows.items()
        ],
    )


def mean_and_spread(values: dict[str, Any]) -> str:
    """Format a result of ``over_seeds``."""
    return f"{values['mean']:.1f} ± {values['spread']:.1f}"


def _succeed(*command: str, environment: dict[str, str]) -> None:
    """Run a program of this project; raise ValueError with its last line if it fails."""
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise ValueError(f"{' '.join(command)} ended with status {done.returncode}: {' '.join(said)}")


if __name__ == "__main__":
    run(main)

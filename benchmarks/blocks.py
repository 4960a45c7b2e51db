"""Every motion block on one narrow backbone: accuracy over three seeds, time per step, size; and their cost over time.

Examples:
    python -m benchmarks.blocks
    python -m benchmarks.blocks --time
    python -m benchmarks.blocks --from=benchmarks/results/blocks.json

The first trains what is not yet trained in the workdir, counts, takes the times, and writes
benchmarks/results/blocks.json and docs/blocks.md. --time takes the times alone again and keeps the accuracies, --from
writes the page alone.
"""

import json
import pathlib
from typing import Any

import ml_collections

from benchmarks.accuracy import mean_and_spread, train_all
from benchmarks.cost_over_time import CELLS, CHANNELS, FRAMES, cost_over_time, exponent
from motion_jax.cli import Parser, print_json, run
from motion_jax.configs import moving_shapes
from motion_jax.data.sources.moving_shapes import CLASSES
from motion_jax.models import VideoClassifier
from motion_jax.models.table import ModelConfig
from motion_jax.profiling import timing
from motion_jax.profiling.operations import count
from motion_jax.profiling.timing import as_line, describe_setting
from motion_jax.training.progress import bar

ROOT = pathlib.Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "blocks.json"
PAGE = ROOT / "docs" / "blocks.md"

# Row of the table -> named model. The blocks go by the names of their classes.
NETWORKS = {
    "none, TSN": "tsn_r18",
    "none, TSM": "tsm_r18",
    "MotionSqueeze": "msnet_tsm_r18",
    "Selfy": "selfynet_tsm_r18",
    "CorrespondenceProposal": "cpnet_tsm_r18",
    "NonLocal": "nonlocal_tsm_r18",
    "MultiHeadSelfAttention": "mhsa_tsm_r18",
    "LocalSelfAttention": "localattention_tsm_r18",
    "CorrelationBlock": "corrblock_tsm_r18",
}
BASELINE = "none, TSM"
CLIP_FRAMES = 8
SITE = "res3"
STEPS = 300
SEEDS = 3
ROUNDS = 15


def main() -> None:
    """Train, count, time, write."""
    parser = Parser(__doc__)
    parser.add_argument("--workdir", type=pathlib.Path, default=pathlib.Path("runs/blocks"), help="folder of all runs")
    parser.add_argument("--time", action="store_true", help="only take the times, and keep the accuracies")
    parser.add_argument("--from", dest="source", type=pathlib.Path, metavar="FILE", help="only write the page")
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
    """Train every network with every seed, with the same recipe."""
    options = (f"--config.model.sites=('{SITE}',)", f"--config.train.steps={STEPS}")
    runs = {name: (f"configs/moving_shapes.py:{name},{CLIP_FRAMES}", options) for name in NETWORKS.values()}
    rows = train_all(runs, seeds=SEEDS, workdir=workdir)
    return {
        "setting": describe_setting(),
        "recipe": recipe(),
        "networks": {label: rows[name] for label, name in NETWORKS.items()},
    }


def sizes() -> dict[str, dict[str, Any]]:
    """Parameters and GFLOPs of every network, counted from shapes."""
    counted = {label: count(network(label), clip_shape()) for label in NETWORKS}
    return {label: {"params": sum(one.parameters.values()), "gflops": one.gflops} for label, one in counted.items()}


def times() -> dict[str, Any]:
    """Milliseconds of a training step by network, and the cost of the blocks alone over the length of the clip."""
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
    """What a reader needs to know of how the networks were trained."""
    config = config_of(BASELINE)
    train, data = config.train, config.data
    return {
        "site": SITE,
        "width": config.model.width,
        "frames": data.frames,
        "size": data.size,
        "clips": list(data.clips),
        "steps": STEPS,
        "batch_size": train.batch_size,
        "learning_rate": train.learning_rate,
        "schedule": train.schedule,
        # Of each block, as JSON has them.
        "fields": {label: json.loads(json.dumps(config_of(label).model.block.to_dict())) for label in NETWORKS},
    }


def config_of(label: str) -> ml_collections.ConfigDict:
    """The config a network is trained with, but for ``SITE`` and ``STEPS``."""
    return moving_shapes.get_config(f"{NETWORKS[label]},{CLIP_FRAMES}")


def network(label: str) -> VideoClassifier:
    """The network as it is trained."""
    return ModelConfig(**{**config_of(label).model.to_dict(), "sites": (SITE,)}).build(len(CLASSES))


def clip_shape() -> tuple[int, int, int, int]:
    """(t, h, w, c) of one clip."""
    size = config_of(BASELINE).data.size
    return CLIP_FRAMES, size, size, 3


def page(results: dict[str, Any]) -> str:
    """The markdown page that shows these results."""
    accuracy, time = results["accuracy"], results["time"]
    recipe = accuracy["recipe"]
    seeds = len(accuracy["networks"][BASELINE]["top1"]["seeds"])
    return f"""# Motion blocks compared

Every motion block of this library at the same place of the same network, trained alike. Written by

```bash
python -m benchmarks.blocks
```

(`--time` takes the times alone again, `--from=benchmarks/results/blocks.json` writes this page alone).

## Accuracy, time and size

TSM-ResNet-18 of width {recipe["width"]} with the block after `{recipe["site"]}` (8x8 cells of 16 channels), from \
scratch on `moving_shapes`: {recipe["clips"][0]:,} generated clips of {recipe["frames"]} frames of {recipe["size"]} \
pixels to train on, {recipe["clips"][1]:,} to evaluate, {len(CLASSES)} classes. {recipe["steps"]} updates of \
{recipe["batch_size"]} clips, SGD at {recipe["learning_rate"]} with a {recipe["schedule"]} schedule, for all: \
`configs/moving_shapes.py` with `--config.model.sites="('{recipe["site"]}',)" --config.train.steps={recipe["steps"]}`. \
The blocks are as narrow as the backbone: {_fields(recipe["fields"])}. Training is \
stopped where some networks have just begun to see motion, and when that begins depends on the seed: where spreads are \
as large as differences, the order says nothing. At other sizes, rates and lengths it may be another.

*Top-1* (chance {100 / len(CLASSES):.1f}) and *within pairs* (of classes whose single frames are the same, the other \
classes left out; chance 50) in percent: mean and standard deviation over {seeds} seeds. *Step* is a whole update of \
{recipe["batch_size"]} clips, the median of {ROUNDS} rounds in which the networks took turns.

{_markdown_table(("block", "top-1", "within pairs", "step, ms", "over TSM", "parameters", "GFLOPs"), _rows(results))}

Trained on {as_line(accuracy["setting"])}. Timed on {as_line(time["setting"])}.

## Cost over the length of a clip

One block alone with its default fields on {CELLS[0]}x{CELLS[1]} cells of {CHANNELS} channels: milliseconds for the \
forward and backward pass of one clip of T frames, in turns, then the operations counted (in the papers' convention), \
and the exponent e of T^e that fits each best. Blocks that compare a frame with those near to it grow with T, blocks \
that compare all frames with each other with its square, but for the layers around the comparison.

{_markdown_table(_over_frames_header(), _over_frames_rows(time["over_frames"]))}

Timed on {as_line(time["setting"])}.
"""


def _fields(fields: dict[str, dict[str, Any]]) -> str:
    """The options of the blocks that have any, as calls."""
    calls = {label: ", ".join(f"{key}={value}" for key, value in given.items()) for label, given in fields.items()}
    return ", ".join(f"`{label}({call})`" for label, call in calls.items() if call)


def _rows(results: dict[str, Any]) -> list[tuple[str, ...]]:
    steps, baseline = results["time"]["step_milliseconds"], results["time"]["step_milliseconds"][BASELINE]
    return [
        (
            label,
            mean_and_spread(accuracy["top1"]),
            mean_and_spread(accuracy["within_pairs"]),
            f"{steps[label]:.0f}",
            f"{steps[label] / baseline:.2f}",
            f"{results['size'][label]['params']:,}",
            f"{results['size'][label]['gflops']:.3f}",
        )
        for label, accuracy in results["accuracy"]["networks"].items()
    ]


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


def _markdown_table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """The first column to the left, the others to the right."""
    lines = [header, ("---", *["---:"] * (len(header) - 1)), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    run(main)

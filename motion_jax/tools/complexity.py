"""Count the operations and parameters of a network by stage, in the papers' convention and by XLA.

Examples:
    python -m motion_jax.tools.complexity selfynet_tsm_r50 --frames=8 --num_classes=174
    python -m motion_jax.tools.complexity configs/moving_shapes.py:msnet_tsm_r18,8 --no-xla
    python -m motion_jax.tools.complexity msnet_tsm_mobilenetv2 --config.model.causal=true
    python -m motion_jax.tools.complexity --papers

Counts are for one clip, from shapes. In the papers' convention a multiply-accumulate of a convolution is one operation,
batch normalisation is 4 per element, a similarity of C channels is 2 C - 1, and ReLU and sums are not counted.
For a causal network the cost of one frame of a stream is printed too.
"""

import argparse
import functools
import types
from collections.abc import Iterator
from typing import Any

from motion_jax.cli import Parser, positive, print_json, read_experiment, run, table
from motion_jax.configs import motionsqueeze_supplement, selfy_supplement
from motion_jax.configs.rows import rounds_to
from motion_jax.models import ModelConfig
from motion_jax.profiling.operations import Complexity, Operations, count, xla_flops
from motion_jax.training.progress import bar

SUPPLEMENTS = {"MotionSqueeze": motionsqueeze_supplement, "SELFY": selfy_supplement}


def main() -> None:
    """Print the operations of a network, or the papers' figures beside our counts."""
    parser = Parser(__doc__, configurable=True)
    model = "a named model, or a config FILE.py[:ARGUMENTS]"
    parser.add_argument("model", nargs="?", metavar="NAME|CONFIG", help=model)
    parser.add_argument("--frames", type=positive, help="frames per clip; default: the config's, or 8")
    parser.add_argument("--size", type=positive, help="side of a frame in pixels; default: the config's, or 224")
    parser.add_argument("--num_classes", type=positive, default=174, help="classes of the classifier; default: 174")
    parser.add_argument("--no-xla", action="store_true", help="skip XLA's count, which compiles the network")
    parser.add_argument("--papers", action="store_true", help="print every published figure beside our count")
    arguments = parser.parse_args()
    if not arguments.model and not arguments.papers:
        parser.error("give a named model, a config or --papers")
    result = {}
    if arguments.model:
        result |= of_model(arguments)
    if arguments.papers:
        result |= of_papers()
    if arguments.json:
        print_json(result)


def of_model(arguments: argparse.Namespace) -> dict[str, Any]:
    """Print the cost of one network and return it."""
    experiment = read_experiment(arguments.model, arguments.changes)
    model = experiment.model.build(arguments.num_classes)
    frames, size = arguments.frames or experiment.data.frames, arguments.size or experiment.data.size
    shape = (frames, size, size, 3)
    complexity = count(model, shape)
    clip = f"one clip of {frames} frames of {size}x{size}, {arguments.num_classes} classes"
    print(f"{arguments.model}: {clip}; GFLOPs by kind\n")
    print(stage_table(complexity))
    if complexity.traced:
        print("\n~ The motion block declares no cost: the matrix products and convolutions of its traced call count.")
    frame_gflops = count(model, (1, *shape[1:])).gflops if experiment.model.causal else None
    if frame_gflops is not None:
        print(f"\nOne frame of a stream takes {frame_gflops:.3f} GFLOPs.")
    xla_gflops = None
    if not arguments.no_xla:
        xla_gflops = xla_flops(model, shape) / 1e9
        print(
            f"\nXLA counts {xla_gflops:.3f} GFLOP for the compiled forward pass. It counts multiplications and\n"
            "additions separately, skips products with padding, and counts the body of a loop once, such as that\n"
            "of a depth-wise convolution."
        )
    return {
        "model": arguments.model,
        "frames": frames,
        "size": size,
        "num_classes": arguments.num_classes,
        "gflops": complexity.gflops,
        "xla_gflops": xla_gflops,
        "frame_gflops": frame_gflops,
        "params": sum(complexity.parameters.values()),
        "traced": complexity.traced,
        "stages": {
            stage: {"gflops": operations.total / 1e9, "params": complexity.parameters[stage], **_by_kind(operations)}
            for stage, operations in complexity.stages.items()
        },
    }


def stage_table(complexity: Complexity) -> str:
    """Format one row per stage and their sum: parameters, and GFLOPs by kind and in total."""
    stages = {**complexity.stages, "total": complexity.operations}
    parameters = {**complexity.parameters, "total": sum(complexity.parameters.values())}
    rows = []
    for stage, operations in stages.items():
        figures = (*_by_kind(operations).values(), operations.total / 1e9)
        rows.append((f"~{stage}" if stage in complexity.traced else stage, parameters[stage], *map(_figure, figures)))
    return table(("stage", "parameters", *(f"{kind:>8}" for kind in (*vars(operations), "total"))), rows)


def _by_kind(operations: Operations) -> dict[str, float]:
    """Return the operations of each kind in units of 10^9."""
    return {kind: number / 1e9 for kind, number in vars(operations).items()}


def of_papers() -> dict[str, Any]:
    """Print every published figure beside our count, and return them."""
    rows = list(bar(published_figures(), desc="counting"))
    cells = [
        (
            row["source"],
            row["row"],
            f"{row['printed']} {row['unit']}".rjust(7),
            _figure(row["ours"]),
            _figure(row["difference"]),
            "met" if row["met"] else row["note"],
        )
        for row in rows
    ]
    print(table(("published in", "figure", "printed", "    ours", "   diff.", ""), cells))
    print(f"\n{sum(row['met'] for row in rows)} of {len(rows)} figures are met to the printed digit.")
    return {"papers": [{**row, "printed": float(row["printed"])} for row in rows]}


def published_figures() -> Iterator[dict[str, Any]]:
    """Yield every operation count that the supplements print, beside ours."""
    for paper, supplement in SUPPLEMENTS.items():

        @functools.cache
        def gflops(name: str, supplement: types.ModuleType = supplement) -> float:
            config = supplement.get_config(name)
            model = ModelConfig(**config.model.to_dict()).build(supplement.ROWS[name].classes)
            return count(model, (config.data.frames, config.data.size, config.data.size, 3)).gflops

        for name, row in supplement.ROWS.items():
            if printed := row.printed.gflops:
                yield _compared(f"{paper}, {row.table}", row.label, printed, "G", gflops(name), row.gflops_note)
        for each in supplement.STATED:
            source = f"{paper}, {each.section}"
            yield _compared(source, each.label, each.printed, each.unit, each.ours(gflops), each.note)


def _compared(source: str, row: str, printed: str, unit: str, ours: float, note: str) -> dict[str, Any]:
    figure = {"source": source, "row": row, "printed": printed, "unit": unit, "ours": ours, "note": note}
    return {**figure, "difference": ours - float(printed), "met": rounds_to(ours, printed)}


def _figure(value: float) -> str:
    """Format three decimals, right-aligned in a column of text."""
    return f"{value:8.3f}"


if __name__ == "__main__":
    run(main)

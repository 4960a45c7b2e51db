"""Compile the training step for a TPU slice on a machine without a TPU: memory, operations, bytes, and what fits.

Examples:
    python -m motion_jax.tools.tpu_compile tsm_r50 msnet_tsm_r50 selfynet_tsm_r50 --slice=v5e-8
    python -m motion_jax.tools.tpu_compile msnet_tsm_r50 --slice=v5e-256 --backend=shard_map --batch=16
    python -m motion_jax.tools.tpu_compile configs/something_v1.py:selfynet_tsm_r50,8 --largest --remat --json

--dtype, --backend and --remat replace the values of the config. libtpu is needed: pip install "jax[tpu]" in the same
version of jax. Figures are the compiler's counts per chip, not times; a ResNet-50 takes minutes to compile. Ratios are
relative to the first network. "MB collective" is the traffic between the chips in one step, gradients and batch
statistics once, the same on 8 chips and on 256; --json lists it by kind.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import optax

from motion_jax.cli import Parser, positive, print_json, read_experiment, run, table
from motion_jax.profiling import tpu_program
from motion_jax.training.progress import bar
from motion_jax.training.recipe import TrainConfig, make_optimizer

NUM_CLASSES = 174


def main() -> None:
    """Print the compiler's counts for networks on a slice."""
    parser = Parser(__doc__, configurable=True)
    parser.add_argument("models", nargs="+", metavar="NAME|CONFIG", help="named models, or configs FILE.py[:ARGUMENTS]")
    parser.add_argument("--slice", choices=tpu_program.SLICES, default="v5e-8", help="generation and chips")
    parser.add_argument("--backend", choices=("pmap", "shard_map"), default="pmap", help="default: pmap")
    parser.add_argument("--batch", type=positive, default=8, help="clips per chip; default: 8")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="default: bfloat16")
    parser.add_argument("--frames", type=positive, help="frames per clip; default: the config's, or 8")
    parser.add_argument("--size", type=positive, help="side of a frame in pixels; default: the config's, or 224")
    parser.add_argument("--remat", action="store_true", help="recompute blocks in the backward pass to save memory")
    parser.add_argument("--largest", action="store_true", help="also find the largest batch per chip that fits")
    arguments = parser.parse_args()
    slice_ = tpu_program.SLICES[arguments.slice]
    tpu_program.find_compiler(slice_)
    rows = []
    for name in bar(arguments.models, desc="compiling", unit="network"):
        experiment = read_experiment(name, arguments.changes)
        section = dataclasses.replace(experiment.model, dtype=arguments.dtype, remat=arguments.remat)
        size = arguments.size or experiment.data.size
        compile_for = _compiler(
            section.build(NUM_CLASSES),
            experiment.train,
            slice_=slice_,
            backend=arguments.backend,
            clip_shape=(arguments.frames or experiment.data.frames, size, size, 3),
        )
        row = {"model": name, "batch_per_chip": arguments.batch, **compile_for(arguments.batch)}
        if arguments.largest:
            row["largest"] = largest(lambda batch, compile_for=compile_for: compile_for(batch)["fits"], arguments.batch)
        rows.append(row)
    print(f"{arguments.slice}, {arguments.backend}, {arguments.dtype}, {arguments.batch} clips per chip; per chip:\n")
    print(counts_table(rows))
    if arguments.json:
        options = {name: getattr(arguments, name) for name in ("slice", "backend", "dtype", "remat")}
        print_json({**options, "rows": rows})


def _compiler(model: nn.Module, recipe: TrainConfig, **fixed: Any) -> Callable[[int], dict[str, Any]]:
    """Make a function from clips per chip to the compiler's counts, or to the reason why they do not fit."""
    # A constant schedule: a real one needs the number of clips, and costs a few scalar operations.
    optimizer = make_optimizer(recipe, optax.constant_schedule(recipe.learning_rate))

    def compile_for(batch: int) -> dict[str, Any]:
        try:
            counts = tpu_program.compile_step(model, optimizer, batch_per_chip=batch, **recipe.mixing, **fixed)
        except tpu_program.OutOfMemoryError as error:
            return {"fits": False, "reason": str(error)}
        return {**dataclasses.asdict(counts), "fits": counts.fits}

    return compile_for


def largest(fits: Callable[[int], bool], start: int) -> int:
    """Search for the largest batch that fits, to an eighth of itself; 0 if none does.

    Args:
        fits: returns whether a batch fits; called about six times.
        start: the first batch tried.
    """
    low, high = 0, start
    while high and fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def counts_table(rows: list[dict[str, Any]]) -> str:
    """Format one row per network, with ratios to the first network."""
    first = rows[0]

    def over(row: dict[str, Any], name: str) -> str:
        if name not in row:
            return "-"
        share = f" ({row[name] / first[name]:.3f})" if first.get(name) else ""
        return f"{row[name] / 1e9:.2f}{share}"

    cells = [
        (
            row["model"],
            *(over(row, name) for name in ("flops", "bytes_accessed", "temp_bytes", "argument_bytes")),
            f"{sum(row['collective_bytes'].values()) / 1e6:.2f}" if "collective_bytes" in row else "-",
            "yes" if row["fits"] else "no",
            row.get("largest", ""),
        )
        for row in rows
    ]
    header = ("network", "GFLOP", "GB accessed", "temp GB", "arguments GB", "MB collective", "fits", "largest batch")
    return table(header, cells)


if __name__ == "__main__":
    run(main)

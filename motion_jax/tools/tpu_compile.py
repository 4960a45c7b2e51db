"""Compile the real training step for a TPU slice on a machine without one: memory, operations, bytes, and what fits.

Examples:
    python -m motion_jax.tools.tpu_compile tsm_r50 msnet_tsm_r50 selfynet_tsm_r50 --slice=v5e-8
    python -m motion_jax.tools.tpu_compile msnet_tsm_r50 --slice=v5e-256 --backend=shard_map --batch=16
    python -m motion_jax.tools.tpu_compile configs/something_v1.py:selfynet_tsm_r50,8 --largest --remat --json

The dtype, what spreads the step and whether blocks are computed twice are --dtype, --backend and --remat, not the
config's. Needs libtpu: pip install "jax[tpu]" in the same version of jax. Figures are the compiler's counts per chip,
not times; a ResNet-50 takes minutes to compile. The first network is what the others are over. "MB collective" is what
the chips send each other in a step: gradients and batch statistics once, as many on 8 chips as on 256; --json has it by
kind.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import optax

from motion_jax.cli import Parser, positive, print_json, run, table
from motion_jax.configs import something_v1
from motion_jax.models import build_model
from motion_jax.profiling import tpu_program
from motion_jax.tools.complexity import FRAMES, SIZE, read_experiment
from motion_jax.training.progress import bar
from motion_jax.training.recipe import TrainConfig, make_optimizer

NUM_CLASSES = 174


def main() -> None:
    """Networks and a slice -> the compiler's counts."""
    parser = Parser(__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME|CONFIG", help="named models, or configs FILE.py[:ARGUMENTS]")
    parser.add_argument("--slice", choices=tpu_program.SLICES, default="v5e-8", help="generation and chips")
    parser.add_argument("--backend", choices=("pmap", "shard_map"), default="pmap", help="default: pmap")
    parser.add_argument("--batch", type=positive, default=8, help="clips per chip; default: 8")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16", help="default: bfloat16")
    parser.add_argument("--frames", type=positive, help=f"of a clip; default: the config's, or {FRAMES}")
    parser.add_argument("--size", type=positive, help=f"of a frame, its side; default: the config's, or {SIZE}")
    parser.add_argument("--remat", action="store_true", help="compute blocks twice instead of keeping what is in them")
    parser.add_argument("--largest", action="store_true", help="also find the largest batch per chip that fits")
    parser.add_argument("--json", action="store_true", help="print one JSON object, last")
    arguments = parser.parse_args()
    slice_ = tpu_program.SLICES[arguments.slice]
    tpu_program.find_compiler(slice_)
    rows = []
    for name in bar(arguments.models, desc="compiling", unit="network"):
        model, recipe, frames, size = _read(name, arguments.dtype, arguments.remat)
        clip_shape = (arguments.frames or frames, *2 * [arguments.size or size], 3)
        compile_for = _compiler(model, recipe, slice_=slice_, backend=arguments.backend, clip_shape=clip_shape)
        row = {"model": name, "batch_per_chip": arguments.batch, **compile_for(arguments.batch)}
        if arguments.largest:
            row["largest"] = largest(lambda batch, compile_for=compile_for: compile_for(batch)["fits"], arguments.batch)
        rows.append(row)
    print(f"{arguments.slice}, {arguments.backend}, {arguments.dtype}, {arguments.batch} clips per chip; per chip:\n")
    print(counts_table(rows))
    if arguments.json:
        options = {name: getattr(arguments, name) for name in ("slice", "backend", "dtype", "remat")}
        print_json({**options, "rows": rows})


def _read(name_or_config: str, dtype: str, remat: bool) -> tuple[nn.Module, TrainConfig, int, int]:
    """A network, its recipe, frames and size; one given by its name trains by SELFY's recipe."""
    path, _, config_arguments = name_or_config.partition(":")
    if not path.endswith(".py"):
        model = build_model(name_or_config, num_classes=NUM_CLASSES, dtype=dtype, remat=remat)
        return model, TrainConfig(**something_v1.get_config().train), FRAMES, SIZE
    experiment = read_experiment(path, config_arguments)
    model = dataclasses.replace(experiment.model, dtype=dtype, remat=remat).build(NUM_CLASSES)
    return model, experiment.train, experiment.data.frames, experiment.data.size


def _compiler(model: nn.Module, recipe: TrainConfig, **fixed: Any) -> Callable[[int], dict[str, Any]]:
    """Clips per chip -> the compiler's counts, or only that they do not fit."""
    # The schedule's few scalars are left out: it needs the number of clips.
    optimizer = make_optimizer(recipe, optax.constant_schedule(recipe.learning_rate))

    def compile_for(batch: int) -> dict[str, Any]:
        try:
            counts = tpu_program.compile_step(model, optimizer, batch_per_chip=batch, mixing=recipe.mixing, **fixed)
        except tpu_program.OutOfMemoryError as error:
            return {"fits": False, "reason": str(error)}
        return {**dataclasses.asdict(counts), "fits": counts.fits}

    return compile_for


def largest(fits: Callable[[int], bool], start: int) -> int:
    """The largest batch that fits, to an eighth of itself; 0 where none does.

    Args:
        fits: from a batch to whether it does; called about six times.
        start: where to begin.
    """
    low, high = 0, start
    while high and fits(high):
        low, high = high, 2 * high
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def counts_table(rows: list[dict[str, Any]]) -> str:
    """One line per network; bytes and memory also over the first one's."""
    first = rows[0]

    def over(row: dict[str, Any], name: str, unit: float) -> str:
        if name not in row:
            return "-"
        share = f" ({row[name] / first[name]:.3f})" if first.get(name) else ""
        return f"{row[name] / unit:.2f}{share}"

    return table(
        ("network", "GFLOP", "GB accessed", "temp GB", "arguments GB", "MB collective", "fits", "largest batch"),
        [
            (
                row["model"],
                over(row, "flops", 1e9),
                over(row, "bytes_accessed", 1e9),
                over(row, "temp_bytes", 1e9),
                over(row, "argument_bytes", 1e9),
                f"{sum(row['collective_bytes'].values()) / 1e6:.2f}" if "collective_bytes" in row else "-",
                "yes" if row["fits"] else "no",
                row.get("largest", ""),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    run(main)

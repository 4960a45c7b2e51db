"""Measure the cost of each motion block over the clip length: operations, time, and the exponent of both.

Examples:
    python -m benchmarks.cost_over_time
    python -m benchmarks.cost_over_time --rounds=3 --json

For twice as many frames, blocks that compare neighbouring frames cost twice as much, and blocks that compare all frames
cost four times as much. The time is that of a compiled forward and backward pass of one clip, in interleaved rounds.
"""

import time
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from motion_jax import blocks
from motion_jax.cli import Parser, positive, print_json, run, table
from motion_jax.profiling.operations import count
from motion_jax.profiling.timing import Program, measure
from motion_jax.training.progress import bar

FRAMES = (4, 8, 16, 32)
CELLS = (14, 14)
CHANNELS = 64


def main() -> None:
    """Measure every block at every length and print the table."""
    parser = Parser(__doc__)
    parser.add_argument("--rounds", type=positive, default=5, help="measurements of each program; default: 5")
    arguments = parser.parse_args()
    costs = cost_over_time(rounds=arguments.rounds)
    print(
        table(
            ("block", *(f"{frames} frames" for frames in FRAMES), "time grows as", "operations grow as"),
            [
                (name, *(f"{ms:.1f} ms" for ms in cost["milliseconds"]), *growth_of(cost).values())
                for name, cost in costs.items()
            ],
        )
    )
    if arguments.json:
        print_json({"frames": FRAMES, "blocks": costs})


def cost_over_time(*, rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return ``gflops`` and ``milliseconds`` (forward and backward) for each of ``FRAMES``, by class name."""
    named = {name: getattr(blocks, name)() for name in blocks.__all__}
    costs = {name: {"gflops": counted(block), "milliseconds": []} for name, block in named.items()}
    for frames in bar(FRAMES, desc="lengths"):
        # One length at a time limits the memory of the compiled programs.
        timings = measure([_prepare(block, frames) for block in named.values()], rounds=rounds, warm_up=1)
        for name, timing in zip(named, timings, strict=True):
            costs[name]["milliseconds"].append(timing.median)
    return costs


def counted(block: nn.Module) -> list[float]:
    """Count the GFLOPs of the block alone in the papers' convention, for each of ``FRAMES``."""
    return [count(block, (frames, *CELLS, CHANNELS)).gflops for frames in FRAMES]


def exponent(costs: Sequence[float]) -> float:
    """Fit e of cost ~ frames**e by least squares in logarithms."""
    slope, _ = np.polyfit(np.log(FRAMES), np.log(costs), 1)
    return float(slope)


def growth_of(cost: dict[str, list[float]]) -> dict[str, str]:
    """Format the exponents of time and operations of one block."""
    return {name: f"T^{exponent(cost[name]):.2f}" for name in ("milliseconds", "gflops")}


def _prepare(block: nn.Module, frames: int) -> Program:
    """Compile the forward and backward pass of one clip."""
    x = jax.random.normal(jax.random.key(0), (1, frames, *CELLS, CHANNELS))
    variables = jax.jit(lambda x: block.init(jax.random.key(1), x, train=False))(x)
    variables = {name: variables[name] for name in ("params", "batch_stats")}

    def loss(params: Any, x: jax.Array) -> jax.Array:
        y, _ = block.apply({**variables, "params": params}, x, train=True, mutable=["batch_stats"])
        return jnp.sum(jnp.square(y))

    began = time.perf_counter()
    compiled = jax.jit(jax.grad(loss, (0, 1))).lower(variables["params"], x).compile()
    seconds = time.perf_counter() - began
    memory = compiled.memory_analysis()

    def call() -> None:
        jax.block_until_ready(compiled(variables["params"], x))

    return Program(call, seconds, None, None, memory.temp_size_in_bytes, memory.argument_size_in_bytes)


if __name__ == "__main__":
    run(main)

"""Time the forward pass and the training step of networks on the first device of this machine.

Examples:
    python -m motion_jax.tools.benchmark tsm_r50 msnet_tsm_r50 selfynet_tsm_r50
    python -m motion_jax.tools.benchmark tsm_r18 msnet_tsm_r18 --batch=1,8 --dtype=float32,bfloat16 --mode=train
    python -m motion_jax.tools.benchmark --papers --rounds=5

Networks run in interleaved rounds, so that their ratios hold on a busy machine too. The training step is forward pass,
backward pass, clipping, SGD and batch statistics. --papers repeats Table 3g of SELFY's supplement: the forward pass of
8 clips, one block after res3 of TSM-R50. Its times are of another device: compare the columns "over TSM".
"""

import argparse
import dataclasses
from collections.abc import Callable
from typing import Any

from motion_jax.cli import Parser, positive, print_json, run, table
from motion_jax.configs import selfy_supplement
from motion_jax.models import build_model, list_models
from motion_jax.profiling import timing
from motion_jax.profiling.operations import count
from motion_jax.training.progress import bar

NUM_CLASSES = 174
DTYPES = ("float32", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Case:
    """A program to time."""

    model: str
    frames: int
    size: int
    batch: int
    dtype: str
    mode: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a clip (t, h, w, c)."""
        return (self.frames, self.size, self.size, 3)


# 8 clips of 224 pixels on one GPU.
TABLE_3G = [row for row in selfy_supplement.ROWS.values() if row.table == "Table 3g"]


def main() -> None:
    """Print a table of times."""
    parser = Parser(__doc__)
    parser.add_argument("models", nargs="*", metavar="NAME", help="named models; ratios are relative to the first")
    parser.add_argument("--mode", type=_list_of(timing.MODES), default=timing.MODES, help="default: forward,train")
    parser.add_argument("--batch", type=_counts, default=(8,), help="clips per call, several with commas; default: 8")
    parser.add_argument("--dtype", type=_list_of(DTYPES), default=("float32",), help="default: float32")
    parser.add_argument("--frames", type=positive, default=8, help="frames per clip; default: 8")
    parser.add_argument("--size", type=positive, default=224, help="side of a frame in pixels; default: 224")
    parser.add_argument("--rounds", type=positive, default=7, help="measurements of each program; default: 7")
    parser.add_argument("--papers", action="store_true", help="time the rows of Table 3g and print its figures beside")
    arguments = parser.parse_args()
    if bool(arguments.models) == arguments.papers:
        parser.error("give named models, or --papers")
    if unknown := sorted(set(arguments.models) - set(list_models())):
        parser.error(f"there is no model {', '.join(unknown)}; python -m motion_jax.tools.models lists them")
    if arguments.papers:
        cases = [Case(row.model, row.frames, arguments.size, 8, arguments.dtype[0], "forward") for row in TABLE_3G]
    else:
        cases = [
            Case(model, arguments.frames, arguments.size, batch, dtype, mode)
            for mode in arguments.mode
            for dtype in arguments.dtype
            for batch in arguments.batch
            for model in arguments.models
        ]
    rows = measure(cases, rounds=arguments.rounds)
    print(timing.as_line(setting := timing.describe_setting()))
    print()
    print(times_table(rows))
    if arguments.papers:
        print("\nTable 3g of SELFY's supplement, beside ours:\n")
        print(papers_table(rows))
    if arguments.json:
        print_json({"setting": setting, "rounds": arguments.rounds, "rows": rows})


def measure(cases: list[Case], *, rounds: int) -> list[dict[str, Any]]:
    """Compile and time every case; one dict per case.

    Cases that differ only in the model run in interleaved rounds. ``over_first`` is the ratio of the median to that of
    the first model of the same mode, dtype and batch.
    """
    rows = []
    groups: dict[tuple, list[Case]] = {}
    for case in cases:
        groups.setdefault((case.mode, case.dtype, case.batch), []).append(case)
    peaks = {dtype: timing.matmul_peak(dtype) for dtype in dict.fromkeys(case.dtype for case in cases)}
    for group in groups.values():
        programs = [_prepare(case) for case in bar(group, desc="compiling", unit="program")]
        timings = timing.measure(programs, rounds=rounds, progress=lambda numbers: bar(numbers, desc="rounds"))
        for case, program, taken in zip(group, programs, timings, strict=True):
            gflops = count(build_model(case.model, num_classes=NUM_CLASSES), case.shape).gflops
            # A multiply-accumulate is two operations, and a backward pass costs two forward passes.
            work = 2e9 * gflops * case.batch * (3 if case.mode == "train" else 1)
            rows.append(
                {
                    **dataclasses.asdict(case),
                    "milliseconds": taken.median,
                    "shortest": taken.range[0],
                    "longest": taken.range[1],
                    "clips_per_second": 1e3 * case.batch / taken.median,
                    "over_first": taken.median / timings[0].median,
                    "compile_seconds": program.compile_seconds,
                    "temp_bytes": program.temp_bytes,
                    "argument_bytes": program.argument_bytes,
                    "gflops": gflops,
                    "xla_flops": program.flops,
                    "xla_bytes_accessed": program.bytes_accessed,
                    "share_of_peak": work / (taken.median / 1e3) / peaks[case.dtype],
                }
            )
    return rows


def _prepare(case: Case) -> timing.Program:
    model = build_model(case.model, num_classes=NUM_CLASSES, dtype=case.dtype)
    return timing.prepare(model, mode=case.mode, clip_shape=case.shape, batch=case.batch)


def times_table(rows: list[dict[str, Any]]) -> str:
    """Format one row per program."""
    named = ("model", "frames", "mode", "dtype", "batch")
    cells = [
        (
            *(row[name] for name in named),
            f"{row['milliseconds']:.1f}",
            f"{row['shortest']:.1f}-{row['longest']:.1f}",
            f"{row['clips_per_second']:.1f}",
            f"{row['over_first']:.3f}",
            f"{(row['temp_bytes'] + row['argument_bytes']) / 1e6:.0f}",
            f"{100 * row['share_of_peak']:.0f} %",
            f"{row['compile_seconds']:.1f}",
        )
        for row in rows
    ]
    measured = ("    ms", "range", "clips/s", "over first", "memory MB", "of peak", "compile s")
    return table((*named, *measured), cells)


def papers_table(rows: list[dict[str, Any]]) -> str:
    """Format the rows of Table 3g: printed and measured times, and their ratios to TSM with 8 frames."""
    cells = []
    for published, row in zip(TABLE_3G, rows, strict=True):
        runtime, first = float(published.printed.runtime), float(TABLE_3G[0].printed.runtime)
        ratios = round(runtime / first, 2), round(row["over_first"], 2)
        cells.append((published.model, published.frames, runtime, round(row["milliseconds"], 1), *ratios))
    return table(("model", "frames", "printed ms", "ours ms", "printed over TSM", "ours over TSM"), cells)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.split(",")))


def _list_of(allowed: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        parts = tuple(text.split(","))
        if not set(parts) <= set(allowed):
            raise argparse.ArgumentTypeError(f"expected some of {','.join(allowed)}; got {text!r}")
        return parts

    return parse


if __name__ == "__main__":
    run(main)

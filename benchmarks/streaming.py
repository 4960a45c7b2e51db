"""Compare the speed of our streams with TSM's online network in PyTorch: frames per second, batch 1, in one run.

JAX and PyTorch run in one process each and alternate call by call, as in benchmarks.peers. A call follows a stream of
one batch row for some frames, from uint8 frames of 224 pixels to the logits of each, and waits for every frame's
logits. PyTorch runs eagerly in both layouts. Requires benchmarks/requirements.txt.

Examples:
    python -m benchmarks.streaming
    python -m benchmarks.streaming --frames=4 --rounds=2 --output=trial.json
"""

import dataclasses
import importlib.util
import json
import os
import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks import peers
from benchmarks.accuracy import ROOT
from benchmarks.markdown import markdown_table
from motion_jax.cli import Parser, positive, print_json, run, this_machine
from motion_jax.data.storage.work import progress_bar

RESULTS = ROOT / "benchmarks" / "results" / "streaming.json"
TSM = "tsm_mobilenetv2"
MODELS = (TSM, "msnet_tsm_mobilenetv2", "selfynet_tsm_mobilenetv2")
NUM_CLASSES = 174


@dataclasses.dataclass(frozen=True)
class Case:
    """A stream that is timed."""

    model: str
    frames: int
    size: int


def main() -> None:
    """Time the streams and write the results."""
    parser = Parser(__doc__)
    parser.add_argument("--frames", type=positive, default=20, help="frames per call; default: 20")
    parser.add_argument("--size", type=positive, default=224, help="height and width of a frame; default: 224")
    parser.add_argument("--rounds", type=positive, default=15, help="measurements of each network; default: 15")
    parser.add_argument("--threads", type=positive, default=len(peers._cores()), help="cores; default: all")
    parser.add_argument("--output", type=this_machine, default=RESULTS, help="file for the result, as JSON")
    arguments = parser.parse_args()
    if not importlib.util.find_spec("torch"):
        raise ValueError("PyTorch is not installed: pip install -r benchmarks/requirements.txt")
    result = compare(frames=arguments.frames, size=arguments.size, rounds=arguments.rounds, threads=arguments.threads)
    print(tables(result)["streaming"])
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        print_json(result)


def compare(*, frames: int, size: int, rounds: int, threads: int) -> dict[str, Any]:
    """Time our networks, and TSM's online network in PyTorch, in interleaved rounds.

    Returns:
        ``setting``, ``rounds`` and ``rows``: per network ``milliseconds`` of each round of ``frames`` frames.
    """
    with peers.worker(Ours, threads) as ours, peers.worker(Twins, threads) as twins:
        setting = peers.setting_of(ours("describe"), twins("describe"), threads=threads)
        setting.pop("cannot_compile", None)
        wanted = [(ours, Case(model, frames, size), None) for model in MODELS]
        wanted += [(twins, Case(TSM, frames, size), peers.Variant(layout)) for layout in peers.LAYOUTS]
        with progress_bar((rounds + 1) * len(wanted), label="streams") as bar:
            programs: list[tuple[dict[str, Any], Callable[[], tuple[float, float]]]] = []
            for ask, case, by in wanted:
                number = ask("prepare", case, by)["number"]
                row = {**dataclasses.asdict(case), "by": str(by or peers.OURS)}
                programs.append((row, partial(ask, "call", number)))
                bar.update()
            rows = peers.take_turns(programs, rounds=rounds, bar=bar)
    setting["load_after"] = os.getloadavg()
    return {"setting": setting, "rounds": rounds, "rows": rows}


class Ours(peers.Ours):
    """Streams of our causal networks."""

    def program(self, case: Case, by: None) -> Callable[[], None]:
        """Return a call that follows a stream for the frames of the case."""
        import jax
        import numpy as np

        from motion_jax import build_model, streaming

        del by
        model = build_model(case.model, num_classes=NUM_CLASSES, causal=True)
        variables = jax.device_put(_random_variables(model))
        frames = np.random.default_rng(0).integers(0, 256, (case.frames, 1, case.size, case.size, 3), np.uint8)
        state = streaming.init(model, variables, size=(case.size, case.size))

        def call() -> None:
            nonlocal state
            for frame in frames:
                logits, state = streaming.step(model, variables, state, frame)
                logits.block_until_ready()

        return call


def _random_variables(model: Any) -> Any:
    """Draw variables with NumPy: to compile the initial ones takes longer than to time the streams."""
    import jax
    import numpy as np

    clips = jax.ShapeDtypeStruct((1, 2, 64, 64, 3), np.float32)
    shapes = jax.eval_shape(lambda clips: model.init(jax.random.key(0), clips, train=False), clips)
    rng = np.random.default_rng(0)

    def draw(path: tuple, like: Any) -> np.ndarray:
        if path[-1].key == "kernel":
            deviation = np.sqrt(2 / np.prod(like.shape[:-1]))
            return (deviation * rng.standard_normal(like.shape)).astype(like.dtype)
        return (np.ones if path[-1].key in ("scale", "var") else np.zeros)(like.shape, like.dtype)

    return jax.tree_util.tree_map_with_path(draw, shapes)


class Twins(peers.Twins):
    """The stream of TSM's online network in PyTorch."""

    def program(self, case: Case, by: peers.Variant) -> Callable[[], None]:
        """Return a call that follows a stream for the frames of the case."""
        import torch

        from benchmarks.torch_streaming import OnlineMobileNetV2

        layout = torch.channels_last if by.layout == "channels_last" else torch.contiguous_format
        network = OnlineMobileNetV2(num_classes=NUM_CLASSES).eval().to(memory_format=layout)
        frames = torch.randint(0, 256, (case.frames, 1, 1, case.size, case.size, 3), dtype=torch.uint8)

        def call() -> None:
            with torch.inference_mode():
                for frame in frames:
                    network(frame)

        return call


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the Markdown of the region ``streaming`` for the content of ``streaming.json``."""
    rows = results["rows"]
    rates = [1000 * row["frames"] / statistics.median(row["milliseconds"]) for row in rows]
    ours = next(rate for row, rate in zip(rows, rates, strict=True) if row["by"] == peers.OURS)
    best = max(rate for row, rate in zip(rows, rates, strict=True) if row["by"] != peers.OURS)
    lines = [
        (
            f"{row['model']}, {row['by']}",
            f"{rate:.1f}",
            f"{1000 / rate:.1f}",
            f"{rate / best:.2f}",
            f"{rate / ours:.2f}" if row["by"] == peers.OURS else "",
        )
        for row, rate in zip(rows, rates, strict=True)
    ]
    header = ("network", "frames per second", "ms per frame", "/ best PyTorch TSM", "/ our TSM")
    setting = results["setting"]
    shown = ("processor", "threads", "python", "jax", "jaxlib", "flax", "torch", "date")
    described = ", ".join(f"{name} {setting[name]}" for name in shown)
    return {
        "streaming": f"""\
{markdown_table(header, lines)}

One stream, {rows[0]["size"]} pixels, float32, medians of {results["rounds"]} interleaved rounds of \
{rows[0]["frames"]} frames, load average {setting["load_before"][0]:.1f} before, {described}."""
    }


if __name__ == "__main__":
    run(main)

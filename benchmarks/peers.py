"""Compare the speed of our networks with the same networks in PyTorch: forward pass and training step, in one run.

JAX and PyTorch run in one process each, with the same allocator and cores. Both processes prepare their programs and
then alternate call by call, so only one program runs at a time and other load affects both. Every second round runs in
reverse order. PyTorch runs in both layouts, eagerly and with --compile also under torch.compile, and on a CUDA device
also with TF32. Ratios refer to the fastest of these variants. CPU seconds include all threads and are the more reliable
figure on a busy machine.

A call takes uint8 clips that are already on the device, and normalises them. The training step consists of forward
pass, cross entropy, backward pass, clipping, SGD and BatchNorm statistics. In bfloat16, PyTorch uses autocast. Without
--batch, the forward pass takes 1 clip and the training step 2. Requires benchmarks/requirements.txt.

Examples:
    python -m benchmarks.peers
    python -m benchmarks.peers --compile --output=benchmarks/results/peers_cpu.json
    python -m benchmarks.peers tsm_r50 msnet_tsm_r50 --mode=train --batch=8 --dtype=bfloat16 --layout=channels_last
"""

import contextlib
import dataclasses
import datetime
import gc
import importlib.util
import json
import multiprocessing
import os
import pathlib
import platform
import shutil
import statistics
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

from tqdm import tqdm

from benchmarks.markdown import markdown_table
from motion_jax.cli import Parser, positive, print_json, run, table, this_machine
from motion_jax.data.storage.work import progress_bar

MODELS = ("tsm_r50", "msnet_tsm_r50", "selfynet_tsm_r50")
MODES = {"forward": 1, "train": 2}  # default batch of each mode
Ask = Callable[..., Any]
DTYPES = ("float32", "bfloat16")
LAYOUTS = ("NCHW", "channels_last")
NUM_CLASSES = 174
WARM_UP = 2
OURS = "motion-jax"
# As in the Makefile. Both libraries are faster with it, because working memory is kept between calls.
ALLOCATOR = (
    "glibc.malloc.hugetlb=1:glibc.malloc.arena_max=1:glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=34359738368"
)
# Largest accepted ratio of our milliseconds to the best PyTorch variant, on a CPU in float32.
BARS = {("forward", 1): 1.03, ("train", 2): 1.05}


@dataclasses.dataclass(frozen=True)
class Case:
    """A program that is timed in both libraries."""

    model: str
    mode: str
    batch: int
    dtype: str
    frames: int = 8
    size: int = 224

    @property
    def group(self) -> tuple[str, int, str]:
        """Return the mode, batch and dtype; cases are compared within one group."""
        return self.mode, self.batch, self.dtype


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to run a PyTorch network."""

    layout: str
    compiled: bool = False
    tf32: bool = False

    def __str__(self) -> str:
        how = "torch.compile" if self.compiled else "eager"
        return f"PyTorch {how} {self.layout}{' TF32' if self.tf32 else ''}"


def main() -> None:
    """Time the networks and print times and ratios."""
    parser = Parser(__doc__)
    parser.add_argument("models", nargs="*", default=MODELS, metavar="NAME", help=f"default: {' '.join(MODELS)}")
    parser.add_argument(
        "--mode", type=_names, default=tuple(MODES), help="forward, train or both; default: forward,train"
    )
    parser.add_argument("--batch", type=_numbers, help="clips per call, such as 1,8; default: 1 forward, 2 in training")
    parser.add_argument("--dtype", type=_names, default=("float32",), help="float32,bfloat16; default: float32")
    parser.add_argument("--frames", type=positive, default=8, help="frames per clip; default: 8")
    parser.add_argument(
        "--size", type=positive, default=224, help="height and width of a frame, a multiple of 16; default: 224"
    )
    parser.add_argument("--rounds", type=positive, default=7, help="measurements of each program; default: 7")
    parser.add_argument("--threads", type=positive, default=len(_cores()), help="cores of each library; default: all")
    parser.add_argument(
        "--layout", type=_names, default=LAYOUTS, help="layouts of PyTorch; default: NCHW,channels_last"
    )
    parser.add_argument("--compile", action="store_true", help="also run PyTorch under torch.compile")
    parser.add_argument("--output", type=this_machine, help="file for the result, as JSON")
    arguments = parser.parse_args()
    for name, known in (("mode", MODES), ("dtype", DTYPES), ("layout", LAYOUTS)):
        if unknown := set(getattr(arguments, name)) - set(known):
            parser.error(f"--{name}: expected some of {','.join(known)}; got {','.join(sorted(unknown))}")
    if arguments.size % 16:
        parser.error(f"--size: expected a multiple of 16; got {arguments.size}")
    if arguments.threads > len(_cores()):
        parser.error(f"--threads: this process may use {len(_cores())} cores; got {arguments.threads}")
    if not importlib.util.find_spec("torch"):
        raise ValueError("PyTorch is not installed: pip install -r benchmarks/requirements.txt")
    cases = [
        Case(model, mode, batch, dtype, arguments.frames, arguments.size)
        for mode in arguments.mode
        for dtype in arguments.dtype
        for batch in arguments.batch or (MODES[mode],)
        for model in arguments.models
    ]
    result = compare(
        cases,
        layouts=arguments.layout,
        compiled=arguments.compile,
        rounds=arguments.rounds,
        threads=arguments.threads,
    )
    print(", ".join(f"{name} {value}" for name, value in result["setting"].items()))
    print(f"\n{times_table(result['rows'])}\n\n{comparison_table(result['comparisons'])}")
    for what, reason in result["skipped"].items():
        print(f"\nnot timed: {what}: {reason}")
    if arguments.output:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    if arguments.json:
        print_json(result)


def compare(
    cases: Sequence[Case], *, layouts: Sequence[str], compiled: bool, rounds: int, threads: int
) -> dict[str, Any]:
    """Time all cases in both libraries. Cases of one group (mode, batch, dtype) are interleaved.

    Args:
        cases: what to time.
        layouts: layouts of PyTorch, from ``LAYOUTS``.
        compiled: also run PyTorch under torch.compile, where it works.
        rounds: counted calls of each program, after ``WARM_UP`` others.
        threads: cores of each library.

    Returns:
        ``setting``; ``rows``, the times of each program; ``comparisons``, our ratios to the best PyTorch variant;
        ``skipped``, programs that could not be timed -> the reason.

    Raises:
        ValueError: if a network has no PyTorch version, or only one library finds an accelerator.
    """
    from benchmarks.torch_networks import NAMES

    if unknown := sorted({case.model for case in cases} - set(NAMES)):
        raise ValueError(f"there is no PyTorch version of {', '.join(unknown)}, only of {', '.join(NAMES)}")
    rows: list[dict[str, Any]] = []
    skipped: dict[str, str] = {}
    with worker(Ours, threads) as ours, worker(Twins, threads) as twins:
        setting = setting_of(ours("describe"), twins("describe"), threads=threads)
        reason = setting.pop("cannot_compile", None)
        if compiled and reason:
            compiled, skipped["torch.compile"] = False, reason
        for group in dict.fromkeys(case.group for case in cases):
            wanted = [
                (case, by)
                for case in cases
                if case.group == group
                for by in (None, *variants(case, layouts, compiled, on_cuda=setting["platform"] == "gpu"))
            ]
            with progress_bar((rounds + 1) * len(wanted), label=" ".join(map(str, group))) as bar:
                programs: list[tuple[dict[str, Any], Callable[[], tuple[float, float]]]] = []
                for case, by in wanted:
                    ask = ours if by is None else twins
                    row = {**dataclasses.asdict(case), "by": OURS if by is None else str(by)}
                    prepared = ask("prepare", case, by)
                    if "failed" in prepared:
                        skipped[f"{by}, {case.model}, {case.mode}"] = prepared["failed"]
                        bar.total -= rounds
                    else:
                        row["preparation_seconds"] = prepared["seconds"]
                        programs.append((row, partial(ask, "call", prepared["number"])))
                    bar.update()
                rows += take_turns(programs, rounds=rounds, bar=bar)
            ours("release")
            twins("release")
    setting["load_after"] = os.getloadavg()
    return {"setting": setting, "rounds": rounds, "rows": rows, "comparisons": comparisons(rows), "skipped": skipped}


def take_turns(
    programs: Sequence[tuple[dict[str, Any], Callable[[], tuple[float, float]]]], *, rounds: int, bar: tqdm
) -> list[dict[str, Any]]:
    """Call each program once per round, and return the rows with ``milliseconds`` and ``cpu_seconds``.

    Every second round runs in reverse order.
    """
    for row, _ in programs:
        row |= {"milliseconds": [], "cpu_seconds": []}
    for number in range(rounds):
        for row, call in programs[:: -1 if number % 2 else 1]:
            milliseconds, cpu_seconds = call()
            row["milliseconds"].append(round(milliseconds, 2))
            row["cpu_seconds"].append(round(cpu_seconds, 4))
            bar.update()
    return [row for row, _ in programs]


def variants(case: Case, layouts: Sequence[str], compiled: bool, *, on_cuda: bool) -> list[Variant]:
    """Return the variants of a case in PyTorch. TF32 applies only to float32 on a CUDA device."""
    return [
        Variant(layout, how, tf32)
        for how in ((False, True) if compiled else (False,))
        for layout in layouts
        for tf32 in ((False, True) if on_cuda and case.dtype == "float32" else (False,))
    ]


@contextlib.contextmanager
def worker(side: type["Ours | Twins"], threads: int) -> Iterator[Ask]:
    """Run one library in a process. The result, ``ask(name, *arguments)``, calls a function of ``serve``.

    Raises:
        RuntimeError: from ``ask``, with the traceback of the process.
    """
    environment = dict(os.environ)
    os.environ.setdefault("GLIBC_TUNABLES", ALLOCATOR)
    # Otherwise JAX reserves most of the memory of an accelerator.
    os.environ.update(OMP_NUM_THREADS=str(threads), XLA_PYTHON_CLIENT_PREALLOCATE="false")
    try:
        context = multiprocessing.get_context("spawn")
        connection, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, side, threads), daemon=True)
        process.start()
        theirs.close()
    finally:
        os.environ.clear()
        os.environ.update(environment)

    def ask(*message: Any) -> Any:
        try:
            connection.send(message)
            answered, answer = connection.recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the process of {side.__name__} ended at {message}: out of memory?") from error
        if not answered:
            raise RuntimeError(answer)
        return answer

    try:
        yield ask
    finally:
        connection.close()
        process.join()


def serve(connection: Connection, side: type["Ours | Twins"], threads: int) -> None:
    """Answer calls by name until the connection closes."""
    if hasattr(os, "sched_setaffinity"):
        # XLA derives its number of threads from the affinity.
        os.sched_setaffinity(0, _cores()[:threads])
    served = side(threads)
    programs: list[Callable[[], None]] = []

    def prepare(case: Case, by: Variant | None) -> dict[str, Any]:
        began = time.perf_counter()
        try:
            call = served.program(case, by)
            for _ in range(WARM_UP):
                call()
        except Exception as error:
            if by is None or not by.compiled:
                raise
            return {"failed": " ".join(str(error).split())[:300]}
        programs.append(call)
        return {"number": len(programs) - 1, "seconds": round(time.perf_counter() - began, 2)}

    def release() -> None:
        programs.clear()
        served.release()
        gc.collect()

    answers = {
        "describe": served.describe,
        "prepare": prepare,
        "call": lambda number: timed(programs[number]),
        "release": release,
    }
    with contextlib.suppress(EOFError, OSError):
        while True:
            name, *arguments = connection.recv()
            try:
                answer = (True, answers[name](*arguments))
            except Exception:
                answer = (False, traceback.format_exc())
            connection.send(answer)


def timed(call: Callable[[], None]) -> tuple[float, float]:
    """Return milliseconds of wall time, and CPU seconds of all threads."""
    cpu, began = time.process_time(), time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - began), time.process_time() - cpu


class Ours:
    """Our programs, as in ``train.py`` and ``eval.py``."""

    def __init__(self, threads: int) -> None:
        del threads  # set by the affinity of this process

    def describe(self) -> dict[str, Any]:
        """Return device and versions."""
        from motion_jax.profiling.timing import describe_setting

        return describe_setting()

    def program(self, case: Case, by: None) -> Callable[[], None]:
        """Return a compiled call with its arguments on the device."""
        from motion_jax import build_model
        from motion_jax.profiling import timing

        del by
        model = build_model(case.model, num_classes=NUM_CLASSES, dtype=case.dtype)
        shape = (case.frames, case.size, case.size, 3)
        return timing.prepare(model, mode=case.mode, clip_shape=shape, batch=case.batch).call

    def release(self) -> None:
        """Clear compiled functions."""
        import jax

        jax.clear_caches()


class Twins:
    """The PyTorch programs."""

    def __init__(self, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def describe(self) -> dict[str, Any]:
        """Return device and versions, and the reason if torch.compile cannot work."""
        import torch

        on_cuda = self.device.type == "cuda"
        setting = {"platform": "gpu" if on_cuda else "cpu", "torch": torch.__version__}
        if on_cuda:
            setting["torch_device"] = torch.cuda.get_device_name()
        elif not shutil.which(os.environ.get("CXX", "g++")):
            setting["cannot_compile"] = "torch.compile on a CPU requires a C++ compiler; g++ was not found"
        return setting

    def program(self, case: Case, by: Variant) -> Callable[[], None]:
        """Return a call with network and batch on the device. With ``by.compiled``, its first call compiles."""
        import torch

        from benchmarks.torch_networks import build_network, make_optimizer, predict, train_step

        memory_format = torch.channels_last if by.layout == "channels_last" else torch.contiguous_format
        network = build_network(case.model, num_classes=NUM_CLASSES, memory_format=memory_format).to(self.device)
        shape = (case.batch, case.frames, case.size, case.size, 3)
        clips = torch.randint(0, 256, shape, dtype=torch.uint8, device=self.device)
        labels = torch.arange(case.batch, device=self.device) % NUM_CLASSES
        dtype = getattr(torch, case.dtype)
        network.train(case.mode == "train")
        optimizer = make_optimizer(network)
        model = torch.compile(network) if by.compiled else network

        def call() -> None:
            if self.device.type == "cuda":
                precision = "tf32" if by.tf32 else "ieee"
                torch.backends.cuda.matmul.fp32_precision = torch.backends.cudnn.fp32_precision = precision
            if case.mode == "train":
                train_step(model, optimizer, clips, labels, dtype=dtype)
            else:
                predict(model, clips, dtype=dtype)
            if self.device.type == "cuda":
                torch.cuda.synchronize()

        return call

    def release(self) -> None:
        """Clear compiled functions."""
        import torch

        torch.compiler.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def setting_of(ours: dict[str, Any], twins: dict[str, Any], *, threads: int) -> dict[str, Any]:
    """Describe devices, versions, flags and load.

    Raises:
        ValueError: if only one library runs on an accelerator.
    """
    if ours["platform"] != twins["platform"]:
        raise ValueError(
            f"JAX runs on {ours['platform']} and PyTorch on {twins['platform']}: install both for one device, or hide "
            "the accelerator from both (JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=)"
        )
    return {
        **ours,
        **twins,
        "processor": processor(),
        "threads": threads,
        "allocator": os.environ.get("GLIBC_TUNABLES", ALLOCATOR),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "date": datetime.date.today().isoformat(),
        "load_before": os.getloadavg(),
    }


def processor() -> str:
    """Return the name of the processor, if the system provides it."""
    file = pathlib.Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor())


def comparisons(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Compute our ratio to the fastest PyTorch variant, and the ratio of each network to the first of its group.

    ``ratio`` compares medians. ``shortest_ratio`` compares the shortest rounds, which other load affects least.
    ``cpu_ratio`` compares our CPU seconds with the PyTorch variant that uses the fewest.
    """
    found = []
    groups: dict[tuple, dict[str, list[dict[str, Any]]]] = {}
    for row in rows:
        group = groups.setdefault((row["mode"], row["batch"], row["dtype"]), {})
        group.setdefault(row["model"], []).append(row)
    for (mode, batch, dtype), models in groups.items():
        best = {model: _best(timed) for model, timed in models.items()}
        first = next(iter(best.values()))
        for model, one in best.items():
            found.append(
                {
                    "model": model,
                    "mode": mode,
                    "batch": batch,
                    "dtype": dtype,
                    **one,
                    "ratio": one["ours"] / one["peer"],
                    "shortest_ratio": one["ours_shortest"] / one["peer_shortest"],
                    "cpu_ratio": one["ours_cpu"] / one["peer_cpu"],
                    "ours_over_first": one["ours"] / first["ours"],
                    "peer_over_first": one["peer"] / first["peer"],
                }
            )
    return found


def _best(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return medians, shortest rounds and median CPU seconds of ours and of the best PyTorch variant."""
    ours = next(row for row in rows if row["by"] == OURS)
    peers = [row for row in rows if row["by"] != OURS]
    fastest = min(peers, key=lambda row: statistics.median(row["milliseconds"]))
    return {
        "by": fastest["by"],
        "ours": statistics.median(ours["milliseconds"]),
        "peer": statistics.median(fastest["milliseconds"]),
        "ours_shortest": min(ours["milliseconds"]),
        "peer_shortest": min(min(row["milliseconds"]) for row in peers),
        "ours_cpu": statistics.median(ours["cpu_seconds"]),
        "peer_cpu": min(statistics.median(row["cpu_seconds"]) for row in peers),
    }


def times_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format one line per program: median and range of the rounds."""

    def line(row: dict[str, Any]) -> tuple:
        times = row["milliseconds"]
        span = f"{min(times):.1f}-{max(times):.1f}"
        cpu = round(statistics.median(row["cpu_seconds"]), 3)
        where = (row["model"], row["mode"], row["batch"], row["dtype"], row["by"])
        return *where, round(statistics.median(times), 1), span, cpu, row["preparation_seconds"]

    header = ("model", "mode", "batch", "dtype", "by", "ms", "range", "CPU s", "prepared in s")
    return table(header, [line(row) for row in rows])


def comparison_table(compared: Sequence[dict[str, Any]]) -> str:
    """Format one line per case: our ratio to the best PyTorch variant, and both over the first network."""
    header = ("model", "mode", "batch", "dtype", "ours ms", "peer ms", "best peer", "ratio", "bar")
    header += ("of shortest", "CPU ratio", "ours over first", "peer over first")
    return table(
        header,
        [
            (
                *(one[key] for key in ("model", "mode", "batch", "dtype")),
                round(one["ours"], 1),
                round(one["peer"], 1),
                one["by"].removeprefix("PyTorch "),
                round(one["ratio"], 3),
                verdict(one),
                *(round(one[key], 3) for key in ("shortest_ratio", "cpu_ratio", "ours_over_first", "peer_over_first")),
            )
            for one in compared
        ],
    )


def tables(results: dict[str, Any]) -> dict[str, str]:
    """Return the Markdown of the region ``peers_cpu`` for the content of ``peers_cpu.json``."""
    rows = []
    for one in results["comparisons"]:
        case = [row for row in results["rows"] if all(row[key] == one[key] for key in ("model", "mode", "batch"))]
        times = {row["by"]: statistics.median(row["milliseconds"]) for row in case}
        first = one["ours_over_first"] == 1
        rows.append(
            (
                one["model"],
                f"{one['mode']}, {one['batch']}",
                f"{one['ours']:.0f}",
                *(f"{times[f'PyTorch eager {layout}']:.0f}" for layout in LAYOUTS),
                f"{one['ratio']:.2f}",
                *("" if first else f"{one[key]:.2f}" for key in ("ours_over_first", "peer_over_first")),
            )
        )
    header = ("network", "pass, clips", "ours, ms", "PyTorch NCHW, ms", "PyTorch channels last, ms")
    header += ("ours / best PyTorch", "ours / our TSM", "best PyTorch / its TSM")
    setting, case = results["setting"], results["rows"][0]
    shown = ("processor", "threads", "python", "jax", "jaxlib", "flax", "torch", "date")
    described = ", ".join(f"{name} {setting[name]}" for name in shown)
    return {
        "peers_cpu": f"""\
{markdown_table(header, rows)}

{case["frames"]} frames of {case["size"]} pixels, {case["dtype"]}, medians of {results["rounds"]} interleaved rounds, \
{described}."""
    }


def verdict(one: dict[str, Any]) -> str:
    """Say whether a ratio is within its limit of ``BARS``; empty if there is no limit."""
    bar = BARS.get((one["mode"], one["batch"])) if one["dtype"] == "float32" else None
    return "" if bar is None else f"{bar} {'met' if one['ratio'] <= bar else 'missed'}"


def _cores() -> list[int]:
    """Return the cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(positive, text.split(",")))


if __name__ == "__main__":
    run(main)

"""Time the forward pass and the training step of networks on the first device, in interleaved rounds."""

import dataclasses
import importlib.metadata
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from motion_jax.training.optimizer import sgd
from motion_jax.training.parallel import ParallelConfig, place_batch, place_state, replicate
from motion_jax.training.state import create_state
from motion_jax.training.step import make_eval_step, make_train_step

MODES = ("forward", "train")
_ONE_DEVICE = ParallelConfig(backend="shard_map", devices=1)


@dataclasses.dataclass
class Program:
    """A compiled forward pass or training step with its arguments on the device.

    Attributes:
        call: runs the program once and returns when it has finished.
        compile_seconds: time of tracing and compiling.
        flops: XLA's count for one call; None if the compiler gives none.
        bytes_accessed: XLA's count for one call; None if the compiler gives none.
        temp_bytes: working memory of one call, besides arguments and results.
        argument_bytes: size of parameters, state and batch.
    """

    call: Callable[[], None]
    compile_seconds: float
    flops: float | None
    bytes_accessed: float | None
    temp_bytes: int
    argument_bytes: int


@dataclasses.dataclass(frozen=True)
class Timing:
    """The times of one program in milliseconds, one for each round."""

    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The median in milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def range(self) -> tuple[float, float]:
        """The shortest and the longest time in milliseconds."""
        return min(self.milliseconds), max(self.milliseconds)


def prepare(model: nn.Module, *, mode: str, clip_shape: tuple[int, ...], batch: int) -> Program:
    """Compile the step of the training loop or of the evaluation for one batch of random uint8 clips.

    Args:
        model: a model as from ``build_model``.
        mode: ``"forward"`` evaluates one view per clip; ``"train"`` runs the whole training step with SGD, clipping
            and batch statistics, and donates the state.
        clip_shape: (t, h, w, c).
        batch: number of clips.

    Raises:
        ValueError: if ``mode`` is unknown.
    """
    if mode not in MODES:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(MODES)}")
    schedule = optax.constant_schedule(0.01)
    optimizer = sgd(
        schedule,
        momentum=0.9,
        nesterov=True,
        weight_decay=5e-4,
        clip_norm=20.0,
        groups="official",
        classifier_lr=(1.0, 2.0),
    )
    state = place_state(create_state(model, optimizer, seed=0, clip_shape=clip_shape), _ONE_DEVICE)
    draw = np.random.default_rng(0)
    clips = draw.integers(0, 256, (batch, *clip_shape), np.uint8)
    data = {"clips": clips, "label": np.arange(batch, dtype=np.int32) % model.num_classes}
    if mode == "train":
        step = replicate(make_train_step(model, optimizer, schedule=schedule, seed=0), _ONE_DEVICE)
        first = state
    else:
        data |= {"clips": clips[:, None], "mask": np.ones(batch, bool)}
        step = replicate(make_eval_step(model, average="softmax"), _ONE_DEVICE, split=(False, True), donate=False)
        first = state.variables
    placed = place_batch(data, _ONE_DEVICE)
    began = time.perf_counter()
    compiled = step.lower(first, placed).compile()
    seconds = time.perf_counter() - began
    cost, memory = compiled.cost_analysis() or {}, compiled.memory_analysis()

    def call() -> None:
        nonlocal first
        outputs = jax.block_until_ready(compiled(first, placed))
        if mode == "train":
            first = outputs[0]

    sizes = memory.temp_size_in_bytes, memory.argument_size_in_bytes
    return Program(call, seconds, cost.get("flops"), cost.get("bytes accessed"), *sizes)


def measure(
    programs: Sequence[Program], *, rounds: int, warm_up: int = 2, progress: Callable[[Iterable], Iterable] = iter
) -> list[Timing]:
    """Time programs in interleaved rounds: each runs once per round, in alternating order.

    Other load on the machine then affects all of them alike, so that ratios hold even where times do not.

    Args:
        programs: programs from ``prepare``.
        rounds: number of timed calls per program.
        warm_up: number of calls per program that are not timed.
        progress: wraps the rounds, such as a progress bar.
    """
    for program in programs:
        for _ in range(warm_up):
            program.call()
    times: list[list[float]] = [[] for _ in programs]
    for number in progress(range(rounds)):
        order = range(len(programs)) if number % 2 == 0 else reversed(range(len(programs)))
        for index in order:
            began = time.perf_counter()
            programs[index].call()
            times[index].append(1e3 * (time.perf_counter() - began))
    return [Timing(tuple(each)) for each in times]


def matmul_peak(dtype: Any, *, size: int = 2048, rounds: int = 5) -> float:
    """Measure the operations per second of a large matrix product on the first device: an upper bound for networks.

    A multiplication and an addition are two operations. The best of several rounds counts.
    """
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.float32).astype(dtype)
    product = jax.jit(lambda a: a @ a)
    jax.block_until_ready(product(a))
    best = float("inf")
    for _ in range(rounds):
        began = time.perf_counter()
        jax.block_until_ready(product(a))
        best = min(best, time.perf_counter() - began)
    return 2 * size**3 / best


def describe_setting() -> dict[str, Any]:
    """Return the first device and the versions of Python and JAX."""
    device = jax.devices()[0]
    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "flax")}
    python = platform.python_version()
    return {"device": device.device_kind, "platform": device.platform, "python": python, **versions}


def as_line(setting: Mapping[str, Any]) -> str:
    """Format a setting in one line."""
    return ", ".join(f"{name} {value}" for name, value in setting.items())

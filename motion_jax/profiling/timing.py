"""How long networks take on this machine's first device: forward pass and training step, in interleaved rounds."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
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
    """A compiled forward pass or training step with its arguments on the device, ready to be called again and again.

    Attributes:
        call: runs it once and returns when it is done.
        compile_seconds: tracing and compiling.
        flops: XLA's count for one call; None where the compiler gives none.
        bytes_accessed: XLA's count for one call; None where the compiler gives none.
        temp_bytes: working memory of one call, beside arguments and results.
        argument_bytes: parameters, state and batch.
    """

    call: Callable[[], None]
    compile_seconds: float
    flops: float | None
    bytes_accessed: float | None
    temp_bytes: int
    argument_bytes: int


@dataclasses.dataclass(frozen=True)
class Timing:
    """Times of one program.

    Attributes:
        milliseconds: of each round.
    """

    milliseconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """In milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def replicate(self) -> tuple[float, float]:
        """Shortest and longest, in milliseconds."""
        return min(self.milliseconds), max(self.milliseconds)


def prepare(model: nn.Module, *, mode: str, clip_shape: tuple[int, ...], batch: int) -> Program:
    """Compile what the training loop or the evaluation runs for one batch of random uint8 clips.

    Args:
        model: as from ``build_model``.
        mode: ``"forward"``, evaluation of one view per clip, or ``"train"``, the whole step: forward, backward, SGD
            with momentum, clipping, statistics; the state is donated.
        clip_shape: (t, h, w, c).
        batch: clips.

    Raises:
        ValueError: for another mode.
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

    return Program(
        call,
        seconds,
        cost.get("flops"),
        cost.get("bytes accessed"),
        memory.temp_size_in_bytes,
        memory.argument_size_in_bytes,
    )


def measure(
    programs: Sequence[Program], *, rounds: int, warm_up: int = 2, progress: Callable[[Iterable], Iterable] = iter
) -> list[Timing]:
    """Time programs side by side: each once per round, forwards in one round and backwards in the next.

    What else the machine does then hits all of them alike, so that ratios hold where times do not.

    Args:
        programs: from ``prepare``.
        rounds: number of times per program.
        warm_up: calls of each that are not counted.
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
    """Operations per second (a multiplication and an addition are two) of a large matrix product on the first device.

    What a network can at best hope for, measured and not looked up; the best of several rounds.
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

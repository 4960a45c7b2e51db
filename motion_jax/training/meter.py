"""Metrics of the updates: read late, checked, averaged and logged."""

import collections
import contextlib
import math
import time
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from tqdm import tqdm

from motion_jax.training.goodput import Goodput
from motion_jax.training.input_wait import InputWait, Item
from motion_jax.training.metrics import MetricLog
from motion_jax.training.progress import log
from motion_jax.training.recipe import TrainConfig
from motion_jax.training.state import NonFiniteError

# Updates whose metrics may still be on the devices: reading the newest would make the devices wait for the host.
_LATE = 2


class Meter:
    """Metrics of the updates between two log lines, with the speed and the share of time spent waiting for input.

    ``logged`` holds the values of the last log line; empty before the first.
    """

    def __init__(self, metric_log: MetricLog, *, train: TrainConfig, train_size: int) -> None:
        self.logged: dict[str, float] = {}
        self._log = metric_log
        self._train = train
        self._steps_per_epoch = train.steps_per_epoch(train_size)
        self._total = train.total_steps(train_size)
        self._input_wait = InputWait()
        self._goodput = Goodput(metric_log.last_train_line)
        # (step, metrics) of the updates whose metrics are not read yet, oldest first.
        self._pending: collections.deque[tuple[int, dict[str, jax.Array]]] = collections.deque()
        # Metrics read since the last log line, and the time of that line.
        self._window: list[dict[str, float]] = []
        self._window_began = time.perf_counter()

    def timed(self, batches: Iterator[Item]) -> Iterator[Item]:
        """Yield batches, and measure how long the devices wait for each."""
        self._window_began = time.perf_counter()
        return self._input_wait.timed(batches)

    def add(self, step: int, metrics: dict[str, jax.Array]) -> None:
        """Record that update ``step`` was dispatched and will return ``metrics``."""
        self._input_wait.dispatched(metrics)
        self._goodput.started()
        self._pending.append((step, metrics))

    def read(self, *, everything: bool) -> list[dict[str, float]]:
        """Read the metrics that are due, and write the log lines that are due.

        With ``everything``, wait for the metrics of all updates; else those of the newest two stay unread. Return the
        values of the log lines written, with ``step``.

        Raises:
            NonFiniteError: if a loss or a gradient norm is not finite.
        """
        lines = []
        while len(self._pending) > (0 if everything else _LATE):
            step, metrics = self._pending.popleft()
            values = {name: float(value) for name, value in jax.device_get(metrics).items()}
            for name in ("loss", "grad_norm"):
                if not math.isfinite(values[name]):
                    raise NonFiniteError(f"{name} is {values[name]} at step {step}", step=step)
            self._window.append(values)
            if step % self._train.log_every == 0 or step == self._total:
                self.logged = self._average()
                epoch = step / self._steps_per_epoch
                self._log.write(step=step, epoch=epoch, split="train", values=self.logged)
                left = (self._total - step) * self._train.batch_size / self.logged["clips_per_second"]
                lines.append({"step": step, "seconds_left": left, **self.logged})
        return lines

    @contextlib.contextmanager
    def paused(self, kind: str) -> Iterator[None]:
        """Context whose time counts as ``kind`` of ``goodput.KINDS``, and not in the speed of the updates."""
        began = time.perf_counter()
        with self._goodput.spent(kind):
            yield
        self._window_began += time.perf_counter() - began

    def close(self) -> None:
        """Wait for the updates that still run, and end the thread that measures them."""
        self._input_wait.close()

    def _average(self) -> dict[str, float]:
        """Average the metrics since the last log line, and begin the next one."""
        window, now = self._window, time.perf_counter()
        seconds = now - self._window_began
        self._window, self._window_began = [], now
        waited = self._input_wait.seconds()
        self._goodput.waited(waited)
        return {
            **{name: float(np.mean([each[name] for each in window])) for name in ("loss", "top1", "grad_norm")},
            "lr": window[-1]["lr"],
            "clips_per_second": round(len(window) * self._train.batch_size / seconds, 2),
            # At most 1: the last wait counted here may belong to the next line.
            "input_wait": round(min(1.0, waited / seconds), 4),
            **self._goodput.values(),
        }


def show(line: Mapping[str, float], steps: tqdm) -> None:
    """Show a log line in the progress bar, or print it where there is no bar."""
    speed = f"{line['clips_per_second']:.1f} clips/s"
    if steps.disable:
        speed += f", {tqdm.format_interval(line['seconds_left'])} left"
        log(f"step {line['step']}/{steps.total}: loss {line['loss']:.4f}, top1 {line['top1']:.1f}, {speed}")
    else:
        steps.set_postfix_str(f"loss {line['loss']:.4f}, {speed}")

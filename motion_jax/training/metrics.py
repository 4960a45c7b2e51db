"""Metrics from sums over clips, and the files they are logged to."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter


def summarise(sums: Mapping[str, Any]) -> dict[str, float]:
    """Compute metrics from the sums of ``make_eval_step``, added over all batches.

    ``top1``, ``top5`` and ``mean_class`` are percent, from 0 to 100. ``mean_class`` averages the accuracy of each class
    over the classes that occur; ``loss`` is per clip and ``clips`` the number of clips.

    Raises:
        ValueError: if no clip was counted.
    """
    count = int(sums["count"])
    if count == 0:
        raise ValueError("no clip was evaluated: the split is empty, or every row of every batch is masked")
    occurs = np.asarray(sums["class_count"]) > 0
    per_class = np.asarray(sums["class_correct"], np.float64)[occurs] / np.asarray(sums["class_count"])[occurs]
    return {
        "loss": float(sums["loss"]) / count,
        "top1": 100 * int(sums["top1"]) / count,
        "top5": 100 * int(sums["top5"]) / count,
        "mean_class": 100 * float(per_class.mean()),
        "clips": count,
    }


class MetricLog:
    """``metrics.jsonl`` and TensorBoard events of a workdir, written by the first process.

    Each line of ``metrics.jsonl`` is an object with step, epoch and split, then name -> value. It is whole on disk when
    ``write`` returns.
    """

    def __init__(self, workdir: str | os.PathLike, *, start_step: int) -> None:
        """Open the log of a run that continues after ``start_step`` updates, and delete the lines of later steps.

        ``last_train_line`` is the last kept line of the split train; None on other processes or without such a line.
        """
        self._path = pathlib.Path(workdir) / "metrics.jsonl"
        self._file = self._board = None
        self.last_train_line: dict[str, Any] | None = None
        if jax.process_index() != 0:
            return
        records = [record for record in _read(self._path) if record["step"] <= start_step]
        self.last_train_line = next((record for record in reversed(records) if record["split"] == "train"), None)
        write_atomically(self._path, "".join(json.dumps(record) + "\n" for record in records))
        self._file = self._path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(self._path.parent / "tensorboard"), purge_step=start_step + 1)

    def write(self, *, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Append one line of finite values."""
        if self._file is None:
            return
        record = {"step": step, "epoch": round(epoch, 4), "split": split, **values}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")
        self._file.flush()
        for name in values.keys() - {"time"}:  # TensorBoard stores the time of every value by itself.
            self._board.add_scalar(f"{split}/{name}", values[name], step)

    def close(self) -> None:
        """Close the files."""
        if self._file is not None:
            self._file.close()
            self._board.close()


def find_logged(workdir: str | os.PathLike, *, step: int, split: str) -> dict[str, float] | None:
    """Return the values last logged in a workdir for a step and a split, or None."""
    for record in reversed(_read(pathlib.Path(workdir) / "metrics.jsonl")):
        if record["step"] == step and record["split"] == split:
            return {name: value for name, value in record.items() if name not in ("step", "epoch", "split")}
    return None


def write_atomically(path: pathlib.Path, text: str) -> None:
    """Replace a text file by a rename, so that a reader never finds a part of it, even after a crash."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def _read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Read the complete lines of ``metrics.jsonl``, without a last line cut off by a kill."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records

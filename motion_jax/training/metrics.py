"""Metrics from sums over clips, and the files they are logged to."""

import contextlib
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from motion_jax.places import append, clear_way, is_bucket, place, write_whole
from motion_jax.training import json_lines
from motion_jax.training.board import Board

_log = logging.getLogger(__name__)


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

    Each line of ``metrics.jsonl`` is an object with step, epoch and split, then name -> value. It is stored as a whole
    when ``write`` returns. If it cannot be stored, a warning says so, and it is written with the next line that can.
    """

    def __init__(self, workdir: str | os.PathLike, *, start_step: int) -> None:
        """Open the log of a run that continues after ``start_step`` updates, and delete the lines of later steps.

        ``last_train_line`` is the last kept line of the split train; None on other processes or without such a line.

        Raises:
            OSError: if the log cannot be written.
        """
        self._workdir = place(workdir)
        self._path = self._workdir / "metrics.jsonl"
        self._step = start_step
        self.last_train_line: dict[str, Any] | None = None
        self._opened = contextlib.ExitStack()
        self._board: Board | None = None
        if jax.process_index() != 0:
            return
        records = [record for record in read_log(self._workdir) if record["step"] <= start_step]
        self.last_train_line = next((record for record in reversed(records) if record["split"] == "train"), None)
        self._text = "".join(json.dumps(record) + "\n" for record in records)
        # Whether the file holds this text.
        self._stored = True
        write_whole(self._path, self._text)
        self._board_folder = str(self._workdir / "tensorboard")
        clear_way(self._workdir / "tensorboard", folder=True)
        if is_bucket(self._workdir):
            self._board_folder = self._opened.enter_context(tempfile.TemporaryDirectory())

    def write(self, *, step: int, epoch: float, split: str, values: Mapping[str, float]) -> None:
        """Append one line of finite values."""
        if jax.process_index() != 0:
            return
        record = {"step": step, "epoch": round(epoch, 4), "split": split, **values}
        line = json.dumps(record, allow_nan=False) + "\n"
        self._text += line
        was_stored, self._stored = self._stored, False
        try:
            if was_stored and not is_bucket(self._path):
                append(self._path, line)
            else:
                write_whole(self._path, self._text)
            # TensorBoard stores the time of every value by itself.
            tags = {f"{split}/{name}": value for name, value in values.items() if name != "time"}
            self._write_events(tags, step=step)
            self._stored = True
        except OSError as error:
            self._close_board()
            if was_stored:
                _log.warning(
                    "%s cannot be written (%s); its lines are kept until it can", self._path, error.strerror or error
                )

    def _write_events(self, values: Mapping[str, float], *, step: int) -> None:
        self._board = self._board or Board(self._board_folder, purge_step=self._step + 1)
        self._board.write(values, step=step)
        self._step = step
        if is_bucket(self._workdir):
            for events in pathlib.Path(self._board_folder).iterdir():
                write_whole(self._workdir / "tensorboard" / events.name, events.read_bytes())

    def close(self) -> None:
        """Close the files."""
        self._close_board()
        self._opened.close()

    def _close_board(self) -> None:
        if self._board:
            with contextlib.suppress(OSError):
                self._board.close()
        self._board = None


def find_logged(workdir: str | os.PathLike, *, step: int, split: str) -> dict[str, float] | None:
    """Return the values last logged in a workdir for a step and a split, or None."""
    for record in reversed(read_log(workdir)):
        if record["step"] == step and record["split"] == split:
            return {name: value for name, value in record.items() if name not in ("step", "epoch", "split")}
    return None


def read_log(workdir: str | os.PathLike) -> list[dict[str, Any]]:
    """Return the lines of ``metrics.jsonl`` that have a step and a split; a warning counts others."""
    path = place(workdir) / "metrics.jsonl"
    lines = json_lines.read(path)
    # bool is a kind of int.
    sound = [line for line in lines if type(line.get("step")) is int and isinstance(line.get("split"), str)]
    if len(sound) < len(lines):
        _log.warning("%s: %d lines without step and split are ignored", path, len(lines) - len(sound))
    return sound

"""Rollback: a run goes back to its newest checkpoint and takes another batch for the update that failed."""

import json
import logging
import shutil

import numpy as np
import pytest
import tiny_runs

from motion_jax.training import checkpoints
from motion_jax.training.skipped_batches import SkippedBatches
from motion_jax.training.state import NonFiniteError, fingerprint


def batches_with_nan(*bad, fed=None):
    """Batches of floats, of which those at the positions ``bad``, counted from 1, are NaN; notes what is fed."""

    def train_batches(start):
        for step, batch in enumerate(tiny_runs.train_batches(start), start + 1):
            if fed is not None:
                fed.append(step)
            clips = batch["clips"].astype(np.float32)
            yield {**batch, "clips": clips * np.nan if step in bad else clips}

    return train_batches


def run(workdir, *bad, steps=12, **changes):
    options = {"log_every": 2, "every_steps": 3, "evaluate": False, "on_nan": "rollback", "model": MODEL}
    return tiny_runs.run(workdir, steps=steps, train_batches=batches_with_nan(*bad), **{**options, **changes})


MODEL = tiny_runs.TinyNet(dropout=0.5, norm=False)


def skipped(workdir):
    lines = map(json.loads, (workdir / "history.jsonl").read_text().splitlines())
    return [line["skipped"] for line in lines if "skipped" in line]


def test_the_batch_is_replaced_and_noted(tmp_path, capsys):
    assert run(tmp_path, 5, 8)["finished"]
    assert skipped(tmp_path) == [5, 8]
    printed = capsys.readouterr().err
    assert "loss is nan at step 5: back to step 3; the batch of step 5 is skipped" in printed
    assert "loss is nan at step 8: back to step 6; the batch of step 8 is skipped" in printed
    lines = list(map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()))
    assert [line["step"] for line in lines] == [2, 4, 6, 8, 10, 12]
    assert all(np.isfinite(line["loss"]) for line in lines)


def test_without_a_checkpoint_it_begins_again(tmp_path, capsys):
    assert run(tmp_path, 2)["finished"]
    assert "back to step 0; the batch of step 2 is skipped" in capsys.readouterr().err


def final(workdir):
    return fingerprint(checkpoints.restore(workdir / "checkpoints" / "latest").variables)


def test_the_state_is_that_of_a_run_fed_the_other_batch(tmp_path):
    run(tmp_path / "rolled_back", 5)

    def other(start):
        for step in range(start + 1, 100):
            clean = batches_with_nan()(12 + 5 if step == 5 else step - 1)
            yield next(clean)

    options = {"log_every": 2, "every_steps": 3, "evaluate": False, "model": MODEL}
    tiny_runs.run(tmp_path / "fed", steps=12, train_batches=other, **options)
    assert final(tmp_path / "rolled_back") == final(tmp_path / "fed")


def test_a_resumed_run_skips_the_same_batch(tmp_path, capsys):
    run(tmp_path / "straight", 5)
    run(tmp_path / "again", 5)
    for step in (9, 12):
        shutil.rmtree(tmp_path / "again" / "checkpoints" / "latest" / str(step), ignore_errors=True)
    assert [path.name for path in (tmp_path / "again" / "checkpoints" / "latest").iterdir()] == []
    capsys.readouterr()
    # From the start: only the history says which batch is skipped.
    run(tmp_path / "again", 5)
    assert "back to" not in capsys.readouterr().err
    assert final(tmp_path / "again") == final(tmp_path / "straight")


def test_after_three_rollbacks_the_run_stops(tmp_path):
    with pytest.raises(
        NonFiniteError, match="loss is nan at step 10: training stopped, the last good checkpoint is step 9"
    ):
        run(tmp_path, 2, 5, 8, 10)
    assert skipped(tmp_path) == [2, 5, 8]


def test_a_batch_is_not_skipped_twice(tmp_path):
    # Batch 18, the first after step 12 + 5, replaces batch 5, and is NaN too.
    with pytest.raises(NonFiniteError, match="loss is nan at step 5: training stopped"):
        run(tmp_path, 5, 18)
    assert skipped(tmp_path) == [5]


def test_the_default_stops(tmp_path):
    with pytest.raises(NonFiniteError, match="loss is nan at step 5"):
        run(tmp_path, 5, on_nan="stop")
    assert skipped(tmp_path) == []


def test_damaged_lines_of_the_history_are_named(tmp_path, caplog):
    good = json.dumps({"skipped": 5})
    (tmp_path / "history.jsonl").write_bytes(b'\xff\xfe\n[]\n3\n{"a"\n' + good.encode() + b"\n")
    with caplog.at_level(logging.WARNING):
        batches = SkippedBatches(tmp_path, replaced_from=100).batches(
            lambda start: iter(range(start + 1, 999)), start=3
        )
        assert [next(batches) for _ in range(3)] == [4, 106, 6]
    assert "history.jsonl: 4 damaged lines are ignored" in caplog.text

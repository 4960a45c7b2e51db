"""The training loop: exact resume, signals, non-finite losses, workdirs."""

import contextlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny_runs
from flax import linen as nn

from motion_jax.training import loop as loop_module
from motion_jax.training import parallel as par
from motion_jax.training.checkpoints import CheckpointConfig, Checkpoints, restore
from motion_jax.training.input_wait import InputWait
from motion_jax.training.recipe import make_optimizer, make_schedule
from motion_jax.training.state import create_state, fingerprint
from motion_jax.training.step import make_train_step


def whole_state(workdir, **changes):
    """Return the SHA-256 of the whole state in the newest checkpoint."""
    recipe = tiny_runs.train_config(**changes)
    optimizer = make_optimizer(recipe, make_schedule(recipe, train_size=tiny_runs.CLIPS))
    template = create_state(tiny_runs.TinyNet(), optimizer, seed=0, clip_shape=(2, 4, 4, 3))
    section = CheckpointConfig(every_steps=None, every_epochs=None, keep=2, asynchronous=False)
    with Checkpoints(workdir, section=section, config={}, labels=[]) as checkpoints:
        everywhere = par.state_sharding(par.ParallelConfig(backend="pmap", devices=8))
        return fingerprint(checkpoints.restore_latest(template, sharding=everywhere))


def records(workdir, split="train"):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if record["split"] == split]


def start(workdir, **arguments):
    """Start a run in another process."""
    environment = tiny_runs.environment_of_a_process(JAX_COMPILATION_CACHE_DIR=jax.config.jax_compilation_cache_dir)
    command = [sys.executable, "-W", "error", tiny_runs.__file__, json.dumps({"workdir": str(workdir), **arguments})]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_stop_and_resume_equals_never_stopping(tmp_path):
    # With dropout, BatchNorm, momentum, and a lower rate from step 3. The first half runs in another process.
    tiny_runs.run(tmp_path / "straight", steps=6)
    process = start(tmp_path / "halves", steps=3)
    _, noise = process.communicate(timeout=100)
    assert process.returncode == 0, noise
    tiny_runs.run(tmp_path / "halves", steps=6)
    assert whole_state(tmp_path / "halves") == whole_state(tmp_path / "straight")
    # The control: another position in the data gives another state.
    tiny_runs.run(tmp_path / "shifted", steps=3)
    tiny_runs.run(tmp_path / "shifted", steps=6, train_batches=lambda start: tiny_runs.train_batches(start + 1))
    assert whole_state(tmp_path / "shifted") != whole_state(tmp_path / "straight")


def test_mixed_clips_and_soft_labels_resume_too(tmp_path, monkeypatch):
    passed = []

    def noted(*arguments, **options):
        passed.append({name: options[name] for name in mixed})
        return make_train_step(*arguments, **options)

    monkeypatch.setattr(loop_module, "make_train_step", noted)
    options = {"milestones": (), "evaluate": False, "every_steps": 2, "log_every": 1, "devices": 2}
    mixed = {"mixup": 0.8, "cutmix": 0.9, "label_smoothing": 0.1}
    tiny_runs.run(tmp_path / "straight", steps=4, **options, **mixed)
    tiny_runs.run(tmp_path / "halves", steps=2, **options, **mixed)
    tiny_runs.run(tmp_path / "halves", steps=4, **options, **mixed)
    assert whole_state(tmp_path / "halves", milestones=()) == whole_state(tmp_path / "straight", milestones=())
    assert passed == [mixed] * 3


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_everything_is_traced_once(tmp_path, backend):
    # Over several epochs, with evaluations whose last batch is padded, and again after a resume.
    for steps in (4, 7):
        tiny_runs.TRACES.clear()
        tiny_runs.run(tmp_path, steps=steps, backend=backend)
        # Initialisation and evaluation call the network with train=False.
        assert sorted(tiny_runs.TRACES) == ["eval", "eval", "train"]
    assert len(records(tmp_path, "val")) == 4


def test_batches_are_placed_ahead_and_metrics_are_read_late(tmp_path, monkeypatch):
    events, owners = [], {}
    replicate, place_batch, device_get = par.replicate, par.place_batch, jax.device_get

    def noted_replicate(step, *arguments, **options):
        call = replicate(step, *arguments, **options)

        def noted(state, batch):
            events.append("update")
            state, metrics = call(state, batch)
            owners[id(metrics)] = metrics, events.count("update")
            return state, metrics

        return noted

    def noted_place(batch, parallel):
        events.append("place")
        assert batch["clips"].dtype == np.uint8
        placed = place_batch(batch, parallel)
        assert placed["clips"].dtype == np.uint8
        return placed

    def noted_get(tree):
        if id(tree) in owners:
            events.append(f"read {owners[id(tree)][1]}")
        return device_get(tree)

    monkeypatch.setattr(par, "replicate", noted_replicate)
    monkeypatch.setattr(par, "place_batch", noted_place)
    monkeypatch.setattr(jax, "device_get", noted_get)
    tiny_runs.run(tmp_path, steps=5, every_steps=1000, evaluate=False, log_every=1)
    # While an update runs, the next batch is being placed, and the metrics read are two updates old.
    assert " ".join(events) == (
        "place place update place update place update read 1 place update read 2 place update read 3 read 4 read 5"
    )


@pytest.mark.parametrize("backend", par.BACKENDS)
def test_an_implicit_transfer_is_an_error(tmp_path, monkeypatch, backend):
    options = {"backend": backend, "steps": 3, "evaluate": False}
    place_batch = par.place_batch

    def unplaced(batch, parallel):
        return jax.device_get(place_batch(batch, parallel))

    with monkeypatch.context() as patch:
        patch.setattr(par, "place_batch", unplaced)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            tiny_runs.run(tmp_path / "guarded", **options)
        # The control: only the guard refuses it. JAX's debugging modes lift it.
        patch.setattr(par, "no_implicit_transfers", contextlib.nullcontext)
        assert tiny_runs.run(tmp_path / "unguarded", **options)["finished"]
    # With placed batches, the updates make no implicit transfer.
    assert tiny_runs.run(tmp_path / "guarded", **options)["finished"]


def test_debugging_modes_allow_implicit_transfers():
    for mode in (jax.debug_nans, jax.debug_infs, jax.disable_jit):
        with mode(True), par.no_implicit_transfers():
            assert float(jnp.sin(np.float32(0))) == 0
    with par.no_implicit_transfers(), pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        jnp.sin(np.float32(0))


def test_each_update_is_a_step_of_the_profile(tmp_path, monkeypatch):
    steps = []

    def recorded(name, *, step_num):
        steps.append((name, step_num))
        return contextlib.nullcontext()

    monkeypatch.setattr(jax.profiler, "StepTraceAnnotation", recorded)
    tiny_runs.run(tmp_path, steps=2, evaluate=False)
    tiny_runs.run(tmp_path, steps=4, evaluate=False)
    assert steps == [("train", step) for step in (1, 2, 3, 4)]


def test_compilations_are_announced_once(tmp_path, capsys):
    tiny_runs.run(tmp_path, steps=6, devices=2)
    lines = capsys.readouterr().err.splitlines()
    compiled = [line for line in lines if line.startswith("compil")]
    whats = ["the initial state", "the training step for 2 device(s) with pmap", "the evaluation for 2 device(s)"]
    for what, begins, ends in zip(whats, compiled[::2], compiled[1::2], strict=True):
        assert begins.startswith(f"compiling {what}")
        assert re.match(rf"compiled {re.escape(what)}.* in \d+\.\d s$", ends)
    assert lines.index(compiled[2]) < lines.index(next(line for line in lines if line.startswith("step ")))


class Heavy(nn.Module):
    """Network whose update takes much longer than making a batch of random clips."""

    @nn.compact
    def __call__(self, clips, *, train):
        logits = nn.Dense(tiny_runs.CLASSES, name="classifier")(clips.reshape(len(clips), -1) / 255)
        busy = jax.lax.fori_loop(0, 100, lambda _, x: jnp.cos(x @ x), jnp.zeros((300, 300)) + logits.mean())
        return logits + jax.lax.stop_gradient(0 * busy[0, 0])


def shares_of_waiting(workdir, model, batches):
    options = {"evaluate": False, "every_steps": 1000, "devices": 1, "milestones": ()}
    tiny_runs.run(workdir, steps=12, log_every=4, model=model, train_batches=batches, **options)
    # The first log line includes the compilation.
    return [record["input_wait"] for record in records(workdir)][1:]


def test_the_share_of_waiting_for_input_is_logged(tmp_path):
    def late(start):
        for batch in tiny_runs.train_batches(start):
            time.sleep(0.05)
            yield batch

    slow = shares_of_waiting(tmp_path / "slow", tiny_runs.TinyNet(), late)
    assert all(0.5 < share <= 1 for share in slow), slow
    batch = tiny_runs.batch_of(range(8))
    fast = shares_of_waiting(tmp_path / "fast", Heavy(), lambda start: itertools.repeat(batch))
    assert all(0 <= share < 0.2 for share in fast), fast


def test_only_the_time_of_idle_devices_counts_as_waiting():
    class Update:
        """Substitute for the outputs of an update that takes a number of seconds."""

        def __init__(self, seconds):
            self.ends = time.perf_counter() + seconds

        def block_until_ready(self):
            time.sleep(max(0, self.ends - time.perf_counter()))

    def late():
        while True:
            time.sleep(0.2)
            yield "batch"

    with contextlib.closing(InputWait()) as wait:
        batches = wait.timed(late())
        next(batches)
        assert wait.seconds() >= 0.2  # the first: there is nothing to do yet
        for seconds, least, most in ((0.0, 0.19, 0.5), (0.1, 0.05, 0.18), (2.0, 0.0, 0.0)):
            update = Update(seconds)
            wait.dispatched(update)
            next(batches)
            early = wait.seconds()
            update.block_until_ready()
            time.sleep(0.1)
            assert least <= early + wait.seconds() <= most
            assert early == 0 or seconds < 2


def test_an_evaluation_does_not_count_in_the_speed(tmp_path, monkeypatch):
    whole = tiny_runs.eval_batches

    def slow():
        time.sleep(1.0)
        return whole()

    def late(start):
        for batch in tiny_runs.train_batches(start):
            time.sleep(0.02)
            yield batch

    monkeypatch.setattr(tiny_runs, "eval_batches", slow)
    tiny_runs.run(tmp_path, steps=12, log_every=6, train_batches=late, every_steps=1000)
    # Steps 7 to 12 with an evaluation after step 9: their time is that of all six updates, without the evaluation.
    second = records(tmp_path)[1]
    assert 48 / 1.0 < second["clips_per_second"] <= 48 / 0.12


def test_files_and_result(tmp_path):
    result = tiny_runs.run(tmp_path, steps=6)
    assert (result["step"], result["finished"], result["clips"]) == (6, True, 13)
    assert json.loads((tmp_path / "config.json").read_text()) == {"model": {"name": "tiny"}}
    assert json.loads((tmp_path / "labels.json").read_text()) == list(tiny_runs.LABELS)
    train, val = records(tmp_path), records(tmp_path, "val")
    assert [record["step"] for record in train] == [2, 4, 6]
    assert [record["step"] for record in val] == [3, 6]
    assert [record["epoch"] for record in val] == [1.0, 2.0]
    assert {name: val[-1][name] for name in ("loss", "top1", "top5", "mean_class", "clips")} == {
        name: result[name] for name in ("loss", "top1", "top5", "mean_class", "clips")
    }
    assert [record["lr"] for record in train] == pytest.approx([0.05, 0.005, 0.005])
    assert all(record["clips_per_second"] > 0 for record in train)
    best = max(val, key=lambda record: (record["top1"], record["step"]))
    assert restore(tmp_path).step == best["step"]
    assert restore(tmp_path).labels == tiny_runs.LABELS


def test_a_finished_workdir_returns_at_once(tmp_path, capsys):
    first = tiny_runs.run(tmp_path, steps=3)
    capsys.readouterr()

    def untouched(start):
        raise AssertionError("data were asked for")

    again = tiny_runs.run(tmp_path, steps=3, train_batches=untouched)
    assert again == first
    assert "is finished: 3 of 3 steps are done" in capsys.readouterr().err


def test_a_missing_final_evaluation_is_run_at_the_next_start(tmp_path):
    first = tiny_runs.run(tmp_path, steps=3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(line for line in lines if '"val"' not in line))
    assert tiny_runs.run(tmp_path, steps=3) == first
    assert len(records(tmp_path, "val")) == 1


def test_without_evaluation_the_last_update_is_the_result(tmp_path):
    result = tiny_runs.run(tmp_path, steps=3, evaluate=False)
    assert result["finished"]
    assert result["loss"] == records(tmp_path)[-1]["loss"]
    assert tiny_runs.run(tmp_path, steps=3, evaluate=False) == result


def test_eight_clips_are_memorised(tmp_path):
    result = tiny_runs.run(
        tmp_path,
        model=tiny_runs.TinyNet(norm=False),
        steps=60,
        milestones=(),
        every_steps=60,
        log_every=20,
        evaluate=False,
        train_batches=lambda start: itertools.repeat(tiny_runs.batch_of(range(8))),
    )
    assert result["top1"] == 100.0
    assert result["loss"] < 0.05


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(tmp_path, number, capsys):
    def batches(start):
        for step, batch in enumerate(tiny_runs.train_batches(start), start=start):
            if step == 4:
                os.kill(os.getpid(), number)
            yield batch

    before = signal.getsignal(number)
    result = tiny_runs.run(tmp_path, steps=50, every_steps=1000, eval_every_epochs=0, train_batches=batches)
    assert signal.getsignal(number) is before
    assert not result["finished"]
    assert 2 <= result["step"] <= 5
    assert restore(tmp_path).step == result["step"]
    assert f"stopped by {signal.Signals(number).name} after step {result['step']}" in capsys.readouterr().err
    assert tiny_runs.run(tmp_path, steps=6)["finished"]
    tiny_runs.run(tmp_path / "straight", steps=6, eval_every_epochs=0)
    assert whole_state(tmp_path) == whole_state(tmp_path / "straight")


def test_a_signal_during_an_evaluation_costs_only_the_evaluation(tmp_path, monkeypatch):
    whole = tiny_runs.eval_batches

    def interrupted():
        batches = whole()
        yield next(batches)
        os.kill(os.getpid(), signal.SIGTERM)
        yield from batches

    monkeypatch.setattr(tiny_runs, "eval_batches", interrupted)
    result = tiny_runs.run(tmp_path, steps=6)
    assert (result["step"], result["finished"]) == (3, False)
    assert records(tmp_path, "val") == []
    monkeypatch.setattr(tiny_runs, "eval_batches", whole)
    tiny_runs.run(tmp_path, steps=6)
    assert [record["step"] for record in records(tmp_path, "val")] == [3, 6]


def test_a_signal_before_the_first_update_stops_at_once(tmp_path):
    def batches(start):
        os.kill(os.getpid(), signal.SIGTERM)
        yield from tiny_runs.train_batches(start)

    result = tiny_runs.run(tmp_path, steps=3, train_batches=batches)
    assert (result["step"], result["finished"]) == (0, False)
    assert tiny_runs.run(tmp_path, steps=3)["finished"]
    result = tiny_runs.run(tmp_path, steps=6, train_batches=batches)
    assert (result["step"], result["finished"]) == (3, False)


def test_a_signal_after_the_last_clip_of_an_evaluation_stops_at_once(tmp_path, monkeypatch):
    whole = tiny_runs.eval_batches

    def interrupted():
        yield from whole()
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(tiny_runs, "eval_batches", interrupted)
    result = tiny_runs.run(tmp_path, steps=6)
    assert (result["step"], result["finished"]) == (3, False)
    assert [record["step"] for record in records(tmp_path, "val")] == [3]


def test_sigterm_ends_the_process_with_0_and_sigkill_loses_nothing(tmp_path):
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(tmp_path, steps=1_000_000, every_steps=5, eval_every_epochs=0, log_every=1)
        log, deadline = tmp_path / "metrics.jsonl", time.monotonic() + 60
        size = log.stat().st_size if log.exists() else 0
        while not (log.exists() and log.stat().st_size > size + 4000):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(number)
        output, noise = process.communicate(timeout=60)
        assert process.returncode == code, noise
        assert "Traceback" not in noise
        if code == 0:
            assert not json.loads(output)["finished"]
    reached = restore(tmp_path).step
    assert tiny_runs.run(tmp_path, steps=reached + 2, eval_every_epochs=0)["step"] == reached + 2
    numbers = [record["step"] for record in records(tmp_path)]
    assert numbers == sorted(set(numbers))


def poisoned(step):
    """Return batches of which one step has NaN clips."""

    def batches(start):
        for number, batch in enumerate(tiny_runs.train_batches(start), start=start):
            clips = batch["clips"].astype(np.float32)
            yield {**batch, "clips": clips * np.nan if number == step else clips}

    return batches


@pytest.mark.parametrize("every_steps", [1, 3, 1000])
def test_a_loss_that_is_not_finite_stops_and_is_never_saved(tmp_path, every_steps):
    with pytest.raises(ValueError, match="loss is nan at step 5: training stopped") as error:
        tiny_runs.run(tmp_path, steps=50, every_steps=every_steps, eval_every_epochs=0, train_batches=poisoned(4))
    message = str(error.value)
    assert "lower train.learning_rate" in message
    assert "\n" not in message
    good = {1: "the last good checkpoint is step 4", 3: "the last good checkpoint is step 3"}
    assert good.get(every_steps, "no checkpoint was written yet") in message
    if every_steps < 1000:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(restore(tmp_path).variables))
        # Without the NaN, training goes on from there.
        assert tiny_runs.run(tmp_path, steps=6, eval_every_epochs=0)["finished"]


def test_a_broken_newest_checkpoint_costs_only_its_steps(tmp_path):
    # Steps 2 and 4 use different batches: the data repeat every three steps.
    for name in ("straight", "broken"):
        tiny_runs.run(tmp_path / name, steps=4, every_steps=2)
    (tmp_path / "broken/checkpoints/latest/4/state/manifest.ocdbt").unlink()
    # With more steps to do, it starts from step 2 again, and the log holds each step once.
    for name in ("straight", "broken"):
        tiny_runs.run(tmp_path / name, steps=7, every_steps=2)
    assert whole_state(tmp_path / "broken") == whole_state(tmp_path / "straight")
    assert [record["step"] for record in records(tmp_path / "broken")] == [2, 4, 6, 7]


def test_another_model_or_other_labels_are_refused(tmp_path):
    tiny_runs.run(tmp_path, steps=1)
    with pytest.raises(ValueError, match="holds a run of tiny, this one is of msnet_tsm_r18: choose another workdir"):
        tiny_runs.run(tmp_path, steps=3, config={"model": {"name": "msnet_tsm_r18"}})
    with pytest.raises(ValueError, match="is of another model or optimizer"):
        tiny_runs.run(tmp_path, steps=3, model=tiny_runs.TinyNet(width=8))
    (tmp_path / "labels.json").write_text('["a", "b", "c", "d"]')
    with pytest.raises(ValueError, match="4 other labels than these 4"):
        tiny_runs.run(tmp_path, steps=3)
    assert restore(tmp_path).step == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 12}, "train.batch_size is 12, .* set it to 8 or 16"),
        ({"model": tiny_runs.TinyNet(num_classes=5)}, "the model has 5 classes and the data 4 labels"),
        (
            {"train_batches": lambda start: itertools.islice(tiny_runs.train_batches(start), 2)},
            "ended after 2 of 6 steps",
        ),
        ({"train_batches": lambda start: iter([])}, "ended after 0 of 6 steps"),
        ({"devices": 9}, "parallel.devices is 9"),
        ({"mixup": 0.2}, "train.mixup and train.cutmix mix the clips of one device, and each of 8 has one: .* 16"),
    ],
)
def test_fit_refuses(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_runs.run(tmp_path, steps=6, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": None}, "train.steps and train.epochs are both None"),
        ({"batch_size": 0}, "train.batch_size is 0, expected 1 to 2"),
        ({"schedule": "linear"}, "train.schedule is 'linear', expected one of"),
        ({"milestones": (2, 1)}, r"train.milestones is \(2, 1\), expected positive epochs, rising"),
        ({"clip_norm": 0}, "train.clip_norm is 0, expected a positive number up to 1e9, or None"),
        ({"groups": "none"}, "train.groups is 'none'"),
        ({"momentum": 0}, "train.nesterov is True, expected False"),
        ({"classifier_lr": (1,)}, "train.classifier_lr"),
        ({"mixup": -0.1}, "train.mixup is -0.1, expected 0 for none, or a positive number"),
        ({"cutmix": -1}, "train.cutmix is -1, expected 0 for none, or a positive number"),
        ({"label_smoothing": 1.0}, "train.label_smoothing is 1.0, expected from 0 to below 1"),
        ({"log_every": 0}, "train.log_every is 0"),
        ({"learning_rate": 0}, "train.learning_rate is 0"),
    ],
)
def test_section_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        tiny_runs.train_config(**changes)


def test_steps_of_a_run():
    assert tiny_runs.train_config(steps=None, epochs=2.0).total_steps(24) == 6
    assert tiny_runs.train_config(steps=None, epochs=2.0).total_steps(25) == 7
    assert tiny_runs.train_config(steps=5, epochs=2.0).total_steps(24) == 5


def test_periods_may_be_fractional():
    # Half an epoch of 5 updates: multiples at 2.5, 5, 7.5 and 10 updates lie in updates 3, 5, 8 and 10.
    assert [n for n in range(1, 11) if loop_module._crosses(n, 2.5)] == [3, 5, 8, 10]
    assert [n for n in range(1, 11) if loop_module._crosses(n, 0.1 * 30)] == [3, 6, 9]
    assert not loop_module._crosses(4, 0)


COUNT_COMPILATIONS = """
import collections, json, sys
import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.jit(lambda x: x + 1)(1)
events = collections.Counter()
jax.monitoring.register_event_listener(lambda name, **_: events.update([name.rpartition("/")[2]]))
import tiny_runs

tiny_runs.run(sys.argv[1], steps=int(sys.argv[2]), devices=1)
print(json.dumps(events))
"""


def test_compilations_are_kept_in_the_workdir_unless_a_place_is_set(tmp_path):
    environment = tiny_runs.environment_of_a_process()
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    counts = []
    for steps in ("4", "7"):
        command = [sys.executable, "-W", "error", "-c", COUNT_COMPILATIONS, str(tmp_path), steps]
        done = subprocess.run(command, env=environment, check=True, timeout=100, capture_output=True, text=True)
        counts.append(json.loads(done.stdout))
    first, resumed = counts
    assert first["cache_misses"] >= 3
    assert any((tmp_path / "compile_cache").iterdir())
    # The run compiles one program for the update and one for the evaluation; a resumed run compiles neither.
    assert resumed["cache_hits"] == resumed["compile_requests_use_cache"] == 2
    assert "cache_misses" not in resumed
    tiny_runs.run(tmp_path / "other", steps=1)
    assert not (tmp_path / "other" / "compile_cache").exists()

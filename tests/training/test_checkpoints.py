"""Checkpoints: which are kept, broken ones, and runs killed while saving."""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

from motion_jax.training import parallel as par
from motion_jax.training.checkpoints import CheckpointConfig, Checkpoints, find, restore
from motion_jax.training.state import NonFiniteError, TrainState, create_state, fingerprint

DEVICES = par.ParallelConfig(backend="pmap", devices=8)
CONFIG = {"model": {"name": "tiny", "width": 16}}


@pytest.fixture(scope="module")
def base():
    """Return a state of the tiny network."""
    return create_state(tiny_runs.TinyNet(), optax.sgd(0.1, 0.9), seed=0, clip_shape=(2, 4, 4, 3))


def at(base: TrainState, step: int) -> TrainState:
    """Return the base with another step and other parameters, on eight devices."""
    params = jax.tree.map(lambda x: np.asarray(x) + step, base.params)
    return par.place_state(base.replace(step=np.int32(step), params=params), DEVICES)


@contextlib.contextmanager
def opened(workdir, *, keep=2, asynchronous=True):
    section = CheckpointConfig(every_steps=None, every_epochs=1.0, keep=keep, asynchronous=asynchronous)
    with Checkpoints(workdir, section=section, config=CONFIG, labels=tiny_runs.LABELS) as checkpoints:
        yield checkpoints


def resume(workdir, base):
    with opened(workdir) as checkpoints:
        return checkpoints.restore_latest(base, sharding=par.state_sharding(DEVICES))


@pytest.fixture
def workdir(tmp_path, base):
    """Return a workdir with checkpoints of steps 1 and 2."""
    with opened(tmp_path) as checkpoints:
        for step in (1, 2):
            checkpoints.save_latest(at(base, step))
    return tmp_path


def steps(workdir, kind="latest"):
    return sorted(int(p.name) for p in (workdir / "checkpoints" / kind).iterdir())


def array_file(workdir, step):
    """Return the largest array file of a checkpoint."""
    return max((workdir / "checkpoints/latest" / str(step) / "state").rglob("d/*"), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_round_trip_is_exact_and_placed(tmp_path, base, asynchronous):
    state = at(base, 3)
    with opened(tmp_path, asynchronous=asynchronous) as checkpoints:
        checkpoints.save_latest(state)
    restored = resume(tmp_path, base)
    assert fingerprint(restored) == fingerprint(state)
    assert jax.tree.structure(restored) == jax.tree.structure(state)
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {par.state_sharding(DEVICES)}


def test_readable_files(workdir):
    folder = workdir / "checkpoints" / "latest" / "2"
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    assert json.loads((folder / "labels.json").read_text()) == list(tiny_runs.LABELS)


def test_the_latest_and_the_best_are_kept(tmp_path, base):
    with opened(tmp_path) as checkpoints:
        kept = []
        for step, top1 in ((1, 10.0), (2, 50.0), (3, 40.0), (4, 50.0), (5, 20.0)):
            checkpoints.save_latest(at(base, step))
            kept.append(checkpoints.save_best(at(base, step), top1=top1))
    # Of two equally good states, the later one is the best.
    assert kept == [True, True, False, True, False]
    assert steps(tmp_path) == [4, 5]
    assert steps(tmp_path, "best") == [4]
    with opened(tmp_path) as checkpoints:
        assert not checkpoints.save_best(at(base, 6), top1=49.0)
        assert checkpoints.save_best(at(base, 7), top1=51.0)


def test_saving_a_step_twice_is_fine(workdir, base):
    before = fingerprint(restore(workdir / "checkpoints/latest/2").variables)
    with opened(workdir) as checkpoints:
        checkpoints.save_latest(at(base, 2))
        checkpoints.save_best(at(base, 2), top1=1.0)
        checkpoints.save_best(at(base, 2), top1=1.0)
    assert steps(workdir) == [1, 2]
    assert fingerprint(restore(workdir / "checkpoints/latest/2").variables) == before


def test_a_donated_state_may_be_saved(tmp_path, base):
    # The step after an asynchronous save reuses the memory of the state that is being written.
    state = at(base, 1)
    want = fingerprint(state)
    advance = par.replicate(lambda s, b: (jax.tree.map(lambda x: x + 1, s), b["x"]), DEVICES, split=(False, True))
    with opened(tmp_path) as checkpoints:
        checkpoints.save_latest(state)
        advance(state, par.place_batch({"x": np.zeros((8, 1))}, DEVICES))
    assert fingerprint(resume(tmp_path, base)) == want


def test_no_checkpoint_is_none(tmp_path, base):
    assert resume(tmp_path, base) is None


def flip_bits(workdir, step):
    path = array_file(workdir, step)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 4] = bytes(b ^ 0x55 for b in data[middle : middle + 4])
    path.write_bytes(data)


def truncate(workdir, step):
    path = array_file(workdir, step)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_arrays(workdir, step):
    array_file(workdir, step).unlink()


def remove_manifest(workdir, step):
    (workdir / f"checkpoints/latest/{step}/state/manifest.ocdbt").unlink()


def empty_metadata(workdir, step):
    (workdir / f"checkpoints/latest/{step}/state/_METADATA").write_text("")


def remove_leaves(workdir, step):
    (workdir / f"checkpoints/latest/{step}/checksums/leaves.json").unlink()


def rename_a_leaf(workdir, step):
    path = workdir / f"checkpoints/latest/{step}/checksums/leaves.json"
    path.write_text(path.read_text().replace("conv1", "conv9"))


def remove_state(workdir, step):
    shutil.rmtree(workdir / f"checkpoints/latest/{step}/state")


def change_labels(workdir, step):
    (workdir / f"checkpoints/latest/{step}/labels.json").write_text('["a", "b", "c", "d"]')


DAMAGES = [
    flip_bits,
    truncate,
    remove_arrays,
    remove_manifest,
    empty_metadata,
    remove_leaves,
    rename_a_leaf,
    remove_state,
    change_labels,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_falls_back(workdir, base, damage, caplog, capfd):
    damage(workdir, 2)
    capfd.readouterr()
    state = resume(workdir, base)
    assert fingerprint(state) == fingerprint(at(base, 1))
    warnings = [record.getMessage() for record in caplog.records if record.name.startswith("motion_jax")]
    assert len(warnings) == 1
    assert warnings[0].startswith("the checkpoint of step 2 is broken (")
    assert warnings[0].endswith("going on from step 1")
    assert "\n" not in warnings[0]
    noise = capfd.readouterr().err.replace(warnings[0], "")
    assert len(noise.splitlines()) <= 1, noise
    # The broken checkpoint is moved: it does not count as kept, and the same step can be saved again.
    assert steps(workdir) == [1]
    assert steps(workdir, "broken") == [2]
    with opened(workdir) as checkpoints:
        checkpoints.save_latest(at(base, 2))
    assert fingerprint(resume(workdir, base)) == fingerprint(at(base, 2))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_broken_checkpoint_is_refused_for_evaluation(workdir, damage):
    damage(workdir, 2)
    with pytest.raises(ValueError, match=r"checkpoints/latest/2 is broken \(") as error:
        restore(workdir)
    assert "\n" not in str(error.value)


def test_arrays_are_checked_beyond_the_files(workdir, base, caplog):
    # The files are as they were written, but the arrays in them are not those that were saved.
    checksums = workdir / "checkpoints/latest/2/checksums"
    leaves = json.loads((checksums / "leaves.json").read_text())
    leaves["leaves"]["params/conv1/bias"]["crc32"] ^= 1
    (checksums / "leaves.json").write_text(json.dumps(leaves))
    files = json.loads((checksums / "files.json").read_text())
    files["checksums/leaves.json"] = zlib.crc32((checksums / "leaves.json").read_bytes())
    (checksums / "files.json").write_text(json.dumps(files))
    assert int(resume(workdir, base).step) == 1
    assert "the values of params/conv1/bias are not those that were saved" in caplog.text


def test_all_broken_is_an_error_and_nothing_is_moved(workdir, base):
    flip_bits(workdir, 1)
    truncate(workdir, 2)
    with pytest.raises(
        ValueError, match=r"every checkpoint in .* is broken \(step 2: state/.*; step 1: .* not as it was"
    ):
        resume(workdir, base)
    assert steps(workdir) == [1, 2]


def test_another_model_is_an_error(workdir):
    wider = create_state(tiny_runs.TinyNet(width=8), optax.sgd(0.1, 0.9), seed=0, clip_shape=(2, 4, 4, 3))
    with pytest.raises(ValueError, match="is of another model or optimizer") as error:
        resume(workdir, wider)
    assert "params/bn1/bias is float32[16] where float32[8] is expected" in str(error.value)
    assert "another workdir" in str(error.value)


def test_another_dtype_is_an_error(workdir, base):
    # Orbax would cast it silently.
    half = base.replace(params=jax.tree.map(lambda x: x.astype(jnp.bfloat16), base.params))
    with pytest.raises(ValueError, match=r"is float32\[16\] where bfloat16\[16\] is expected"):
        resume(workdir, half)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_never_saved(workdir, base, value):
    state = at(base, 3)
    state.params["conv1"]["bias"] = state.params["conv1"]["bias"].at[0].set(value)
    with opened(workdir) as checkpoints:
        with pytest.raises(NonFiniteError, match="after step 3 is not finite in params/conv1/bias"):
            checkpoints.save_latest(state)
        with pytest.raises(NonFiniteError):
            checkpoints.save_best(state, top1=99.0)
    assert steps(workdir) == [1, 2]
    assert steps(workdir, "best") == []


def test_find_and_restore(workdir, base):
    latest = workdir / "checkpoints" / "latest"
    assert find(workdir) == find(latest) == find(latest / "2") == latest / "2"
    with opened(workdir) as checkpoints:
        checkpoints.save_best(at(base, 1), top1=30.0)
    best = workdir / "checkpoints" / "best"
    assert find(workdir) == find(workdir / "checkpoints") == find(best) == best / "1"
    restored = restore(str(workdir))
    assert fingerprint(restored.variables) == fingerprint(at(base, 1).variables)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(restored.variables))
    assert restored.config == CONFIG
    assert restored.labels == tiny_runs.LABELS
    assert (restored.step, restored.path) == (1, best / "1")


def test_restore_of_a_model_without_statistics(tmp_path):
    model = tiny_runs.TinyNet(norm=False)
    state = create_state(model, optax.sgd(0.1), seed=0, clip_shape=(2, 4, 4, 3))
    with opened(tmp_path) as checkpoints:
        checkpoints.save_latest(at(state, 1))
    assert restore(tmp_path).variables["batch_stats"] == {}
    assert resume(tmp_path, state).batch_stats == {}


def test_find_names_what_is_wrong(tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder; give a workdir"):
        find(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"no checkpoint in .*: give a workdir that train.py wrote"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"keep": 0}, "checkpoint.keep is 0"), ({"every_steps": 0}, "every_steps is 0"), ({"every_epochs": -1.0}, "-1.0")],
)
def test_section_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        CheckpointConfig(**{"every_steps": None, "every_epochs": 1.0, "keep": 1, "asynchronous": True, **changes})


KILLED = """
import sys
import jax, numpy as np
jax.config.update("jax_platforms", "cpu")
from motion_jax.training import parallel as par
from motion_jax.training.checkpoints import CheckpointConfig, Checkpoints
from motion_jax.training.state import TrainState

section = CheckpointConfig(every_steps=1, every_epochs=None, keep=1, asynchronous=True)
noise = np.random.default_rng(0).random(3_000_000, np.float32)
with Checkpoints(sys.argv[1], section=section, config={}, labels=[]) as checkpoints:
    for step in range(1, 1000):
        state = TrainState(np.int32(step), {"x": noise + step}, {}, ())
        checkpoints.save_latest(par.place_state(state, par.ParallelConfig(backend="pmap", devices=1)))
"""


def test_sigkill_while_saving_loses_nothing(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], env=tiny_runs.environment_of_a_process())
    latest = tmp_path / "checkpoints" / "latest"
    deadline = time.monotonic() + 60
    try:
        # With one checkpoint kept, the previous one exists until the next is complete.
        while not (any(latest.glob("*.orbax-checkpoint-tmp")) and any(p.name.isdecimal() for p in latest.glob("*"))):
            assert process.poll() is None, "the writer ended early"
            assert time.monotonic() < deadline, "no save was caught in the middle"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    template = TrainState(np.int32(0), {"x": np.zeros(3_000_000, np.float32)}, {}, ())
    with opened(tmp_path) as checkpoints:
        state = checkpoints.restore_latest(template, sharding=par.state_sharding(DEVICES))
        want = np.random.default_rng(0).random(3_000_000, np.float32) + np.float32(state.step)
        np.testing.assert_array_equal(state.params["x"], want)
        following = state.replace(step=state.step + 1)
        checkpoints.save_latest(following)
    assert int(state.step) + 1 in steps(tmp_path)
    assert not list(latest.glob("*.orbax-checkpoint-tmp"))

"""Placing of states and batches, errors about devices and batch sizes, and two processes on one machine."""

import json
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny_runs

import motion_jax
from motion_jax.training import parallel as par
from motion_jax.training.state import create_state
from motion_jax.training.step import make_eval_step, make_train_step

BLOCKS = ("msnet", "selfynet", "cpnet", "nonlocal", "mhsa", "localattention", "corrblock")


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
@pytest.mark.parametrize("devices", [1, 4, None])
def test_rows_come_back_in_order(backend, devices):
    parallel = par.ParallelConfig(backend=backend, devices=devices)
    rows = np.arange(16 * 3).reshape(16, 3)

    def double(offset, batch):
        return jax.lax.psum(jnp.sum(batch["rows"]), par.AXIS), 2 * batch["rows"] + offset

    step = par.replicate(double, parallel, split=(False, True), donate=False)
    total, out = step(par.place_state(np.int32(1), parallel), par.place_batch({"rows": rows}, parallel))
    assert int(total) == rows.sum()
    np.testing.assert_array_equal(par.local_rows(out, parallel), 2 * rows + 1)


@pytest.mark.parametrize("backend", ["pmap", "shard_map"])
def test_state_is_replicated_and_compiled_once(backend):
    parallel = par.ParallelConfig(backend=backend, devices=8)
    state = par.place_state({"x": np.zeros(3, np.float32)}, parallel)
    assert state["x"].shape == (3,)
    assert state["x"].sharding.is_fully_replicated
    compilations = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compilations.append(event) if "backend_compile" in event else None
    )
    step = par.replicate(lambda s, b: ({"x": s["x"] + jax.lax.pmean(b["y"].sum(), par.AXIS)}, s["x"].sum()), parallel)
    batch = {"y": np.ones((8, 2), np.float32)}
    state, _ = step(state, par.place_batch(batch, parallel))
    assert compilations
    compilations.clear()
    for _ in range(3):
        state, _ = step(state, par.place_batch(batch, parallel))
    assert state["x"].tolist() == [8.0, 8.0, 8.0]
    assert state["x"].sharding.is_fully_replicated
    assert compilations == []


def test_check_vma_stays_on():
    # Without the check, an output that differs between devices would pass as replicated.
    parallel = par.ParallelConfig(backend="shard_map", devices=2)
    step = par.replicate(lambda s, b: (s, b["y"].sum()), parallel, donate=False)
    with pytest.raises(ValueError, match="out_specs"):
        step(jnp.zeros(()), par.place_batch({"y": np.ones((2, 2), np.float32)}, parallel))


@pytest.mark.parametrize("mode", ["train", "evaluate"])
@pytest.mark.parametrize("name", ["tsm_mobilenetv2", "i3d", *(f"{block}_tsm_r18" for block in BLOCKS)])
def test_every_network_passes_the_check_of_shard_map(name, mode):
    # shard_map refuses at trace time what pmap accepts, such as a loop that starts from zeros, and several processes
    # always use shard_map. The test only traces.
    model = motion_jax.build_model(name, num_classes=4, width=8)
    optimizer = optax.sgd(0.1)
    parallel = par.ParallelConfig(backend="shard_map", devices=2)
    state = jax.eval_shape(lambda: create_state(model, optimizer, seed=0, clip_shape=(4, 32, 32, 3)))
    clips, label = jax.ShapeDtypeStruct((2, 4, 32, 32, 3), np.uint8), jax.ShapeDtypeStruct((2,), np.int32)
    if mode == "train":
        step = par.replicate(make_train_step(model, optimizer, schedule=lambda _: 0.1, seed=0), parallel)
        after, _ = jax.eval_shape(step, state, {"clips": clips, "label": label})
        assert jax.tree.map(lambda x: x.shape, after) == jax.tree.map(lambda x: x.shape, state)
    else:
        step = par.replicate(make_eval_step(model, average="softmax"), parallel, split=(False, True), donate=False)
        views = jax.ShapeDtypeStruct((2, 1, 4, 32, 32, 3), np.uint8)
        batch = {"clips": views, "label": label, "mask": jax.ShapeDtypeStruct((2,), np.bool_)}
        assert jax.eval_shape(step, state.variables, batch)[1].shape == (2, 4)


@pytest.mark.parametrize(
    ("size", "devices", "sizes"), [(12, 8, "8 or 16"), (3, 4, "4"), (0, 2, "2"), (25, 2, "24 or 26")]
)
def test_indivisible_batch_names_the_nearest_sizes(size, devices, sizes):
    with pytest.raises(
        ValueError, match=rf"^train.batch_size is {size}, .* over {devices} devices: set it to {sizes},"
    ):
        par.check_batch_size(size, par.ParallelConfig(backend="pmap", devices=devices))


def test_indivisible_rows_are_refused():
    with pytest.raises(ValueError, match="a batch of 6 rows came for 4 devices"):
        par.place_batch({"x": np.zeros((6, 1))}, par.ParallelConfig(backend="pmap", devices=4))


def test_more_devices_than_present():
    with pytest.raises(ValueError, match=r"parallel.devices is 9, but 8 cpu device\(s\) are present: lower it"):
        par.make_mesh(par.ParallelConfig(backend="pmap", devices=9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"backend": "jit"}, "parallel.backend is 'jit'"), ({"devices": 0}, "parallel.devices is 0")],
)
def test_section_is_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        par.ParallelConfig(**{"backend": "pmap", "devices": None, **changes})


TWO_PROCESSES = """
import json, sys
import jax
port, rank, workdir = sys.argv[1:]
jax.config.update("jax_platforms", "cpu")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(rank))
import numpy as np
import tiny_runs

def mine(batches):
    for batch in batches:
        rows = len(batch["label"]) // 2
        yield {name: x[int(rank) * rows : (int(rank) + 1) * rows] for name, x in batch.items()}

whole = tiny_runs.eval_batches
tiny_runs.eval_batches = lambda: mine(whole())
options = dict(
    backend="pmap", devices=None, model=tiny_runs.TinyNet(), log_every=1,
    train_batches=lambda start: mine(tiny_runs.train_batches(start)),
)
tiny_runs.run(workdir, steps=3, **options)
result = tiny_runs.run(workdir, steps=6, **options)
print(json.dumps(result))
jax.distributed.shutdown()
"""


ON_BOTH_BACKENDS = """
import json, sys
import jax
port, rank, count = sys.argv[1], *map(int, sys.argv[2:])
jax.config.update("jax_platforms", "cpu")
if count > 1:
    jax.distributed.initialize(f"127.0.0.1:{port}", count, rank)
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
import tiny_runs
from motion_jax.training import parallel as par
from motion_jax.training.state import create_state
from motion_jax.training.step import make_train_step

class Synchronised(tiny_runs.TinyNet):
    @nn.compact
    def __call__(self, clips, *, train):
        b, t = clips.shape[:2]
        x = nn.Dense(16, name="conv1")(clips.astype(jnp.float32).reshape(b * t, -1) / 255)
        x = nn.BatchNorm(use_running_average=not train, axis_name=par.AXIS, name="bn1")(x)
        return nn.Dense(4, name="classifier")(nn.relu(x)).reshape(b, t, -1).mean(axis=1)

compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
)
options = par.ParallelConfig(backend="pmap", devices=None)
model, optimizer = Synchronised(), optax.sgd(0.1, momentum=0.9)
step = make_train_step(model, optimizer, schedule=lambda _: jnp.float32(0.1), seed=0)
axes = {"in_axes": (None, 0), "out_axes": None}
backends = {
    "shard_map": par.replicate(step, par.ParallelConfig(backend="shard_map", devices=None)),
    "pmap": jax.pmap(step, par.AXIS, devices=jax.devices(), donate_argnums=0, **axes),
}
for name, update in backends.items():
    state = create_state(model, optimizer, seed=0, clip_shape=tiny_runs.CLIP_SHAPE)
    state = par.place_state(state, options)
    losses, counts, donated = [], [], []
    for number, batch in zip(range(5), tiny_runs.train_batches(0)):
        share = len(batch["label"]) // count
        batch = {key: batch[key][rank * share : (rank + 1) * share] for key in ("clips", "label")}
        if name == "pmap":
            devices = jax.local_device_count()
            placed = {key: x.reshape(devices, -1, *x.shape[1:]) for key, x in batch.items()}
        else:
            sharding = jax.sharding.NamedSharding(par.make_mesh(options), jax.sharding.PartitionSpec(par.AXIS))
            placed = {key: jax.make_array_from_process_local_data(sharding, x) for key, x in batch.items()}
        before, start = state, len(compiled)
        state, metrics = update(state, placed)
        losses.append(float(jax.device_get(metrics["loss"])))
        counts.append(len(compiled) - start)
        donated.append(jax.tree.leaves(before.params)[0].is_deleted())
    local = jax.tree.leaves(state)[0].is_fully_addressable
    print(json.dumps({"losses": losses, "compiled": counts, "donated": donated, "local": local}))
"""


def in_processes(script, count, *arguments, devices, cache):
    """Run a script as several processes, and return the lines of stdout and the stderr of each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    environment = tiny_runs.environment_of_a_process(
        XLA_FLAGS=f"--xla_force_host_platform_device_count={devices}", JAX_COMPILATION_CACHE_DIR=str(cache)
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = [
        subprocess.Popen([sys.executable, "-c", script, port, str(rank), *arguments], env=environment, **pipes)
        for rank in range(count)
    ]
    try:
        outputs = [process.communicate(timeout=100) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * count, "".join(stderr for _, stderr in outputs)
    return [(stdout.splitlines(), stderr) for stdout, stderr in outputs]


@pytest.mark.long
def test_both_backends_on_two_processes_equal_one(tmp_path):
    """Both compile once, donate the state and give equal numbers. But pmap returns the arrays of one process."""
    two = in_processes(ON_BOTH_BACKENDS, 2, "2", devices=2, cache=tmp_path)
    ((one, _),) = in_processes(ON_BOTH_BACKENDS, 1, "1", devices=4, cache=tmp_path)
    one = [json.loads(line) for line in one if line.startswith("{")]
    for lines, _ in two:
        of_shard_map, of_pmap = [json.loads(line) for line in lines if line.startswith("{")]
        for backend, alone in ((of_shard_map, one[0]), (of_pmap, one[1])):
            assert backend["compiled"][0] >= 1
            assert backend["compiled"][1:] == [0] * 4
            assert backend["donated"] == [True] * 5
            np.testing.assert_allclose(backend["losses"], alone["losses"], rtol=2e-6)
        # Orbax refuses to save such arrays of several processes.
        assert (of_shard_map["local"], of_pmap["local"]) == (False, True)


@pytest.mark.long
def test_two_processes_equal_one(tmp_path):
    outputs = in_processes(TWO_PROCESSES, 2, str(tmp_path / "two"), devices=2, cache=tmp_path / "cache")
    results = [json.loads(stdout[-1]) for stdout, _ in outputs]
    assert "shard_map is used on 2 processes, not pmap" in outputs[0][1]
    assert results[0] == pytest.approx(results[1])
    # The bound is loose because the devices are summed in another order.
    options = {"backend": "shard_map", "devices": 4, "model": tiny_runs.TinyNet(), "log_every": 1}
    one = tiny_runs.run(tmp_path / "one", steps=3, **options)
    one = tiny_runs.run(tmp_path / "one", steps=6, **options)
    assert results[0] == pytest.approx(one, rel=1e-5)
    losses = [losses_of(tmp_path / name) for name in ("two", "one")]
    assert len(losses[0]) == 6
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)


def losses_of(workdir):
    records = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if record["split"] == "train"]

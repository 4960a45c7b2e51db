"""Bytes that a training step sends between devices and holds on each, read from the compiled program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from motion_jax.backbones import ResNet
from motion_jax.blocks import MotionSqueeze
from motion_jax.models import VideoClassifier
from motion_jax.profiling.collectives import collective_bytes
from motion_jax.training import parallel as par
from motion_jax.training.optimizer import sgd
from motion_jax.training.state import create_state
from motion_jax.training.step import make_train_step

pytestmark = pytest.mark.long

CLIP = (4, 32, 32, 3)
PER_DEVICE = 2
SCHEDULE = optax.constant_schedule(0.01)
OPTIMIZER = sgd(
    SCHEDULE,
    momentum=0.9,
    nesterov=True,
    weight_decay=5e-4,
    clip_norm=20.0,
    groups="official",
    classifier_lr=(1.0, 2.0),
)
# Two residual blocks with temporal shift and BatchNorm, and a motion block: a whole network takes longer to compile.
MODEL = VideoClassifier(
    backbone=ResNet(
        (1, 1, 0, 0), bottleneck=False, width=8, fold_div=8, blocks={"res3": MotionSqueeze(transformation="1x(1,1)")}
    ),
    num_classes=10,
)
STEP = make_train_step(MODEL, OPTIMIZER, schedule=SCHEDULE, seed=0)


@functools.cache
def shapes_of_state():
    return jax.eval_shape(lambda: create_state(MODEL, OPTIMIZER, seed=0, clip_shape=CLIP))


def bytes_of(tree):
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def compiled_step(step, *, backend, devices):
    """Compile a step for a number of devices, with the layout that ``place_state`` and ``place_batch`` give."""
    parallel = par.ParallelConfig(backend=backend, devices=devices)
    lead = (devices, PER_DEVICE) if backend == "pmap" else (devices * PER_DEVICE,)
    batch = {"clips": jax.ShapeDtypeStruct((*lead, *CLIP), np.uint8), "label": jax.ShapeDtypeStruct(lead, np.int32)}
    rows = NamedSharding(par.make_mesh(parallel), P(par.AXIS))
    state, batch = (
        jax.tree.map(lambda x, sharding=sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)
        for tree, sharding in ((shapes_of_state(), par.state_sharding(parallel)), (batch, rows))
    )
    # No optimisation of the machine code: what is sent and what is kept is decided before.
    return par.replicate(step, parallel).lower(state, batch).compile({"xla_backend_optimization_level": 0})


@functools.cache
def program(backend, devices):
    return compiled_step(STEP, backend=backend, devices=devices)


@pytest.mark.parametrize("backend", par.BACKENDS)
def test_gradients_and_statistics_cross_once_and_nothing_else(backend):
    state = shapes_of_state()
    sent = [collective_bytes(program(backend, count)) for count in (2, 8)]
    assert set(sent[0]) == {"all-reduce"}
    loss_and_top1 = 8
    assert sent[0]["all-reduce"] == pytest.approx(bytes_of((state.params, state.batch_stats)) + loss_and_top1, rel=0.01)
    assert sent[1] == sent[0]


@pytest.mark.parametrize("backend", par.BACKENDS)
def test_memory_of_a_device_does_not_grow_with_their_number(backend):
    one, *more = [program(backend, count).memory_analysis() for count in (1, 2, 8)]
    for memory in more:
        assert memory.argument_size_in_bytes == one.argument_size_in_bytes
        assert memory.temp_size_in_bytes == more[0].temp_size_in_bytes
        # On one device the sums need no memory of their own.
        assert memory.temp_size_in_bytes <= one.temp_size_in_bytes + bytes_of(shapes_of_state().params)


@pytest.mark.parametrize("backend", par.BACKENDS)
def test_the_whole_state_is_donated(backend):
    assert program(backend, 8).memory_analysis().alias_size_in_bytes == bytes_of(shapes_of_state())


@pytest.mark.parametrize("backend", par.BACKENDS)
def test_the_old_state_is_gone_after_a_step(backend):
    parallel = par.ParallelConfig(backend=backend, devices=2)
    batch = par.place_batch({"y": np.ones((2, 3), np.float32)}, parallel)

    def run(dtype):
        """Return the old state of 48 bytes after an update, the donated bytes, and the new state."""
        state = par.place_state({"x": np.zeros((4, 3), np.float32)}, parallel)
        step = par.replicate(
            lambda s, b: ({"x": (s["x"] + jax.lax.pmean(b["y"].sum(), par.AXIS)).astype(dtype)}, 0), parallel
        )
        given = step.lower(state, batch).compile().memory_analysis().alias_size_in_bytes
        return state["x"], given, step(state, batch)[0]["x"]

    old, given, new = run(jnp.float32)
    assert old.is_deleted()
    assert given == 48
    assert (np.asarray(new) == 3).all()
    assert not batch["y"].is_deleted()
    # The control: no output can use the memory. JAX gives no warning here, but the count is 0.
    assert run(jnp.float16)[1] == 0


def test_every_kind_is_counted():
    # The part of one of 8 devices: float32 (1, 6), int8 (5,) and bool (2,).
    def body(x, y, z):
        i = jax.lax.axis_index(par.AXIS)
        ring = [(device, (device + 1) % 8) for device in range(8)]
        both = jax.lax.psum((x, y.astype(jnp.float32)), par.AXIS)  # 24 + 20 bytes
        gathered = jax.lax.all_gather(y, par.AXIS)  # 40 bytes
        shifted = jax.lax.ppermute(x.astype(jnp.int16), par.AXIS, ring)  # 12 bytes
        scattered = jax.lax.psum_scatter(jnp.tile(x, (8, 1)) * i, par.AXIS)  # 24 bytes
        swapped = jax.lax.all_to_all(jnp.tile(z, (8, 1)), par.AXIS, 0, 0)  # 16 bytes
        return [leaf[None] for leaf in (*both, gathered, shifted, scattered, swapped)]

    mesh = par.make_mesh(par.ParallelConfig(backend="shard_map", devices=8))
    mapped = jax.jit(jax.shard_map(body, mesh=mesh, in_specs=P(par.AXIS), out_specs=P(par.AXIS)))
    arguments = jnp.ones((8, 6)), jnp.ones(40, jnp.int8), jnp.ones(16, bool)
    counted = collective_bytes(mapped.lower(*arguments).compile())
    assert counted == {
        "all-reduce": 44,
        "all-gather": 40,
        "collective-permute": 12,
        "reduce-scatter": 24,
        "all-to-all": 16,
    }


class _Text:
    """Substitute for a compiled program of another platform."""

    def __init__(self, text: str) -> None:
        self._text = text

    def as_text(self) -> str:
        return self._text


def test_asynchronous_collectives_count_once():
    text = """
  %s.1 = (f32[8]{0:T(128)S(1)}, /*index=1*/bf16[2,3]{1,0:T(8,128)(2,1)}) all-reduce-start(%a, %b)
  %all-reduce-done.1 = (f32[8]{0:T(128)S(1)}, /*index=1*/bf16[2,3]{1,0:T(8,128)(2,1)}) all-reduce-done(%s.1)
  %g = (f8e4m3fn[4]{0}, f8e4m3fn[32]{0}, u32[], u32[]) all-gather-start(%c), dimensions={0}
  ROOT %h = f8e4m3fn[32]{0} all-gather-done((f8e4m3fn[4]{0}, f8e4m3fn[32]{0}, u32[], u32[]) %g)
  %i = pred[] get-tuple-element(%all-reduce-done.1), index=0
"""
    assert collective_bytes(_Text(text)) == {"all-reduce": 44, "all-gather": 32}


def test_another_collective_is_seen():
    # The control of the first test: the same step with a mean of the clips' pixels over the devices.
    def leaky(state, batch):
        state, metrics = STEP(state, batch)
        everyone = jax.lax.all_gather(batch["clips"], par.AXIS)
        return state, {**metrics, "seen": jax.lax.pmean(everyone.astype(jnp.float32).sum(), par.AXIS)}

    sent = collective_bytes(compiled_step(leaky, backend="pmap", devices=2))
    assert sent["all-gather"] == 2 * PER_DEVICE * np.prod(CLIP)

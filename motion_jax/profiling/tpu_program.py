"""Compile a training step for a TPU slice on a machine without a TPU: libtpu contains the whole compiler."""

import dataclasses
import importlib.util
import os
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from motion_jax.profiling.collectives import collective_bytes
from motion_jax.training.parallel import AXIS, ParallelConfig, replicate
from motion_jax.training.state import create_state
from motion_jax.training.step import make_train_step


@dataclasses.dataclass(frozen=True)
class Slice:
    """A TPU slice to compile for.

    Attributes:
        topology: libtpu's name of the slice.
        accelerator: value of the environment variable TPU_ACCELERATOR_TYPE.
        gigabytes: memory of one chip in 10^9 bytes.
    """

    topology: str
    accelerator: str
    gigabytes: float


# By generation and number of chips.
SLICES: Mapping[str, Slice] = {
    "v5e-4": Slice("v5e:2x2", "v5litepod-4", 17.2),
    "v5e-8": Slice("v5e:2x4", "v5litepod-8", 17.2),
    "v5e-256": Slice("v5e:16x16", "v5litepod-256", 17.2),
    "v4-8": Slice("v4:2x2x2", "v4-16", 34.4),
    "v5p-8": Slice("v5p:2x2x2", "v5p-16", 102.0),
    "v6e-8": Slice("v6e:2x4", "v6e-8", 34.4),
}


@dataclasses.dataclass(frozen=True)
class Counts:
    """The compiler's counts for one training step, per chip; not times.

    Attributes:
        flops: operations; a multiplication and an addition are two, and the body of a loop counts once.
        bytes_accessed: traffic between the chip's memory and its units.
        temp_bytes: working memory besides state and batch.
        argument_bytes: size of state and batch.
        collective_bytes: bytes received from the other chips by kind, see ``collectives.collective_bytes``.
        gigabytes: memory of the chip in 10^9 bytes.
    """

    flops: float
    bytes_accessed: float
    temp_bytes: int
    argument_bytes: int
    collective_bytes: Mapping[str, int]
    gigabytes: float

    @property
    def fits(self) -> bool:
        """Whether the step fits into the chip's memory."""
        return self.temp_bytes + self.argument_bytes <= 1e9 * self.gigabytes


class OutOfMemoryError(ValueError):
    """Error of the compiler: the step needs more memory than the chip has."""


def find_compiler(slice_: Slice) -> None:
    """Set up JAX's TPU compiler for a slice. Call it before JAX touches a device.

    Raises:
        ValueError: if libtpu is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError('the TPU compiler is not installed: pip install "jax[tpu]" in the same version of jax')
    defaults = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0"}
    # Without the last one, a second compilation at the same time fails at libtpu's lock file.
    os.environ.update({**defaults, "ALLOW_MULTIPLE_LIBTPU_LOAD": "true", **os.environ})
    os.environ["TPU_ACCELERATOR_TYPE"] = slice_.accelerator
    jax.config.update("jax_platforms", "cpu")


def compile_step(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    slice_: Slice,
    backend: str,
    clip_shape: tuple[int, ...],
    batch_per_chip: int,
    **mixing: float,
) -> Counts:
    """Compile the training step of ``fit`` for a slice.

    Args:
        model: a model as from ``build_model``.
        optimizer: the optimizer of the run.
        slice_: one of ``SLICES``; call ``find_compiler`` for it first.
        backend: ``"pmap"`` or ``"shard_map"``.
        clip_shape: (t, h, w, c) of the uint8 clips.
        batch_per_chip: clips per chip.
        **mixing: how ``make_train_step`` mixes clips and labels.

    Raises:
        OutOfMemoryError: if the step needs more memory than a chip has.
    """
    from jax.experimental import topologies

    topology = topologies.get_topology_desc(platform="tpu", topology_name=slice_.topology)
    mesh = Mesh(np.array(topology.devices).reshape(-1), (AXIS,))
    parallel = ParallelConfig(backend=backend, devices=None)
    step = make_train_step(model, optimizer, schedule=optax.constant_schedule(0.0), seed=0, **mixing)
    state = jax.eval_shape(lambda: create_state(model, optimizer, seed=0, clip_shape=clip_shape))
    lead = (mesh.size, batch_per_chip) if backend == "pmap" else (mesh.size * batch_per_chip,)
    clips = jax.ShapeDtypeStruct((*lead, *clip_shape), np.uint8)
    batch = {"clips": clips, "label": jax.ShapeDtypeStruct(lead, np.int32)}
    if backend == "shard_map":
        state, batch = (_placed(tree, mesh, spec) for tree, spec in ((state, P()), (batch, P(AXIS))))
    try:
        compiled = replicate(step, parallel, mesh=mesh).lower(state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        raise OutOfMemoryError(f"{batch_per_chip} clips per chip do not fit: {str(error).splitlines()[0]}") from error
    cost, memory = compiled.cost_analysis(), compiled.memory_analysis()
    return Counts(
        flops=cost["flops"],
        bytes_accessed=cost["bytes accessed"],
        temp_bytes=memory.temp_size_in_bytes,
        argument_bytes=memory.argument_size_in_bytes,
        collective_bytes=collective_bytes(compiled),
        gigabytes=slice_.gigabytes,
    )


def _placed(tree: Any, mesh: Mesh, spec: P) -> Any:
    sharding = NamedSharding(mesh, spec)
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

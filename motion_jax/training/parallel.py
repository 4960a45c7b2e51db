"""Data parallelism: a step written for one device runs on all devices, by ``pmap`` or by ``shard_map``.

Both backends run the same step with collectives over the axis ``data``, and both keep the state replicated, without a
device axis. Only the layout of a placed batch differs. No other module depends on the backend.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from motion_jax.text import shown

AXIS = "data"
BACKENDS = ("pmap", "shard_map")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """The devices of a run, and the transformation that runs a step on all of them.

    Attributes:
        backend: ``"pmap"`` or ``"shard_map"``; both give the same numbers. Several processes always use ``shard_map``.
        devices: number of devices to use; None uses all, and several processes must use all.

    Raises:
        ValueError: if a value is out of range.
    """

    backend: str
    devices: int | None

    SAME_RESULT: ClassVar = ("backend", "devices")

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"parallel.backend is {shown(self.backend)}, expected one of {BACKENDS}")
        if self.devices is not None and not 1 <= self.devices <= 2**20:
            raise ValueError(f"parallel.devices is {self.devices}, expected a positive number, or None for all devices")


def make_mesh(parallel: ParallelConfig) -> Mesh:
    """Make the one-dimensional mesh ``data`` of the devices in use.

    Raises:
        ValueError: if more devices are requested than are present, or fewer than all on several processes.
    """
    present = jax.devices()
    count = len(present) if parallel.devices is None else parallel.devices
    if count > len(present):
        raise ValueError(
            f"parallel.devices is {count}, but {len(present)} {present[0].platform} device(s) are present: "
            "lower it, or set it to None to use all"
        )
    if jax.process_count() > 1 and count != len(present):
        raise ValueError(
            f"parallel.devices is {count}, but {jax.process_count()} processes hold {len(present)} devices, "
            "and every process must use all of its own: set it to None"
        )
    # A mesh built from an array has an axis of type Auto, which both backends need; ``jax.make_mesh`` gives Explicit.
    return Mesh(np.array(present[:count]), (AXIS,))


def backend_in_use(parallel: ParallelConfig) -> str:
    """Return ``parallel.backend``, or ``"shard_map"`` on several processes, where ``pmap`` is not tested."""
    return "shard_map" if jax.process_count() > 1 else parallel.backend


def check_batch_size(batch_size: int, parallel: ParallelConfig, *, field: str = "train.batch_size") -> None:
    """Raise an error if a global batch does not divide evenly over the devices.

    Raises:
        ValueError: naming ``field``, the number of devices and the nearest sizes that fit.
    """
    devices = make_mesh(parallel).size
    if batch_size < 1 or batch_size % devices:
        below = batch_size // devices * devices
        sizes = f"{below} or {below + devices}" if below > 0 else f"{devices}"
        cure = f"set it to {sizes}, or set parallel.devices"
        raise ValueError(f"{field} is {batch_size}, which does not divide over {devices} devices: {cure}")


def replicate(
    step: Callable,
    parallel: ParallelConfig,
    *,
    split: tuple[bool, bool] = (False, False),
    donate: bool = True,
    mesh: Mesh | None = None,
) -> Callable:
    """Return ``step(replicated, batch) -> (first, second)``, written for one device, compiled to run on all devices.

    Args:
        step: function for one device; its collectives are over the axis ``data``.
        parallel: the backend, and the devices if there is no ``mesh``.
        split: for each of the two outputs, whether every device returns its own rows, to be read with ``local_rows``.
            Any other output must be equal on all devices.
        donate: whether the outputs may reuse the memory of the first argument, which cannot be read afterwards.
        mesh: devices to compile for, which need not be present.
    """
    mesh = make_mesh(parallel) if mesh is None else mesh
    donated = 0 if donate else ()
    if backend_in_use(parallel) == "pmap":
        axes = {"in_axes": (None, 0), "out_axes": tuple(0 if rows else None for rows in split)}
        return jax.pmap(step, AXIS, devices=list(mesh.devices), donate_argnums=donated, **axes)
    out_specs = tuple(P(AXIS) if rows else P() for rows in split)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=out_specs)
    return jax.jit(mapped, donate_argnums=donated)


def state_sharding(parallel: ParallelConfig) -> NamedSharding:
    """Return the sharding of a whole copy on every device."""
    return NamedSharding(make_mesh(parallel), P())


def place_state(tree: Any, parallel: ParallelConfig) -> Any:
    """Copy a tree, equal on every process, to all devices. The copy shares no memory with ``tree``."""
    # Copied through the host. Otherwise the copy on the first device could be the caller's own array, and a step that
    # donates the state would delete it.
    return jax.device_put(jax.device_get(tree), state_sharding(parallel), may_alias=False)


def place_batch(batch: Mapping[str, np.ndarray], parallel: ParallelConfig) -> dict[str, jax.Array]:
    """Start to copy this process's rows of a batch to its devices, in the layout of the backend.

    The arrays of ``batch`` must not be changed afterwards.

    Raises:
        ValueError: if the rows do not divide over the devices.
    """
    mesh = make_mesh(parallel)
    sharding = NamedSharding(mesh, P(AXIS))
    rows = len(next(iter(batch.values())))
    if rows * jax.process_count() % mesh.size:
        came = f"a batch of {rows * jax.process_count()} rows came for {mesh.size} devices"
        raise ValueError(f"{came}: set train.batch_size and eval.batch_size to multiples of the number of devices")
    if backend_in_use(parallel) == "pmap":
        per_device = {name: x.reshape(mesh.size, rows // mesh.size, *x.shape[1:]) for name, x in batch.items()}
        return jax.device_put(per_device, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def place_ahead(batches: Iterable[Mapping[str, np.ndarray]], parallel: ParallelConfig) -> Iterator[dict[str, Any]]:
    """Yield training batches on the devices; the next one is being copied while one is in use."""
    placed: collections.deque = collections.deque()
    for batch in batches:
        placed.append(place_batch({name: batch[name] for name in ("clips", "label")}, parallel))
        if len(placed) == 2:
            yield placed.popleft()
    yield from placed


def local_rows(output: jax.Array, parallel: ParallelConfig) -> np.ndarray:
    """Read a split output of a replicated step: the rows of this process, in the order in which it placed them."""
    if backend_in_use(parallel) == "pmap":
        per_device = jax.device_get(output)
        return per_device.reshape(-1, *per_device.shape[2:])
    shards = sorted(output.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate(jax.device_get([shard.data for shard in shards]))


def no_implicit_transfers() -> contextlib.AbstractContextManager:
    """Return a context in which implicit transfers raise an error, such as a NumPy array passed to a compiled step.

    ``jax.device_put`` and ``jax.device_get`` stay allowed. JAX's debugging modes need implicit transfers, so the
    context allows them there.
    """
    debugging = jax.config.jax_debug_nans or jax.config.jax_debug_infs or jax.config.jax_disable_jit
    return jax.transfer_guard("allow" if debugging else "disallow")

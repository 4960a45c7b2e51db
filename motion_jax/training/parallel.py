"""How a per-device step, its state and its batches are laid over the devices: ``pmap`` or ``shard_map``.

Both backends run the same body with collectives over the axis ``data`` and hold the same un-stacked, replicated state;
only the layout of a placed batch differs. Nothing else in the house knows which one is in use.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "data"
BACKENDS = ("pmap", "shard_map")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """The devices of a run and what spreads a step over them.

    Attributes:
        backend: ``"pmap"`` or ``"shard_map"``; both give the same numbers. Several processes always use ``shard_map``.
        devices: how many to use, the first ones; ``None`` uses all, and is the only choice on several processes.

    Raises:
        ValueError: if a value is out of range.
    """

    backend: str
    devices: int | None

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ValueError(f"parallel.backend is {self.backend!r}, expected one of {BACKENDS}")
        if self.devices is not None and self.devices < 1:
            raise ValueError(f"parallel.devices is {self.devices}, expected a positive number, or None for all devices")


def make_mesh(parallel: ParallelConfig) -> Mesh:
    """Make the one-dimensional mesh ``data`` of the devices in use.

    Raises:
        ValueError: if more devices are asked for than are present, or a part of them on several processes.
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
    # Built from an array, its axis stays of the Auto type, which both backends need.
    return Mesh(np.array(present[:count]), (AXIS,))


def backend_in_use(parallel: ParallelConfig) -> str:
    """Return ``parallel.backend``, or ``"shard_map"`` on several processes, where ``pmap`` of this form is unproven."""
    return "shard_map" if jax.process_count() > 1 else parallel.backend


def check_batch_size(batch_size: int, parallel: ParallelConfig, *, field: str = "train.batch_size") -> None:
    """Refuse a global batch that does not divide evenly over the devices.

    Raises:
        ValueError: naming ``field``, the number of devices and the nearest sizes that fit.
    """
    devices = make_mesh(parallel).size
    if batch_size < 1 or batch_size % devices:
        below = batch_size // devices * devices
        sizes = f"{below} or {below + devices}" if below > 0 else f"{devices}"
        raise ValueError(
            f"{field} is {batch_size}, which does not divide over {devices} devices: "
            f"set it to {sizes}, or set parallel.devices"
        )


def replicate(
    step: Callable,
    parallel: ParallelConfig,
    *,
    split: tuple[bool, bool] = (False, False),
    donate: bool = True,
    mesh: Mesh | None = None,
) -> Callable:
    """Wrap ``step(replicated, batch) -> (first, second)``, written for one device, into one compiled call for all.

    Args:
        step: its collectives run over the axis ``data``.
        parallel: which backend and devices.
        split: for each of the two outputs, whether every device returns its own rows, to be read with ``local_rows``;
            else the output must be equal on all devices.
        donate: give the memory of the first argument to the outputs; it cannot be read afterwards.
        mesh: devices to compile for that are not there, in place of those of ``parallel``.
    """
    mesh = make_mesh(parallel) if mesh is None else mesh
    donated = 0 if donate else ()
    if backend_in_use(parallel) == "pmap":
        out_axes = tuple(0 if rows else None for rows in split)
        devices = list(mesh.devices)
        return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=out_axes, devices=devices, donate_argnums=donated)
    out_specs = tuple(P(AXIS) if rows else P() for rows in split)
    mapped = jax.shard_map(step, mesh=mesh, in_specs=(P(), P(AXIS)), out_specs=out_specs)
    return jax.jit(mapped, donate_argnums=donated)


def state_sharding(parallel: ParallelConfig) -> NamedSharding:
    """Return the sharding of a whole copy on every device."""
    return NamedSharding(make_mesh(parallel), P())


def place_state(tree: Any, parallel: ParallelConfig) -> Any:
    """Copy a tree, equal on every process, to all devices. The copy shares no memory with ``tree``."""
    # Through the host: the copy on the first device would otherwise be the caller's own array, which donating the
    # state to a step would destroy.
    return jax.device_put(jax.device_get(tree), state_sharding(parallel), may_alias=False)


def place_batch(batch: Mapping[str, np.ndarray], parallel: ParallelConfig) -> dict[str, jax.Array]:
    """Begin to copy this process's rows of a batch to its devices, in the layout of the backend.

    The arrays must not be changed afterwards.

    Raises:
        ValueError: if the rows do not divide over the devices.
    """
    mesh = make_mesh(parallel)
    sharding = NamedSharding(mesh, P(AXIS))
    rows = len(next(iter(batch.values())))
    if rows * jax.process_count() % mesh.size:
        raise ValueError(
            f"a batch of {rows * jax.process_count()} rows came for {mesh.size} devices: "
            "set train.batch_size and eval.batch_size to multiples of the number of devices"
        )
    if backend_in_use(parallel) == "pmap":
        per_device = {name: x.reshape(mesh.size, rows // mesh.size, *x.shape[1:]) for name, x in batch.items()}
        return jax.device_put(per_device, sharding)
    return {name: jax.make_array_from_process_local_data(sharding, x) for name, x in batch.items()}


def local_rows(output: jax.Array, parallel: ParallelConfig) -> np.ndarray:
    """Read a split output of a spread step: the rows of this process, in the order in which it placed them."""
    if backend_in_use(parallel) == "pmap":
        per_device = np.asarray(output)
        return per_device.reshape(-1, *per_device.shape[2:])
    shards = sorted(output.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])

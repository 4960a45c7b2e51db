"""Several processes: how they join, compare what they hold, wait for each other, and end together.

Everything here goes through the service that connects the processes, which process 0 hosts, and not through the
devices: a collective operation of the devices gives up after seconds on a CPU and hangs elsewhere.
"""

import argparse
import collections
import contextlib
import functools
import glob
import itertools
import json
import logging
import multiprocessing
import os
import platform
import re
import secrets
import socket
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any, NoReturn

import jax
import numpy as np
from jax._src import distributed
from jax.experimental import multihost_utils

from motion_jax.places import waiting
from motion_jax.training import native_log

# JAX's own limit for a heartbeat, which an option replaces.
_HEARTBEAT = 100
# How JAX's errors begin if the cause may be outside this process.
_LOSS = re.compile(r"(UNKNOWN|INTERNAL|UNAVAILABLE|DEADLINE_EXCEEDED|CANCELLED|ABORTED|FAILED_PRECONDITION): ")
# A process waits this long for another one, such as for hours of preparation.
_LIMIT = 12 * 3600
_PACKAGES = ("jax", "jaxlib", "flax", "orbax-checkpoint", "numpy", "motion-jax")
# Fields of a config that hosts may set as they like.
_OWN = ("data.root", "data.dir", "data.threads", "data.processes")
_OPTIONS = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}
_NEEDED = (
    "several processes need --coordinator=HOST:PORT, --processes=N and --process_id=K (or JAX_COORDINATOR_ADDRESS, "
    "JAX_NUM_PROCESSES and JAX_PROCESS_ID), except on a TPU VM, GKE, Slurm or OpenMPI"
)


class DisagreementError(ValueError):
    """The processes differ in something that must be equal. All of them raise it, with the same message."""


class _Group:
    """The processes that have joined, as this one sees them."""

    def __init__(self, program: str, *, heartbeat: int) -> None:
        state = distributed.global_state
        self.program, self.heartbeat, self.client = program, heartbeat, state.client
        self.index, self.count = state.process_id, state.num_processes
        self.hosts = ["not yet known"] * self.count
        self.names = itertools.count()
        self.ending = threading.Lock()
        self.leaving = False

    @property
    def period(self) -> float:
        """Seconds between two lines about one wait."""
        return min(60, self.heartbeat)

    def who(self, index: int) -> str:
        return f"process {index} ({self.hosts[index]})"


_group: _Group | None = None


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that ``join`` reads."""
    group = parser.add_argument_group("several processes")
    on = "this is one of several processes, started by a TPU slice, GKE, Slurm or OpenMPI"
    group.add_argument("--distributed", action="store_true", help=on)
    where = "of process 0, where the processes meet; also JAX_COORDINATOR_ADDRESS"
    group.add_argument("--coordinator", metavar="HOST:PORT", help=where)
    group.add_argument("--processes", metavar="N", help="their number; also JAX_NUM_PROCESSES")
    group.add_argument("--process_id", metavar="K", help="of this one, from 0; also JAX_PROCESS_ID")
    silent = "a process that is silent for so long counts as lost; default: %(default)s"
    group.add_argument("--heartbeat_seconds", type=int, default=_HEARTBEAT, metavar="SECONDS", help=silent)


def join(arguments: argparse.Namespace, *, program: str) -> None:
    """Connect this process with the others, if the command was started as one of several; else do nothing.

    Afterwards an error in one process ends all of them, see ``abandon``, and only the first one prints to stdout.

    Args:
        arguments: with the options of ``add_arguments``.
        program: name of the command in errors.

    Raises:
        ValueError: if an option is missing or wrong, the processes do not meet, or their versions differ.
    """
    global _group
    options = _options(arguments)
    if options is None:
        refuse_tasks(program)
        return
    if arguments.heartbeat_seconds < 2:
        raise ValueError(f"--heartbeat_seconds is {arguments.heartbeat_seconds}, expected 2 or more")
    where = options.get("coordinator_address") or "the address that the cluster gives"
    if options.get("process_id") == 0 and "coordinator_address" in options:
        _check_port(int(where.rpartition(":")[2]))
    native_log.divert(functools.partial(_explain_loss, program, where))
    with waiting(f"all processes to meet at {where}"):
        try:
            jax.distributed.initialize(**options, heartbeat_timeout_seconds=arguments.heartbeat_seconds)
        except ValueError as error:
            raise ValueError(f"{_NEEDED} ({error})") from error
        except RuntimeError as error:
            raise ValueError(f"the processes do not meet at {where}: {str(error).splitlines()[0]}") from error
    if jax.process_count() == 1:
        return
    _group = _Group(program, heartbeat=arguments.heartbeat_seconds)
    threading.Thread(target=_watch, args=(_group,), daemon=True, name="errors of other processes").start()
    if _group.index > 0:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        logging.getLogger("motion_jax").setLevel(logging.WARNING)
    for handler in logging.root.handlers:
        handler.addFilter(_tells_no_loss)
    _group.hosts = exchange("start", socket.gethostname())
    compare("", _versions(), cure="install the same versions everywhere")
    _warn_of_idle_accelerators(_group.hosts)


def several() -> bool:
    """Return whether this is one of several processes."""
    return _group is not None


def refuse_tasks(program: str, *, able: bool = True) -> None:
    """Stop a command that Slurm or OpenMPI started several times and that was not told to be one of several processes.

    Args:
        program: name of the command in errors.
        able: whether the command can run on several processes. If not, the first task runs it and the others end.

    Raises:
        ValueError: if the command can run on several processes.
    """
    for rank, size, launcher in (
        ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "Slurm"),
        ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OpenMPI"),
    ):
        tasks, task = os.environ.get(size, "1"), os.environ.get(rank, "0")
        if tasks == "1":
            continue
        if able:
            raise ValueError(f"{launcher} started {tasks} tasks: give --distributed, or unset {size} to run each alone")
        if task != "0":
            print(f"{program}: task {task} of {tasks} ends: this command runs in one process", file=sys.stderr)
            sys.exit(0)


def exchange(action: str, value: str) -> list[str]:
    """Return the values of all processes, in their order, after all of them have come here.

    Args:
        action: what a late process still has to do, as "prepare the data"; the log says so once a minute.
        value: the value of this process.

    Raises:
        ValueError: if a process does not come within twelve hours.
    """
    if (group := _group) is None:
        return [value]
    name = f"motion_jax/{next(group.names)}/{action}"
    group.client.key_value_set(f"{name}/{group.index}", value)
    began = time.monotonic()
    values: list[str] = []
    while len(values) < group.count:
        late = len(values)
        try:
            values.append(group.client.blocking_key_value_get(f"{name}/{late}", int(1000 * group.period)))
        except jax.errors.JaxRuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise
            waited = time.monotonic() - began
            if waited > _LIMIT:
                raise ValueError(f"{group.who(late)} did not {action} within {waited / 3600:.0f} hours") from None
            if group.index == int(late == 0):  # one process says it
                _say(f"waiting for {group.who(late)} to {action}, {waited:.0f} s")
    return values


def compare(what: str, values: Mapping[str, Any], *, cure: str) -> None:
    """Raise an error on every process unless all have equal values.

    Args:
        what: a word before the name of a value in the error, such as "config"; may be empty.
        values: name -> JSON value.
        cure: how to mend it.

    Raises:
        DisagreementError: naming a process and its host, the value, and what most others have.
    """
    if (group := _group) is None:
        return
    held = [json.loads(text) for text in exchange(f"compare {what}".strip(), json.dumps(values))]
    for name in sorted(set().union(*held)):
        texts = [json.dumps(each.get(name)) for each in held]
        usual, _ = collections.Counter(texts).most_common(1)[0]
        for index, text in enumerate(texts):
            if text != usual:
                label = f"{what} {name}".strip()
                other = group.who(texts.index(usual))
                raise DisagreementError(f"{group.who(index)} has {label} = {text}, {other} has {usual}: {cure}")


def compare_config(config: Mapping[str, Any]) -> None:
    """Raise an error on every process unless all have equal configs, apart from what belongs to a host.

    Raises:
        DisagreementError: naming a process and its host, and the value.
    """
    flat = dict(_flatten(config))
    for name in _OWN:
        flat.pop(name, None)
    compare("config", flat, cure="start all with the same options")


def check_shared(workdir: Any) -> None:
    """Raise an error on every process unless all see the same workdir.

    Args:
        workdir: the folder, with the methods of ``pathlib.Path``; created if absent.

    Raises:
        DisagreementError: naming a process that sees another folder.
    """
    if (group := _group) is None:
        return
    note, token = workdir / "shared.txt", ""
    if group.index == 0:
        workdir.mkdir(parents=True, exist_ok=True)
        token = secrets.token_hex(16)
        note.write_text(token)
    # The error of all is about the folder of the first.
    token, where = exchange("open the workdir", f"{token} {workdir}")[0].split(" ", 1)
    seen = exchange("read the workdir", "yes" if _reads(note, token) else "")
    if group.index == 0:
        note.unlink()
    if "" in seen:
        raise DisagreementError(
            f"the workdir is not shared: {group.who(seen.index(''))} does not see {where} of {group.who(0)}: "
            "give gs://.. or a network folder"
        )


def introduce(contents: Mapping[str, Any]) -> None:
    """Print a line about each process: its host, devices, versions, and a fingerprint of the contents of its data."""
    devices = jax.local_devices()
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    line = f"{len(devices)} x {devices[0].device_kind}, {versions}, data {_hash(contents):08x}"
    if (group := _group) is not None:
        for index, told in enumerate(exchange("open the data", line)):
            if group.index == 0:
                _say(f"{group.who(index)}: {told}")


def _hash(contents: Mapping[str, Any]) -> int:
    """Return 32 bits that depend on a JSON object."""
    return zlib.crc32(json.dumps(contents, sort_keys=True).encode())


def gather_text(rows: list[bytes]) -> list[bytes]:
    """Return the rows of all processes, process after process; each must have as many."""
    if _group is None:
        return rows
    width = max(map(int, exchange("evaluate", str(max(map(len, rows), default=0)))))
    mine = np.array(rows, f"S{max(width, 1)}").view(np.uint8).reshape(len(rows), -1)
    every = np.asarray(multihost_utils.process_allgather(mine, tiled=True))
    return [row.tobytes().rstrip(b"\0") for row in every]


def abandon(error: BaseException | str, *, bug: bool = False) -> NoReturn:
    """End this process at once with status 2, and all others with the same error as their last line.

    Args:
        error: the error, or its message.
        bug: whether to print its stack trace first, on this process.
    """
    group = _group
    if _is_loss(error):
        time.sleep(group.heartbeat + 10)  # Within this time the service tells which process is gone.
    if bug:
        traceback.print_exception(error)
        error = f"{type(error).__name__}: {error}"
    text = " ".join(str(error).split())
    line = text if isinstance(error, DisagreementError) else f"{group.who(group.index)}: {text}"
    with contextlib.suppress(jax.errors.JaxRuntimeError):  # Another process told its error before.
        group.client.key_value_set("motion_jax/error", line)
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        line = group.client.blocking_key_value_get("motion_jax/error", 2000)
    _end(group, line)


def leave() -> None:
    """Disconnect this process after its work, once all others are done as well."""
    if _group is not None:
        _group.leaving = True
        jax.distributed.shutdown()


def _is_loss(error: object) -> bool:
    """Return whether an error looks like that of an operation with another process that is gone."""
    while isinstance(error, BaseException):
        # JAX raises some of them as ValueError.
        if _LOSS.match(str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _tells_no_loss(record: logging.LogRecord) -> bool:
    """Filter of the log: leave out the stack traces of such errors in threads, such as those that save."""
    return not (record.exc_info and _is_loss(record.exc_info[1]))


def _watch(group: _Group) -> None:
    """End this process as soon as another one tells its error."""
    while True:
        try:
            line = group.client.blocking_key_value_get("motion_jax/error", 3_600_000)
        except jax.errors.JaxRuntimeError:
            if group.leaving:
                return
            time.sleep(0.2)
        else:
            _end(group, line)


def _end(group: _Group, line: str, *, tell: bool = True) -> NoReturn:
    """Print an error as the last line and exit with 2. Process 0, which hosts the service, goes last.

    ``tell`` says whether the service can still be asked.
    """
    # A thread that aborts may hold what the calls below wait for.
    deadline = threading.Timer(10, os._exit, (2,))
    deadline.daemon = True
    deadline.start()
    if not group.ending.acquire(timeout=6):  # for good: only one thread prints
        os._exit(2)
    print(f"{group.program}: error: {line}", file=sys.stderr, flush=True)
    end = time.monotonic() + 5
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        if tell and group.index > 0:
            group.client.key_value_set(f"motion_jax/left/{group.index}", "")
        for index in range(1, group.count) if tell and group.index == 0 else ():
            left = max(1, int(1000 * (end - time.monotonic())))
            group.client.blocking_key_value_get(f"motion_jax/left/{index}", left)
    for child in multiprocessing.active_children():
        child.kill()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(2)


def _explain_loss(program: str, where: str, record: str) -> None:
    """End this process with one line after the service has lost another one."""
    if (group := _group) is None:
        reason = record.splitlines()[0].rpartition("absl::Status: ")[2]
        print(f"{program}: error: the processes did not meet at {where}: {reason}", file=sys.stderr, flush=True)
        os._exit(2)
    lost = [int(line) for line in record.splitlines() if line.isdecimal() and int(line) < group.count] or [0]
    if group.index in lost:
        _end(group, f"{group.who(group.index)}: it was cut off from process 0 ({group.hosts[0]})", tell=False)
    names = " and ".join(map(group.who, dict.fromkeys(lost)))
    why = f"no heartbeat for {group.heartbeat} s" if 0 not in lost else "its connection closed"
    _end(group, f"{names}: {why}; it was killed, or its machine or its link failed", tell=False)


def _options(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Return the arguments of ``jax.distributed.initialize``; None for a process on its own."""
    given = {name: getattr(arguments, name) or os.environ.get(variable) for name, variable in _OPTIONS.items()}
    if not arguments.distributed and not any(given.values()):
        return None
    options: dict[str, Any] = {}
    if "OMPI_COMM_WORLD_SIZE" in os.environ and "OMPI_MCA_orte_hnp_uri" not in os.environ:
        # OpenMPI 5 lacks the variable by which JAX recognises OpenMPI.
        size, local = os.environ["OMPI_COMM_WORLD_SIZE"], os.environ.get("OMPI_COMM_WORLD_LOCAL_SIZE")
        given["processes"] = given["processes"] or size
        given["process_id"] = given["process_id"] or os.environ["OMPI_COMM_WORLD_RANK"]
        if given["coordinator"] is None and local == size:
            job = os.environ.get("PMIX_NAMESPACE", "")
            given["coordinator"] = f"127.0.0.1:{61440 + _hash({'job': job}) % 4096}"
        if given["coordinator"] is None:
            raise ValueError("OpenMPI does not name the host of its first process: give --coordinator=HOST:PORT")
        if local not in (None, "1") and "JAX_LOCAL_DEVICE_IDS" not in os.environ:
            options["local_device_ids"] = int(os.environ["OMPI_COMM_WORLD_LOCAL_RANK"])
    for name in ("processes", "process_id"):
        if given[name] is not None and not given[name].isdecimal():
            raise ValueError(f"--{name} is {given[name]!r}, expected an integer")
        given[name] = None if given[name] is None else int(given[name])
    if given["coordinator"] and not given["coordinator"].rpartition(":")[2].isdecimal():
        raise ValueError(f"--coordinator is {given['coordinator']!r}, expected HOST:PORT")
    if None not in (given["processes"], given["process_id"]) and given["process_id"] >= given["processes"]:
        raise ValueError(f"--process_id is {given['process_id']}, expected 0 to {given['processes'] - 1}")
    names = {"coordinator": "coordinator_address", "processes": "num_processes", "process_id": "process_id"}
    return options | {names[name]: value for name, value in given.items() if value is not None}


def _check_port(port: int) -> None:
    """Raise an error if the service cannot have its port; JAX would crash."""
    try:
        socket.create_server(("", port)).close()
    except OSError as error:
        raise ValueError(
            f"--coordinator: port {port} cannot be used ({os.strerror(error.errno)}): choose another"
        ) from error


def _versions() -> dict[str, str]:
    versions = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[name.replace("-", "_")] = metadata.version(name)
    return versions


def _warn_of_idle_accelerators(hosts: list[str]) -> None:
    """Warn on a host where the processes use fewer NVIDIA GPUs together than are visible."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(visible.split(",") if visible else glob.glob("/dev/nvidia[0-9]*"))
    here = [index for index, host in enumerate(hosts) if host == hosts[_group.index]]
    used = sum(device.process_index in here for device in jax.devices())
    if jax.default_backend() == "gpu" and used < present and _group.index == here[0]:
        _say(
            f"{_group.who(here[0])}: {used} of {present} GPUs are used. Slurm gives one GPU to each task: start "
            f"{present} tasks per node, or set JAX_LOCAL_DEVICE_IDS={','.join(map(str, range(present)))}"
        )


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _reads(note: Any, token: str) -> bool:
    """Return whether a file has this text within ten seconds: a network folder may show it late."""
    for _ in range(20):
        with contextlib.suppress(OSError):
            if note.read_text() == token:
                return True
        time.sleep(0.5)
    return False


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)

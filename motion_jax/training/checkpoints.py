"""Checkpoints: two Orbax managers, for the latest and the best states, and checksums.

A checkpoint is a folder ``<workdir>/checkpoints/{latest,best}/<step>`` with ``state/`` (written by Orbax),
``config.json``, ``labels.json`` and ``checksums/``. After all its files are written, one rename makes it visible; in a
bucket, which cannot rename, the file ``commit_success.txt`` does. Orbax does not detect a flipped bit, so
``checksums/files.json`` holds a checksum of each file, checked before Orbax opens it, and ``checksums/leaves.json`` the
shape, dtype and checksum of each array, computed before Orbax writes it.
"""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import shutil
import sys
import time
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import flax.traverse_util
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from motion_jax.places import clear_way, entries_of, files_below, first_line, is_bucket, move_folder, place, waiting
from motion_jax.text import shown
from motion_jax.training import processes
from motion_jax.training.state import NonFiniteError, TrainState, describe_differences, named_leaves

_log = logging.getLogger(__name__)
# Seconds between two tries to write a checkpoint.
_PAUSE = 2.0
# Orbax and the threads that it starts log each exception with its traceback, and raise it as well.
for _name in ("absl", "asyncio", "concurrent.futures"):
    logging.getLogger(_name).addFilter(lambda record: not record.exc_info)
# Reasons that stand at the end of long messages of TensorStore.
_REASONS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.ENOENT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are written and how many are kept.

    Attributes:
        every_steps: updates between two checkpoints; if given, ``every_epochs`` is ignored.
        every_epochs: epochs between two checkpoints, may be fractional. With both None, only evaluated states and the
            end of the run are saved.
        keep: number of latest checkpoints to keep; the best checkpoint is kept in addition.
        asynchronous: whether training goes on while a checkpoint is written.
        retry_minutes: minutes for which a checkpoint that cannot be written, as on a full disk, is tried again before
            the run stops. Several processes do not try again.

    Raises:
        ValueError: if a value is out of range.
    """

    every_steps: int | None
    every_epochs: float | None
    keep: int
    asynchronous: bool
    # Checkpoints from before this option lack it.
    retry_minutes: float = 1.0

    SAME_RESULT: ClassVar = ("every_steps", "every_epochs", "keep", "asynchronous", "retry_minutes")

    def __post_init__(self) -> None:
        for name in ("every_steps", "every_epochs"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 2**31:
                raise ValueError(f"checkpoint.{name} is {shown(value)}, expected a positive number or None")
        if not 1 <= self.keep <= 10**6:
            raise ValueError(f"checkpoint.keep is {self.keep}, expected at least 1 and at most a million")
        if not 0 <= self.retry_minutes <= 1e5:
            raise ValueError(f"checkpoint.retry_minutes is {shown(self.retry_minutes)}, expected 0 to 100,000")

    def period(self, steps_per_epoch: float) -> float:
        """Return the updates between two checkpoints, may be fractional; 0 for none."""
        return self.every_steps or (self.every_epochs or 0) * steps_per_epoch


@dataclasses.dataclass(frozen=True)
class Restored:
    """Contents of a checkpoint, as needed for evaluation, with the config of the run and the folder it came from.

    ``variables`` are ``{"params", "batch_stats"}`` as NumPy arrays; ``labels`` are in the order of the logits.
    """

    variables: dict[str, Any]
    config: dict[str, Any]
    labels: tuple[str, ...]
    step: int
    path: epath.Path


class Checkpoints:
    """Context manager that writes and restores the checkpoints of one run. Every process makes one."""

    def __init__(
        self, workdir: str | os.PathLike, *, section: CheckpointConfig, config: Mapping[str, Any], labels: Sequence[str]
    ) -> None:
        """Open ``<workdir>/checkpoints``; only one run may write to it at a time."""
        _mute_remains()  # Before a save fails: some of its parts end first.
        self._root = place(workdir) / "checkpoints"
        self._config = dict(config)
        self._labels = list(labels)
        self._remove_unfinished()
        self._section = section
        # Whether the log says that a checkpoint could not be written.
        self._warned = False
        self._managers = {name: self._open(name) for name in ("latest", "best")}
        self._best_top1 = self._read_best_top1()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        for manager in self._managers.values():
            # An error that ends the run is not followed by others.
            with contextlib.suppress(Exception) if error else contextlib.nullcontext():
                manager.close()

    def save_latest(self, state: TrainState) -> None:
        """Save a state to resume from; a step that is saved already is not written again.

        If ``asynchronous``, return as soon as the state may be donated.

        Raises:
            NonFiniteError: if the state holds a value that is not finite; nothing is written then.
        """
        self._save("latest", state, metrics={}, wait=False)

    def save_best(self, state: TrainState, *, top1: float) -> bool:
        """Replace the best state if ``top1`` is at least as high; return, after it is written, whether it was replaced.

        Raises:
            NonFiniteError: if the state holds a value that is not finite; nothing is written then.
        """
        if self._best_top1 is not None and top1 < self._best_top1:
            return False
        self._save("best", state, metrics={"top1": top1}, wait=True)
        self._best_top1 = top1
        return True

    def restore_latest(self, template: TrainState, *, sharding: jax.sharding.Sharding) -> TrainState | None:
        """Return the newest checkpoint that passes its checksums, or None if there is no checkpoint.

        A warning names each broken checkpoint, which is moved to ``checkpoints/broken`` and no longer counts as kept.

        ``template`` is the expected state, as arrays or ``jax.ShapeDtypeStruct``; every array gets ``sharding``.

        Raises:
            ValueError: if all checkpoints are broken, or the newest one that is not holds another model.
        """
        with contextlib.suppress(Exception):
            self._managers["latest"].wait_until_finished()
        placed = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), template)
        steps = sorted(self._managers["latest"].all_steps(), reverse=True)
        broken = {}
        for step in steps:
            folder = self._root / "latest" / str(step)
            try:
                record = _read_record(folder)
                if not (differences := _model_differences(record["leaves"], template)):
                    args = ocp.args.Composite(state=ocp.args.StandardRestore(placed))
                    state = self._managers["latest"].restore(step, args=args).state
                    _check_leaves(state, record["leaves"])
            except Exception as error:
                broken[step] = first_line(error)
                continue
            if differences:
                raise ValueError(
                    f"the checkpoint {folder} is of another model or optimizer: {differences}; "
                    "use the config it was trained with, or another workdir"
                )
            self._set_aside(broken, instead=step)
            return state
        if broken:
            reasons = "; ".join(f"step {step}: {reason}" for step, reason in broken.items())
            raise ValueError(
                f"every checkpoint in {self._root / 'latest'} is broken ({reasons}): "
                "restore a copy, or start again with another workdir"
            )
        return None

    def latest_step(self) -> int | None:
        """Return the newest step, whether it passes its checksums or not; None if there is no checkpoint."""
        return max(self._managers["latest"].all_steps(), default=None)

    def reached_preemption(self, step: int) -> bool:
        """Return whether one of several processes received SIGTERM; equal on all. A single process returns False."""
        return jax.process_count() > 1 and self._managers["latest"].reached_preemption(step)

    @contextlib.contextmanager
    def explain_non_finite(self) -> Iterator[None]:
        """Return a context that adds the last good checkpoint and the remedies to the message of a NonFiniteError."""
        try:
            yield
        except NonFiniteError as error:
            with contextlib.suppress(Exception):
                self._managers["latest"].wait_until_finished()
            good = self.latest_step()
            left = "no checkpoint was written yet" if good is None else f"the last good checkpoint is step {good}"
            raise NonFiniteError(
                f"{error}: training stopped, {left}; lower train.learning_rate, set train.clip_norm, lengthen "
                "train.warmup_epochs, or compute in float32",
                step=error.step,
            ) from error

    def wait(self, state: TrainState) -> None:
        """Wait until the latest state is on disk; save ``state`` if it could not be written.

        Raises:
            OSError: if ``state`` cannot be written either.
        """
        try:
            with waiting(f"checkpoints in {self._root} to be written"):
                self._managers["latest"].wait_until_finished()
        except Exception as error:
            self._failed("latest", error, until=None)
            self._save("latest", state, metrics={}, wait=True)

    def _save(self, name: str, state: TrainState, *, metrics: dict[str, float], wait: bool) -> None:
        step = int(jax.device_get(state.step))
        if step in self._managers[name].all_steps():
            return
        leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(jax.device_get(state))}
        bad = [name for name, leaf in leaves.items() if not np.isfinite(leaf).all()]
        if bad:
            raise NonFiniteError(f"the state after step {step} is not finite in {', '.join(bad[:3])}", step=step)
        sums = {name: _leaf_record(leaf) for name, leaf in leaves.items()}
        record = _RecordArgs(step, self._config, self._labels, metrics, sums)
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), checksums=record)
        until = time.monotonic() + 60 * self._section.retry_minutes
        failed = False
        while True:
            try:
                with waiting(f"checkpoints in {self._root} to be written"):
                    self._check_space(leaves)
                    # This also raises the error of an earlier asynchronous save. Without ``force``, Orbax refuses a
                    # step that is older than the newest, as after an import of weights.
                    self._managers[name].save(step, args=args, force=True)
                    if wait or failed:
                        self._managers[name].wait_until_finished()
                break
            except Exception as error:
                self._failed(name, error, until=until)
                failed = True

    def _failed(self, name: str, error: Exception, *, until: float | None) -> None:
        """Prepare another try after a checkpoint could not be written.

        Raises:
            OSError: if it is too late for that, or one of several processes has failed.
        """
        texts = [os.strerror(number) for number in _REASONS]
        reason = next((text for text in texts if text in str(error)), first_line(error))
        if jax.process_count() > 1 or (until is not None and time.monotonic() >= until):
            raise OSError(f"no checkpoint can be written to {self._root}: {reason}") from error
        if not self._warned:
            self._warned = True
            minutes = self._section.retry_minutes
            _log.warning("no checkpoint can be written to %s (%s); trying for %g min", self._root, reason, minutes)
        with contextlib.suppress(Exception):
            self._managers[name].close()
        time.sleep(_PAUSE)
        self._remove_unfinished()
        self._managers[name] = self._open(name)

    def _check_space(self, leaves: Mapping[str, np.ndarray]) -> None:
        """Raise an OSError if the disk has no room for a state: Orbax would write a part, and say so at length."""
        if is_bucket(self._root) or jax.process_count() > 1:
            return
        if shutil.disk_usage(self._root).free < sum(leaf.nbytes for leaf in leaves.values()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _open(self, name: str) -> ocp.CheckpointManager:
        keep = self._section.keep if name == "latest" else 1
        return _open_manager(self._root / name, keep=keep, asynchronous=self._section.asynchronous)

    def _remove_unfinished(self) -> None:
        """Remove incomplete checkpoints, of a run that was killed or of a save that failed."""
        if jax.process_index() == 0:
            for leftover in _unfinished(self._root):
                leftover.rmtree(missing_ok=True)

    def _read_best_top1(self) -> float | None:
        for step in sorted(self._managers["best"].all_steps(), reverse=True):
            # A broken checkpoint must not prevent a new best one.
            with contextlib.suppress(Exception):
                return _read_record(self._root / "best" / str(step))["metrics"]["top1"]
        return None

    def _set_aside(self, broken: Mapping[int, str], *, instead: int) -> None:
        for step, reason in broken.items():
            _log.warning("the checkpoint of step %d is broken (%s); going on from step %d", step, reason, instead)
        if not broken:
            return
        if jax.process_index() == 0:
            clear_way(self._root / "broken", folder=True)
            for step in broken:
                move_folder(self._root / "latest" / str(step), self._root / "broken" / str(step))
        _wait_for_all("set broken checkpoints aside")
        self._managers["latest"].reload()


def find(path: str | os.PathLike) -> epath.Path:
    """Return the checkpoint folder for a path.

    For a workdir or its ``checkpoints`` folder this is the best checkpoint, or the latest if there is no best one. For
    a ``best`` or ``latest`` folder it is the newest step in it. The folder of a step is returned as it is.

    Raises:
        ValueError: if there is no checkpoint.
    """
    path = place(path)
    if not path.is_dir():
        raise ValueError(f"no checkpoint: {path} is not a folder; give a workdir or the folder of a step")
    if _is_checkpoint(path):
        return path
    folders = [path / "checkpoints" / "best", path / "checkpoints" / "latest", path / "best", path / "latest", path]
    for folder in folders:
        steps = [int(entry.name) for entry in entries_of(folder) if entry.name.isdecimal() and _is_checkpoint(entry)]
        if steps:
            return folder / str(max(steps))
    raise ValueError(f"no checkpoint in {path}: give a workdir that train.py wrote, or the folder of a step")


def newest_config(workdir: str | os.PathLike) -> tuple[int, dict[str, Any]] | None:
    """Return step and config of the newest checkpoint of a workdir whose files pass their checksums, or None."""
    folder = place(workdir) / "checkpoints" / "latest"
    steps = [int(entry.name) for entry in entries_of(folder) if entry.name.isdecimal()]
    for step in sorted(steps, reverse=True):
        with contextlib.suppress(Exception):  # Broken: training names it when it restores.
            return step, _read_record(folder / str(step))["config"]
    return None


def restore(path: str | os.PathLike) -> Restored:
    """Read variables, config and labels of the checkpoint at ``find(path)``.

    Raises:
        ValueError: if there is no checkpoint, or it is broken.
    """
    folder = find(path)
    try:
        record = _read_record(folder)
        leaves = {name: np.zeros(leaf["shape"], np.dtype(leaf["dtype"])) for name, leaf in record["leaves"].items()}
        kept = {name: leaf for name, leaf in leaves.items() if name.startswith(("params/", "batch_stats/"))}
        wanted = {"params": {}, "batch_stats": {}, **flax.traverse_util.unflatten_dict(kept, sep="/")}
        as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
        with ocp.PyTreeCheckpointer() as reader:
            args = ocp.args.PyTreeRestore(wanted, restore_args=as_numpy, partial_restore=True)
            variables = reader.restore(folder / "state", args=args)
        variables = {collection: variables.get(collection) or {} for collection in wanted}
        _check_leaves(variables, record["leaves"])
    except Exception as error:
        raise ValueError(
            f"the checkpoint {folder} is broken ({first_line(error)}): "
            "give another step, for example from checkpoints/latest of the workdir"
        ) from error
    return Restored(variables, record["config"], tuple(record["labels"]), record["step"], folder)


class _RecordHandler(ocp.CheckpointHandler):
    """Orbax handler that writes the files beside ``state/``, before the rename that makes a checkpoint visible."""

    def save(self, directory: Any, args: "_RecordArgs") -> None:
        if jax.process_index() != 0:
            return
        record = {"step": args.step, "metrics": args.metrics, "leaves": args.leaves}
        (directory / "leaves.json").write_text(json.dumps(record, indent=1))
        (directory.parent / "config.json").write_text(json.dumps(args.config, indent=1))
        (directory.parent / "labels.json").write_text(json.dumps(args.labels, indent=1, ensure_ascii=False))

    def finalize(self, directory: Any) -> None:
        """Write the checksums of all files. Orbax has finished the state, whose handler is registered first."""
        if jax.process_index() != 0:
            return
        root = epath.Path(directory).parent
        if not (root / "state").is_dir():
            raise ValueError(f"{root} has no finished state: install the version of Orbax that requirements.txt names")
        paths = [root / "config.json", root / "labels.json", *files_below(root / "state")]
        files = {path.relative_to(root).as_posix(): zlib.crc32(path.read_bytes()) for path in paths}
        files["checksums/leaves.json"] = zlib.crc32((directory / "leaves.json").read_bytes())
        (directory / "files.json").write_text(json.dumps(files, indent=1))

    def restore(self, directory: Any, args: Any = None) -> None:
        pass  # ``_read_record`` reads the files without Orbax.


@ocp.args.register_with_handler(_RecordHandler, for_save=True, for_restore=True)
@dataclasses.dataclass
class _RecordArgs(ocp.args.CheckpointArgs):
    step: int
    config: dict[str, Any]
    labels: list[str]
    metrics: dict[str, float]
    leaves: dict[str, dict[str, Any]]


def _open_manager(folder: epath.Path, *, keep: int, asynchronous: bool) -> ocp.CheckpointManager:
    policy = ocp.checkpoint_managers.LatestN(keep)
    options = ocp.CheckpointManagerOptions(preservation_policy=policy, enable_async_checkpointing=asynchronous)
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
    _wait_for_all("open the checkpoints")
    # Orbax finishes the handlers in this order. The checksums need the finished state.
    handlers = ocp.handlers.DefaultCheckpointHandlerRegistry()
    state_handler = ocp.StandardCheckpointHandler()
    handlers.add("state", ocp.args.StandardSave, state_handler)
    handlers.add("state", ocp.args.StandardRestore, state_handler)
    handlers.add("checksums", _RecordArgs, _RecordHandler())
    return ocp.CheckpointManager(folder, options=options, handler_registry=handlers)


def _mute_remains() -> None:
    """Mute what the parts of a failed save print when they end later, and nobody awaits them."""
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    if sys.unraisablehook is sys.__unraisablehook__:
        # TensorStore passes the exceptions of its threads to this hook.
        sys.unraisablehook = _print_unless_closed


def _print_unless_closed(unraisable: Any) -> None:
    if str(unraisable.exc_value) != "Event loop is closed":
        sys.__unraisablehook__(unraisable)


def _is_checkpoint(folder: epath.Path) -> bool:
    if is_bucket(folder):
        return (folder / "commit_success.txt").exists()
    return (folder / "state").is_dir() or (folder / "checksums").is_dir()


def _unfinished(root: epath.Path) -> list[epath.Path]:
    """Return the incomplete checkpoints of a run that was killed while it saved."""
    entries = [*entries_of(root / "latest"), *entries_of(root / "best")]
    if is_bucket(root):
        return [entry for entry in entries if entry.name.isdecimal() and not _is_checkpoint(entry)]
    return [entry for entry in entries if entry.name.endswith(".orbax-checkpoint-tmp")]


def _read_record(folder: epath.Path) -> dict[str, Any]:
    """Check the checksums of all files of a checkpoint, and return its record, config and labels."""
    for name, crc32 in json.loads((folder / "checksums" / "files.json").read_text()).items():
        if not (folder / name).is_file():
            raise ValueError(f"{name} is missing")
        if zlib.crc32((folder / name).read_bytes()) != crc32:
            raise ValueError(f"{name} is not as it was written")
    names = ("checksums/leaves.json", "config.json", "labels.json")
    record, config, labels = (json.loads((folder / name).read_text()) for name in names)
    return {**record, "config": config, "labels": labels}


def _leaf_record(leaf: np.ndarray) -> dict[str, Any]:
    crc32 = zlib.crc32(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8))
    return {"shape": list(leaf.shape), "dtype": str(leaf.dtype), "crc32": crc32}


def _check_leaves(tree: Any, expected: Mapping[str, Any]) -> None:
    bad = [name for name, leaf in named_leaves(tree) if _leaf_record(np.asarray(leaf)) != expected[name]]
    if bad:
        raise ValueError(f"the values of {', '.join(bad[:3])} are not those that were saved")


def _model_differences(leaves: Mapping[str, Any], template: TrainState) -> str:
    given = {name: f"{leaf['dtype']}{leaf['shape']}" for name, leaf in leaves.items()}
    expected = {name: f"{np.dtype(leaf.dtype)}{list(leaf.shape)}" for name, leaf in named_leaves(template)}
    return describe_differences(given, expected)


def _wait_for_all(action: str) -> None:
    """Wait until all processes come here; ``action`` is what a late one still has to do."""
    if processes.several():
        processes.exchange(action, "")
    elif jax.process_count() > 1:  # Joined without our commands.
        multihost_utils.sync_global_devices(action)

"""Test bench of kills: functions in forked processes that SIGKILL themselves at a chosen file operation."""

import dataclasses
import multiprocessing
import os
import pathlib
import re
import signal
import sys
import threading
from collections.abc import Callable
from unittest import mock

import bench

from motion_jax import cli

# The server imports JAX once and starts no backend, so that its forks have no threads of XLA to lose.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tiny_runs", "bench", "motion_jax.tools.prepare"])
_OPERATIONS = {"batch", "open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "shutil.rmtree"}


@dataclasses.dataclass(frozen=True)
class Kill:
    """The moment at which a process ends itself.

    Attributes:
        pattern: regular expression of the operations that count, such as ``os.rename .*/latest/``; ``batch train 3``
            and ``batch val 0`` are the batches of ``tiny_runs``.
        number: the operation to end at, counted from 1; with 0 the process goes on, and its log names them all.
        delay: seconds from that operation to the end; without, the operation is not done.
    """

    pattern: str
    number: int
    delay: float = 0


def fork(
    function: Callable[..., object],
    *arguments: object,
    log: pathlib.Path,
    kill: Kill | None = None,
    timeout: float = 180,
) -> int:
    """Call a function in a forked process and return its exit status, which is -9 after ``kill``.

    Args:
        function: of a module; an exception gives the status 1.
        arguments: of the function.
        log: the file that gets stdout and stderr.
        kill: when the process ends itself.
        timeout: seconds after which it must have ended.
    """
    paths = os.pathsep.join([str(bench.ROOT), str(bench.ROOT / "tests")])
    with mock.patch.dict(os.environ, {**bench.environment(), "PYTHONPATH": paths}):
        process = _CONTEXT.Process(target=_run, args=(dict(os.environ), log, kill, function, arguments))
        process.start()
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"{function.__name__}{arguments} does not end in {timeout} s:\n{log.read_text()}")
    return process.exitcode


def command(name: str, *arguments: object) -> None:
    """Run a command of ``motion_jax.tools`` in this process, and exit with its status."""
    done = bench.call(name, *arguments)
    print(done.stdout, done.stderr, flush=True)
    sys.exit(done.returncode)


def as_command(function: Callable[[], object]) -> None:
    """Call a function as the commands call theirs: its error is one line, and the status 2."""
    cli.run(function)


def counted(log: pathlib.Path) -> int:
    """Return the number of operations that a fork with ``Kill(pattern, 0)`` named in its log."""
    return log.read_text(errors="replace").count("\noperation: ")


def _run(environment: dict, log: pathlib.Path, kill: Kill | None, function: Callable, arguments: tuple) -> None:
    # The fork has the variables of the moment at which the server was started.
    os.environ.update(environment)
    with log.open("w") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    import jax

    jax.config.update("jax_compilation_cache_dir", environment["JAX_COMPILATION_CACHE_DIR"])
    if kill:
        sys.addaudithook(_hook(kill))
    function(*arguments)


def _hook(kill: Kill) -> Callable[[str, tuple], None]:
    pattern, seen, lock = re.compile(kill.pattern), [], threading.Lock()

    def hook(event: str, arguments: tuple) -> None:
        if event not in _OPERATIONS or not isinstance(arguments[0], str | bytes):
            return
        if event == "open" and not (isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        line = f"{event} {os.fsdecode(arguments[0])}"
        if not pattern.match(line):
            return
        if kill.number == 0:
            os.write(2, os.fsencode(f"\noperation: {line}\n"))
        with lock:
            seen.append(line)
            if len(seen) != kill.number:
                return
        if kill.delay:
            threading.Timer(kill.delay, os.kill, (os.getpid(), signal.SIGKILL)).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    return hook

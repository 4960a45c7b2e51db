"""Test bench of several processes: train.py started several times on this machine, with logs, faults and a record."""

import json
import pathlib
import signal
import socket
import subprocess
import sys
import time

import bench
from outcomes import note

HEARTBEAT = 6


class Fleet:
    """Several processes of one command; the context ends those that are left.

    Args:
        folder: where their logs are written.
        count: number of processes.
        arguments: of the command, the same for all.
        own: process -> further arguments.
        late: process -> seconds that it starts later.
        within: process -> words before its command, such as those that enter a network namespace.
        coordinator: address of process 0.
        heartbeat: seconds without a sign of life after which a process counts as lost.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        count: int,
        *arguments: object,
        own: dict[int, list] | None = None,
        late: dict[int, float] | None = None,
        within: dict[int, list[str]] | None = None,
        coordinator: str = "127.0.0.1",
        heartbeat: int = HEARTBEAT,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.logs = [folder / f"{number}.log" for number in range(count)]
        self.began = time.monotonic()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = []
        for number in sorted(range(count), key=lambda each: (late or {}).get(each, 0)):
            time.sleep(max(0, self.began + (late or {}).get(number, 0) - time.monotonic()))
            words = [*(within or {}).get(number, []), sys.executable, *arguments, *(own or {}).get(number, [])]
            words += [f"--coordinator={coordinator}:{port}", f"--processes={count}", f"--process_id={number}"]
            words += [f"--heartbeat_seconds={heartbeat}"]
            with self.logs[number].open("w") as log:
                options = {"cwd": bench.ROOT, "env": bench.environment(), "stdout": subprocess.DEVNULL, "stderr": log}
                self.processes.append((number, subprocess.Popen(list(map(str, words)), **options)))
        self.processes = [process for _, process in sorted(self.processes, key=lambda each: each[0])]

    def __enter__(self) -> "Fleet":
        return self

    def __exit__(self, *error: object) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def text(self, number: int) -> str:
        """Return what a process has logged."""
        return self.logs[number].read_text()

    def wait_for(self, text: str, *, of: int = 0, timeout: float = 150) -> float:
        """Wait until a process has logged a text; return the seconds that this took."""
        began = time.monotonic()
        while text not in self.text(of):
            ended = all(process.poll() is not None for process in self.processes)
            assert not ended, f"all ended before {text!r}:\n{self.all_text()}"
            assert time.monotonic() - began < timeout, f"no {text!r} in time:\n{self.all_text()}"
            time.sleep(0.02)
        return time.monotonic() - began

    def wait(self, *, timeout: float = 150) -> tuple[list[int], float]:
        """Wait until all have ended; return their exit statuses, and the seconds that this took."""
        began = time.monotonic()
        while any(process.poll() is None for process in self.processes):
            assert time.monotonic() - began < timeout, f"they do not end:\n{self.all_text()}"
            time.sleep(0.02)
        return [process.returncode for process in self.processes], time.monotonic() - began

    def last_lines(self) -> list[str]:
        """Return the last line of each process."""
        return [(self.text(number).splitlines() or [""])[-1] for number in range(len(self.processes))]

    def all_text(self) -> str:
        """Return all logs."""
        return "\n".join(f"--- {number}\n{self.text(number)}" for number in range(len(self.processes)))

    def send(self, number: int, signal_number: int = signal.SIGKILL) -> None:
        """Send a signal to a process."""
        self.processes[number].send_signal(signal_number)


def finish(folder: pathlib.Path, count: int, *arguments: object, **options: object) -> Fleet:
    """Run processes to their end, which must be success."""
    with Fleet(folder, count, *arguments, **options) as fleet:
        statuses, _ = fleet.wait()
        assert statuses == [0] * count, fleet.all_text()
    return fleet


def saved(workdir: pathlib.Path, step: int) -> dict:
    """Return the checksums of every array of the whole state that a run saved after a step."""
    path = workdir / "checkpoints" / "latest" / str(step) / "checksums" / "leaves.json"
    return json.loads(path.read_text())["leaves"]


def record(fault: str, *, processes: int, seconds: list[float], survived: int, lost: int) -> None:
    """Note the outcome of a fault in the results, if this is a run of ``make chaos``.

    Args:
        fault: what was done.
        processes: their number.
        seconds: of each try, until all processes had ended or gone on.
        survived: tries after which all was as without the fault.
        lost: tries after which the state was another one.
    """
    row = {"fault": fault, "processes": processes, "tries": len(seconds), "survived": survived}
    row |= {"seconds": round(max(seconds), 1), "lost": lost}
    note("pods.json", row, key=("fault", "processes"), heartbeat_seconds=HEARTBEAT)

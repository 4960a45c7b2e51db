"""Start a command as several processes on this machine.

Examples:
    python -m motion_jax.tools.launch --processes=8 --devices_per_process=1 -- train.py \\
        --config=configs/moving_shapes.py --workdir=runs/mine
    python -m motion_jax.tools.launch --processes=2 --devices_per_process=2 -- eval.py --workdir=runs/mine --json

Each process is python with the words after -- and --coordinator, --processes and --process_id. Each of its lines on
stderr begins with its number; stdout is that of process 0. SIGINT and SIGTERM reach all of them as SIGTERM, which lets
training save and end. If one fails, the others have a few seconds to end by themselves, and the exit status is its.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from typing import IO

from motion_jax.cli import Parser, positive, run

# Seconds that the others have to say why they end, after one has failed.
GRACE = 10


def main() -> None:
    """Start the processes, pass their lines on, and exit with the status of the first that fails."""
    words = sys.argv[1:]
    split = words.index("--") if "--" in words else len(words)
    parser = Parser(__doc__)
    parser.add_argument("--processes", type=positive, required=True, metavar="N", help="number of processes")
    devices = "CPU devices of each process, or GPUs that it takes, one after another; default: all that are visible"
    parser.add_argument("--devices_per_process", type=positive, metavar="N", help=devices)
    parser.add_argument("--port", type=positive, help="where the processes meet; default: a free one")
    arguments = parser.parse_args(words[:split])
    if not (command := words[split + 1 :]):
        parser.error("give the command after --, such as -- train.py --config=... --workdir=...")
    sys.exit(
        launch(command, **{name: getattr(arguments, name) for name in ("processes", "devices_per_process", "port")})
    )


def launch(command: list[str], *, processes: int, devices_per_process: int | None, port: int | None) -> int:
    """Run ``python COMMAND`` as several processes, and return the exit status of the first that fails, or 0."""
    meeting = [f"--coordinator=127.0.0.1:{port or _free_port()}", f"--processes={processes}"]
    started: list[subprocess.Popen] = []
    threads = []
    for number in range(processes):
        streams = {"stdout": None if number == 0 else subprocess.DEVNULL, "stderr": subprocess.PIPE}
        environment = _environment(number, devices_per_process)
        words = [sys.executable, *command, *meeting, f"--process_id={number}"]
        # In a group of its own, so that Ctrl-C reaches it once, from here.
        process = subprocess.Popen(words, env=environment, text=True, process_group=0, **streams)
        started.append(process)
        threads.append(threading.Thread(target=_copy, args=(process.stderr, f"[{number}] "), daemon=True))
        threads[-1].start()

    def stop(signal_number: int, frame: object) -> None:
        _send(started, signal.SIGTERM)

    before = {each: signal.signal(each, stop) for each in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = _wait(started)
    finally:
        _send(started, signal.SIGKILL)
        for each, handler in before.items():
            signal.signal(each, handler)
    for thread in threads:
        thread.join(timeout=5)
    return status


def _wait(started: list[subprocess.Popen]) -> int:
    """Wait until all have ended, or some seconds after one failed; return the status of the first that failed."""
    status, end = 0, float("inf")
    while any(process.poll() is None for process in started) and time.monotonic() < end:
        time.sleep(0.1)
        failed = [process.returncode for process in started if process.poll()]
        if failed and not status:
            status, end = failed[0], time.monotonic() + GRACE
    status = status or next((process.returncode for process in started if process.returncode), 0)
    return 128 - status if status < 0 else status


def _send(started: Iterable[subprocess.Popen], number: int) -> None:
    for process in started:
        if process.poll() is None:
            process.send_signal(number)


def _copy(lines: IO[str], prefix: str) -> None:
    for line in lines:
        sys.stderr.write(prefix + line)
        sys.stderr.flush()


def _environment(number: int, devices: int | None) -> dict[str, str]:
    environment = dict(os.environ)
    if devices is not None:
        flags = [word for word in environment.get("XLA_FLAGS", "").split() if "host_platform_device_count" not in word]
        environment["XLA_FLAGS"] = " ".join([*flags, f"--xla_force_host_platform_device_count={devices}"])
        environment["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, range(number * devices, (number + 1) * devices)))
    return environment


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


if __name__ == "__main__":
    run(main)

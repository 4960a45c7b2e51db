"""How a command is told to be one of several processes. tests/chaos runs several of them."""

import argparse
import socket

import jax
import pytest
from bench import call, error_of

from motion_jax.training import native_log, processes

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_LOCAL_DEVICE_IDS")


@pytest.fixture
def join(monkeypatch):
    """Return a function from options and environment to the arguments of ``jax.distributed.initialize``."""
    calls = []

    def initialize(**arguments):
        if "coordinator_address" not in arguments:
            raise ValueError("coordinator_address should be defined.")
        calls.append(arguments)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(native_log, "divert", lambda explain: None)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def join(*options, **environment):
        calls.clear()
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        parser = argparse.ArgumentParser()
        processes.add_arguments(parser)
        processes.join(parser.parse_args(options), program="train.py")
        return calls[0] if calls else None

    return join


def test_a_process_on_its_own_joins_nothing(join):
    assert join() is None
    assert processes.exchange("wait", "mine") == ["mine"]
    assert not processes.several()


def test_options_and_variables(join):
    expected = {"coordinator_address": "a:1", "num_processes": 2, "process_id": 1, "heartbeat_timeout_seconds": 100}
    assert join("--coordinator=a:1", "--processes=2", "--process_id=1") == expected
    expected |= {"heartbeat_timeout_seconds": 7, "process_id": 0}
    variables = {"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "1"}
    assert join("--process_id=0", "--heartbeat_seconds=7", **variables) == expected
    assert join(**variables)["process_id"] == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--distributed"],
            r"need --coordinator=HOST:PORT, --processes=N and .*and JAX_PROCESS_ID\)",
        ),
        (["--processes=2", "--process_id=1"], "need --coordinator=HOST:PORT"),
        (["--coordinator=a:1", "--processes=two"], "--processes is 'two', expected an integer"),
        (["--coordinator=a:1", "--processes=2", "--process_id=2"], "--process_id is 2, expected 0 to 1"),
        (["--coordinator=a", "--processes=2", "--process_id=1"], "--coordinator is 'a', expected HOST:PORT"),
        (["--distributed", "--heartbeat_seconds=0"], "--heartbeat_seconds is 0, expected 2 or more"),
    ],
)
def test_wrong_options(join, options, message):
    with pytest.raises(ValueError, match=message):
        join(*options)


def test_openmpi_without_the_variable_that_jax_reads(join):
    job = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
    with pytest.raises(ValueError, match="OpenMPI does not name the host of its first process: give --coordinator"):
        join("--distributed", **job, OMPI_COMM_WORLD_LOCAL_SIZE="2")
    given = join("--coordinator=a:1")
    assert (given["num_processes"], given["process_id"], given["local_device_ids"]) == (4, 3, 1)
    assert "local_device_ids" not in join("--coordinator=a:1", OMPI_COMM_WORLD_LOCAL_SIZE="1")
    # All on one host: they meet there, each job at another port.
    here = [join("--distributed", OMPI_COMM_WORLD_LOCAL_SIZE="4", PMIX_NAMESPACE=name) for name in ("a", "a", "b")]
    addresses = [each["coordinator_address"] for each in here]
    assert addresses[0] == addresses[1] != addresses[2]
    assert addresses[0].startswith("127.0.0.1:6")


@pytest.mark.parametrize(
    "tasks",
    [
        {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1"},
        {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    ],
)
def test_tasks_that_were_not_told_of_each_other(join, monkeypatch, capsys, tasks):
    for name, value in tasks.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=r"(Slurm|OpenMPI) started 2 tasks: give --distributed, or unset"):
        join()
    # A command for one process: the first task runs it.
    done = call("models", "--json")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "models: task 1 of 2 ends: this command runs in one process\n"
    monkeypatch.setenv(list(tasks)[1], "0")
    assert call("models", "--json").stdout


def test_other_commands_refuse_several_processes():
    error = error_of(call("predict", "clip.mp4", "--checkpoint=x", "--distributed"))
    assert "this command runs in one process; only train.py and eval.py run on several" in error


def test_a_wrong_address_is_one_line(monkeypatch):
    def initialize(**arguments):
        raise RuntimeError("DEADLINE_EXCEEDED: no\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(native_log, "divert", lambda explain: None)
    options = ("--coordinator=a:1", "--processes=2", "--process_id=1", "--workdir=x", "--config=y.py")
    assert error_of(call("train", *options)).endswith("the processes do not meet at a:1: DEADLINE_EXCEEDED: no")


def test_a_port_in_use_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        options = (f"--coordinator=a:{taken.getsockname()[1]}", "--processes=2", "--process_id=0", "--workdir=x")
        assert "cannot be used (Address already in use): choose another" in error_of(
            call("train", *options, "--config=y.py")
        )


class FakeService:
    """The service of several processes, of which the others have already told their values."""

    def __init__(self, others):
        self.others, self.told = others, {}

    def key_value_set(self, key, value):
        self.told[key] = value

    def blocking_key_value_get(self, key, milliseconds):
        *_, index = key.split("/")
        if key in self.told:
            return self.told[key]
        if not self.others[int(index)]:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: nothing yet")
        return self.others[int(index)].pop(0)


@pytest.fixture
def group(monkeypatch):
    """Return a function that makes this the first of several processes with the values that the others tell."""

    def make(*others):
        state = argparse.Namespace(client=FakeService([None, *others]), process_id=0, num_processes=1 + len(others))
        monkeypatch.setattr(processes.distributed, "global_state", state)
        made = processes._Group("train.py", heartbeat=5)
        made.hosts = [f"host{index}" for index in range(made.count)]
        monkeypatch.setattr(processes, "_group", made)
        return made

    return make


def test_the_process_that_differs_is_named(group):
    group(['{"a": 1, "b": 2}'], ['{"a": 1, "b": 3}'])
    with pytest.raises(
        processes.DisagreementError, match=r"^process 2 \(host2\) has x b = 3, process 0 \(host0\) has 2: y"
    ):
        processes.compare("x", {"a": 1, "b": 2}, cure="y")
    # The usual value is right, also if this process has another one.
    group(['{"a": 1}'], ['{"a": 1}'])
    with pytest.raises(
        processes.DisagreementError, match=r"^process 0 \(host0\) has x a = 7, process 1 \(host1\) has 1"
    ):
        processes.compare("x", {"a": 7}, cure="y")
    group(['{"a": 1, "b": 2}'], ['{"a": 1, "b": 2}'])
    with pytest.raises(processes.DisagreementError, match=r"^process 0 \(host0\) has b = null, process 1"):
        processes.compare("", {"a": 1}, cure="y")


def test_hosts_have_their_own_folders_and_threads(group):
    own = {"root": "/videos", "dir": "/data", "threads": 8, "processes": 0}
    group(['{"data.size": 3, "seed": 0, "data.root": "elsewhere"}'])
    with pytest.raises(processes.DisagreementError, match=r"process 1 \(host1\) has config data.root"):
        processes.compare_config({"data": {**own, "size": 3}, "seed": 0})
    group(['{"data.size": 3, "seed": 0}'])
    processes.compare_config({"data": {**own, "size": 3}, "seed": 0})


def test_a_long_wait_is_logged_and_ends(group, monkeypatch, capsys):
    group([])
    clock = iter(range(0, 10**6, 20_000))
    monkeypatch.setattr(processes.time, "monotonic", lambda: next(clock))
    with pytest.raises(ValueError, match=r"^process 1 \(host1\) did not open the data within 17 hours"):
        processes.exchange("open the data", "mine")
    assert capsys.readouterr().err.splitlines() == [
        "waiting for process 1 (host1) to open the data, 20000 s",
        "waiting for process 1 (host1) to open the data, 40000 s",
    ]

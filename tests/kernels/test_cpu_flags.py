"""The settings of XLA for a CPU: who gets them, and that XLA heeds them."""

import importlib.metadata
import importlib.util
import os
import subprocess
import sys

import pytest

from motion_jax import cli
from motion_jax.kernels import cpu_flags

COMPILE = """
import jax, jax.numpy as jnp
from motion_jax.kernels import materialise
convolve = lambda x, k: jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
program = jax.jit(lambda x, k: convolve(materialise(x + 1), k))
print(program.lower(jnp.ones((2, 16, 16, 64)), jnp.ones((3, 3, 64, 64))).compile().as_text())
"""


@pytest.fixture
def alone(monkeypatch):
    """An environment with nothing but a CPU in it, whatever this one has."""
    found = importlib.util.find_spec
    absent = {"libtpu", "jax_plugins"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else found(name))
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: ())
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.10.2")
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.delenv("XLA_FLAGS", raising=False)


def test_added_once_beside_what_is_there(alone, monkeypatch):
    own = "--xla_force_host_platform_device_count=2 --xla_cpu_use_fusion_emitters=true"
    monkeypatch.setenv("XLA_FLAGS", own)
    cpu_flags.use()
    cpu_flags.use()
    assert os.environ["XLA_FLAGS"].split() == [*own.split(), cpu_flags.FLAGS[0], cpu_flags.FLAGS[2]]


def test_an_accelerator_is_left_alone(alone, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cuda,cpu")
    cpu_flags.use()
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: (group,))
    cpu_flags.use()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # the TPU's compiler is there, and may be asked for
    cpu_flags.use()
    assert "XLA_FLAGS" not in os.environ


def test_the_plugin_does_not_matter_to_a_run_on_the_cpu(alone, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: (group,))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    cpu_flags.use()
    assert os.environ["XLA_FLAGS"].split() == list(cpu_flags.FLAGS)


def test_an_untried_jaxlib_is_left_alone(alone, monkeypatch):
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.11.2")
    cpu_flags.use()
    assert "XLA_FLAGS" not in os.environ


@pytest.mark.skipif(importlib.metadata.version("jaxlib") != "0.10.2", reason="they are settings for jaxlib 0.10.2")
def test_heeded_by_xla():
    texts = [
        subprocess.run(
            [sys.executable, "-c", COMPILE],
            env={**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for flags in (" ".join(cpu_flags.FLAGS), "")
    ]
    assert ["opt-barrier(" in text for text in texts] == [True, False]
    assert ["__ynn_fusion" in text for text in texts] == [False, True]


def test_commands_use_them(alone, monkeypatch):
    seen = []
    monkeypatch.setattr("logging.basicConfig", lambda **_: None)
    cli.run(lambda: seen.append(os.environ["XLA_FLAGS"]))
    assert seen == [" ".join(cpu_flags.FLAGS)]

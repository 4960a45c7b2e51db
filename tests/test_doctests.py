"""The examples in docstrings run, each module under its one import name."""

import doctest
import importlib
import pkgutil

import pytest

import motion_jax
import motion_jax.configs
import motion_jax.data

MODULES = sorted(
    module.name
    for package in (motion_jax, motion_jax.configs, motion_jax.data)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["motion_jax", *MODULES])
def test_examples(name):
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0

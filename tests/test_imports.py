"""Imports run one way: {ops, layers} <- blocks <- backbones <- models <- {weights, ...} <- experiment <- tools."""

import ast
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest

import motion_jax
import motion_jax.data

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Each room of motion_jax with the others it may import.
NETWORKS = {"ops", "layers", "blocks", "backbones", "models"}
ROOMS = {
    "text": set(),
    "places": set(),
    "fields": {"text"},
    "kernels": set(),
    "ops": {"kernels"},
    "layers": {"kernels"},
    "losses": {"ops"},
    "blocks": {"text", "fields", "ops", "layers"},
    "backbones": {"text", "fields", "ops", "layers", "blocks"},
    "models": {"text", "fields", "ops", "layers", "blocks", "backbones"},
    "streaming": NETWORKS,
    "weights": {*NETWORKS, "text", "fields", "kernels", "places"},
    "inspection": NETWORKS,
    "profiling": {*NETWORKS, "kernels", "training"},
    "training": {*NETWORKS, "text", "fields", "places"},
    "data": {"text"},
    "configs": {"models"},
    "experiment": {*NETWORKS, "text", "fields", "weights", "training", "data", "places"},
    "live": {*NETWORKS, "streaming", "inspection", "weights", "training", "data", "experiment"},
    "prediction": {*NETWORKS, "weights", "training", "data", "experiment"},
    "cli": {"text", "fields", "kernels", "training", "experiment", "configs", "places"},
}
TOOLS = {*ROOMS, "tools"}
FILES = [
    path
    for path in ROOT.rglob("*.py")
    if not {".venv", ".cache", "tests", "build", "runs"} & set(path.relative_to(ROOT).parts)
]


def imported(path: pathlib.Path) -> set[str]:
    """Dotted names of the project's own modules a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        assert not (isinstance(node, ast.ImportFrom) and node.level), f"{path}: relative imports hide the direction"
    return {name for name in names if name.split(".")[0] in {"motion_jax", "data", "configs", "benchmarks"}}


def room_of(path: pathlib.Path) -> str:
    """The room a file belongs to: ``data``, ``ops``, ``layers``; "" for files outside the package."""
    top, *rest = path.relative_to(ROOT).parts
    if top in ("data", "configs"):
        return top
    return rest[0].removesuffix(".py") if top == "motion_jax" else ""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_direction(path):
    names = imported(path)
    assert not {name for name in names if name.split(".")[0] in ("data", "configs")}, "data and configs have one name"
    room = room_of(path)
    if not room or room in ("__init__", "__main__"):
        return
    assert not {name for name in names if name.startswith("benchmarks")}
    rooms = {name.split(".")[1] for name in names if name.startswith("motion_jax.")}
    allowed = TOOLS if room == "tools" else ROOMS[room] | {room}
    assert rooms <= allowed, f"{room} may import {sorted(allowed)}"


def test_the_reference_shares_no_code_with_what_it_checks():
    path = ROOT / "motion_jax" / "inspection" / "reference.py"
    assert not imported(path)
    assert not re.search(r"^ *(import|from) (jax|flax)", path.read_text(), flags=re.MULTILINE)


def test_no_command_imports_another():
    for path in (ROOT / "motion_jax" / "tools").glob("*.py"):
        assert not {name for name in imported(path) if name.startswith("motion_jax.tools.")}, path.name


def test_every_room_is_in_the_table():
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "motion_jax").iterdir() if not path.name.startswith("_")}
    assert rooms | {"data", "configs"} == TOOLS


def test_every_package_is_installed():
    packages = {"motion_jax", "motion_jax.data", "motion_jax.configs"} | {
        module.name
        for package in (motion_jax, motion_jax.data)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if module.ispkg
    }
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert set(declared) == packages


@pytest.mark.parametrize("name", ["data", "data.pipeline", "configs", "configs.common"])
def test_data_and_configs_have_one_name(name):
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert f"import motion_jax.{name.partition('.')[0]}" in done.stderr.splitlines()[-1]


def test_importing_the_library_is_quick_and_leaves_data_alone():
    code = (
        "import sys, time; start = time.process_time(); import motion_jax; took = time.process_time() - start;"
        "heavy = {'motion_jax.data', 'cv2', 'grain', 'tensorflow_datasets', 'tensorflow', 'torch', 'matplotlib', "
        "'orbax'};"
        "print(took, *sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    took, *loaded = out.split()
    assert not loaded
    # Processor time, which other tests on the same cores do not stretch.
    assert float(took) < 2, f"import motion_jax took {took} s"

"""Imports run one way: {ops, layers} <- blocks <- backbones <- models <- {weights, inspection, training} <- tools."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = {
    "ops": set(),
    "layers": set(),
    "blocks": {"ops", "layers"},
    "backbones": {"ops", "layers", "blocks"},
    "models": {"ops", "layers", "blocks", "backbones"},
}
LIBRARY["weights"] = LIBRARY["inspection"] = LIBRARY["training"] = {*LIBRARY, "models"} - {
    "weights",
    "inspection",
    "training",
}
ENTRY_POINTS = {"train.py", "eval.py"}
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


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_direction(path):
    top, *rest = path.relative_to(ROOT).parts
    names = imported(path)
    if top == "data":
        assert all(name.split(".")[0] == "data" for name in names), f"data/ takes and gives NumPy arrays only: {names}"
    elif top == "configs":
        assert all(name.split(".")[0] == "configs" for name in names), f"configs hold values only: {names}"
    elif top == "motion_jax" and rest[0] not in ("tools", "__init__.py"):
        room = rest[0].removesuffix(".py")
        rooms = {name.split(".")[1] for name in names if name.startswith("motion_jax.")}
        assert rooms <= LIBRARY[room] | {room}, f"{room} may import {LIBRARY[room] or 'nothing'}"
        assert not {name for name in names if not name.startswith("motion_jax")}, (
            "the library knows no data and no configs"
        )
        assert "tools" not in rooms


def test_every_room_is_in_the_table():
    rooms = {path.name.removesuffix(".py") for path in (ROOT / "motion_jax").iterdir() if not path.name.startswith("_")}
    assert rooms == {*LIBRARY, "tools"}


def test_importing_the_library_is_quick_and_leaves_data_alone():
    code = (
        "import sys, time; start = time.process_time(); import motion_jax; took = time.process_time() - start;"
        "heavy = {'data', 'cv2', 'grain', 'tensorflow_datasets', 'tensorflow', 'torch', 'matplotlib', 'orbax'};"
        "print(took, *sorted(heavy & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    took, *loaded = out.split()
    assert not loaded
    # Processor time, which other tests on the same cores do not stretch.
    assert float(took) < 2, f"import motion_jax took {took} s"

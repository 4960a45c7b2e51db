"""Imports inside data/ run one way: config <- storage <- {clips, sources} <- pipeline."""

import ast
import pathlib

import pytest

import motion_jax.data

ROOT = pathlib.Path(motion_jax.data.__file__).parent
PREFIX = "motion_jax.data."
# Room -> rooms it may import besides itself.
ROOMS = {
    "config": set(),
    "storage": {"config"},
    "clips": {"config", "storage"},
    "sources": {"config", "storage"},
    "pipeline": {"config", "storage", "clips", "sources"},
}
FILES = [path for path in sorted(ROOT.rglob("*.py")) if path != ROOT / "__init__.py"]


def imported(path: pathlib.Path) -> set[str]:
    """The modules and names that a file imports anywhere."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_direction(path):
    names = imported(path)
    rooms = {name.removeprefix(PREFIX).split(".")[0] for name in names if name.startswith(PREFIX)}
    room = room_of(path)
    assert rooms <= ROOMS[room] | {room}
    assert not {name for name in names if name.split(".")[0] in ("jax", "flax", "tensorflow")}


def test_files_of_a_room_have_no_cycles():
    modules = {PREFIX + ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in FILES}
    edges = {
        module: {other for other in modules if other != module for name in imported(path) if name.startswith(other)}
        for module, path in modules.items()
    }
    while edges:
        free = {module for module, uses in edges.items() if not uses & set(edges)}
        assert free, f"these files import each other: {sorted(edges)}"
        edges = {module: uses for module, uses in edges.items() if module not in free}


def test_every_file_is_in_a_room():
    assert {room_of(path) for path in FILES} == set(ROOMS)
    for room in ("storage", "clips", "sources"):
        doc = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text()))
        assert doc
        assert "\n" not in doc

"""The house: imports point one way, room by room, and what a room shows is documented."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "acqdesign"
# A room may import the rooms of earlier floors; rooms of one floor do not know each other.
FLOORS = (
    {"base"},
    {"optim", "scene"},
    {"signal", "encoding"},
    {"recon"},
    {"export", "plot"},
    {"design"},
    {"commands"},
    {"learn_traj", "learn_flips", "learn_joint", "export.__main__", "plot.__main__", "merge", "doctor"},
    {"__main__"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts) if parts[-1] == "__main__" else parts[0]


def imported_rooms(path: Path) -> set[str]:
    """Rooms that a module imports anywhere in it; an import of the package itself is an empty name."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        assert not getattr(node, "level", 0), "relative imports are not used here"
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "acqdesign":
            found |= {f"acqdesign.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module)
    split = (name.split(".") for name in found if name.split(".")[0] == "acqdesign")
    return {parts[1] if len(parts) > 1 else "" for parts in split}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_point_one_way_and_no_module_stands_outside_a_room(path):
    room = room_of(path)
    assert room in FLOOR
    assert {other for other in imported_rooms(path) - {room} if FLOOR.get(other, 99) >= FLOOR[room]} == set()


@pytest.mark.parametrize("room", ["base.units", *(r for rooms in FLOORS[1:6] for r in sorted(rooms))])
def test_what_a_room_shows_has_a_docstring(room):
    shown = {n: v for n, v in vars(importlib.import_module(f"acqdesign.{room}")).items() if n[0] != "_"}
    bare = [n for n, v in shown.items() if (inspect.isclass(v) or inspect.isroutine(v)) and not inspect.getdoc(v)]
    assert bare == []

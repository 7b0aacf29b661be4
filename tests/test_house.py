"""The house rules that a program can check: import direction, module length, units, documented names."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "acqdesign"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_LINES = 400

# Imports go to a lower rank, or stay in their own room; rooms of one rank don't know each other.
RANKS = {
    **dict.fromkeys(
        ("_checks", "_config", "_files", "_flags", "_mesh", "_types", "_untrusted", "units", "hardware"), 0
    ),
    "scene": 1,
    **dict.fromkeys(("signal", "encoding"), 2),
    "recon": 3,
    "design": 4,
    **dict.fromkeys(("export", "plot"), 5),
    **dict.fromkeys(
        (
            "options",
            "flip_options",
            "joint_options",
            "run",
            "learn_traj",
            "learn_flips",
            "learn_joint",
            "devices",
            "merge",
            "doctor",
            "export.__main__",
        ),
        6,
    ),
}
GROUND, COMMANDS, API = 0, 6, "acqdesign/__init__.py"


def name_of(path: Path) -> str:
    return path.relative_to(PACKAGE.parent).as_posix()


def room_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts) if parts[-1] == "__main__" else parts[0]  # a room's own command


def imported_rooms(tree: ast.AST, package: str) -> set[str]:
    """Rooms of acqdesign that a module imports anywhere in it, `acqdesign` itself as an empty name."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, base] if base else parents)
            names |= {f"{base}.{alias.name}" for alias in node.names} if base == "acqdesign" else {base}
    ours = (name.split(".") for name in names)
    return {parts[1] if len(parts) > 1 else "" for parts in ours if parts[0] == "acqdesign"}


def arrows_back(room: str, tree: ast.AST, package: str) -> list[str]:
    """Imports of `room` that its rank doesn't allow."""
    wrong = []
    for other in imported_rooms(tree, package) - {room}:
        if other not in RANKS:
            wrong.append(f"acqdesign.{other} (not a room: give it a rank in tests/test_house.py)")
        elif RANKS[other] > RANKS[room] or (
            RANKS[other] == RANKS[room] and RANKS[room] not in (GROUND, COMMANDS)
        ):
            wrong.append(f"acqdesign.{other}")
    return sorted(wrong)


def unit_conversions(tree: ast.AST) -> list[int]:
    """Lines that turn degrees to radians, or scale a name that ends in a unit by a thousand."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and last_name(node.func) in {
            "deg2rad",
            "rad2deg",
            "radians",
            "degrees",
        }:
            lines.append(node.lineno)
        if not isinstance(node, ast.BinOp) or not isinstance(node.op, (ast.Mult, ast.Div)):
            continue
        constants = {n.value for n in (node.left, node.right) if isinstance(n, ast.Constant)}
        names = [last_name(n) for n in (node.left, node.right)]
        degrees = constants & {180, 360} and any(last_name(n) == "pi" for n in ast.walk(node))
        thousand = constants & {1000, 1e-3} and any(
            n.endswith(("_ms", "_mm", "_s", "_m", "_us")) for n in names
        )
        if degrees or thousand:
            lines.append(node.lineno)
    return lines


def last_name(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_module_keeps_the_house_rules(path):
    """Imports point one way, modules stay short, and only units.py converts units."""
    text = path.read_text()
    tree = ast.parse(text)
    assert len(text.splitlines()) <= MAX_LINES
    if name_of(path) == API:
        return
    room = room_of(path)
    assert room in RANKS, f"{room}: give it a rank here, after acqdesign's order of imports"
    package = ".".join(path.relative_to(PACKAGE.parent).parent.parts)
    assert arrows_back(room, tree, package) == []
    if room != "units":
        assert unit_conversions(tree) == [], "converts units: call acqdesign.units"


@pytest.mark.parametrize(
    ("room", "source", "wrong"),
    [
        ("scene", "from acqdesign.recon import cg", ["acqdesign.recon"]),
        ("signal", "def f():\n    import acqdesign.encoding", ["acqdesign.encoding"]),
        ("recon", "from acqdesign import design", ["acqdesign.design"]),
        ("scene", "from ..encoding import nufft", ["acqdesign.encoding"]),
        (
            "recon",
            "from acqdesign.encoding.nufft import nufft_forward\nfrom acqdesign._checks import bad",
            [],
        ),
        ("plot", "from acqdesign.export import read", ["acqdesign.export"]),
        ("learn_traj", "from acqdesign import run", []),
        ("scene", "import acqdesign", ["acqdesign. (not a room: give it a rank in tests/test_house.py)"]),
    ],
)
def test_import_check_sees_arrows_that_point_back(room, source, wrong):
    assert arrows_back(room, ast.parse(source), f"acqdesign.{room}") == wrong


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x * np.pi / 180", True),
        ("x * (np.pi / 180)", True),
        ("180 / math.pi", True),
        ("jnp.deg2rad(x)", True),
        ("esp_ms * 1e-3", True),
        ("1000 * self.dwell_s", True),
        ("tolerance * 1e-3", False),
        ("2 * np.pi * x", False),
    ],
)
def test_unit_check_sees_conversions(source, found):
    assert bool(unit_conversions(ast.parse(source))) is found


@pytest.mark.parametrize(
    "room", ["scene", "signal", "encoding", "recon", "design", "export", "hardware", "units"]
)
def test_public_names_are_documented(room):
    """Every function and class that a room exports has a docstring, which is what the API page shows."""
    module = importlib.import_module(f"acqdesign.{room}")
    members = {name: value for name, value in vars(module).items() if not name.startswith("_")}
    bare = [
        n
        for n, v in members.items()
        if (inspect.isclass(v) or inspect.isroutine(v)) and not inspect.getdoc(v)
    ]
    assert bare == []

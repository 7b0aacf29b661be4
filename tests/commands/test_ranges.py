"""Every number on a command line has a range, which its help states; what is outside ends with code 2 and one line."""

import dataclasses
import math
import re
import typing
from pathlib import Path

import pytest

from acqdesign.base.checks import UsageError
from acqdesign.commands.export import ExportOptions
from acqdesign.commands.flags import check_ranges, range_of
from acqdesign.export.__main__ import main as export

from ._lines import COMMANDS, SMALL, changed, main

KINDS = {name: kind for name, (_, kind) in COMMANDS.items()} | {"export": ExportOptions}
HUGE = 2**31 - 1


def numbers(kind):
    """Names and types of the numeric options of a command."""
    hints = typing.get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        made = None if field.default_factory is dataclasses.MISSING else field.default_factory()
        if dataclasses.is_dataclass(made):
            yield from numbers(type(made))
        elif re.search(r"\b(int|float)\b", str(hints[field.name])):
            yield field.name, hints[field.name]


FLAGS = [(command, name, hint) for command, kind in KINDS.items() for name, hint in numbers(kind)]


def options_of(command, **flat):
    kind = KINDS[command]
    made = kind(run_dir=Path("x"), to=("seq",)) if command == "export" else kind()
    return changed(made, **flat)


def shaped(hint, value):
    """A value in the form of a flag that may take several."""
    if "tuple[tuple" in str(hint):
        return ((value, value),)
    count = 2 if "[float, float]" in str(hint) else 3
    return (value,) * count if "tuple" in str(hint) else value


@pytest.mark.parametrize(("command", "name", "hint"), FLAGS, ids=[f"{c}-{n}" for c, n, _ in FLAGS])
def test_every_number_has_a_range_that_is_kept(command, name, hint):
    """Zero, negative, tiny, huge and no number at all: taken where in the range, and refused by the flag elsewhere."""
    allowed = range_of(hint)
    assert allowed is not None, "no range beside its type"
    whole = "float" not in str(hint)
    others = (HUGE, 10**400) if whole else (5e-324, 1e308, math.nan, math.inf, -math.inf)
    for value in map(int if whole else float, (0, -1, HUGE, *others, allowed.low, allowed.high)):
        options = options_of(command, **{name: shaped(hint, value)})
        if allowed.low <= value <= allowed.high:
            check_ranges(options)
            continue
        with pytest.raises(
            UsageError, match=rf"^--{name.replace('_', '-')}: got .*, expected {re.escape(str(allowed))}"
        ):
            check_ranges(options)


@pytest.mark.parametrize("command", KINDS)
def test_help_states_every_range(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    if command == "export":
        with pytest.raises(SystemExit):
            export(["--help"])
    else:
        assert main(command, "--help-all") == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for _, name, hint in (flag for flag in FLAGS if flag[0] == command):
        behind = text.split(f" --{name.replace('_', '-')} ")[1:]
        assert any(part.partition("default: ")[0].endswith(f"({range_of(hint)}; ") for part in behind), name


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("learn_traj", ["--shape", HUGE, HUGE, HUGE], "--shape: got .* expected 1 to 4096"),
        ("learn_traj", ["--shape", 4096, 4096, 4096], "GiB"),
        ("learn_traj", ["--shape", 512, 512, 512, "--coils", 1024], "GiB"),
        ("learn_joint", ["--shape", 4096, 4096, 4096], "GiB"),
        ("learn_joint", ["--starts", 1000, "--shape", 512, 512, 512], "GiB"),
        ("learn_flips", ["--starts", HUGE], "--starts: got 2147483647, expected 1 to 1000"),
        ("learn_flips", ["--starts", 1000, "--echoes", 16384, "--b1", *[1.0] * 999], "GiB"),
        ("learn_flips", ["--tr-ms", 1e6], "--tr-ms: got 1000000.0, expected 0.01 to 100000"),
        ("learn_joint", ["--lr", "nan"], "--lr: got nan, expected 1e-12 to 1000"),
        ("learn_traj", ["--acceleration", 5e-324], "--acceleration: got 5e-324, expected 0.1 to 10000"),
        ("learn_traj", ["--config", "lr.json"], "config lr.json: lr: got 1000"),
    ],
)
def test_what_no_machine_can_do_is_refused_before_memory_is_taken(
    command, args, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr.json").write_text('{"lr": 1' + 400 * "0" + "}")
    assert main(command, *SMALL[command], *args) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
    assert {path.name for path in tmp_path.iterdir()} == {"lr.json"}

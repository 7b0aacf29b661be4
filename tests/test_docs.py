"""Documentation is true: its command lines are read, its API page is whole, its figures were measured."""

import argparse
import ast
import importlib
import inspect
import json
import pkgutil
import re
import shlex
import sys
from pathlib import Path

import pytest

import acqdesign
from acqdesign import doctor, learn_flips, learn_joint, learn_traj, merge
from acqdesign.commands.export import ExportOptions
from acqdesign.commands.flags import read_flags
from acqdesign.commands.plot import PlotOptions

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
from links import dead_links  # noqa: E402
from measured import measured, quoted, readme  # noqa: E402

NOTEBOOKS = sorted(ROOT.glob("examples/notebooks/*.ipynb"))
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
COMMANDS = {
    "learn_traj": learn_traj.TrajOptions,
    "learn_flips": learn_flips.FlipOptions,
    "learn_joint": learn_joint.JointOptions,
    "export": ExportOptions,
    "plot": PlotOptions,
    "merge": merge.main,
    "doctor": doctor.main,
}
ROOMS = [room.name for room in pkgutil.iter_modules(acqdesign.__path__) if room.ispkg]


class Read(Exception):  # noqa: N818
    """Raised once a command has read its arguments."""


def read(name, arguments, monkeypatch):
    """Reads a command's arguments as it does, and no more."""
    command = COMMANDS[name]
    if inspect.isclass(command):
        options = read_flags(command, arguments, name)
        for part in [options, *vars(options).values()]:
            getattr(part, "check", lambda: None)()
        return
    parse = argparse.ArgumentParser.parse_args

    def stop(*given):
        parse(*given)
        raise Read

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    with pytest.raises(Read):
        command(arguments)


def command_lines():
    """What follows `python -m acqdesign.` on pages, in examples and in the commands' own help."""
    texts = [
        path.read_text()
        for path in [
            *PAGES,
            *ROOT.glob("*.md"),
            *ROOT.glob("examples/*.py"),
            *NOTEBOOKS,
            *ROOT.glob("acqdesign/learn_*.py"),
            *ROOT.glob("acqdesign/commands/*.py"),
        ]
    ]
    found = {line for text in texts for line in re.findall(r"python -m acqdesign\.(\w+ [^`\"\n#]*)", text)}
    return sorted({line.strip(" .;") for line in found})


@pytest.mark.parametrize("line", command_lines())
def test_command_line_is_read(line, monkeypatch):
    name, *arguments = shlex.split(line)
    read(name, arguments, monkeypatch)


@pytest.mark.parametrize("line", ["learn_traj --objective nrmse", "export runs/a --too seq", "merge --no-such a"])
def test_command_line_with_an_unknown_flag_is_refused(line, monkeypatch):
    name, *arguments = shlex.split(line)
    with pytest.raises((ValueError, SystemExit)):
        read(name, arguments, monkeypatch)


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in ("base", "commands")])
def test_api_page_has_every_public_name(room):
    """A room's classes and functions come with it; other names are listed."""
    page = (ROOT / "docs" / "api.rst").read_text()
    assert f".. automodule:: acqdesign.{room}\n   :imported-members:\n" in page
    left_out = re.search(rf"acqdesign\.{room}\n   :imported-members:\n   :exclude-members: (.*)", page)
    source = inspect.getsource(importlib.import_module(f"acqdesign.{room}"))
    shown = re.findall(r"(?m)^from \S+ import (\w+) as \1$", source)
    for name in shown:
        value = getattr(importlib.import_module(f"acqdesign.{room}"), name)
        if not (inspect.isclass(value) or inspect.isroutine(value)):
            assert f".. py:data:: {name}\n   :module: acqdesign.{room}" in page
        elif left_out and name in left_out[1].split(", "):
            assert f".. automodule:: {value.__module__}\n" in page


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs(path):
    """`nox -s notebooks` runs it."""
    cells = json.loads(path.read_text())["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")
    ast.parse("".join("".join(c["source"]) + "\n" for c in cells if c["cell_type"] == "code").replace("%", "#", 1))


def test_figures_in_the_readme_are_those_of_the_results():
    text = (ROOT / "README.md").read_text()
    assert readme(text) == text, "run python docs/_ext/measured.py"
    assert readme(text.replace("| 73 |", "| 74 |")) == text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_figures_on_pages_are_among_the_results(page):
    for spec in quoted(page.read_text()):
        assert re.search(r"\d", measured(spec))


@pytest.mark.parametrize("spec", ["no_such_file; a", "traj_step; cases/no/such/path", "traj_step; cases"])
def test_a_figure_that_was_not_measured_is_refused(spec):
    with pytest.raises(ValueError, match="no such figure"):
        measured(spec)


def test_link_check_sees_dead_links_and_anchors(tmp_path):
    (tmp_path / "a.html").write_text('<a id="here" href="b.html#there">b</a><img src="no.png"><a href="#here">')
    (tmp_path / "b.html").write_text('<a href="a.html#gone"></a><a href="https://example.org/x">out</a>')
    assert dead_links(tmp_path) == [
        "a.html: a link to b.html#there, a place that is not on that page.",
        "a.html: a link to no.png, which is not there.",
        "b.html: a link to a.html#gone, a place that is not on that page.",
    ]

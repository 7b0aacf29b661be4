"""Documentation is true: its figures were measured, its API page is whole, its links lead on."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from acqdesign import learn_flips, learn_joint, learn_traj
from acqdesign.commands.export import ExportOptions
from acqdesign.commands.flags import read_flags

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
from links import dead_links  # noqa: E402
from measured import measured, quoted, readme  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

COMMANDS = {
    "learn_traj": learn_traj.TrajOptions,
    "learn_flips": learn_flips.FlipOptions,
    "learn_joint": learn_joint.JointOptions,
    "export": ExportOptions,
}
COMMAND_FILES = [*ROOT.glob("acqdesign/learn_*.py"), ROOT / "acqdesign" / "export" / "__main__.py"]
TEXTS = {
    page: page.read_text()
    for page in [
        *PAGES, ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md", *ROOT.glob("examples/*.py"), *COMMAND_FILES
    ]
}  # fmt: skip
LINES = sorted(
    {
        line.split("#")[0].strip().rstrip(".")
        for text in TEXTS.values()
        for line in re.findall(r"python -m acqdesign\.(\w+ [^`\"\n]*)", text)
        if re.match(r"\w+", line)[0] in COMMANDS
    }
)


@pytest.mark.parametrize("line", LINES)
def test_command_line_is_read(line):
    name, *arguments = shlex.split(line)
    read_flags(COMMANDS[name], arguments, name)


def test_sessions_that_are_named_exist():
    there = set(re.findall(r"@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text()))
    named = {
        name
        for text in TEXTS.values()
        for found in re.findall(r"nox -s ([\w ]+)", text)
        for name in found.split()
    }
    assert named
    assert named <= there


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
    (tmp_path / "a.html").write_text(
        '<a id="here" href="b.html#there">b</a><img src="no.png"><a href="#here">'
    )
    (tmp_path / "b.html").write_text('<a href="a.html#gone"></a><a href="https://example.org/x">out</a>')
    assert dead_links(tmp_path) == [
        "a.html: a link to b.html#there, a place that is not on that page.",
        "a.html: a link to no.png, which is not there.",
        "b.html: a link to a.html#gone, a place that is not on that page.",
    ]

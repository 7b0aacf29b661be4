"""The pages on parts of one's own: short files, whose programs and command lines run as they stand."""

import importlib
import re
import shlex
import shutil
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.export import write_design

OWN = Path(__file__).parents[1] / "docs" / "own"
PAGES = sorted(page.stem for page in OWN.glob("*.md") if page.stem != "index")


@pytest.fixture
def beside_the_files(tmp_path, monkeypatch):
    """A folder with the pages' files, and a small design to export."""
    for file in OWN.glob("*.py"):
        shutil.copy(file, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "runs" / "joint").mkdir(parents=True)
    entries = {"flips_rad": jnp.ones(2), "points": jnp.zeros((4, 2)), "echo": np.arange(4) % 2}
    write_design(tmp_path / "runs" / "joint" / "design.npz", entries)
    yield tmp_path
    for page in PAGES:
        sys.modules.pop(page, None)


def blocks(page, language):
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", (OWN / f"{page}.md").read_text())


def test_every_seam_has_a_page_and_a_file_of_thirty_lines_at_most():
    wanted = {"sequence", "trajectory", "reconstruction", "term", "constraint", "file_format"}
    assert set(PAGES) == wanted == {file.stem for file in OWN.glob("*.py")}
    for file in OWN.glob("*.py"):
        assert len(file.read_text().splitlines()) <= 30
        assert f"```{{literalinclude}} {file.name}" in (OWN / f"{file.stem}.md").read_text()


@pytest.mark.parametrize("page", PAGES)
def test_the_program_of_a_page_runs_and_learns(page, beside_the_files):
    (program,) = blocks(page, "python")
    names = {}
    exec(compile(re.sub(r"steps=\d+", "steps=2", program), page, "exec"), names)
    if page == "file_format":
        np.testing.assert_array_equal(names["points"], np.zeros((4, 2)))
    else:
        found = names["found"]
        assert found.result.final_loss < found.result.initial_loss
        assert (found.out / "design.npz").is_file()


@pytest.mark.parametrize("page", PAGES)
def test_the_command_line_of_a_page_runs(page, beside_the_files):
    (line,) = blocks(page, "console")
    words = shlex.split(line.removeprefix("$ python -m "))
    if page != "file_format":
        words += ["--steps", "2", "--no-figures", "--out", "here"]
    name = words[0].replace(".export", ".commands.export")
    assert importlib.import_module(name).main(words[1:]) == 0
    made = Path("runs/joint/design.csv") if page == "file_format" else Path("here/summary.json")
    assert made.is_file()

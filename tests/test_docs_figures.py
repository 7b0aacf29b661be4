"""Measured figures in prose come from `benchmarks/results` through the role, or are asserted by a test.

What has the form of a measurement (a time, a size, a ratio, an error, a decimal, a count in thousands) and stands on a
page outside of code, formulas, the role and the README's written tables is listed below with what vouches for it: what
in the tests would fail if it were wrong, or the reason why it is no measurement.
"""

import ast
import inspect
import json
import re
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "docs" / "_ext"))
from docstrings import ROOMS, public_names  # noqa: E402
from measured import README, RESULTS  # noqa: E402

NUMBER = r"(?:\d[\d.,]*(?:e-?\d+)?|\b(?:two|three|four|five|six|seven|eight|nine|ten|hundred|thousand)\b)"
UNIT = r"(?:[nµm]?s|min|minutes?|hours?|seconds?|[kKMGT]i?B(?:/s)?|bytes|%|per ?cent|times|fold)"
FIGURE = re.compile(
    rf"(?<![\w.])(?:{NUMBER}[ -]?{UNIT}(?![\w-])|\d[\d.]*×(?!\s?\d)|\d[\d.]*e-?\d+"
    r"|10⁻\S|(?<!\w-)\d+\.\d+(?![\w.])|\d{1,3}(?:,\d{3})+)"
)
NO_MEASUREMENT = {
    "setting",  # chosen for an example, a default or a comparison
    "definition",  # of a word, a convention or a format
    "derivation",  # follows from the algorithm
    "citation",  # of a place in a book, a finding of a paper, or a version
}
MEMORY, TOLERANCE = (
    "tests/campaigns/fuzz.py::SLACK",
    "1e-6 in single and 1e-12 in double precision by default",
)
VOUCHED = {
    "README.md": {"Python 3.11": "citation", "Python 3.12": "citation", "noise 0.06": "setting"},
    "CONTRIBUTING.md": {"Python 3.11": "citation"},
    "CHANGELOG.md": {
        "4 times the file and 256 MiB": MEMORY,
        "4 times the file's": "tests/export/test_pulseq.py::test_a_scan_takes_no_more_memory_than_the_file_allows",
        "versions 1.5 and 1.4": "citation",
    },
    "benchmarks/README.md": {"ridge 1e-4": "setting", "σ = 0.05": "setting"},
    "docs/from_mrinufft.md": {"±0.5": "definition"},
    "docs/install.md": {"Python 3.11": "citation"},
    "docs/performance.md": {"four times the samples": "setting", "three times the lines": "setting"},
    "docs/robustness.md": {
        "4 times the file and 256 MiB": MEMORY,
        "no hang over 5 s": "tests/campaigns/fuzz.py::HANG_S",
    },
    "docs/scaling.md": {
        "three times over with the gradient": "derivation",
        "four times the lines": "setting",
        "1.8 m × 0.51 m × 0.26 m at 0.8 mm": "setting",
        "Python 3.12": "citation",
    },
    "docs/theory.md": {
        "feasible to 1e-6": "tests/design/test_projections.py::test_is_feasible_and_idempotent",
        "10.3)": "citation",
    },
    "examples/plot_autodiff_epg.py": {"5 ms apart": "setting"},
    "examples/plot_mrf_schedule.py": {"10 ms apart": "setting", "noise of 1 %": "setting"},
    "examples/plot_robustness.py": {"B1 from 0.7 to 1.3": "setting"},
    "examples/plot_t2_train.py": {"10 ms apart": "setting", "1000/100 ms": "setting"},
    "scene": {
        "For 96 echoes of 5 ms at 60° and a field of 0.8 to 1.2 the error of the signal stays below 4e-3 of M0 with 5"
        " nodes and 2e-3 with 9.": "tests/scene/test_classes.py::test_b1_expansion_s_error_is_as_said",
        "±20 %": "citation",
    },
    "signal": {"up to 1 % of M0": "tests/signal/test_fse.py::test_what_is_stored_dephased_matters"},
    "encoding": {TOLERANCE: "setting"},
    "design": {"1e-2 unless given": "setting", "to 1 % of": "definition", "7.4 and 3.5;": "citation"},
    "export": {
        "3 s for trains": "setting",
        "version 1.5)": "citation",
        "over 100 %": "definition",
        "version 4.1 to 5.1": "citation",
        "version 1.4 or 1.5": "citation",
        "10 µs": "definition",
    },
}


def prose(text):
    """A page without its code, formulas, measured roles and links."""
    text = re.sub(r"(?ms)^(```+).*?^\1[ ]*$|\$\$.*?\$\$", " ", text)
    text = re.sub(r"(?<=\n\n)(?: {4}.*\n|\n(?= {4}))+", " ", text)
    text = re.sub(
        r"(?::math:|\{measured\})?(`+)[^`]*\1|\$[^$\n]+\n?[^$\n]*\$|\]\([^)]*\)|https?://\S*", " ", text
    )
    rows = [line for line in text.splitlines() if line.strip("| ").split(" | ")[0] not in README]
    return " ".join(" ".join(rows).split())


def docstrings(source):
    """Every string that stands alone in a piece of code."""
    nodes = ast.walk(ast.parse(textwrap.dedent(source)))
    alone = [
        node.value for node in nodes if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    ]
    return [inspect.cleandoc(node.value) for node in alone if isinstance(node.value, str)]


def pages():
    """The prose of each page; the API's pages are public docstrings, an example's its text and comments."""
    outside = [
        ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
    ]
    texts = {path: path.read_text() for path in [*outside, *sorted(ROOT.glob("docs/*.md"))]}
    for path in sorted(ROOT.glob("examples/*.py")):
        source = path.read_text()
        texts[path] = "\n".join([*docstrings(source), *re.findall(r"(?m)^# (?!%%)(.*)", source)])
    found = {path.relative_to(ROOT).as_posix(): prose(text) for path, text in texts.items()}
    for room in ROOMS:
        public = [v for v in public_names(room).values() if inspect.isroutine(v) or inspect.isclass(v)]
        found[room] = prose(
            "\n\n".join(text for value in public for text in docstrings(inspect.getsource(value)))
        )
    return found


PAGES = pages()


@pytest.mark.parametrize("name", PAGES)
def test_figures_in_prose_are_vouched_for(name):
    text = PAGES[name]
    for phrase, witness in VOUCHED.get(name, {}).items():
        assert phrase in text, "no longer there: take it off the list"
        text = text.replace(phrase, "")
        if witness not in NO_MEASUREMENT:
            path, symbol = witness.split("::")
            assert re.search(
                rf"def {symbol}\b|^[^#\n]*\b{symbol}\b.* = ", (ROOT / path).read_text(), re.MULTILINE
            )
    assert FIGURE.findall(text) == []


def test_figures_are_seen():
    text = """It takes 2.5 ms, 30× less, and errs by 3e-4 (**0.18**), three times in 10,000; 12 % of 5 GiB.
    Not `7 ms`, {measured}`a; b; {:.1f} s`, $3.5$, 48 × 48, Apache-2.0 or 0.0.8."""
    found = FIGURE.findall(prose(text))
    assert found == ["2.5 ms", "30×", "3e-4", "0.18", "three times", "10,000", "12 %", "5 GiB"]


@pytest.mark.parametrize(
    ("result", "seeds"),
    {
        "joint_compare_plane": 5,
        "joint_compare_ordered": 2,
        "joint_compare_volume": 2,
        "joint_compare_fewer": 2,
        "joint_compare_power": 2,
    }.items(),
)
def test_seeds_are_as_many_as_pages_say(result, seeds):
    assert len(json.loads((RESULTS / f"{result}.json").read_text())["seeds"]) == seeds

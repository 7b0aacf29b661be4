"""Every block of code on the pages runs: Python as it stands, shell lines in bash, on small problems.

What a test cannot do, such as installing, is done by stand-ins, which check that what they are asked for exists.
"""

import argparse
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jax
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
SLOW = {"docs/install.md", "docs/robustness.md", "docs/scaling.md"}  # joint designs, many devices
FENCED = re.compile(r"^(```+)(\S*)[ ]*([^\n]*)\n(.*?)^\1[ ]*$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"(?<=\n\n)(?:[ ]{4}.*\n|\n(?=[ ]{4}))+")
FILES = {"{include}", "{literalinclude}", "{figure}"}

# Flags that make a command's run small, unless a page gives its own.
SMALL = {
    "learn_traj": "--steps 2 --shape 8 8 8 --lines 20 --samples 8 --iterations 1 --no-figures",
    "learn_joint": "--steps 2 --shape 1 8 8 --lines 16 --echoes 4 --te-eff-ms 10 --calibration 3 --iterations 2"
    " --no-figures",
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SESSIONS = set(re.findall(r"@nox\.session.*\ndef (\w+)", (ROOT / "noxfile.py").read_text()))
STAND_IN = """#!/bin/bash
{ printf '%s\\0' "${0##*/}" "$@"; echo; } >> "$ASKED"
if [[ "${1-} ${2-}" == "-m venv" ]]; then
    command -p mkdir -p "$3/bin"; : > "$3/bin/activate"; command -p cp "${0%/*}/python" "${0%/*}/pip" "$3/bin"
fi
"""


def blocks(text):
    """Language, what follows it and content of each block, in order; indented blocks have no language."""
    fenced = [(m.start(), m[2], m[3], m[4]) for m in FENCED.finditer(text)]
    rest = FENCED.sub(lambda m: re.sub(r"[^\n]", "-", m[0]), text)
    indented = [(m.start(), "", "", re.sub(r"(?m)^ {4}", "", m[0])) for m in INDENTED.finditer(rest)]
    return [block[1:] for block in sorted(fenced + indented)]


def shell(language, content):
    """The lines of a block for bash; None where it is none."""
    if language == "":
        return content
    if language == "console":
        assert all(line.startswith("$ ") for line in content.splitlines()), "prompts and commands only"
        return re.sub(r"(?m)^\$ ", "", content)
    return None


def of(language, name):
    return [content for found, _, content in blocks((ROOT / name).read_text()) if found == language]


PYTHON = [(name, number) for name in NAMES for number in range(len(of("python", name)))]
SHELL = [
    pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW))
    for name in NAMES
    if of("", name) or of("console", name)
]


@pytest.mark.parametrize("name", NAMES)
def test_every_block_is_of_a_kind_that_is_run(name):
    """Or is built by Sphinx, from files that are there."""
    for language, after, content in blocks((ROOT / name).read_text()):
        if language in FILES:
            assert (ROOT / name).parent.joinpath(after).is_file()
        elif language == "{toctree}":
            pages = [line for line in content.splitlines() if line and not line.startswith(":")]
            made = {"examples/index", "api"}
            assert all(page in made or (ROOT / "docs" / f"{page}.md").is_file() for page in pages)
        else:
            assert language in {"python", "console", ""}, f"a block of {language}, which nothing runs"


def test_blocks_of_all_kinds_are_seen():
    text = (
        "a\n\n    pip\n\n    nox\n\nb\n```\nbare\n```\n\n```sh\nls\n```\n````python x\n```\n````\n- c\n  d\n"
    )
    assert blocks(text) == [
        ("", "", "pip\n\nnox\n"),
        ("", "", "bare\n"),
        ("sh", "", "ls\n"),
        ("python", "x", "```\n"),
    ]


def test_pages_that_are_no_markdown_hold_no_code():
    for page in (ROOT / "docs" / "api.rst", ROOT / "examples" / "README.rst", *ROOT.glob("examples/*.py")):
        assert not re.search(r"(?m)^\.\. code|^(?!\.\. ).*::$|^>>>", page.read_text()), page.name


@pytest.mark.parametrize(("name", "number"), PYTHON)
def test_python_runs(name, number):
    scope: dict = {}
    exec(of("python", name)[number], scope)
    if "result" in scope:
        assert scope["result"].final_loss < scope["result"].initial_loss
    else:
        assert jax.numpy.isfinite(scope["gradient"]).all()


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A folder with the files of a checkout that lines name."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("docs/_ext", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("README.md", "pyproject.toml", "noxfile.py"):
        shutil.copy(ROOT / name, folder)
    (folder / "home").mkdir()
    (folder / "stand-ins").mkdir()
    for name in STAND_INS:
        (folder / "stand-ins" / name).write_text(STAND_IN)
        (folder / "stand-ins" / name).chmod(0o755)
    return folder


def asked_by(script, folder):
    """The commands that bash runs for a script, with their arguments as bash makes them; no others are there."""
    asked = folder / "asked"
    asked.write_text("")
    environment = {"PATH": str(folder / "stand-ins"), "HOME": str(folder / "home"), "ASKED": str(asked)}
    bash = [shutil.which("bash"), "-euo", "pipefail", "-c", script]
    done = subprocess.run(bash, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [line.split("\0")[:-1] for line in asked.read_text().splitlines()]


@pytest.mark.parametrize("name", SHELL)
def test_shell_runs(name, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    found = [shell(language, content) for language, _, content in blocks((ROOT / name).read_text())]
    for script in filter(None, found):
        for command, *arguments in asked_by(script, checkout):
            STAND_INS[command](arguments)


def test_bash_is_given_what_a_block_says(checkout):
    """The check can fail: on what is not there, on a command that fails, and on one that is unknown."""
    assert asked_by('pip install ".[a b]" && X=1 python -m y\n# no\nnox', checkout) == [
        ["pip", "install", ".[a b]"],
        ["python", "-m", "y"],
        ["nox"],
    ]
    for wrong in ("git clone x", "false", "pip 'a"):
        with pytest.raises(AssertionError):
            asked_by(wrong, checkout)


@pytest.mark.parametrize(
    "line",
    [
        "pip install .[cuda99]",
        "pip install -r no.txt",
        "pip install --group none",
        "pip install numpyy",
        "nox -s no",
        "nox -s bench -- no.py",
        "nox -s bench -- traj_step.py --no-such-flag",
        "python no.py",
        "python -m acqdesign.learn_traj --no-such-flag",
        "python -m acqdesign.learn_traj --lines many",
        "srun --no-such=1 python -m acqdesign.doctor",
        "srun --ntasks=3 python -m acqdesign.learn_traj --mesh coils=2",
    ],
)
def test_a_line_that_is_wrong_is_seen(line, checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    with pytest.raises((AssertionError, SystemExit)):
        run_line(*line.split())


def pip(arguments):
    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("verb", choices=["install"])
    parser.add_argument("-e", "--upgrade", "-q", dest="_", action="store_true")
    parser.add_argument("-r")
    parser.add_argument("--group")
    parser.add_argument("targets", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    assert given.r is None or Path(given.r).is_file()
    assert given.group is None or given.group in PROJECT["dependency-groups"]
    for target in given.targets:
        here = re.fullmatch(r"\.(?:\[([\w,]+)\])?", target)
        assert here or target == "pip"
        assert not here or set((here[1] or "test").split(",")) <= set(
            PROJECT["project"]["optional-dependencies"]
        )


def nox(arguments):
    end = arguments.index("--") if "--" in arguments else len(arguments)
    (verb, *sessions), more = arguments[:end], arguments[end + 1 :]
    assert verb == "-s"
    assert sessions
    assert set(sessions) <= SESSIONS
    if more:
        assert sessions == ["bench"]
        script(Path("benchmarks") / more[0], more[1:])


def pytest_(arguments):
    assert arguments == []
    assert all(Path(ROOT, path).is_dir() for path in PROJECT["tool"]["pytest"]["ini_options"]["testpaths"])


def pre_commit(arguments):
    assert arguments == ["install"]
    assert (ROOT / ".pre-commit-config.yaml").is_file()


def srun(arguments):
    count = next(n for n, argument in enumerate(arguments) if not argument.startswith("--"))
    options = dict(argument.removeprefix("--").split("=") for argument in arguments[:count])
    assert set(options) <= {"ntasks", "gres", "gpus-per-task"}
    run_line(*arguments[count:], tasks=int(options.get("ntasks", 1)))


def python(arguments, tasks=1):
    if arguments[:2] == ["-m", "venv"]:
        assert Path(arguments[2], "bin", "python").is_file()
    elif arguments[0] == "-m":
        module(arguments[1], arguments[2:], tasks)
    else:
        script(Path(arguments[0]), arguments[1:])


def script(path, options):
    """Benchmarks know the options that they are given; the others run."""
    assert path.is_file()
    if path.parts[0] == "benchmarks":
        text = path.read_text()
        assert all(f'"{option}"' in text for option in options if option.startswith("--"))
    else:
        before = (Path("README.md")).read_text()
        subprocess.run([sys.executable, str(path), *options], check=True)
        assert Path("README.md").read_text() == before


def module(name, arguments, tasks):
    """A command on a small problem; once where pages differ only in the folder's name."""
    command = name.removeprefix("acqdesign.")
    small = re.findall(r"--\S+(?: [^-]\S*)*", SMALL.get(command, ""))
    flags = [*arguments, *" ".join(flag for flag in small if flag.split()[0] not in arguments).split()]
    out = arguments[arguments.index("--out") + 1] if "--out" in arguments else None
    mesh = arguments[arguments.index("--mesh") + 1] if "--mesh" in arguments else ""
    devices = int(np.prod([int(count) for count in re.findall(r"=(\d+)", mesh)]))
    assert tasks in (1, devices), "as many tasks as the mesh has devices"
    if "--resume" in arguments:
        flags, folder = arguments, arguments[arguments.index("--resume") + 1]
        if not Path(folder).is_dir():
            module(name, ["--out", folder], 1)
    for image in (argument for argument in arguments if argument.endswith(".nii")):
        nibabel = pytest.importorskip("nibabel")
        nibabel.save(
            nibabel.Nifti1Image(np.eye(8, dtype=np.float32)[None] * np.ones((8, 1, 1)), np.eye(4)), image
        )
    key = (name, *(flag for flag in flags if flag not in ("--out", out)))
    if key in RAN and (out is None or Path(out).is_dir()):
        return
    RAN.add(key)
    if devices == 1:
        assert (
            importlib.import_module(f"{name}.__main__" if command == "export" else name).main(flags) or 0
        ) == 0
        return
    environment = {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}", "PYTHONPATH": str(ROOT)}
    fast = {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    subprocess.run([sys.executable, "-m", name, *flags], env=os.environ | environment | fast, check=True)


def run_line(command, *arguments, **more):
    STAND_INS[Path(command).name](list(arguments), **more)


RAN: set = set()
STAND_INS = {
    "pip": pip, "python": python, "nox": nox, "pytest": pytest_, "pre-commit": pre_commit, "srun": srun,
}  # fmt: skip

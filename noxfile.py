"""One command a habit: `nox -s tests`, `nox -s lint`, ...; what follows `--` is passed on.

`nox` alone runs what a change needs before it is handed in: lint, typecheck and tests.
"""

import os
from pathlib import Path

import nox

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = ["3.11", "3.12", "3.13"]
PEERS_ENV = "ACQDESIGN_PEERS_PYTHON"

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "typecheck", "tests"]
nox.options.reuse_venv = "yes"
nox.options.default_venv_backend = "venv"


def group(name: str) -> list[str]:
    """The requirements of one of pyproject.toml's dependency groups."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session
def tests(session: nox.Session) -> None:
    """The tests that take seconds."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session(python=PYTHONS)
def pythons(session: nox.Session) -> None:
    """The tests that take seconds, on every supported Python: `nox -s pythons-3.13 -- tests/signal`."""
    session.install("-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests on the lowest versions that pyproject.toml allows."""
    session.install("uv")
    session.run_install("uv", "pip", "install", "--resolution", "lowest-direct", "-e", ".[test]")
    # Old releases use of each other what is deprecated by now.
    session.run("pytest", "-W", "default::DeprecationWarning", *session.posargs)


@nox.session
def newest(session: nox.Session) -> None:
    """The tests on the newest versions there are."""
    session.install("uv")
    session.run_install("uv", "pip", "install", "--upgrade", "-e", ".[test]")
    session.run("pytest", *session.posargs)


@nox.session
def tests_slow(session: nox.Session) -> None:
    """The tests that take minutes, and the others as users compile: with all of XLA's optimisations."""
    session.install("-e", ".[test]")
    session.run("pytest", "-m", "", *session.posargs, env={"JAX_DISABLE_MOST_OPTIMIZATIONS": "0"})


@nox.session
def fuzz(session: nox.Session) -> None:
    """Mutated files for every reader: 100,000, or as many as `-- --files 2000` says."""
    session.install("-e", ".[test]")
    session.run("python", "tests/campaigns/fuzz.py", *session.posargs)


@nox.session
def kill(session: nox.Session) -> None:
    """Runs killed at random moments and resumed: 100, or as many as `-- --kills 10` says."""
    session.install("-e", ".[test]")
    session.run("python", "tests/campaigns/kill.py", *session.posargs)


@nox.session
def endurance(session: nox.Session) -> None:
    """Ten thousand steps: memory, compilations and the time of a step."""
    session.install("-e", ".[test]")
    session.run("python", "tests/campaigns/endurance.py", *session.posargs)


@nox.session
def properties(session: nox.Session) -> None:
    """The algebra on many values: 200 a law."""
    session.install("-e", ".[test]")
    few = ("tests/test_properties.py", "--hypothesis-profile", "many", "-m", "")
    session.run("pytest", *few, *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """What is installed: whether it fits together, its licences, and known vulnerabilities (needs the network)."""
    session.install(".[nifti,pulseq,mrd]", "pip-audit")
    session.run("pip", "check")
    session.run("python", "tools/licences.py", "--check", "docs/licences.md")
    # By name and version alone, strictly: otherwise packages that the service does not know pass as sound.
    listed = Path(session.create_tmp()) / "installed.txt"
    listed.write_text(str(session.run("pip", "freeze", "--exclude", "acqdesign", silent=True)))
    session.run("pip-audit", "--strict", "--no-deps", "--disable-pip", "-r", str(listed), *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff: rules and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check", *session.posargs, ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def typecheck(session: nox.Session) -> None:
    """Mypy over the package."""
    session.install("-e", ".", *group("typecheck"))
    session.run("mypy", *session.posargs)


@nox.session
def examples(session: nox.Session) -> None:
    """Every example, with few iterations; name some after `--` to run only those."""
    session.install("-e", ".[test]")
    few = {"ACQDESIGN_EXAMPLE_STEPS": os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "3"), "MPLBACKEND": "Agg"}
    for script in session.posargs or sorted(map(str, Path("examples").glob("*.py"))):
        session.run("python", script, env=few)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation; a warning is an error."""
    session.install("-e", ".[docs]")
    session.run("sphinx-build", "-W", "--keep-going", "-b", "html", *session.posargs, "docs", "docs/_build/html")


@nox.session
def notebooks(session: nox.Session) -> None:
    """Notebooks of examples and of the built documentation, as downloaded, with few iterations; needs `nox -s docs`."""
    session.install("-e", ".[notebook,nifti,pulseq]", "nbclient>=0.10")
    few = {"ACQDESIGN_EXAMPLE_STEPS": os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "3")}
    for folder in ("examples/notebooks", "docs/_build/html"):
        session.run("python", "tools/run_notebooks.py", folder, *session.posargs, env=few)


@nox.session
def lab(session: nox.Session) -> None:
    """Two of these notebooks, or those named after `--`, and a progress bar in JupyterLab itself; needs a Chromium."""
    session.install("-e", ".[notebook,nifti,pulseq]", "nbclient>=0.10", "playwright>=1.50")
    few = {"ACQDESIGN_EXAMPLE_STEPS": os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "3")}
    tool = ("tools/run_in_jupyterlab.py", "docs/_build/html", *session.posargs)
    session.run("python", *tool, "--out", "docs/_build/shots", env=few)


@nox.session
def pages(session: nox.Session) -> None:
    """The built pages in a headless Chromium at two widths; needs `nox -s docs` and a Chromium, Debian's say."""
    session.install("playwright>=1.50")
    session.run("python", "tools/check_pages.py", "docs/_build/html", "--out", "docs/_build/shots", *session.posargs)


@nox.session
def browser(session: nox.Session) -> None:
    """The report of a run of each command, and of two beside each other, in a headless Chromium, Debian's say."""
    session.install("-e", ".", "playwright>=1.50")
    session.run("python", "tools/check_report.py", "--out", "docs/_build/shots", *session.posargs)


@nox.session
def build(session: nox.Session) -> None:
    """The source distribution, and the wheel from it, into dist/."""
    session.install("build>=1.2")
    session.run("python", "-m", "build", *session.posargs)


@nox.session
def cuda(session: nox.Session) -> None:
    """JAX for the NVIDIA GPU here, with the CUDA half of jax-finufft built for it, checked; Python 3.12 or newer.

    The CUDA compiler comes with JAX; a C++ compiler has to be there. Ends with what is missing where there is no GPU;
    `-- --arch 90` builds for another machine's. Use the environment afterwards as `.nox/cuda/bin/python`.
    """
    session.run("python", "tools/build_cuda_finufft.py", "--look", *session.posargs)
    session.install("-e", ".[cuda13]", "cmake>=3.24", "ninja", "nanobind>=2.9")
    session.run("python", "tools/build_cuda_finufft.py", *session.posargs)
    session.run("python", "-m", "acqdesign.doctor", *([] if session.posargs else ["--gpu"]))


@nox.session
def peers(session: nox.Session) -> None:
    """The environment of the packages that the benchmarks compare with; runs what follows `--` in it.

    With nothing after `--`, `bench` follows with what these packages, and BART where it is installed, make of
    exported designs.
    """
    session.install("-r", "benchmarks/requirements-peers.txt")
    imports = "import finufft, mrpro, sigpy, torch, torchsim, MRzeroCore"
    session.run("python", *(session.posargs or ["-c", imports]))
    if not session.posargs:
        session.notify("bench", ["export_agreement.py"])


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks beside other packages, or one named after `--` with its options: `-- traj_step.py --rounds 2`."""
    session.install("-e", ".[test]")
    python = os.environ.get(PEERS_ENV) or str(Path(".nox/peers/bin/python").resolve())
    if not Path(python).exists():
        session.error(f"No peers' environment: run `nox -s peers` first, or set {PEERS_ENV} to its python.")
    if session.posargs:
        runs = [session.posargs]
    else:
        names = ("traj_step", "traj_quality", "signal_fse", "signal_mrf", "export_agreement")
        runs = [[f"{name}.py"] for name in names]
    for script, *options in runs:
        session.run("python", f"benchmarks/{script}", *options, env={PEERS_ENV: python})

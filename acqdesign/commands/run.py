"""What every command does: read its options, set up JAX, run, and turn errors into one line and an exit code."""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from acqdesign.base.checks import UsageError, printable, usage_error
from acqdesign.commands.config import flat_options, read_config
from acqdesign.commands.devices import DeviceOptions, explain, leave_others
from acqdesign.commands.flags import read_flags
from acqdesign.commands.options import OWN, RunOptions, flag
from acqdesign.commands.own import is_own
from acqdesign.design import Found, Problem
from acqdesign.design import run as run_problem
from acqdesign.design.driver import report
from acqdesign.optim import NonFiniteError
from acqdesign.plot import figure_style

Options = TypeVar("Options")

EXIT_USAGE, EXIT_NUMERICAL, EXIT_FILES = 2, 3, 4
_EXIT_SIGNALS = {"SIGINT": 130, "SIGTERM": 143}
# Where a run is made says nothing of what it is.
_NOT_READ_BACK = ("out", "overwrite", "config", "resume", *(f.name for f in fields(DeviceOptions)))
# Options that may change on `--resume`.
_NEW_ON_RESUME = (
    *_NOT_READ_BACK,
    "steps",
    "checkpoint_every",
    "checkpoint_minutes",
    "max_minutes",
    "no_figures",
    "style",
)


def parse_options(kind: type[Options], argv: Sequence[str] | None, *, prog: str) -> Options:
    """Options from the command line, over those of `--config` or `--resume`, over the defaults.

    Args:
        kind: frozen dataclass whose fields are option dataclasses, one of them `run: RunOptions`; its
            docstring is the command's description. Flags are flat: `--steps`, not `--run.steps`. The fields'
            method `check()`, where they have one, is called at the end.
        argv: arguments after the program's name; None takes the process's own.
        prog: name of the command in its help.

    Raises:
        UsageError: a flag or a configuration file that cannot be read, or holds an unknown or wrong-typed key; an
            option that is wrong, or differs from that of the run to resume.
        SystemExit: `--help` (code 0).
    """
    args = list(sys.argv[1:] if argv is None else argv)
    options: Any = read_flags(kind, args, prog)
    run = options.run
    source = run.resume / "config.json" if run.resume else run.config
    if source is not None:
        for other in ("out", "overwrite", "config") if run.resume else ():
            if getattr(run, other):
                remedy = "A resumed run stays in its folder, with its options."
                raise usage_error("--resume", f"{run.resume} with --{other}", "one of the two", remedy)
        stored = read_config(kind, source, ignored=_NOT_READ_BACK, whole=run.resume is not None)
        options = read_flags(kind, args, prog, default=stored)
        _refuse_code(options, args, source)
        if run.resume:
            _check_same(stored, options)
    for field in fields(options):
        # After parsing, so that a mistake is one line rather than a box of usage.
        getattr(getattr(options, field.name), "check", lambda: None)()
    return options


def _refuse_code(options: Any, args: Sequence[str], source: Path) -> None:
    """Refuses to run a file that only a configuration names."""
    said = {part for arg in args for part in (arg, arg.partition("=")[2])}
    for name in OWN:
        held = flat_options(options).get(name)
        values = held if isinstance(held, list) else [held]
        for value in values:
            if isinstance(value, str) and is_own(value) and value not in said:
                remedy = f"Say so yourself: {flag(name)} {value}."
                what = f"{source} names the file of {value}"
                raise usage_error(flag(name), what, "code that the command line names", remedy)


def configure(run: RunOptions, prog: str) -> None:
    """Sets up JAX as the options say: precision, determinism, devices and processes."""
    jax.config.update("jax_enable_x64", run.precision == "double")
    if run.deterministic and "--xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    run.device.start()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        remedy = 'Unset JAX_PLATFORMS, or install JAX for it: pip install "acqdesign[cuda13]".'
        raise usage_error("device", f"JAX_PLATFORMS={asked}", "a device that JAX can reach", remedy) from error
    if note := run.device.note():
        print(f"{prog}: {note}", file=sys.stderr)


def _check_same(stored: Any, options: Any) -> None:
    """Refuses options that would make a resumed run another run, before anything is written."""
    before, now = flat_options(stored), flat_options(options)
    for name in before:
        if name not in _NEW_ON_RESUME and now[name] != before[name]:
            expected = f"that of the run, {before[name]}"
            raise usage_error(flag(name), f"{now[name]} with --resume", expected)


def run_and_report(command: str, options: Any, problem: Problem, **more: Any) -> int:
    """Runs a problem as the command line says, reports, and gives the exit code.

    Args:
        command: its name, `learn_traj` say.
        options: its options, with a `run: RunOptions`.
        problem: what is to be designed.
        more: further arguments of `acqdesign.design.run`.
    """
    run: RunOptions = options.run
    if problem.terms.needs_opposite and not problem.noisy:
        raise usage_error("--term", "noise with --noise 0", "a noise above 0")
    if not any(np.any(mask) for mask in jax.tree.leaves(problem.masks())):
        raise usage_error("problem", "nothing to learn", "an array, or an entry of one, that is not held")
    config = {"command": command, "options": flat_options(options), "seed": run.seed}
    with figure_style(run.style):
        found: Found = run_problem(
            problem,
            run.steps,
            out=run.resume or run.out or _fresh(command),
            checkpoint_every=run.checkpoint_every,
            checkpoint_minutes=run.checkpoint_minutes,
            max_minutes=run.max_minutes,
            resume=run.resume is not None,
            overwrite=run.overwrite,
            figures=not run.no_figures,
            config=config,
            **more,
        )
    if found.numbers:
        report(found)
    return _EXIT_SIGNALS.get(found.result.stopped, 0)


def learner(name: str, kind: type, build: Callable[[Any], dict[str, Any]]) -> Callable[..., int]:
    """The `main` of a command that learns.

    Args:
        name: of the command, `learn_traj` say.
        kind: its options, as of `parse_options`.
        build: options to the problem and further arguments of `acqdesign.design.run`.
    """
    prog = f"python -m acqdesign.{name}"

    def learn(argv: Sequence[str] | None) -> int:
        options: Any = parse_options(kind, argv, prog=prog)
        configure(options.run, prog)
        return run_and_report(name, options, **build(options))

    def main(argv: Sequence[str] | None = None) -> int:
        """Runs the command.

        Args:
            argv: its arguments; the process's own unless given.

        Returns:
            The exit code: 0 done, 2 wrong use or input, 3 numerical failure, 4 file system, 130 or 143 interrupted.
        """
        return run_command(learn, argv, prog=name)

    return main


def run_command(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None, *, prog: str) -> int:
    """Runs a command's `main(argv)` and turns its errors into one line on standard error and an exit code.

    Returns:
        `main`'s own code; 2 for wrong use or input, 3 for a numerical failure, a device out of memory or a lost
        process, 4 for a failing file system, 130 and 143 for SIGINT and SIGTERM.
    """

    def terminate(*_: Any) -> None:
        raise SystemExit(_EXIT_SIGNALS["SIGTERM"])

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = lambda message, *_: print(
                f"{prog}: warning: {printable(str(message))}", file=sys.stderr
            )
            return main(argv)
    except KeyboardInterrupt:
        return _fail(prog, "interrupted", _EXIT_SIGNALS["SIGINT"])
    except (NonFiniteError, FloatingPointError, np.linalg.LinAlgError) as error:
        return _fail(prog, str(error), EXIT_NUMERICAL)
    except UsageError as error:
        return _fail(prog, str(error), EXIT_USAGE)
    except OSError as error:
        return _fail(prog, str(error), EXIT_FILES)
    except BaseException as error:
        told = explain(error)
        if told:
            return _fail(prog, told, EXIT_NUMERICAL)
        if jax.process_count() > 1 and not isinstance(error, SystemExit):
            traceback.print_exc()
        leave_others(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {printable(message)}", file=sys.stderr)
    leave_others(code)
    return code


def _fresh(command: str) -> Path:
    """A new folder name under `runs/`, by the clock."""
    name = f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = (Path("runs") / (name + (f"-{n}" if n else "")) for n in range(1000))
    return next(path for path in candidates if not path.exists())

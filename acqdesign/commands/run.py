"""What every command does: read its options, set up JAX, run, and turn errors into one line and an exit code."""

import os
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from acqdesign.base.checks import UsageError, printable, usage_error
from acqdesign.commands.cache import of_cache
from acqdesign.commands.config import flat_options, read_config
from acqdesign.commands.devices import DeviceOptions, explain, leave_others
from acqdesign.commands.flags import check_ranges, flag, read_flags
from acqdesign.commands.options import FIRST, OWN, RunOptions
from acqdesign.commands.own import by_flags, is_own
from acqdesign.commands.presets import listed, with_preset
from acqdesign.commands.streams import forgiving_streams, telling
from acqdesign.design import Found, Problem
from acqdesign.design import run as run_problem
from acqdesign.design.driver import report
from acqdesign.design.folder import refuse_folder
from acqdesign.optim import NonFiniteError
from acqdesign.plot import figure_style

Options = TypeVar("Options")

EXIT_USAGE, EXIT_NUMERICAL, EXIT_FILES = 2, 3, 4
_EXIT_SIGNALS = {name: 128 + getattr(signal, name) for name in ("SIGINT", "SIGTERM")}
# Where a run is made says nothing of what it is.
_NOT_READ_BACK = ("out", "overwrite", "config", "resume", *(f.name for f in fields(DeviceOptions)))
# Options that may change on `--resume`.
_NEW_ON_RESUME = {"steps", "checkpoint_every", "checkpoint_minutes", "max_minutes", "no_early_stop"}
_NEW_ON_RESUME |= {"no_figures", "style"}
_NEW_ON_RESUME |= {*_NOT_READ_BACK}


def parse_options(kind: type[Options], argv: Sequence[str] | None, *, prog: str) -> Options:
    """Options from the command line, over those of `--config` or `--resume`, over the defaults.

    `kind` is a frozen dataclass of option dataclasses, one of them `run: RunOptions`; its docstring describes the
    command, whose name in its help is `prog`. The fields' method `check()`, where they have one, is called at the end.

    Raises:
        UsageError: a flag or a configuration file that cannot be read, or holds an unknown or wrong-typed key; an
            option that is wrong, or differs from that of the run to resume.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    command = prog.rpartition(".")[2]
    if "--presets" in args:
        print(listed())
        raise SystemExit(0)
    options: Any = read_flags(kind, args, prog, first=FIRST)
    run = options.run
    source = run.resume / "config.json" if run.resume else run.config
    if run.preset is not None:
        if source is not None:
            raise usage_error("--preset", f"{run.preset} with {source}", "one of the two")
        options = read_flags(kind, args, prog, default=with_preset(options, run.preset, command))
    if source is not None:
        for other in ("out", "overwrite", "config") if run.resume else ():
            if getattr(run, other):
                remedy = "A resumed run stays in its folder, with its options."
                raise usage_error("--resume", f"{run.resume} with --{other}", "one of the two", remedy)
        stored = read_config(kind, source, ignored=_NOT_READ_BACK, whole=run.resume is not None, command=command)
        options = read_flags(kind, args, prog, default=stored)
        _refuse_code(options, args, source)
        before, now = flat_options(stored), flat_options(options)
        for name in before if run.resume else ():
            if name not in _NEW_ON_RESUME and now[name] != before[name]:
                raise usage_error(flag(name), f"{now[name]} with --resume", f"that of the run, {before[name]}")
    check_ranges(options)
    if options.run.out is not None:
        refuse_folder(options.run.out, held=options.run.overwrite)
    for field in fields(options):
        # After parsing, so that a mistake is one line rather than a box of usage.
        getattr(getattr(options, field.name), "check", lambda: None)()
    return options


def _refuse_code(options: Any, args: Sequence[str], source: Path) -> None:
    """Refuses to run a file that only a configuration names."""
    said = {part for arg in args for part in (arg, arg.partition("=")[2])}
    for name in OWN:
        held = flat_options(options).get(name)
        for value in held if isinstance(held, list) else [held]:
            if isinstance(value, str) and is_own(value) and value not in said:
                what, remedy = f"{source} names the file of {value}", f"Say so yourself: {flag(name)} {value}."
                raise usage_error(flag(name), what, "code that the command line names", remedy)


def configure(run: RunOptions, prog: str) -> None:
    """Sets up JAX as the options say: precision, determinism, devices and processes."""
    jax.config.update("jax_enable_x64", run.precision == "double")
    if run.deterministic and "--xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    note = run.device.start()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        remedy = 'Unset JAX_PLATFORMS, or install JAX for it: pip install "acqdesign[cuda13]".'
        raise usage_error("device", f"JAX_PLATFORMS={asked}", "a device that JAX can reach", remedy) from error
    if note is not None:
        print(f"{prog}: {note}", file=sys.stderr)
    if jax.config.values["jax_logging_level"] in (None, "NOTSET") and jax.process_count() == 1:
        # XLA's alarms that are none: of the processor where programs are read (github.com/openxla/xla/issues/44565),
        # and of compiling that takes long. Its errors are raised as well, but for those between several processes.
        jax.config.update("jax_logging_level", "CRITICAL")


def run_and_report(command: str, options: Any, problem: Problem, **more: Any) -> int:
    """Runs a problem as the command line says, reports, and gives the exit code.

    `options` hold a `run: RunOptions`; `more` goes to `acqdesign.design.run`.
    """
    run: RunOptions = options.run
    if problem.terms.needs_opposite and not problem.noisy:
        raise usage_error("--term", "noise with --noise 0", "a noise above 0")
    if not any(np.any(mask) for mask in jax.tree.leaves(problem.masks())):
        raise usage_error("problem", "nothing to learn", "an array, or an entry of one, that is not held")
    same = ("checkpoint_every", "checkpoint_minutes", "max_minutes", "overwrite")
    flat = flat_options(options)
    with figure_style(run.style):
        found: Found = run_problem(
            problem,
            run.steps,
            out=run.resume or run.out or _fresh(command),
            resume=run.resume is not None,
            figures=not run.no_figures,
            early_stop=not run.no_early_stop,
            config={"command": command, "options": flat, "given": _given(command, options), "seed": run.seed},
            identity={"command": command, **{k: v for k, v in flat.items() if k not in _NEW_ON_RESUME}},
            **{name: getattr(run, name) for name in same},
            **more,
        )
    if found.numbers:
        report(found)
    if found.result.stopped in (*_EXIT_SIGNALS, "time"):
        print(f"go on with: python -m acqdesign.{command} --resume {found.out}")
    return _EXIT_SIGNALS.get(found.result.stopped, 0)


def _given(command: str, options: Any) -> dict[str, Any]:
    """The options that are not as usual, but for where results go."""
    usual = type(options)()
    if options.run.preset is not None and options.run.config is None and options.run.resume is None:
        usual = with_preset(usual, options.run.preset, command)
    told, places = flat_options(usual) | {"preset": None}, ("out", "overwrite", "config", "resume")
    return {n: v for n, v in flat_options(options).items() if v is not None and v != told[n] and n not in places}


def learner(name: str, kind: type, build: Callable[[Any], dict[str, Any]]) -> Callable[..., int]:
    """The `main` of a command that learns; `build` makes of its options the arguments of `run_and_report`."""
    prog = f"python -m acqdesign.{name}"

    def learn(argv: Sequence[str] | None) -> int:
        options: Any = parse_options(kind, argv, prog=prog)
        configure(options.run, prog)
        with telling() as files:
            with by_flags({name: flag(name) for name in ("noise", "volume", "planes_per_step", "anatomies_per_step")}):
                asked = build(options)
            return run_and_report(name, options, files=files, **asked)

    return partial(run_command, learn, prog=name)


@forgiving_streams()
def run_command(main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None, *, prog: str) -> int:
    """Runs a command's `main(argv)` and turns its errors into one line on standard error and an exit code.

    Returns:
        `main`'s own code; 2 for wrong use or input, 3 for a numerical failure, a device out of memory or a lost
        process, 4 for a failing file system, 130 and 143 for SIGINT and SIGTERM.
    """
    received = list[int]()

    def end(number: int, _: Any) -> None:
        received.append(128 + number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with warnings.catch_warnings():
            said = set[str]()

            def show(message: Any, *_: Any) -> None:
                text = of_cache(str(message)) or str(message)
                if text not in said:
                    said.add(text)
                    print(f"{prog}: warning: {printable(text)}", file=sys.stderr)

            warnings.showwarning = show  # type: ignore[assignment]
            code = main(argv)
            # Python drops what is raised while it collects garbage, as JAX does in the middle of anything.
            return _fail(prog, "interrupted, at the end", received[0]) if received else code
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
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(prog: str, message: str, code: int) -> int:
    print(f"{prog}: {printable(message)}", file=sys.stderr)
    leave_others(code)
    return code


def _fresh(command: str) -> Path:
    """A new folder name under `runs/`, by the clock."""
    name = f"{command}-{time.strftime('%Y%m%d-%H%M%S')}"
    candidates = (Path("runs") / (name + (f"-{n}" if n else "")) for n in range(1000))
    return next(path for path in candidates if not path.exists())

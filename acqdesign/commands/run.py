"""What every command shares: its options, its run directory and its exit codes."""

import contextlib
import dataclasses
import math
import os
import platform
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jax
import numpy as np
import tyro

from acqdesign.base.checks import (
    UsageError,
    check_choice,
    check_count,
    check_positive,
    printable,
    usage_error,
)
from acqdesign.base.files import write_json
from acqdesign.base.sharding import leads
from acqdesign.base.units import ms_from_s
from acqdesign.commands.config import flat_options, read_config
from acqdesign.commands.devices import DeviceOptions, explain, leave_others, peak_memory_bytes
from acqdesign.commands.flags import read_flags
from acqdesign.optim.fit import CheckpointPolicy, FitResult, NonFiniteError
from acqdesign.optim.optimizers import OPTIMIZERS, SCHEDULES, make_optimizer
from acqdesign.plot.style import figure_style
from acqdesign.plot.style import write_figure as write_figure

Options = TypeVar("Options")

EXIT_USAGE, EXIT_NUMERICAL, EXIT_FILES = 2, 3, 4
_EXIT_SIGNALS = {"SIGINT": 130, "SIGTERM": 143}
# Where a run is made says nothing of what it is.
_NOT_READ_BACK = (
    "out",
    "overwrite",
    "config",
    "resume",
    *(f.name for f in dataclasses.fields(DeviceOptions)),
)
# What a resumed run may be given anew; anything else would not continue the run that was left.
_NEW_ON_RESUME = (
    *_NOT_READ_BACK,
    "steps",
    "checkpoint_every",
    "checkpoint_minutes",
    "max_minutes",
    "no_figures",
    "style",
)
_RUN_FILES = ("config.json", "design.npz", "history.csv", "summary.json", "checkpoint/step-*.json")
_RUN_OUTPUTS = (*_RUN_FILES, "checkpoint/step-*.npz", "*.png", "*.pdf", "learning.gif", "design.*")
_HALF_WRITTEN = (".*.tmp", "checkpoint*/.*.tmp")


@dataclasses.dataclass(frozen=True)
class RunOptions:
    """How the run is made and where its results go."""

    out: Path | None = None
    """Folder for the results; runs/COMMAND-TIME unless given."""
    overwrite: bool = False
    """Replace the run that --out already holds."""
    seed: int = 0
    """Seed of every random choice."""
    steps: int = 100
    """Optimisation steps."""
    optimizer: str = "adam"
    """Optimiser: adam, adamw, nadam, amsgrad, radam, adabelief, lion, rmsprop, sgd, momentum or lbfgs."""
    lr: float | None = None
    """Learning rate in units of what is learned [cycles/voxel, rad]; 1e-2 unless given.
    For lbfgs the largest multiple of its own step, 1 unless given."""
    schedule: str = "constant"
    """Learning rate over the run: constant, cosine, exponential (to 1 %), linear or warmup-cosine."""
    clip: float | None = None
    """Largest norm of the gradient; longer ones are scaled down to it."""
    starts: int = 1
    """Starting points learned side by side; the best is kept."""
    config: Path | None = None
    """config.json of an earlier run, or options in JSON, to start from; flags given here come first."""
    resume: Path | None = None
    """Folder of an interrupted run to continue, with its options, from its newest checkpoint."""
    checkpoint_every: int = 100
    """Steps between checkpoints; one is also written at the end and on SIGINT and SIGTERM."""
    checkpoint_minutes: float = 10.0
    """A step that ends this long after the last checkpoint writes one too [min]."""
    max_minutes: float | None = None
    """Stop learning, save and report after this many minutes."""
    no_figures: bool = False
    """Leave out the figures and the animation."""
    style: Literal["screen", "paper"] = "screen"
    """Figures for the screen, or for paper: the width of a page, text of 8 points, 300 dpi, and as PDF too."""
    deterministic: bool = False
    """Bit-identical results on one platform, for some loss of speed."""
    precision: Literal["single", "double"] = "single"
    """Arithmetic: float32 or float64."""
    device: Annotated[DeviceOptions, tyro.conf.arg(prefix_name=False)] = dataclasses.field(
        default_factory=DeviceOptions
    )

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        self.device.check()
        check_count("--seed", self.seed, minimum=0, maximum=2**32 - 1)
        for name in ("steps", "starts", "checkpoint_every"):
            check_count("--" + name.replace("_", "-"), getattr(self, name))
        for name in ("lr", "clip", "max_minutes", "checkpoint_minutes"):
            if getattr(self, name) is not None:
                check_positive("--" + name.replace("_", "-"), getattr(self, name))
        check_choice("--optimizer", self.optimizer, OPTIMIZERS)
        check_choice("--schedule", self.schedule, SCHEDULES)
        # What the optimiser has no use for is refused here, before --overwrite removes anything.
        make_optimizer(self.optimizer, self.lr, steps=self.steps, schedule=self.schedule, clip=self.clip)

    @property
    def dtype(self) -> type[np.floating]:
        """The real working precision that `precision` names."""
        return np.float64 if self.precision == "double" else np.float32


def parse_options(kind: type[Options], argv: Sequence[str] | None, *, prog: str) -> Options:
    """Options from the command line, over those of `--config` or `--resume`, over the defaults.

    Args:
        kind: frozen dataclass whose fields are option dataclasses, one of them `run: RunOptions`; its
            docstring is the command's description. Flags are flat: `--steps`, not `--run.steps`. The fields'
            method `check()`, where they have one, is called at the end.
        argv: arguments after the program's name; None takes the process's own.
        prog: name of the command in its help.

    Returns:
        The options, with JAX set to their precision.

    Raises:
        ValueError: a flag or a configuration file that cannot be read, or holds an unknown or wrong-typed key; an
            option that is wrong, or differs from that of the run to resume.
        SystemExit: `--help` (code 0).
    """
    args = list(sys.argv[1:] if argv is None else argv)
    options = read_flags(kind, args, prog)
    run = options.run  # type: ignore[attr-defined]
    source = run.resume / "config.json" if run.resume else run.config
    if source is not None:
        for other in ("out", "overwrite", "config") if run.resume else ():
            if getattr(run, other):
                remedy = "A resumed run stays in its folder, with its options."
                raise usage_error("--resume", f"{run.resume} with --{other}", "one of the two", remedy)
        stored = read_config(kind, source, ignored=_NOT_READ_BACK)
        options = read_flags(kind, args, prog, default=stored)
        run = options.run  # type: ignore[attr-defined]
        if run.resume:
            _check_same(stored, options)
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        # After parsing, so that a mistake is one line rather than a box of usage.
        getattr(getattr(options, field.name), "check", lambda: None)()
    jax.config.update("jax_enable_x64", run.precision == "double")
    if run.deterministic and "--xla_gpu_deterministic_ops" not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = os.environ.get("XLA_FLAGS", "") + " --xla_gpu_deterministic_ops=true"
    run.device.start()
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        remedy = 'Unset JAX_PLATFORMS, or install JAX for it: pip install "acqdesign[cuda13]".'
        raise usage_error(
            "device", f"JAX_PLATFORMS={asked}", "a device that JAX can reach", remedy
        ) from error
    if note := run.device.note():
        print(f"{prog}: {note}", file=sys.stderr)
    return options


def _check_same(stored: Any, options: Any) -> None:
    """Refuses options that would make a resumed run another run, before anything is written."""
    before, now = flat_options(stored), flat_options(options)
    for name in before:
        if name not in _NEW_ON_RESUME and now[name] != before[name]:
            flag = "--" + name.replace("_", "-")
            raise usage_error(flag, f"{now[name]} with --resume", f"that of the run, {before[name]}")


@contextlib.contextmanager
def run_directory(command: str, options: Any) -> Iterator[Path]:
    """The folder of a run, made, claimed and begun with `config.json`; enter it once all input has been read.

    Args:
        command: name of the command, `learn_traj` say.
        options: its options, with a `run: RunOptions`.

    Yields:
        The folder; of several processes, only the first does anything to it.

    Raises:
        ValueError: it holds a run already and neither `overwrite` nor `resume` was asked for; or another
            process is writing to it.
        OSError: it cannot be made or written.
    """
    run: RunOptions = options.run
    out = run.resume or run.out or _fresh(command)
    if not leads():
        yield out
        return
    if out.exists() and not out.is_dir():
        raise usage_error("--out", f"{out}, which is a file", "a folder")
    out.mkdir(parents=True, exist_ok=True)
    with _claimed(out), figure_style(run.style):
        # Looked at under the lock: another run may have begun and ended here a moment ago.
        held = [found.name for pattern in _RUN_FILES for found in out.glob(pattern)]
        if held and not (run.overwrite or run.resume):
            raise usage_error(
                "--out", f"{out}, which holds a run", "a new folder", "--overwrite replaces that run."
            )
        for link in (entry for entry in out.glob("checkpoint*") if entry.is_symlink()):
            got = f"{out}, whose {link.name} is a link to {os.readlink(link)}"
            raise usage_error("--out", got, "a folder that holds its own files", "Remove the link.")
        for pattern in (*_RUN_OUTPUTS, *_HALF_WRITTEN) if run.overwrite else _HALF_WRITTEN:
            for old in out.glob(pattern):
                old.unlink()
        write_json(out / "config.json", describe(command, options))
        yield out


def describe(command: str, options: Any) -> dict[str, Any]:
    """What `config.json` holds: the command, every resolved option, versions, seed and platform."""
    packages = ("acqdesign", "jax", "jaxlib", "jax-finufft", "optax", "equinox", "numpy", "scipy")
    device = jax.devices()[0]
    return {
        "command": command,
        "options": flat_options(options),
        "seed": options.run.seed,
        "versions": {"python": platform.python_version()}
        | {name: metadata.version(name) for name in packages},
        "platform": {
            "system": platform.platform(),
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "backend": device.platform,
            "device": device.device_kind,
            "devices": jax.device_count(),
            "processes": jax.process_count(),
        },
    }


def fit_arguments(run: RunOptions, out: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """The keyword arguments of `fit` that `RunOptions` settles; `config` goes into the checkpoints."""
    return {
        "optimizer": make_optimizer(
            run.optimizer, run.lr, steps=run.steps, schedule=run.schedule, clip=run.clip
        ),
        "steps": run.steps,
        "starts": run.starts if run.starts > 1 else None,
        "checkpoint": CheckpointPolicy(
            out / "checkpoint", run.checkpoint_every, config=config, minutes=run.checkpoint_minutes
        ),
        "resume": run.resume is not None,
        "max_minutes": run.max_minutes,
    }


def write_summary(path: Path | str, result: FitResult, **more: Any) -> None:
    """Writes `summary.json`, atomically: what `fit` measured, peak memory, and `more` (nrmse, psnr, …)."""
    names = "initial_loss final_loss seconds_per_step compile_seconds steps stopped verdict"
    summary = {name: getattr(result, name) for name in names.split()}
    if result.start_losses is not None:
        summary |= {"start": result.start, "start_losses": result.start_losses}
    write_json(path, summary | {"peak_memory_bytes": peak_memory_bytes()} | more)


def report_end(result: FitResult, out: Path) -> None:
    """Prints how long a fit took and where its results are."""
    # A resumed run that had ended takes no step.
    if math.isfinite(result.seconds_per_step):
        step, compiling = ms_from_s(result.seconds_per_step), result.compile_seconds
        print(f"{result.steps} steps, {step:.1f} ms each after {compiling:.1f} s of compilation")
    print(f"results in {out}")
    named = {"stalled": "the loss did not fall", "diverged": "the loss rose"}
    if result.verdict in named and result.steps:
        change = f"from {result.initial_loss:.4g} to {result.final_loss:.4g}"
        print(
            f"warning: {result.verdict}: {named[result.verdict]}, {change}; try another --lr", file=sys.stderr
        )


def exit_code(result: FitResult) -> int:
    """0, or 130 or 143 where a signal ended the fit early."""
    return _EXIT_SIGNALS.get(result.stopped, 0)


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


@contextlib.contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Holds a lock on a folder that ends with the process, however that ends."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    descriptor = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise usage_error(
                "--out", f"{out}, which another run is writing to", "a folder of its own"
            ) from None
        yield
    finally:
        os.close(descriptor)

"""Options from the command line, with tyro; a mistake is one line rather than a box of usage."""

import ast
import contextlib
import dataclasses
import difflib
import inspect
import io
import itertools
import os
import re
import shutil
import textwrap
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, TypeVar

import tyro

from acqdesign.base.checks import UsageError, usage_error
from acqdesign.base.units import m_from_mm, rad_from_deg, s_from_ms, s_from_us, t_from_ut
from acqdesign.commands.config import RENAMED, flat_options

Options = TypeVar("Options")


_UNITS = {"ms": s_from_ms, "us": s_from_us, "mm": m_from_mm, "deg": rad_from_deg, "ut": t_from_ut}
_NARROWEST = 40


@dataclasses.dataclass(frozen=True)
class _Range:
    """The least and largest that a number may be."""

    low: int | float
    high: int | float

    def __str__(self) -> str:
        return f"{self.low:.10g} to {self.high:.10g}"

    def __call__(self, default: str) -> str:
        """What stands behind a flag's help."""
        return f"({self}; default: {default})"


def within(low: int | float, high: int | float) -> Any:
    """What stands beside a number's type, or that of some, in `Annotated`: its range, which its help says too."""
    return tyro.conf.arg(help_behavior_hint=_Range(low, high))


Milliseconds = Annotated[float | None, within(0.01, 1e5)]
Span = Annotated[tuple[float, float] | None, within(0.01, 1e5)]
Each = Annotated[tuple[float, ...], within(0.01, 1e5)]
Degrees = Annotated[float | None, within(0.01, 180.0)]
Count = Annotated[int | None, within(1, 2**16)]
Rate = Annotated[float | None, within(1e-12, 1e3)]


def range_of(hint: Any) -> _Range | None:
    """The range beside a type."""
    found = (getattr(mark, "help_behavior_hint", None) for mark in getattr(hint, "__metadata__", ()))
    return next((mark for mark in found if isinstance(mark, _Range)), None)


def check_ranges(options: Any) -> None:
    """Raises where a number of some options, or of options in them, is not in its range."""
    for name, hint in typing.get_type_hints(type(options), include_extras=True).items():
        held, allowed = getattr(options, name), range_of(hint)
        if dataclasses.is_dataclass(held):
            check_ranges(held)
        elif allowed is not None:
            wrong = [value for value in _numbers(held) if not allowed.low <= value <= allowed.high]
            if wrong:
                raise usage_error(flag(name), repr(wrong[0]), str(allowed))


def _numbers(held: Any) -> list[Any]:
    if isinstance(held, tuple):
        return [number for part in held for number in _numbers(part)]
    return [] if held is None else [held]


def si(options: Any, name: str) -> Any:
    """An option in SI, from the unit that its name ends with; None where it is not given."""
    value = getattr(options, name)
    return value if value is None else _UNITS.get(name.rpartition("_")[2], lambda same: same)(value)


def flag(name: str) -> str:
    """The flag of an option."""
    return "--" + name.replace("_", "-")


def _flags(kind: type) -> Iterator[str]:
    """The flags of a class of options."""
    hints = typing.get_type_hints(kind)
    for field in dataclasses.fields(kind):
        yield from _flags(hints[field.name]) if dataclasses.is_dataclass(hints[field.name]) else [flag(field.name)]


def description(kind: type) -> str:
    """The docstring of a class of options for a terminal: words whole, examples further in, a line each."""
    width = min(80, shutil.get_terminal_size().columns)
    found = []
    for paragraph in (inspect.getdoc(kind) or "").split("\n\n"):
        # Lines that begin with a space are those that tyro leaves as they are.
        indent = "    " if paragraph.startswith("python -m") else " "
        hanging = 2 * indent if len(indent) > 1 else indent
        wrap = textwrap.TextWrapper(width, indent, hanging, break_on_hyphens=False)
        found.append(wrap.fill(paragraph))
    return "\n".join(found)


def _documented(kind: type) -> dict[str, tuple[str, tuple[Any, ...], Any]]:
    """What is said of each option of a class of options, in it and in its bases, its choices, and its default."""
    hints, found = typing.get_type_hints(kind), dict[str, tuple[str, tuple[Any, ...], Any]]()
    for base in reversed(kind.__mro__[:-1]):
        body = ast.parse(textwrap.dedent(inspect.getsource(base))).body[0].body  # type: ignore[attr-defined]
        for field, said in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(said, ast.Expr) and isinstance(said.value, ast.Constant):
                name = field.target.id  # type: ignore[union-attr]
                hint = hints.get(name)
                choices = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
                found[name] = " ".join(str(said.value.value).split()), choices, getattr(kind, name, None)
    nested = [hints[field.name] for field in dataclasses.fields(kind) if dataclasses.is_dataclass(hints[field.name])]
    return found | {name: told for inner in nested for name, told in _documented(inner).items()}


def short_help(kind: type, prog: str, first: Sequence[str]) -> str:
    """The help of a command with the flags that are needed first, of each the first sentence."""
    width, indent = min(100, max(_NARROWEST, shutil.get_terminal_size().columns)), 23
    said, lines = _documented(kind), [f"usage: {prog} [--help-all] [--presets] [FLAGS]\n", description(kind), ""]
    for name in (name for name in first if name in said):
        about, choices, default = said[name]
        text = re.match(r"(.*?[^.]\.)( [A-Z]|$)", about + " ")
        words = (text[1] if text else about).rstrip(".")
        shown = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
        usual = (
            default not in (None, (), "") and default is not False and not re.search(rf"\b{re.escape(shown)}\b", words)
        )
        notes = [" or ".join(map(str, choices))] * bool(choices) + [shown] * usual
        wrap = textwrap.TextWrapper(width, f"  {flag(name):<{indent - 2}}", " " * indent, break_on_hyphens=False)
        lines.append(wrap.fill(words + (f" ({'; '.join(notes)})" if notes else "")))
    more = (
        f"All {len(said)} flags, with units, ranges and defaults: --help-all. Protocols as sites play them: --presets."
    )
    return "\n".join([*lines, "", textwrap.fill(more, width)])


def read_flags(
    kind: type[Options], args: Sequence[str], prog: str, default: Options | None = None, first: Sequence[str] = ()
) -> Options:
    """Options of a dataclass of dataclasses from flat flags: `--steps`, not `--run.steps`; over `default`.

    Of a command with many flags, `--help` shows those that are needed `first`, and `--help-all` all of them.

    Raises:
        UsageError: a flag that is unknown or cannot be read.
        SystemExit: after `--help`.
    """
    if first and {"-h", "--help"} & set(args):
        print(short_help(kind, prog, first))
        raise SystemExit(0)
    args = ["--help" if arg == "--help-all" else arg for arg in args]
    # A flag that is set already has no second form: saying it again, as on resuming, changes nothing.
    held = {} if default is None else flat_options(default)
    args = [arg for arg in args if held.get(arg.removeprefix("--").replace("-", "_")) is not True]
    if shutil.get_terminal_size().columns < _NARROWEST:
        os.environ["COLUMNS"] = str(_NARROWEST)  # below which tyro's layout does not end
    settings, said = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff), io.StringIO()
    more: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=prog, args=args, description=description(kind), config=settings, **more)
    except SystemExit as stop:
        if not stop.code:
            raise
        # Above the rule that hints stand under; a terminal without frames has a title and a rule before.
        box = said.getvalue()
        lines = [line.strip("│ ") for line in box.splitlines() if line[:1] not in "╭╰"]
        parts = re.split("[─-]{5,}", " ".join(lines))
        text = parts["╭" not in box and len(parts) > 1].strip()
        unknown = re.split("[ ,=]+", text) if text.startswith("Unrecognized") else []
        for name in (arg.split("=")[0] for arg in args if arg.split("=")[0] in unknown and arg.startswith("--")):
            key, known = name.removeprefix("--").replace("-", "_"), list(_flags(kind))
            if key in RENAMED:
                raise usage_error(name, "a flag of an earlier version", RENAMED[key]) from None
            near = [one for one in known if one.startswith(f"{name}-")]
            near = near or difflib.get_close_matches(name, known, n=1)
            remedy = f"Did you mean {' or '.join(near)}?" if near else "See --help."
            raise usage_error(name, "an unknown flag", "one of this command", remedy) from None
        raise UsageError(text.split(" Got errors:")[0]) from None

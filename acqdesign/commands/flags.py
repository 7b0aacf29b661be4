"""Options from the command line, with tyro; a mistake is one line rather than a box of usage."""

import contextlib
import inspect
import io
import re
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from acqdesign.base.checks import UsageError, usage_error
from acqdesign.commands.config import RENAMED, flat_options

Options = TypeVar("Options")


def description(kind: type) -> str:
    """The docstring of a class of options for a terminal: words whole, examples further in, a line each."""
    width = min(80, shutil.get_terminal_size().columns)
    found = []
    for paragraph in (inspect.getdoc(kind) or "").split("\n\n"):
        # Lines that begin with a space are those that tyro leaves as they are.
        indent = "    " if paragraph.startswith("python -m") else " "
        hanging = 2 * indent if len(indent) > 1 else indent
        found.append(
            textwrap.fill(paragraph, width, initial_indent=indent, subsequent_indent=hanging, break_on_hyphens=False)
        )
    return "\n".join(found)


def read_flags(kind: type[Options], args: Sequence[str], prog: str, default: Options | None = None) -> Options:
    """Options of a dataclass of dataclasses from flat flags: `--steps`, not `--run.steps`.

    Args:
        kind: the dataclass.
        args: arguments after the program's name.
        prog: name of the command in its help.
        default: options to start from in place of the dataclass's own.

    Raises:
        ValueError: a flag that is unknown or cannot be read.
        SystemExit: after `--help`.
    """
    # A flag that is set already has no second form: saying it again, as on resuming, changes nothing.
    held = {} if default is None else flat_options(default)
    args = [arg for arg in args if held.get(arg.removeprefix("--").replace("-", "_")) is not True]
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
        for arg in args if text.startswith("Unrecognized") else ():
            name = arg.split("=")[0]
            key = name.removeprefix("--").replace("-", "_")
            if name in text and key in RENAMED:
                raise usage_error(name, "a flag of an earlier version", RENAMED[key]) from None
        raise UsageError(text.split(" Got errors:")[0]) from None

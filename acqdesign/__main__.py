"""`acqdesign COMMAND ...`, or `python -m acqdesign COMMAND ...`; `--list` says which commands there are."""

import importlib
import sys
from collections.abc import Sequence

from acqdesign.base.checks import UsageError, check_choice
from acqdesign.commands.streams import leave

COMMANDS = {
    "learn_traj": "learn where readouts lie",
    "learn_flips": "learn flip angles for Cramér–Rao bounds",
    "learn_joint": "learn both, in one loss",
    "export": "write a run's design for a scanner or another program",
    "plot": "draw a run again, or compare several",
    "merge": "one table from many runs",
    "doctor": "what this machine offers, checked",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one of `COMMANDS` with the arguments after its name, and returns its exit code; 2 for an unknown one."""
    name, *rest = (sys.argv[1:] if argv is None else argv) or [""]
    if name in ("", "--list", "-h", "--help"):
        print("acqdesign COMMAND ...; each explains itself with --help\n")
        print("\n".join(f"  {command:<12} {about}" for command, about in COMMANDS.items()))
        return 0 if name else 2
    try:
        check_choice("command", name, COMMANDS)
    except UsageError as error:
        print(f"acqdesign: {error}", file=sys.stderr)
        return 2
    module = importlib.import_module(
        f"acqdesign.{name}.__main__" if name in ("export", "plot") else f"acqdesign.{name}"
    )
    return int(module.main(rest))


def script() -> None:
    """`main` as a program of its own."""
    leave(main())


if __name__ == "__main__":
    script()

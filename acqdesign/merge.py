"""One table from many runs, a row each: `python -m acqdesign.merge runs/sweep --out table.csv`."""

import argparse
import csv
import io
import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from acqdesign.base.checks import printable, usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.untrusted import parsing, read_text
from acqdesign.commands.run import run_command
from acqdesign.commands.streams import leave

_ABOUT = "One table from many runs: a row each, with the options that differ and every number of summary.json."
# Where a run lies says nothing of what it is.
_PLACES = ("out", "config", "overwrite", "resume")
_MAX_BYTES = 2**24


def merge_runs(folder: Path | str) -> list[dict[str, Any]]:
    """What differs between the runs under a folder, at any depth, and what came of each.

    Returns:
        A row a run, in the order of their paths: `run`, its folder; every option whose value is not the same in all
        runs; and every number of its `summary.json`, nested ones joined by dots. A run that has not ended has None for
        its numbers.
    """
    rows = []
    for path in sorted(Path(folder).rglob("config.json")):
        summary = path.with_name("summary.json")
        with parsing("run", path.parent, "files that a run wrote"):
            options = {**json.loads(read_text("run", path, _MAX_BYTES))["options"]}
            numbers = json.loads(read_text("run", summary, _MAX_BYTES)) if summary.exists() else {}
        rows.append((str(path.parent.relative_to(folder)), options, dict(_numbers("", numbers))))
    if not rows:
        raise usage_error("folder", str(folder), "a folder with runs in it")
    names = dict.fromkeys(name for _, options, _ in rows for name in options if name not in _PLACES)
    differing = [name for name in names if len({json.dumps(o.get(name)) for _, o, _ in rows}) > 1]
    found = dict.fromkeys(name for _, _, numbers in rows for name in numbers)
    return [
        {"run": run}
        | {name: options.get(name) for name in differing}
        # An option and a result may share a name, `loss` say: the result then has its own column.
        | {(f"result.{name}" if name in differing else name): numbers.get(name) for name in found}
        for run, options, numbers in rows
    ]


def _numbers(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        joined = [(f"{prefix}.{name}" if prefix else name, inner) for name, inner in value.items()]
        return [pair for name, inner in joined for pair in _numbers(name, inner)]
    return [] if isinstance(value, list) else [(prefix, value)]


def _main(argv: Sequence[str] | None) -> int:
    parser = argparse.ArgumentParser(prog="python -m acqdesign.merge", description=_ABOUT)
    parser.add_argument("folder", type=Path, help="folder with the runs, at any depth")
    parser.add_argument("--out", type=Path, help="CSV file to write; standard output unless given")
    args = parser.parse_args(argv)
    rows = merge_runs(args.folder)
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    if args.out is None:
        print("\n".join(map(printable, text.getvalue().splitlines())))
    else:
        with atomic_write(args.out) as file:
            file.write(text.getvalue().encode())
        print(f"{len(rows)} runs in {args.out}")
    return 0


main = partial(run_command, _main, prog="merge")


if __name__ == "__main__":
    leave(main())

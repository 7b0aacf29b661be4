"""Draw runs again, or beside each other: `python -m acqdesign.plot RUN...`."""

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from acqdesign.base.checks import usage_error
from acqdesign.commands.flags import check_ranges, read_flags, si, within
from acqdesign.commands.run import run_command
from acqdesign.plot import compare_runs, figure_style, read_run, write_comparison, write_run


@dataclasses.dataclass(frozen=True)
class PlotOptions:
    """Draw the figures, the animation and report.html of a run again; of two or more runs, compare them.

    Several runs give one table, in the terminal and as comparison.csv, loss, point spread functions, bounds and flips
    in one figure each, differences of images, and comparison.html to look at all of it. Runs of different kinds are
    compared in what they have in common. Examples:

    python -m acqdesign.plot runs/first --style paper

    python -m acqdesign.plot runs/poisson runs/learned --out runs/both
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders of runs that have ended."""
    out: Path | None = None
    """Folder to draw into; of one run its own, of several "comparison" unless given."""
    style: Literal["screen", "paper"] = "screen"
    """Figures for the screen, or for paper: the width of a page, text of 8 points, 300 dpi, and as PDF too."""
    format: Literal["png", "pdf", "svg"] = "png"
    """Of the figures."""
    width_mm: Annotated[float | None, within(50.0, 2e3)] = None
    """Width of every figure [mm]; its own unless given."""
    dpi: Annotated[float | None, within(20.0, 2400.0)] = None
    """Dots per inch of pictures; 150, or 300 for paper unless given."""


def _main(argv: Sequence[str] | None) -> int:
    options = read_flags(PlotOptions, sys.argv[1:] if argv is None else argv, "python -m acqdesign.plot")
    check_ranges(options)
    if not options.runs:
        raise usage_error("RUNS", "nothing", "the folder of a run, or of several")
    how: dict[str, Any] = {"ending": options.format, "width": si(options, "width_mm"), "dpi": options.dpi}
    out = options.out or (Path("comparison") if len(options.runs) > 1 else options.runs[0])
    if out.exists() and not out.is_dir():
        raise usage_error("--out", f"{out}, which is a file", "a folder")
    if len(options.runs) > 1:
        comparison = compare_runs(*options.runs)
        said = [str(comparison), *(f"not compared: {text}" for text in comparison.apart)]
        draw: Any = partial(write_comparison, comparison)
    else:
        run = read_run(options.runs[0])
        kept = f"not drawn, as {run.folder} kept no figures.npz (an earlier version, or --no-figures): "
        said = [kept + ", ".join(run.lacks)] if run.lacks else []
        draw = partial(write_run, run)
    out.mkdir(parents=True, exist_ok=True)
    with figure_style(options.style):
        written = draw(out, **how)
    print("\n".join([*said, f"wrote {', '.join(written)} into {out}"]))
    return 0


main = partial(run_command, _main, prog="plot")

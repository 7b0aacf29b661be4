"""What is drawn of runs, as files."""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from acqdesign.base.files import atomic_write
from acqdesign.plot.compare import Comparison, comparison_page, draw_comparison, write_table
from acqdesign.plot.pages import report
from acqdesign.plot.run import Run, animate_run, draw_run, read_run
from acqdesign.plot.style import write_figure


def write_run(
    run: Run | Path | str, out: Path | str | None = None, *, instead: Mapping[str, Figure] | None = None, **how: Any
) -> list[str]:
    """Draws the figures, the animation and the page of a run, and says which files it wrote.

    Args:
        run: that has ended, or its folder.
        out: a folder that is there; the run's own unless given.
        instead: figures that take the place of those of the same file's name.
        how: `ending`, `width` and `dpi` of the figures, as of `write_figure`.
    """
    run = run if isinstance(run, Run) else read_run(run)
    place = run.folder if out is None else Path(out)
    written = _figures({**draw_run(run), **(instead or {})}, place, **how)
    if animate_run(run, place / "learning.gif"):
        written.append("learning.gif")
    return written + _page(place / "report.html", lambda: report(run))


def write_comparison(comparison: Comparison, out: Path | str, **how: Any) -> list[str]:
    """Writes the table, the figures and the page of a comparison into a folder, as `write_run` does of a run."""
    place = Path(out)
    write_table(place / "comparison.csv", comparison)
    written = _figures(draw_comparison(comparison), place, **how)
    return ["comparison.csv", *written, *_page(place / "comparison.html", lambda: comparison_page(comparison))]


def _figures(figures: Mapping[str, Figure], place: Path, ending: str = "png", **how: Any) -> list[str]:
    names = {str(Path(name).with_suffix(f".{ending}")): figure for name, figure in figures.items()}
    for name, figure in names.items():
        write_figure(place / name, figure, **how)
    return [*names]


def _page(path: Path, made: Callable[[], str]) -> list[str]:
    """A page, unless what draws in it is missing: nothing else is lost then."""
    try:
        whole = made().encode()
    except ImportError as error:
        warnings.warn(f"no {path.name}, as plotly is missing ({error}): pip install plotly", stacklevel=3)
        return []
    with atomic_write(path) as file:
        file.write(whole)
    return [path.name]

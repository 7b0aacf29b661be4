"""One look for every figure: colour-blind safe colours, perceptually uniform maps, few lines."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from acqdesign.base.checks import check_choice, usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.types import ArrayLike

P = ParamSpec("P")
R = TypeVar("R")

INK = "#22252a"
MUTED = "#9aa0a8"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""The palette of Okabe and Ito (2008), told apart with any kind of colour vision."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Beside the colours, so that curves are told apart in grey too."""
TISSUE_LOOKS = {"gm": 2, "wm": 1, "csf": 5}
"""Colour and marker of each tissue, the same in every figure; blue is what was learned."""
SEQUENCE_MAP = "viridis"
ERROR_MAP = "inferno"

_STYLE: Any = {
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("figure.facecolor", "savefig.facecolor"), "white"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlepad": 8,
    "axes.linewidth": 0.8,
    "axes.prop_cycle": cycler(color=COLOURS),
    "grid.color": "#e3e5e8",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "image.interpolation": "nearest",
    "svg.hashsalt": "acqdesign",
}
# On paper: text of 8 points in figures no wider than a page of 7.2 inches, type that editors can change.
_PAPER: Any = {
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.titlepad": 5,
    "legend.fontsize": 7.5,
    "axes.linewidth": 0.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
}
_INCH = 0.0254
_chosen: ContextVar[str] = ContextVar("style", default="screen")


@contextmanager
def figure_style(name: str) -> Iterator[None]:
    """Figures made and saved inside are for the `screen` or for `paper`."""
    token = _chosen.set(check_choice("style", name, ("screen", "paper")))
    try:
        yield
    finally:
        _chosen.reset(token)


def on_paper() -> bool:
    """Whether figures are now made for paper."""
    return _chosen.get() == "paper"


def looks(names: Sequence[str]) -> list[int]:
    """Which colour and marker each name's curve has: a tissue's own, or the next that no tissue has."""
    taken = {TISSUE_LOOKS[name] for name in names if name in TISSUE_LOOKS}
    free = itertools.cycle(look for look in range(len(COLOURS)) if look not in taken)
    return [TISSUE_LOOKS[name] if name in TISSUE_LOOKS else next(free) for name in names]


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """A plotting function whose artists are made in the package's style."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_STYLE | (_PAPER if on_paper() else {})):
            return function(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches on the screen, laid out so that nothing overlaps."""
    scale = 0.68 if on_paper() else 1.0
    return Figure(figsize=(scale * width, scale * height), layout="constrained")


def curve_axes(axes: Axes, **labels: Any) -> None:
    """What axes of curves by pulse or time have in common: their `labels`, and lines across to read values by."""
    axes.set(**labels)
    axes.margins(x=0.02)
    axes.grid(axis="y")


def kspace_axes(axes: Axes, *, title: str = "") -> None:
    """Labels, limits and frame of the phase-encode plane."""
    ticks = [-0.5, -0.25, 0.0, 0.25, 0.5]
    axes.set(xlim=(-0.52, 0.52), ylim=(-0.52, 0.52), xticks=ticks, yticks=ticks, aspect="equal", title=title)
    axes.set(xlabel=r"$k_y$ [cycles/voxel]", ylabel=r"$k_z$ [cycles/voxel]")
    axes.spines[["top", "right"]].set_visible(True)


def shaped(name: str, values: ArrayLike, shape: Sequence[int | None], expected: str = "") -> np.ndarray:
    """`values` as an array of a shape, None being any length; an error says what was `expected`."""
    array = np.asarray(values)
    if array.ndim != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        raise usage_error(name, array, expected or f"shape {tuple(shape)}")
    return array


@styled
def write_figure(
    path: Path | str, figure: Figure, *, dpi: int | float | None = None, width: float | None = None
) -> None:
    """Writes a figure in the format that the file's ending says, atomically: PNG, PDF, SVG or another of matplotlib's.

    Inside `figure_style("paper")` it has 300 dpi, and of a PNG there is a PDF beside it.

    Args:
        path: of the file.
        figure: what is drawn.
        dpi: of pictures; 150 unless given, or 300.
        width: of the figure [m], the height being in proportion; its own unless given.
    """
    path = Path(path)
    if width is not None:
        across, up = figure.get_size_inches()
        figure.set_size_inches(width / _INCH, width / _INCH * up / across)
    endings = [path.suffix, *[".pdf"] * (on_paper() and path.suffix == ".png")]
    for ending in endings:
        form = check_choice("ending", ending.removeprefix("."), figure.canvas.get_supported_filetypes())
        # Without the date equal figures give equal bytes.
        undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}.get(form)
        with atomic_write(path.with_suffix(ending)) as file:
            figure.savefig(file, format=form, dpi=dpi or (300 if on_paper() else 150), metadata=undated)

"""One look for every figure: colour-blind safe colours, perceptually uniform maps, few lines."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import matplotlib
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure

P = ParamSpec("P")
R = TypeVar("R")

INK = "#22252a"
MUTED = "#9aa0a8"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#F0E442")
"""The palette of Okabe and Ito (2008), told apart with any kind of colour vision."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
"""Beside the colours, so that curves are told apart in grey too."""
SEQUENCE_MAP = "viridis"
ERROR_MAP = "inferno"

_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.titlesize": 12,
    "axes.titlepad": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.prop_cycle": cycler(color=COLOURS),
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "grid.color": "#e3e5e8",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "image.interpolation": "nearest",
}


def styled(function: Callable[P, R]) -> Callable[P, R]:
    """A plotting function whose artists are made in the package's style."""

    @wraps(function)
    def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        with matplotlib.rc_context(_STYLE):
            return function(*args, **kwargs)

    return inner


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches, laid out so that nothing overlaps."""
    return Figure(figsize=(width, height), layout="constrained")


def kspace_axes(axes: Axes, *, title: str = "") -> None:
    """Labels, limits and frame of the phase-encode plane."""
    axes.set(xlim=(-0.52, 0.52), ylim=(-0.52, 0.52), aspect="equal", title=title)
    axes.set(xlabel=r"$k_y$ [cycles/voxel]", ylabel=r"$k_z$ [cycles/voxel]")
    ticks = [-0.5, -0.25, 0.0, 0.25, 0.5]
    axes.set_xticks(ticks)
    axes.set_yticks(ticks)
    axes.spines[["top", "right"]].set_visible(True)

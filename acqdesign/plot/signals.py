"""Curves: the loss, flip angles and echo amplitudes."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from acqdesign.base.checks import usage_error
from acqdesign.base.units import deg_from_rad, ms_from_s
from acqdesign.plot.style import COLOURS, INK, MARKERS, MUTED, looks, new_figure, styled


def every(points: int) -> int:
    """How many points of a curve go to one marker."""
    return max(1, points // 16)


def legend_above(axes: Axes, handles: Sequence[Any]) -> None:
    """A legend in one row over the curves, with room made for it."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low))
    axes.legend(handles=handles, loc="upper center", ncols=len(handles), columnspacing=1.2)


@styled
def plot_loss(history: Mapping[str, ArrayLike], *, label: str = "loss") -> Figure:
    """The loss and its named terms by step.

    Args:
        history: `step`, `loss` and any further terms, each `(rows,)`, NaN where a term was not looked at.
        label: what the loss is, with its unit.

    Returns:
        The figure.
    """
    columns = {name: np.asarray(column, float) for name, column in history.items()}
    step, loss = columns.pop("step"), columns.pop("loss")
    # A single term is the loss itself, and would lie under it.
    columns = {name: term for name, term in columns.items() if not np.array_equal(term, loss)}
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for index, (name, term) in enumerate(columns.items()):
        there = np.isfinite(term)
        axes.plot(
            step[there], term[there], lw=1.4, color=COLOURS[1 + index % 7], label=name.replace("_", " "),
            marker=MARKERS[index % 8], ms=4, markevery=every(int(there.sum())),
        )  # fmt: skip
    axes.plot(step, loss, color=COLOURS[0], lw=2.4, label=label)
    values = np.concatenate([loss, *columns.values()])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 4 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(NullFormatter())
    rises = loss[-1] > loss[0]
    for x, y, side, below in ((step[0], loss[0], "left", rises), (step[-1], loss[-1], "right", False)):
        axes.plot(x, y, "o", color=COLOURS[0], ms=6)
        axes.annotate(
            f"{y:.3g}", (x, y), xytext=(0, -8 if below else 8), textcoords="offset points", ha=side,
            va="top" if below else "bottom", color=INK, fontsize="small",
        )  # fmt: skip
    axes.set(xlabel="step", ylabel=label, title="Learning")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.15)
    axes.grid(axis="y", which="major")
    if columns:
        axes.legend()
    return figure


@styled
def plot_flips(flips: ArrayLike, start: ArrayLike | None = None) -> Figure:
    """Flip angles by pulse, with their root mean square.

    Args:
        flips: `(pulses,)` [rad].
        start: `flips` before learning.

    Returns:
        The figure, in degrees.
    """
    figure = new_figure(6.8, 3.8)
    axes = figure.subplots()
    trains = (("start", start, MUTED, "--"), ("learned", flips, COLOURS[0], "-"))
    for name, angles, colour, dashes in trains:
        if angles is None:
            continue
        degrees = deg_from_rad(np.asarray(angles))
        if degrees.ndim != 1:
            raise usage_error("flips" if name == "learned" else "start", degrees, "shape (pulses,)")
        pulse = np.arange(1, degrees.size + 1)
        rms = np.sqrt(np.mean(degrees**2))
        dots = {"marker": "o", "ms": 3.5} if degrees.size <= 128 else {}
        axes.plot(pulse, degrees, dashes, color=colour, label=f"{name}, RMS {rms:.0f}°", **dots)  # type: ignore[arg-type]
    top = 1.06 * max(deg_from_rad(float(np.max(angles))) for _, angles, _, _ in trains if angles is not None)
    axes.set(xlabel="pulse", ylabel="flip angle [deg]", title="Flip angles", ylim=(0, top or 1.0))
    axes.margins(x=0.02)
    axes.grid(axis="y")
    axes.legend()
    return figure


@styled
def plot_echoes(signals: ArrayLike, *, names: Sequence[str], esp_s: float, start: ArrayLike | None = None) -> Figure:
    """Echo amplitudes along the train, a tissue's own colour; dashed before learning.

    Args:
        signals: `(tissues, echoes)` amplitudes in units of M0; magnitudes are shown.
        names: a name for each tissue.
        esp_s: echo spacing [s].
        start: `signals` before learning.

    Returns:
        The figure, in milliseconds.
    """
    after = np.abs(np.asarray(signals))
    if after.ndim != 2 or after.shape[0] != len(names):
        raise usage_error("signals", after, f"shape (tissues={len(names)}, echoes)")
    figure = new_figure(6.8, 4.0)
    axes = figure.subplots()
    time = ms_from_s(esp_s) * np.arange(1, after.shape[1] + 1)
    for index, (name, look) in enumerate(zip(names, looks(names), strict=True)):
        colour = COLOURS[look]
        axes.plot(
            time, after[index], color=colour, label=name,
            marker=MARKERS[look], ms=4.5, markevery=every(time.size),
        )  # fmt: skip
        if start is not None:
            axes.plot(time, np.abs(np.asarray(start))[index], "--", color=colour, lw=1.2, alpha=0.8)
    handles, _ = axes.get_legend_handles_labels()
    if start is not None:
        handles = [*handles, Line2D([], [], ls="--", color=INK, lw=1.2, label="start")]
    axes.set(xlabel="echo time [ms]", ylabel="echo amplitude / $M_0$", title="Echo train")
    legend_above(axes, handles)
    axes.set_ylim(0, None)
    axes.margins(x=0.02)
    axes.grid(axis="y")
    return figure


@styled
def plot_times(tr_s: ArrayLike) -> Figure:
    """Repetition times by pulse, with their sum.

    Args:
        tr_s: `(pulses,)` [s].

    Returns:
        The figure, in milliseconds.
    """
    times = np.asarray(tr_s, float)
    if times.ndim != 1:
        raise usage_error("tr_s", times, "shape (pulses,)")
    figure = new_figure(6.8, 3.6)
    axes = figure.subplots()
    axes.step(np.arange(1, times.size + 1), ms_from_s(times), where="mid", color=COLOURS[0])
    mean, total = ms_from_s(float(times.mean())), float(times.sum())
    axes.axhline(mean, color=INK, ls=":", lw=1.4)
    axes.set(xlabel="pulse", ylabel="TR [ms]", title=f"Repetition times, mean {mean:.4g} ms, sum {total:.4g} s")
    axes.margins(x=0.02)
    axes.grid(axis="y")
    return figure

"""Curves: the loss, flip angles, echo amplitudes and signals by pulse."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from acqdesign.base.types import ArrayLike
from acqdesign.base.units import deg_from_rad, ms_from_s
from acqdesign.plot.style import COLOURS, INK, MARKERS, MUTED, curve_axes, looks, new_figure, shaped, styled


def _every(points: int) -> int:
    """How many points of a curve go to one marker."""
    return max(1, points // 16)


def _legend_above(axes: Axes, handles: Sequence[Any]) -> None:
    """A legend in one row over the curves, with room made for it."""
    low, high = axes.get_ylim()
    axes.set_ylim(low, high + 0.14 * (high - low))
    axes.legend(handles=handles, loc="upper center", ncols=len(handles), columnspacing=1.2)


@styled
def plot_loss(history: Mapping[str, ArrayLike], *, label: str = "loss") -> Figure:
    """The loss and its named terms by step.

    Args:
        history: `step`, `loss` and any further terms, each `(rows,)`, NaN where a term was not looked at; with
            `loss_on_all` where `loss` is that of a part of the scene: its ends are then what is marked and told.
        label: what the loss is, with its unit.
    """
    columns = {name: np.asarray(column, float) for name, column in history.items()}
    step, loss = columns.pop("step"), columns.pop("loss")
    judged = columns.pop("loss_on_all", loss)
    # A single term is the loss itself, and would lie under it.
    columns = {name: term for name, term in columns.items() if not np.array_equal(term, loss)}
    figure = new_figure(6.4, 4.0)
    axes = figure.subplots()
    for (name, term), look in zip(columns.items(), looks(["loss", *columns])[1:], strict=True):
        there = np.isfinite(term)
        marks: dict[str, Any] = {"marker": MARKERS[look], "ms": 4, "markevery": _every(int(there.sum()))}
        axes.plot(step[there], term[there], lw=1.4, color=COLOURS[look], label=name.replace("_", " "), **marks)
    axes.plot(step, loss, color=COLOURS[0], lw=2.4, label=label)
    if judged is not loss:
        columns["loss on all of it"] = judged
        axes.plot([], [], "o", color=COLOURS[0], ms=6, label="loss on all of it")
    values = np.concatenate([loss, *columns.values()])
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > 4 * values.min():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter(NullFormatter())
    # The first value stands on the side that the curve leaves, the last one behind its end.
    first: tuple[float, str] = (-8, "top") if judged[-1] > judged[0] else (8, "bottom")
    for x, y, offset, va in ((step[0], judged[0], (0, first[0]), first[1]), (step[-1], judged[-1], (8, 0), "center")):
        axes.plot(x, y, "o", color=COLOURS[0], ms=6)
        axes.annotate(f"{y:.3g}", (x, y), offset, textcoords="offset points", va=va, color=INK, fontsize="small")
    axes.set(xlabel="step", ylabel=label, title="Learning")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.margins(y=0.15)
    axes.grid(axis="y", which="major")
    if columns:
        figure.legend(loc="outside lower center", ncols=min(4, len(axes.lines)))
    return figure


@styled
def plot_flips(
    flips: ArrayLike, start: ArrayLike | None = None, *, beside: Mapping[str, ArrayLike] | None = None
) -> Figure:
    """Flip angles by pulse in degrees, with their root mean square.

    Args:
        flips: `(pulses,)` [rad].
        start: `flips` before learning.
        beside: `flips` of designs to compare with, by name.
    """
    figure = new_figure(6.8, 3.8)
    axes = figure.subplots()
    top = 0.0
    others = [(name, each, COLOURS[1 + n % 7], ":") for n, (name, each) in enumerate((beside or {}).items())]
    for name, angles, colour, dashes in (("start", start, MUTED, "--"), *others, ("flips", flips, COLOURS[0], "-")):
        if angles is not None:
            degrees = deg_from_rad(shaped(name, angles, (None,), "shape (pulses,)"))
            text = f"{'learned' if angles is flips else name}, RMS {np.sqrt(np.mean(degrees**2)):.0f}°"
            marker = "o" if degrees.size <= 128 else ""
            axes.plot(np.arange(1, degrees.size + 1), degrees, dashes, color=colour, label=text, marker=marker, ms=3.5)
            top = max(top, 1.06 * degrees.max())
    curve_axes(axes, xlabel="pulse", ylabel="flip angle [deg]", title="Flip angles", ylim=(0, top or 1.0))
    if beside:
        figure.legend(loc="outside lower center", ncols=4)
    else:
        _legend_above(axes, axes.lines)
    return figure


@styled
def plot_echoes(signals: ArrayLike, *, names: Sequence[str], esp_s: float, start: ArrayLike | None = None) -> Figure:
    """Echo amplitudes along the train by milliseconds, a tissue's own colour; dashed before learning.

    Args:
        signals: `(tissues, echoes)` amplitudes in units of M0; magnitudes are shown.
        names: a name for each tissue.
        esp_s: echo spacing [s].
        start: `signals` before learning.
    """
    after = np.abs(shaped("signals", signals, (len(names), None), f"shape (tissues={len(names)}, echoes)"))
    figure = new_figure(6.8, 4.0)
    axes = figure.subplots()
    curve_axes(axes, xlabel="echo time [ms]", ylabel="echo amplitude / $M_0$", title="Echo train")
    before = None if start is None else np.abs(np.asarray(start))
    _by_tissue(axes, ms_from_s(esp_s) * np.arange(1, after.shape[1] + 1), after, names, before)
    axes.set_ylim(0, None)
    return figure


@styled
def plot_fingerprints(signals: ArrayLike, *, names: Sequence[str], start: ArrayLike | None = None) -> Figure:
    """Signals by pulse, a tissue's own colour; dashed before learning.

    Args:
        signals: `(tissues, pulses)` in units of M0; real parts are shown of real signals, magnitudes of others.
        names: a name for each tissue.
        start: `signals` before learning.
    """
    after = shaped("signals", signals, (len(names), None), f"shape (tissues={len(names)}, pulses)")
    figure = new_figure(7.6, 4.0)
    axes = figure.subplots()
    curve_axes(axes, xlabel="pulse", ylabel="signal / $M_0$", title="Signal")
    given: tuple[Any, ...] = (after, start)
    after, before = (np.abs(s) if np.iscomplexobj(s) else s for s in given)
    _by_tissue(axes, np.arange(1, after.shape[1] + 1), after, names, before)
    return figure


def _by_tissue(axes: Axes, x: np.ndarray, after: np.ndarray, names: Sequence[str], before: Any) -> None:
    """A curve for each tissue, with its legend above; one more, dashed, where there is a `before`."""
    handles: list[Any] = []
    for index, (name, look) in enumerate(zip(names, looks(names), strict=True)):
        marks: dict[str, Any] = {"marker": MARKERS[look], "ms": 4.5, "markevery": _every(x.size)}
        handles += axes.plot(x, after[index], color=COLOURS[look], label=name, **marks)
        if before is not None:
            axes.plot(x, before[index], "--", color=COLOURS[look], lw=1.1, alpha=0.8)
    if before is not None:
        handles.append(Line2D([], [], ls="--", color=INK, lw=1.1, label="start"))
    _legend_above(axes, handles)


@styled
def plot_timing(timing: Mapping[str, ArrayLike]) -> Figure:
    """What a sequence plays when: pulses by their flips above, gradients by their orders below, in milliseconds.

    Args:
        timing: arrays as of `acqdesign.signal.timing`.
    """
    given = {name: np.asarray(times, float) for name, times in timing.items()}
    at = {name: ms_from_s(times) for name, times in given.items() if name not in ("flips", "orders")}
    dephases, degrees = given["orders"].size > 0, deg_from_rad(given["flips"])
    figure = new_figure(7.6, 4.4 if dephases else 3.2)
    rows = figure.subplots(1 + dephases, 1, sharex=True, squeeze=False, height_ratios=[3, 1][: 1 + dephases])[:, 0]
    top = rows[0]
    top.vlines(at["pulses"], 0, degrees, color=COLOURS[0], lw=1.2)
    marker: dict[str, Any] = {"ms": 4.5 if degrees.size <= 64 else 2.5, "clip_on": False, "ls": ""}
    top.plot(at["pulses"], degrees, "o", color=COLOURS[0], label="pulse", **marker)
    for name, height, colour, mark, label in (
        ("inversions", 180.0, COLOURS[1], "D", "adiabatic inversion"),
        ("spoilers", 0.0, MUTED, "x", "spoiling"),
        ("readouts", 0.0, COLOURS[2], "^", "readout"),
    ):
        if at[name].size:
            large = marker | ({} if name == "spoilers" else {"ms": 6.5, "zorder": 5})
            top.plot(at[name], np.full(at[name].size, height), mark, color=colour, label=label, **large)
    for n, (first, last) in enumerate(at["locks"]):
        top.axvspan(first, last, color=COLOURS[4], alpha=0.4, label="" if n else "spin lock")
    top.axhline(0, color=INK, lw=0.8)
    curve_axes(top, ylabel="flip angle [deg]", title="Timing")
    _legend_above(top, top.get_legend_handles_labels()[0])
    if dephases:
        for (first, last), order in zip(at["gradients"], given["orders"], strict=True):
            rows[1].fill_between([first, last], 0, order, color=COLOURS[3], lw=0)
        rows[1].axhline(0, color=INK, lw=0.8)
        curve_axes(rows[1], ylabel="orders")
        rows[1].yaxis.set_major_locator(MaxNLocator(3, integer=True))
    rows[-1].set_xlabel("time [ms]")
    return figure


@styled
def plot_times(tr_s: ArrayLike) -> Figure:
    """Repetition times by pulse in milliseconds, with their mean and sum.

    Args:
        tr_s: `(pulses,)` [s].
    """
    times = shaped("tr_s", tr_s, (None,), "shape (pulses,)").astype(float)
    figure = new_figure(6.8, 3.6)
    axes = figure.subplots()
    axes.step(np.arange(1, times.size + 1), ms_from_s(times), where="mid", color=COLOURS[0])
    mean, total = ms_from_s(float(times.mean())), float(times.sum())
    axes.axhline(mean, color=INK, ls=":", lw=1.4)
    curve_axes(axes, xlabel="pulse", ylabel="TR [ms]", title=f"Repetition times, mean {mean:.4g} ms, sum {total:.4g} s")
    return figure

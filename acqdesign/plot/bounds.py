"""What a train is worth: Cramér–Rao bounds by tissue and over T1, T2 and B1; power; signals by pulse."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jax.typing import ArrayLike
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from acqdesign.base.checks import usage_error
from acqdesign.base.units import deg_from_rad, ms_from_s
from acqdesign.plot.signals import every, legend_above
from acqdesign.plot.style import COLOURS, INK, MARKERS, MUTED, SEQUENCE_MAP, looks, new_figure, styled

_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


@styled
def plot_bounds(
    bounds: ArrayLike, *, names: Sequence[str], start: ArrayLike | None = None, label: str = "bound"
) -> Figure:
    """Bounds by tissue as bars, with how many times lower than before learning.

    Args:
        bounds: `(tissues,)` bounds on a variance, in any units; their square roots are drawn.
        names: a name for each tissue.
        start: `bounds` before learning.
        label: what the square root of a bound is, with its unit.

    Returns:
        The figure.
    """
    variance = _vector("bounds", bounds, len(names))
    before = None if start is None else _vector("start", start, len(names))
    figure = new_figure(max(4.2, 1.6 * len(names) + 2.0), 3.9)
    axes = figure.subplots()
    place = np.arange(len(names))
    width = 0.38 if before is not None else 0.6
    shift = 0.5 * width if before is not None else 0.0
    if before is not None:
        axes.bar(place - shift, np.sqrt(before), 0.94 * width, color=MUTED, label="start")
    axes.bar(place + shift, np.sqrt(variance), 0.94 * width, color=COLOURS[0], label="learned (÷ in variance)")
    labels = [(x + shift, np.sqrt(v), "") for x, v in zip(place, variance, strict=True)]
    if before is not None:
        shares = [f"\n(÷ {b / v:.2f})" for b, v in zip(before, variance, strict=True)]
        labels = [(x, y, share) for (x, y, _), share in zip(labels, shares, strict=True)]
        labels += [(x - shift, np.sqrt(b), "") for x, b in zip(place, before, strict=True)]
    for x, y, more in labels:
        axes.annotate(
            f"{y:.3g}{more}", (x, y), xytext=(0, 4), textcoords="offset points", ha="center", va="bottom",
            fontsize="small", color=INK,
        )  # fmt: skip
    axes.set_xticks(place, names)
    axes.set(ylabel=label, title="Cramér–Rao bound by tissue")
    axes.margins(y=0.22)
    axes.grid(axis="y")
    if before is not None:
        axes.legend()
    return figure


@styled
def plot_bound_map(
    t1_s: ArrayLike,
    t2_s: ArrayLike,
    b1: ArrayLike,
    bounds: ArrayLike,
    start: ArrayLike,
    *,
    tissues: Mapping[str, tuple[float, float]] | None = None,
    label: str = "bound",
) -> Figure:
    """Bounds over T1 and T2, one column a B1: above, after learning; below, how many times lower they became.

    Args:
        t1_s: `(n,)` longitudinal relaxation times [s], in geometric steps.
        t2_s: `(m,)` transverse relaxation times [s], likewise.
        b1: `(fields,)` relative transmit fields.
        bounds: `(fields, n, m)` bounds on a variance, in any units, NaN where there is none; their roots are drawn.
        start: `bounds` before learning.
        tissues: T1 and T2 [s] by name, to be marked.
        label: what the square root of a bound is, with its unit.

    Returns:
        The figure, in milliseconds.
    """
    t1, t2, fields = (np.asarray(x, float) for x in (t1_s, t2_s, b1))
    after, before = np.asarray(bounds, float), np.asarray(start, float)
    for name, given in (("bounds", after), ("start", before)):
        if given.shape != (fields.size, t1.size, t2.size):
            raise usage_error(name, given, f"shape {(fields.size, t1.size, t2.size)}: B1, T1 and T2")
    figure = new_figure(3.1 * fields.size + 1.7, 6.2)
    grid = figure.subplots(2, fields.size, sharex=True, sharey=True, squeeze=False)
    deviation, gain = np.sqrt(after), before / after
    shown: Any = None
    marked = tissues or {}
    seen = deviation[np.isfinite(deviation)]
    scale = LogNorm(seen.min(), np.quantile(seen, 0.98) * 1.01)
    span = 1.02 * max(1.5, float(np.nanquantile(np.abs(np.log(gain[np.isfinite(gain)])), 0.98)))
    shares = LogNorm(np.exp(-span), np.exp(span))
    rows: list[Any] = []
    for row, (values, norm, colours) in enumerate(((deviation, scale, SEQUENCE_MAP), (gain, shares, "RdBu"))):
        for column, axes in enumerate(grid[row]):
            shown = axes.pcolormesh(
                ms_from_s(t2), ms_from_s(t1), values[column], norm=norm, cmap=colours, shading="nearest"
            )
            axes.set(xscale="log", yscale="log")
            if row == 1:
                _label_gains(axes, ms_from_s(t2), ms_from_s(t1), values[column])
            for look, (name, (t1_of, t2_of)) in zip(looks([*marked]), marked.items(), strict=True):
                axes.plot(
                    ms_from_s(t2_of), ms_from_s(t1_of), MARKERS[look], ms=8, mec="white", color=COLOURS[look],
                    label=name, ls="", clip_on=False,
                )  # fmt: skip
            axes.set_title(f"B1 {fields[column]:g}" + (", learned" if row == 0 else ", gain"), fontsize="medium")
        rows.append(shown)
    for axes in grid.flat:
        for axis, ends in ((axes.xaxis, t2), (axes.yaxis, t1)):
            axis.set_major_formatter(_PLAIN)
            axis.set_ticks(_round_ticks(ms_from_s(ends.min()), ms_from_s(ends.max())))
            axis.set_minor_locator(NullLocator())
    for axes in grid[1]:
        axes.set_xlabel("T2 [ms]")
    for axes in grid[:, 0]:
        axes.set_ylabel("T1 [ms]")
    bar = figure.colorbar(rows[0], ax=list(grid[0]), pad=0.015, label=label)
    ticks = _round_ticks(scale.vmin or 0.0, scale.vmax or 1.0)
    bar.set_ticks(ticks, labels=[f"{t:g}" for t in ticks])
    bar.minorticks_off()
    bar = figure.colorbar(rows[1], ax=list(grid[1]), pad=0.015, label="variance, start / learned")
    ticks = [t for t in (0.1, 0.25, 0.5, 1, 2, 4, 10, 25) if np.exp(-span) <= t <= np.exp(span)]
    bar.set_ticks(ticks, labels=[f"{t:g}" for t in ticks])
    bar.minorticks_off()
    if marked:
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def _label_gains(axes: Axes, x: np.ndarray, y: np.ndarray, gain: np.ndarray) -> None:
    """Lines of equal gain with their values: a map of two colours says nothing in grey."""
    held = np.ma.masked_invalid(gain)
    levels = [v for v in (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 10, 25) if held.min() < v < held.max()]
    if levels:
        lines = axes.contour(x, y, held, levels=levels, colors=INK, linewidths=0.8)
        axes.clabel(lines, fmt="%g", fontsize="x-small")


def _round_ticks(low: float, high: float) -> list[float]:
    """Three to five round numbers within a range: 1 and 3 of each decade where it is long, more where it is short."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = [[tenths / 10 for tenths in range(10, 100, step)] for step in (5, 2, 1)]
    for digits in ((1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), *fine):
        ticks = [s * 10.0**d for d in decades for s in digits if low <= s * 10.0**d <= high]
        if len(ticks) >= 3:
            break
    return ticks


@styled
def plot_power(flips: ArrayLike, start: ArrayLike | None = None, *, limit: float | None = None) -> Figure:
    """Power of each pulse relative to a 180° pulse, and what has been deposited up to it.

    Args:
        flips: `(pulses,)` [rad].
        start: `flips` before learning.
        limit: largest root mean square [rad], drawn as the power that the train may deposit.

    Returns:
        The figure.
    """
    trains = [("start", start, MUTED, "--"), ("learned", flips, COLOURS[0], "-")]
    figure = new_figure(9.2, 3.6)
    each, total = figure.subplots(1, 2)
    pulses = np.asarray(flips).size
    for name, angles, colour, dashes in trains:
        if angles is None:
            continue
        power = (_vector("flips" if name == "learned" else "start", angles, pulses) / np.pi) ** 2
        count = np.arange(1, pulses + 1)
        rms = deg_from_rad(np.pi * np.sqrt(power.mean()))
        each.step(count, power, where="mid", ls=dashes, color=colour)
        total.plot(count, np.cumsum(power), dashes, color=colour, label=f"{name}, RMS {rms:.1f}°")
    if limit is not None:
        allowed = pulses * (limit / np.pi) ** 2
        total.axhline(allowed, color=INK, ls=":", lw=1.4, label=f"limit, RMS {deg_from_rad(limit):.1f}°")
    each.set(xlabel="pulse", ylabel="(flip / 180°)²", title="Power by pulse", ylim=(0, None))
    total.set(xlabel="pulse", ylabel="Σ (flip / 180°)²", title="Power deposited (SAR)", ylim=(0, None))
    for axes in (each, total):
        axes.margins(x=0.02)
        axes.grid(axis="y")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    total.legend(loc="lower right")
    return figure


@styled
def plot_fingerprints(signals: ArrayLike, *, names: Sequence[str], start: ArrayLike | None = None) -> Figure:
    """Signals by pulse, a tissue's own colour; dashed before learning.

    Args:
        signals: `(tissues, pulses)` in units of M0; real parts are shown of real signals, magnitudes of others.
        names: a name for each tissue.
        start: `signals` before learning.

    Returns:
        The figure.
    """
    after = _shown(signals)
    if after.ndim != 2 or after.shape[0] != len(names):
        raise usage_error("signals", after, f"shape (tissues={len(names)}, pulses)")
    figure = new_figure(7.6, 4.0)
    axes = figure.subplots()
    pulse = np.arange(1, after.shape[1] + 1)
    for index, (name, look) in enumerate(zip(names, looks(names), strict=True)):
        colour = COLOURS[look]
        axes.plot(
            pulse, after[index], color=colour, label=name,
            marker=MARKERS[look], ms=4.5, markevery=every(pulse.size),
        )  # fmt: skip
        if start is not None:
            axes.plot(pulse, _shown(start)[index], "--", color=colour, lw=1.0, alpha=0.7)
    handles, _ = axes.get_legend_handles_labels()
    if start is not None:
        handles = [*handles, Line2D([], [], ls="--", color=INK, lw=1.0, label="start")]
    axes.set(xlabel="pulse", ylabel="signal / $M_0$", title="Signal")
    axes.margins(x=0.02)
    legend_above(axes, handles)
    axes.grid(axis="y")
    return figure


def _shown(signals: ArrayLike) -> np.ndarray:
    array = np.asarray(signals)
    return np.abs(array) if np.iscomplexobj(array) else array


def _vector(name: str, values: ArrayLike, size: int) -> np.ndarray:
    array = np.asarray(values, float)
    if array.shape != (size,):
        raise usage_error(name, array, f"shape ({size},)")
    return array

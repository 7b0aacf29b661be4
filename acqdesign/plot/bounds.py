"""What a train is worth: Cramér–Rao bounds by tissue and over T1, T2 and B1; and its power."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from acqdesign.base.types import ArrayLike
from acqdesign.base.units import deg_from_rad, ms_from_s
from acqdesign.plot.style import (
    COLOURS,
    INK,
    MARKERS,
    MUTED,
    SEQUENCE_MAP,
    curve_axes,
    looks,
    new_figure,
    shaped,
    styled,
)


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
    """
    size = (len(names),)
    variance = shaped("bounds", bounds, size)
    trains = [("learned (÷ in variance)", variance, COLOURS[0], [""] * len(names))]
    if start is not None:
        before = shaped("start", start, size)
        shares = [f"\n(÷ {b / v:.2f})" for b, v in zip(before, variance, strict=True)]
        trains = [("start", before, MUTED, [""] * len(names)), (*trains[0][:3], shares)]
    figure = new_figure(max(4.2, 1.6 * len(names) + 2.0), 3.9)
    axes = figure.subplots()
    width = 0.6 if start is None else 0.38
    for index, (name, values, colour, more) in enumerate(trains):
        place = np.arange(len(names)) + (index - 0.5 * (len(trains) - 1)) * width
        bars = axes.bar(place, np.sqrt(values), 0.94 * width, color=colour, label=name)
        texts = [f"{y:.3g}{text}" for y, text in zip(np.sqrt(values), more, strict=True)]
        axes.bar_label(bars, texts, padding=4, fontsize="small", color=INK)
    axes.set_xticks(np.arange(len(names)), names)
    axes.set(ylabel=label, title="Cramér–Rao bound by tissue")
    axes.margins(y=0.22)
    axes.grid(axis="y")
    if start is not None:
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
    """
    t1, t2, fields = (np.asarray(x, float) for x in (t1_s, t2_s, b1))
    shape = (fields.size, t1.size, t2.size)
    after, before = (
        shaped(name, given, shape, f"shape {shape}: B1, T1 and T2").astype(float)
        for name, given in (("bounds", bounds), ("start", start))
    )
    x, y = ms_from_s(t2), ms_from_s(t1)
    figure = new_figure(3.1 * fields.size + 1.7, 6.2)
    grid = figure.subplots(2, fields.size, sharex=True, sharey=True, squeeze=False)
    deviation, gain = np.sqrt(after), before / after
    marked = tissues or {}
    seen = deviation[np.isfinite(deviation)]
    low, high = seen.min(), np.quantile(seen, 0.98) * 1.01
    span = 1.02 * max(1.5, float(np.nanquantile(np.abs(np.log(gain[np.isfinite(gain)])), 0.98)))
    shares = [t for t in (0.1, 0.25, 0.5, 1, 2, 4, 10, 25) if np.exp(-span) <= t <= np.exp(span)]
    rows: Any = (
        (deviation, LogNorm(low, high), SEQUENCE_MAP, "learned", label, round_ticks(low, high)),
        (gain, LogNorm(np.exp(-span), np.exp(span)), "RdBu", "gain", "variance, start / learned", shares),
    )
    for row, (values, norm, colours, title, text, ticks) in zip(grid, rows, strict=True):
        for axes, field, picture in zip(row, fields, values, strict=True):
            shown = axes.pcolormesh(x, y, picture, norm=norm, cmap=colours, shading="nearest")
            axes.set(xscale="log", yscale="log")
            axes.set_title(f"B1 {field:g}, {title}", fontsize="medium")
            if values is gain:
                # Lines of equal gain with their values: a map of two colours says nothing in grey.
                held = np.ma.masked_invalid(picture)
                levels = [v for v in (0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 4, 6, 10, 25) if held.min() < v < held.max()]
                if levels:
                    lines = axes.contour(x, y, held, levels=levels, colors=INK, linewidths=0.8)
                    axes.clabel(lines, fmt="%g", fontsize="x-small")
            for look, (name, (t1_of, t2_of)) in zip(looks([*marked]), marked.items(), strict=True):
                mark: Any = {"ms": 8, "mec": "white", "color": COLOURS[look], "ls": "", "clip_on": False}
                axes.plot(ms_from_s(t2_of), ms_from_s(t1_of), MARKERS[look], label=name, **mark)
            for axis, ends in ((axes.xaxis, x), (axes.yaxis, y)):
                axis.set_major_formatter("{x:g}")
                axis.set_ticks(round_ticks(ends.min(), ends.max()))
                axis.set_minor_locator(NullLocator())
        row[0].set_ylabel("T1 [ms]")
        figure.colorbar(shown, ax=list(row), pad=0.015, label=text, ticks=ticks, format="{x:g}").minorticks_off()
    for axes in grid[1]:
        axes.set_xlabel("T2 [ms]")
    if marked:
        handles, names = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    return figure


def round_ticks(low: float, high: float) -> list[float]:
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
    """
    figure = new_figure(9.2, 3.6)
    each, total = figure.subplots(1, 2)
    pulses = np.asarray(flips).size
    trains = (("start", "start", start, MUTED, "--"), ("flips", "learned", flips, COLOURS[0], "-"))
    for name, said, angles, colour, dashes in trains:
        if angles is not None:
            power = (shaped(name, angles, (pulses,)) / np.pi) ** 2
            count = np.arange(1, pulses + 1)
            rms = 180 * np.sqrt(power.mean())
            each.step(count, power, where="mid", ls=dashes, color=colour)
            total.plot(count, np.cumsum(power), dashes, color=colour, label=f"{said}, RMS {rms:.1f}°")
    if limit is not None:
        allowed = pulses * (limit / np.pi) ** 2
        total.axhline(allowed, color=INK, ls=":", lw=1.4, label=f"limit, RMS {deg_from_rad(limit):.1f}°")
    curve_axes(each, xlabel="pulse", ylabel="(flip / 180°)²", title="Power by pulse", ylim=(0, None))
    curve_axes(total, xlabel="pulse", ylabel="Σ (flip / 180°)²", title="Power deposited (SAR)", ylim=(0, None))
    for axes in (each, total):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    total.legend(loc="lower right")
    return figure

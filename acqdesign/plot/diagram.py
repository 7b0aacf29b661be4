"""The pulse diagram of a played sequence."""

from collections.abc import Mapping

import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from acqdesign.base.units import ms_from_s
from acqdesign.plot.style import COLOURS, INK, curve_axes, new_figure, styled


@styled
def plot_diagram(diagram: Mapping[str, ArrayLike]) -> Figure:
    """RF, gradients and readouts over time, a row each, with one scale for all gradients.

    Args:
        diagram: `rf` `(2, n)`, times [s] and sizes of B1 [T]; `x`, `y` and `z` likewise of gradients [T/m]; and `adc`
            `(k, 2)`, from when to when each readout lasts [s].
    """
    given = {name: np.asarray(values, float) for name, values in diagram.items()}
    figure = new_figure(9.6, 5.0)
    rows = figure.subplots(5, 1, sharex=True, height_ratios=[2, 2, 2, 2, 0.8])
    most = 1.15 * max(1e-6, *(np.abs(given[axis][1]).max(initial=0.0) for axis in "xyz"))
    curves = [("rf", "RF [µT]", 1e6), *((axis, f"G{axis} [mT/m]", 1e3) for axis in "xyz")]
    for axes, (name, label, unit), colour in zip(rows, curves, COLOURS, strict=False):
        times, values = given[name]
        axes.fill_between(ms_from_s(times), 0, unit * values, color=colour, alpha=0.25, lw=0)
        axes.plot(ms_from_s(times), unit * values, color=colour, lw=1.1)
        axes.axhline(0, color=INK, lw=0.8)
        curve_axes(axes, ylabel=label)
        axes.set_ylim(
            *((-unit * most, unit * most) if name != "rf" else (0, 1.15e6 * max(1e-9, values.max(initial=0.0))))
        )
    for first, last in given["adc"]:
        rows[-1].axvspan(*map(ms_from_s, (first, last)), color=COLOURS[4 % len(COLOURS)], lw=0)
    curve_axes(rows[-1], ylabel="ADC", xlabel="time [ms]")
    rows[-1].set_yticks([])
    figure.align_ylabels(rows)
    return figure

"""What the gradients play, beside what they may."""

import numpy as np
from jax.typing import ArrayLike
from matplotlib.figure import Figure

from acqdesign.base.units import ms_from_s
from acqdesign.plot.style import COLOURS, INK, MUTED, curve_axes, new_figure, shaped, styled


@styled
def plot_waveforms(
    gradient: ArrayLike, slew: ArrayLike, *, dwell: float, gradient_limit: float, slew_limit: float, readout: int = 0
) -> Figure:
    """Gradients and slews of one readout over time, and the vector sums of all readouts against their limits.

    Args:
        gradient: `(readouts, samples + 1, D)` [T/m], before, between and after samples.
        slew: `(readouts, samples, D)` [T/m/s], at samples.
        dwell: time between samples [s].
        gradient_limit: [T/m].
        slew_limit: [T/m/s].
        readout: which one is shown.
    """
    wanted = "shape (readouts, times, D)"
    figure = new_figure(10.4, 5.6)
    panels = figure.subplots(2, 2, sharex=True)
    both = (("gradient", gradient, gradient_limit, 1e3, "mT/m"), ("slew", slew, slew_limit, 1.0, "T/m/s"))
    for row, (name, values, limit, unit, label) in zip(panels, both, strict=True):
        curves = shaped(name, values, (None, None, None), wanted) * unit
        time = ms_from_s(dwell * (np.arange(curves.shape[1]) - 0.5 * (name == "gradient")))
        axes, names = row[0], "xyz" if curves.shape[2] == 3 else "12"
        for axis, colour in zip(range(curves.shape[2]), COLOURS, strict=False):
            axes.plot(time, curves[readout, :, axis], color=colour, lw=1.3, label=f"axis {names[axis]}")
        lengths = np.linalg.norm(curves, axis=2)
        row[1].fill_between(time, lengths.min(0), lengths.max(0), color=MUTED, alpha=0.4, lw=0, label="all readouts")
        row[1].plot(time, lengths[readout], color=COLOURS[0], lw=1.3, label=f"readout {readout + 1}")
        row[1].axhline(limit * unit, color=INK, ls="--", lw=1.2, label="limit")
        curve_axes(axes, ylabel=f"{name} [{label}]", title=f"{name.capitalize()}s of readout {readout + 1}")
        curve_axes(row[1], ylabel=f"|{name}| [{label}]", title="Vector sum")
        row[1].set_ylim(0, 1.15 * max(limit * unit, float(lengths.max())))
    for axes in panels[1]:
        axes.set_xlabel("time [ms]")
    for axes in panels[0]:
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.16 * (high - low))
        axes.legend(fontsize="small", loc="upper center", ncols=3)
    return figure

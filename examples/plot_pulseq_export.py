r"""
Export to Pulseq, and check it
==============================

A design leaves as a Pulseq file that a scanner's interpreter plays: a 3D fast spin echo where it has echo trains,

.. math:: k_y = \frac{\gamma}{2\pi} \int G_y \, dt \cdot \Delta y \quad \text{within every echo spacing},

wound before each readout and rewound after it, or else a spoiled gradient echo. Export obeys the limits of a named
scanner, predicts nerve stimulation, reads the file back and compares it with the design before the file takes its name.
This needs ``pip install ".[pulseq]"``. From a run's folder it is ``python -m acqdesign.export RUN --to seq``.
"""

# %%
# Set-up: a design as ``design.npz`` holds it
# -------------------------------------------
# Learned designs are read with ``acqdesign.read_design("runs/…/design.npz")``; here lines are put together by hand:
# 256 lines in 8 trains of 32 echoes with their centre at the effective echo time.
import tempfile
from pathlib import Path

import jax
import matplotlib.figure
import numpy as np

from acqdesign.base.units import GAMMA_HZ_PER_T, deg_from_rad, rad_from_deg
from acqdesign.encoding import initial_lines, order_views
from acqdesign.export import PulseqOptions, read_pulseq, write_pulseq
from acqdesign.plot import plot_lines
from acqdesign.plot.style import COLOURS
from acqdesign.scene.scanner import system_limits

SHAPE, LINES, ECHOES, ESP = (64, 48, 40), 256, 32, 6e-3  # [s]
begun = initial_lines("poisson", SHAPE, lines=LINES, calibration=8, shutter=True, key=jax.random.key(0))
views = order_views("centre-out", begun.points, ECHOES, te_echo=0, key=jax.random.key(1))
design = {
    "points": begun.points,
    "samples_per_line": 64,
    "readout": (np.arange(64) - 32) / 64,
    "shape": SHAPE,
    "fov_m": (0.192, 0.192, 0.160),
    "train": views.train,
    "echo": views.echo,
    "flips_rad": np.linspace(rad_from_deg(120.0), rad_from_deg(60.0), ECHOES),
    "phases_rad": np.zeros(ECHOES),
    "excitation_rad": rad_from_deg(90.0),
    "esp_s": ESP,
}

# %%
# Write it
# --------
path = Path(tempfile.mkdtemp()) / "scan.seq"
report = write_pulseq(path, design, PulseqOptions(system=system_limits("generic"), tr_s=1.0))
print(f"{path.stat().st_size / 1e6:.2f} MB, {report.duration_s:.0f} s of scan")
print(f"gradient {1e3 * report.max_gradient_t_per_m:.1f} mT/m, slew {report.max_slew_t_per_m_s:.0f} T/m/s")
print(f"B1 {1e6 * report.peak_b1_t:.1f} µT, predicted stimulation {report.pns:.2f} of the limit")

# %%
# Check it: positions and flips as the file plays them
# ----------------------------------------------------
# Lines come back in the order of playing; each is found again by its train and echo.
played = read_pulseq(path)
wanted = np.lexsort((np.asarray(views.echo), np.asarray(views.train)))
found = np.lexsort((played["echo"], played["train"]))
off = np.abs(played["points"][found] - np.asarray(begun.points)[wanted]).max()
turned = np.abs(played["flips_rad"] - design["flips_rad"]).max()
print(
    f"{len(found)} lines, at most {off:.1e} cycles/voxel off; flips at most {deg_from_rad(turned):.1e}° off"
)
assert off < 1e-4

figure = plot_lines(played["points"], echo=played["echo"], title=f"{LINES} lines, as the file plays them")
figure

# %%
# Two late echoes, as pypulseq sees them
# --------------------------------------
# They lie at the edge of k-space: each is wound before its readout and rewound after it.
import pypulseq

sequence = pypulseq.Sequence()
sequence.read(str(path))
waves = sequence.waveforms_and_times()[0][:3]
excited = float(sequence.rf_times()[0][1])  # the second excitation: the first is a dummy train's
figure = matplotlib.figure.Figure(figsize=(7.6, 3.8), layout="constrained")
axes = figure.subplots()
for wave, name, colour, dashes in zip(waves, "xyz", COLOURS, ("-", "--", "-."), strict=False):
    played_t_per_m = wave[1] / GAMMA_HZ_PER_T
    axes.plot(1e3 * (wave[0] - excited), 1e3 * played_t_per_m, dashes, color=colour, lw=1.8, label=f"G{name}")
first = 1e3 * (ECHOES - 3) * ESP
axes.set(
    xlim=(first, first + 2.5e3 * ESP),
    ylim=(-5, 9),
    xlabel="time after the excitation [ms]",
    ylabel="gradient [mT/m]",
)
axes.grid(axis="y", alpha=0.4)
axes.legend(frameon=False)
figure

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
# Learned designs are read with ``read_design("runs/…")``; this one is put together by hand: 256 lines in 8 trains of 32
# echoes, the centre of k-space at the first. Line ``s`` comes at echo ``s % 32`` of train ``s // 32``.
import tempfile
from pathlib import Path

import jax
import numpy as np

from acqdesign.base.units import GAMMA_HZ_PER_T, deg_from_rad, rad_from_deg
from acqdesign.design import Design
from acqdesign.encoding import Lines
from acqdesign.export import Pulseq, PulseqOptions, read_design, write_design
from acqdesign.plot import new_figure, plot_lines
from acqdesign.plot.style import COLOURS
from acqdesign.scene import brain, system_limits
from acqdesign.signal import FSE

LINES, ECHOES, ESP = 256, 32, 6e-3  # [s]
scene = brain((64, 48, 40), fov=(0.192, 0.192, 0.160))
lines = Lines.poisson(scene, lines=LINES, calibration=8)
lines = lines.ordered("centre-out", ECHOES, te_echo=0, key=jax.random.key(1))
train = FSE(np.linspace(rad_from_deg(120.0), rad_from_deg(60.0), ECHOES), ESP, tr=1.0)
place = np.arange(LINES)
design = Design(lines, train).entries()
design |= {"shape": scene.shape, "fov_m": scene.fov, "train": place // ECHOES, "echo": place % ECHOES}
print("entries:", ", ".join(design))

# %%
# Write it
# --------
path = Path(tempfile.mkdtemp()) / "scan.seq"
report = write_design(path, design, Pulseq(PulseqOptions(system=system_limits("generic"))))
print(f"{path.stat().st_size / 1e6:.2f} MB")
print("\n".join(report.lines()))

# %%
# Check it: positions and flips as the file plays them
# ----------------------------------------------------
# Lines come back in the order of playing; each is found again by its train and echo.
played = read_design(path)
found = np.lexsort((played["echo"], played["train"]))
off = np.abs(played["points"][found] - np.asarray(lines.points)).max()
turned = np.abs(played["flips_rad"] - np.asarray(train.flips)).max()
print(f"{len(found)} lines, at most {off:.1e} cycles/voxel off; flips at most {deg_from_rad(turned):.1e}° off")
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
figure = new_figure(7.6, 3.8)
axes = figure.subplots()
for wave, name, colour, dashes in zip(waves, "xyz", COLOURS, ("-", "--", "-."), strict=False):
    played_t_per_m = wave[1] / GAMMA_HZ_PER_T
    axes.plot(1e3 * (wave[0] - excited), 1e3 * played_t_per_m, dashes, color=colour, lw=1.8, label=f"G{name}")
first = 1e3 * (ECHOES - 3) * ESP
axes.set(
    xlim=(first, first + 2.5e3 * ESP), ylim=(-5, 9), xlabel="time after the excitation [ms]", ylabel="gradient [mT/m]"
)
axes.grid(axis="y", alpha=0.4)
axes.legend(frameon=False)
figure

r"""
Design a fingerprinting schedule
================================

A fingerprinting scan changes its flip angle from pulse to pulse; the signal of each tissue is matched to a dictionary.
How well T1 and T2 can be told apart is known before anything is scanned: this example minimises the sum of their
relative Cramér–Rao bounds, averaged over grey and white matter,

.. math:: \min_\alpha \; \frac{1}{2} \sum_{\text{tissues}} \Big(
          \frac{\operatorname{var}(T_1)}{T_1^2} + \frac{\operatorname{var}(T_2)}{T_2^2} \Big)
          \quad\text{subject to}\quad 0 \le \alpha_n \le 70°, \quad |\alpha_{n+1} - \alpha_n| \le 1°,

for an inversion-prepared, spoiled train. Small steps keep the train close to a steady state, and matching robust.
``python -m acqdesign.learn_flips --sequence mrf`` does the same from the command line, from several starts.
"""

# %%
# Set-up: an inversion, then 200 pulses 10 ms apart
# -------------------------------------------------
# The start is one hump from 10° to 60°, as in the first fingerprinting scans (Ma et al., Nature 495, 2013).
import os

import jax.numpy as jnp

from acqdesign.base.units import rad_from_deg
from acqdesign.design import Problem, bound, learn
from acqdesign.optim import Limits, lbfgs
from acqdesign.plot import plot_bounds, plot_fingerprints, plot_flips
from acqdesign.scene import tissues
from acqdesign.signal import SSFPFID, relative_bounds

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
PULSES, TR, TE, TI = 200, 10e-3, 2e-3, 20e-3  # [s]

tissue = tissues("gm", "wm")
hump = rad_from_deg(10.0) + rad_from_deg(50.0) * jnp.sin(jnp.pi * jnp.arange(PULSES) / PULSES)
problem = Problem(
    tissue,
    sequence=SSFPFID(hump, TR, TE, inversion_time=TI),
    terms=bound("t1", "t2"),
    limits=[Limits(upper=rad_from_deg(70.0), step=rad_from_deg(1.0))],
)

# %%
# Solve
# -----
# L-BFGS that keeps to the limits takes far fewer steps than Adam where the loss has no noise.
result, design, starts = learn(problem, STEPS, optimizer=lbfgs())
learned, start = design.sequence, starts[0].sequence

before, after = (relative_bounds(sequence, tissue, ("t1", "t2")) for sequence in (start, learned))
for name, b, a in zip(tissue.names, before, after, strict=True):
    print(f"{name}: bound {float(b):.2f} -> {float(a):.2f}, {float(b / a):.2f} times lower in variance")

# %%
# Show: the flips
# ---------------
figure = plot_flips(learned.flips, start=start.flips)
figure

# %%
# The bounds
# ----------
# For noise of 1 % of M0 the root of a relative bound is a standard deviation in percent, T1 and T2 taken together.
figure = plot_bounds(after, names=tissue.names, start=before, label="σ / T [%], noise 1 % of $M_0$")
figure

# %%
# The fingerprints
# ----------------
figure = plot_fingerprints(learned.signal(tissue), names=tissue.names, start=start.signal(tissue))
figure

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
import os

import jax
import jax.numpy as jnp

from acqdesign.base.units import rad_from_deg
from acqdesign.design import BoundObjective, Schedule
from acqdesign.optim import ScheduleLimits, fit, make_optimizer, schedule_projection
from acqdesign.plot import plot_bounds, plot_fingerprints, plot_flips
from acqdesign.scene import tissues

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
PULSES, TR, TE, TI = 200, 10e-3, 2e-3, 20e-3  # [s]

table = tissues("gm,wm", "3T")
names = tuple(tissue.name for tissue in table)
t1, t2 = jnp.array([t.t1_s for t in table]), jnp.array([t.t2_s for t in table])
schedule = Schedule("mrf", tr=TR, te=TE, ti=TI)
objective = BoundObjective(schedule, t1, t2, target="t1t2", names=names)
limits = ScheduleLimits(0.0, rad_from_deg(70.0), step=rad_from_deg(1.0))
project = schedule_projection(limits, PULSES)

# %%
# Solve, from the usual sinusoid
# ------------------------------
# The start is one hump from 10° to 60°, as in the first fingerprinting scans (Ma et al., Nature 495, 2013). L-BFGS with
# the projection takes far fewer steps than Adam where the loss has no noise.
hump = jnp.abs(jnp.sin(jnp.pi * jnp.arange(PULSES) / PULSES))
start = project(rad_from_deg(10.0) + rad_from_deg(50.0) * hump)
result = fit(
    objective,
    {"flips": start},
    optimizer=make_optimizer("lbfgs", steps=STEPS),
    steps=STEPS,
    key=jax.random.key(0),
    project=lambda params: {"flips": project(params["flips"])},
    progress=False,
)
flips = jnp.asarray(result.params["flips"])
before, after = (objective.bounds({"flips": f})[0] for f in (start, flips))
for name, b, a in zip(names, before, after, strict=True):
    print(f"{name}: bound {float(b):.2f} -> {float(a):.2f}, {float(b / a):.2f} times lower in variance")

# %%
# Show: the flips
# ---------------
figure = plot_flips(flips, start=start)
figure

# %%
# The bounds
# ----------
# For noise of 1 % of M0 the root of a relative bound is a standard deviation in percent, T1 and T2 taken together.
figure = plot_bounds(after, names=names, start=before, label="σ / T [%], noise 1 % of $M_0$")
figure

# %%
# The fingerprints
# ----------------
signals = [schedule.signal({"flips": f}, t1, t2, jnp.ones(())) for f in (flips, start)]
figure = plot_fingerprints(signals[0], names=names, start=signals[1])
figure

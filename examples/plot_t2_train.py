r"""
Learn an echo train that measures T2
====================================

At a fixed power, which refocusing flips tell T2 best? This example minimises the Cramér–Rao bound of T2 over the flips
of a fast-spin-echo train in its steady state, with the complex :math:`M_0` unknown and the RMS flip held at 60°,

.. math:: \min_\alpha \frac{\operatorname{var}(T_2)}{T_2^2}
          \quad\text{subject to}\quad \sqrt{\textstyle\sum_n \alpha_n^2 / N} \le 60°, \quad 0 \le \alpha_n \le 180°.

``python -m acqdesign.learn_flips`` does the same from the command line, from several starts.
"""

# %%
# Set-up: 32 echoes 10 ms apart, a train a second, T1/T2 of 1000/100 ms
# ---------------------------------------------------------------------
import os

import jax
import jax.numpy as jnp

from acqdesign.base.units import rad_from_deg
from acqdesign.design import BoundObjective, Schedule
from acqdesign.optim import ScheduleLimits, fit, make_optimizer, schedule_projection
from acqdesign.plot import plot_echoes, plot_flips, plot_loss

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "80"))
ECHOES, ESP, TR, T1, T2 = 32, 10e-3, 1.0, 1.0, 0.1  # [s]

schedule = Schedule("fse", tr=TR, esp=ESP)
objective = BoundObjective(schedule, [T1], [T2])
limits = ScheduleLimits(0.0, rad_from_deg(180.0), rms=rad_from_deg(60.0))
project = schedule_projection(limits, ECHOES)
constant = jnp.full(ECHOES, rad_from_deg(60.0))

# %%
# Solve, from two starts
# ----------------------
# The landscape has many minima. A train of strong pulses with weak ones between them stores magnetisation along z, and
# is a start that smooth trains do not find; both are learned side by side, and the better one is kept. L-BFGS with the
# projection suits a loss without noise.
comb = jnp.where(jnp.arange(ECHOES) % 4 == 0, 2.0, 0.5) * constant
result = fit(
    objective,
    {"flips": jnp.stack([constant, comb])},
    optimizer=make_optimizer("lbfgs", steps=STEPS),
    steps=STEPS,
    key=jax.random.key(0),
    project=lambda params: {"flips": project(params["flips"])},
    starts=2,
    progress=False,
)
flips = jnp.asarray(result.params["flips"])
before = float(objective.bounds({"flips": constant})[0, 0])
after = float(objective.bounds({"flips": flips})[0, 0])
print(f"relative bound of T2: {before:.3f} -> {after:.3f}, {before / after:.2f} times lower in variance")
print(f"best loss of each start: {result.start_losses}")

# %%
# Show: the flips
# ---------------
figure = plot_flips(flips, start=constant)
figure

# %%
# The echoes
# ----------
signals = [schedule.signal({"flips": f}, T1, T2, 1.0) for f in (flips, constant)]
figure = plot_echoes(jnp.stack(signals), names=("learned", "constant"), esp_s=ESP)
figure

# %%
# The bound as it fell
# --------------------
figure = plot_loss(result.history, label="relative bound of T2")
figure

r"""
Learn an echo train that measures T2
====================================

At a fixed power, which refocusing flips tell T2 best? This example minimises the Cramér–Rao bound of T2 over the flips
of a fast-spin-echo train in its steady state, with the complex :math:`M_0` unknown and the RMS flip at most 60°,

.. math:: \min_\alpha \frac{\operatorname{var}(T_2)}{T_2^2}
          \quad\text{subject to}\quad \sqrt{\textstyle\sum_n \alpha_n^2 / N} \le 60°, \quad 0 \le \alpha_n \le 180°.

``python -m acqdesign.learn_flips`` does the same from the command line, from several starts.
"""

# %%
# Set-up: 32 echoes 10 ms apart, a train a second, T1/T2 of 1000/100 ms
# ---------------------------------------------------------------------
import os

import jax.numpy as jnp

from acqdesign.base.units import rad_from_deg
from acqdesign.design import Design, Problem, bound, learn
from acqdesign.optim import Limits, lbfgs
from acqdesign.plot import plot_echoes, plot_flips, plot_loss
from acqdesign.scene import Tissue
from acqdesign.signal import FSE, relative_bounds

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "80"))
ECHOES, ESP, TR = 32, 10e-3, 1.0  # [s]

tissue = Tissue(t1=1.0, t2=0.1)
constant = FSE(jnp.full(ECHOES, rad_from_deg(60.0)), ESP, tr=TR)
problem = Problem(tissue, sequence=constant, terms=bound("t2"), limits=[Limits(rms=rad_from_deg(60.0))])

# %%
# Solve, from two starts
# ----------------------
# The landscape has many minima. A train of strong pulses with weak ones between them stores magnetisation along z, and
# is a start that smooth trains do not find; both are learned side by side, and the better one is kept. L-BFGS that
# keeps to the limits suits a loss without noise.
comb = FSE(jnp.where(jnp.arange(ECHOES) % 4 == 0, 2.0, 0.5) * constant.flips, ESP, tr=TR)
starts = [Design(None, constant), Design(None, comb)]
result, design, _ = learn(problem, STEPS, optimizer=lbfgs(), starts=starts)

learned = design.sequence
before, after = (float(relative_bounds(train, tissue, ("t2",))) for train in (constant, learned))
print(f"relative bound of T2: {before:.3f} -> {after:.3f}, {before / after:.2f} times lower in variance")
print(f"best loss of each start: {result.start_losses}")

# %%
# Show: the flips
# ---------------
figure = plot_flips(learned.flips, start=constant.flips)
figure

# %%
# The echoes
# ----------
signals = jnp.stack([train.signal(tissue) for train in (learned, constant)])
figure = plot_echoes(signals, names=("learned", "constant"), esp_s=ESP)
figure

# %%
# The bound as it fell
# --------------------
figure = plot_loss(result.history, label="relative bound of T2")
figure

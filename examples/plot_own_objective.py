r"""
Your own objective, your own constraint
=======================================

An objective is a sum of terms, and a term is any function of the simulated scan to a number of which less is better. A
constraint names an array of the design and gives the nearest one that is allowed. Both are a few lines. This example
maximises the contrast between fluid and grey matter over the echoes of a train,

.. math:: \max_\alpha \; \operatorname{mean}_n \frac{|m_\text{csf}[n](\alpha) - m_\text{gm}[n](\alpha)|}{\sigma},

with the angles :math:`\alpha` constant in blocks of four pulses and their root mean square at most 60°.
"""

# %%
# Your own objective in ten lines
# -------------------------------
# ``scan.signal`` has a row for each tissue, and a term that asks for no image needs no trajectory. With ``term`` the
# function becomes part of any sum, as in ``nrmse() + 0.1 * term(contrast)``.
import os

import jax.numpy as jnp

from acqdesign.base.units import rad_from_deg
from acqdesign.design import Problem, learn, term
from acqdesign.optim import Constraint, Limits, lbfgs
from acqdesign.plot import plot_echoes, plot_flips, plot_loss
from acqdesign.scene import tissues
from acqdesign.signal import FSE

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
ECHOES, ESP, TR, NOISE = 32, 10e-3, 2.5, 0.01  # [s], and of the M0 of water


def contrast(scan):
    grey, fluid = scan.signal  # (tissues, echoes)
    return -jnp.mean(jnp.abs(fluid - grey)) / NOISE


# %%
# Your own constraint in ten lines
# --------------------------------
# The nearest flips that are constant in blocks are the blocks' means. Where there are several constraints on one array,
# the package finds the nearest point that meets all of them.


class Blocks(Constraint):
    where = "sequence.flips"

    def project(self, flips):
        means = flips.reshape(-1, 4).mean(axis=1)
        return jnp.repeat(means, 4)


# %%
# Solve: the rest is the package's
# --------------------------------
# The loss has no noise, so L-BFGS is the optimiser to take; every point that it tries meets the constraints.
tissue = tissues("gm", "csf")
constant = FSE(jnp.full(ECHOES, rad_from_deg(60.0)), ESP, tr=TR)
limits = [Limits(rms=rad_from_deg(60.0)), Blocks()]
problem = Problem(tissue, sequence=constant, terms=term(contrast), limits=limits)
result, design, _ = learn(problem, STEPS, optimizer=lbfgs())
flips = design.sequence.flips
print(f"contrast to noise {-result.initial_loss:.2f} -> {-result.final_loss:.2f}")
print(f"RMS flip {float(jnp.rad2deg(jnp.sqrt(jnp.mean(flips**2)))):.2f}°")

# %%
# Show: the flips
# ---------------
figure = plot_flips(flips, start=constant.flips)
figure

# %%
# The echoes
# ----------
after, before = (sequence.signal(tissue) for sequence in (design.sequence, constant))
figure = plot_echoes(after, names=tissue.names, esp_s=ESP, start=before)
figure

# %%
# The contrast as it rose
# -----------------------
history = {"step": result.history["step"], "loss": -result.history["loss"]}
figure = plot_loss(history, label="contrast to noise")
figure

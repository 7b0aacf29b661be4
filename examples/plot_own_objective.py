r"""
Your own objective, your own constraint
=======================================

The fit loop knows nothing of MRI. An objective is any function ``loss(params, key) -> (number, terms)``, where
``terms`` are named numbers to log; a constraint is any function that maps parameters to the nearest ones that are
allowed. Both are a few lines. This example maximises the contrast between fluid and grey matter over the echoes of a
train,

.. math:: \max_\alpha \; \operatorname{mean}_n \frac{|m_\text{csf}[n](\alpha) - m_\text{gm}[n](\alpha)|}{\sigma},

with the angles :math:`\alpha` constant in blocks of four pulses and their root mean square at most 60°.
"""

# %%
# Your own objective in ten lines
# -------------------------------
import os

import jax
import jax.numpy as jnp

from acqdesign.base.units import rad_from_deg
from acqdesign.optim import fit, make_optimizer, project_rms
from acqdesign.plot import plot_echoes, plot_flips, plot_loss
from acqdesign.scene import tissues
from acqdesign.signal import fse

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
ECHOES, ESP, TR, NOISE = 32, 10e-3, 2.5, 0.01  # [s], and of M0
table = tissues("gm,wm,csf", "3T")
t1, t2, pd = (jnp.array([getattr(t, name) for t in table]) for name in ("t1_s", "t2_s", "pd"))


def contrast(params, key):
    echoes = fse(params["flips"], ESP, t1, t2, tr=TR, m0=pd)  # (tissues, echoes)
    grey, _, fluid = echoes
    ratio = jnp.mean(jnp.abs(fluid - grey)) / NOISE
    return -ratio, {"contrast to noise": ratio}


# %%
# Your own constraint in ten lines
# --------------------------------
# The nearest flips that are constant in blocks are the blocks' means, and the nearest within a power are scaled down.
# One after the other is exact here, since scaling keeps blocks constant; where it is not, ``acqdesign.design.dykstra``
# projects onto the intersection.
BLOCK = 4


def blocks(flips):
    means = flips.reshape(-1, BLOCK).mean(axis=1)
    return jnp.repeat(means, BLOCK)


def project(params):
    flips = jnp.clip(blocks(params["flips"]), 0, jnp.pi)
    return {"flips": project_rms(flips, rad_from_deg(60.0))}


# %%
# Solve: the loop is the package's
# --------------------------------
# The loss has no noise, so L-BFGS is the optimiser to take; every point that it tries is projected.
start = {"flips": jnp.full(ECHOES, rad_from_deg(60.0))}
result = fit(
    contrast,
    start,
    optimizer=make_optimizer("lbfgs", steps=STEPS),
    steps=STEPS,
    key=jax.random.key(0),
    project=project,
    progress=False,
)
flips = jnp.asarray(result.params["flips"])
print(f"contrast to noise {-result.initial_loss:.2f} -> {-result.final_loss:.2f}")
print(f"RMS flip {float(jnp.rad2deg(jnp.sqrt(jnp.mean(flips**2)))):.2f}°")

# %%
# Show: the flips
# ---------------
figure = plot_flips(flips, start=start["flips"])
figure

# %%
# The echoes
# ----------
signals = [fse(f, ESP, t1, t2, tr=TR, m0=pd) for f in (flips, start["flips"])]
figure = plot_echoes(signals[0], names=[t.name for t in table], esp_s=ESP, start=signals[1])
figure

# %%
# The contrast as it rose
# -----------------------
history = {"step": result.history["step"], "loss": -result.history["loss"]}
figure = plot_loss(history, label="contrast to noise")
figure

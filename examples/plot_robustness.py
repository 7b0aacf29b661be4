r"""
Designs that hold for other heads and other transmit fields
===========================================================

A design learned for one image and a perfect transmit field may fit just those. What it should hold for goes into the
loss: the worst case over transmit fields :math:`b`, say, or the average over anatomies,

.. math:: \min_\alpha \; \max_b \; \frac{\operatorname{var}(T_2; b)}{T_2^2}, \qquad
          \min_k \; \mathbb{E}_{\text{poses}} \; \mathrm{NRMSE}(x(k), f).

This example learns flips for one B1 and for many, and lines from one image and from its random poses.
"""

# %%
# Flips: a train that measures T2 at B1 from 0.7 to 1.3
# -----------------------------------------------------
import os

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import optax

from acqdesign.base.units import rad_from_deg
from acqdesign.design import BoundObjective, IterativeObjective, Schedule
from acqdesign.encoding import StraightLineEncoding, initial_lines
from acqdesign.optim import ScheduleLimits, fit, make_optimizer, schedule_projection
from acqdesign.plot import plot_images
from acqdesign.plot.style import COLOURS, INK
from acqdesign.recon import nrmse
from acqdesign.scene import fine_shape, load_brain, posed

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
ECHOES, ESP, TR, T1, T2 = 32, 10e-3, 1.0, 1.0, 0.1  # [s]
key = jax.random.key(0)

schedule = Schedule("fse", tr=TR, esp=ESP)
project = schedule_projection(ScheduleLimits(0.0, rad_from_deg(180.0), rms=rad_from_deg(60.0)), ECHOES)
constant = jnp.full(ECHOES, rad_from_deg(60.0))
comb = jnp.where(jnp.arange(ECHOES) % 4 == 0, 2.0, 0.5) * constant


def learn_flips(b1):
    result = fit(
        BoundObjective(schedule, [T1], [T2], b1=b1, over="worst"),
        {"flips": jnp.stack([constant, comb])},
        optimizer=make_optimizer("lbfgs", steps=STEPS),
        steps=STEPS,
        key=key,
        project=lambda params: {"flips": project(params["flips"])},
        starts=2,
        progress=False,
    )
    return jnp.asarray(result.params["flips"])


trains = {
    "constant 60°": constant,
    "learned for B1 = 1": learn_flips([1.0]),
    "learned for B1 0.7 to 1.3": learn_flips([0.7, 0.85, 1.0, 1.15, 1.3]),
}

# %%
# Show: the bound over B1
# -----------------------
fields = jnp.linspace(0.7, 1.3, 25)
chart = BoundObjective(schedule, [T1], [T2], b1=fields)
curves = {name: np.asarray(chart.bounds({"flips": flips})[:, 0]) for name, flips in trains.items()}
figure = matplotlib.figure.Figure(figsize=(6.8, 4.0), layout="constrained")
axes = figure.subplots()
looks = ((INK, ":"), (COLOURS[1], "--"), (COLOURS[0], "-"))
for (name, bound), (colour, dashes) in zip(curves.items(), looks, strict=True):
    axes.plot(fields, np.sqrt(bound), dashes, color=colour, lw=2, label=name)
    print(f"{name}: σ(T2)/T2 at B1 = 1 {np.sqrt(bound[12]):.2f} %, worst {np.sqrt(bound.max()):.2f} %")
axes.set(xlabel="B1 relative to nominal", ylabel="σ(T2) / T2 [%], noise 1 % of $M_0$", ylim=(0, None))
axes.grid(axis="y", alpha=0.4)
axes.legend(frameon=False)
figure

# %%
# Lines: one head, or its random poses
# ------------------------------------
# Poses are drawn on a finer grid, so that turning does not blur, anew at every step.
SHAPE = (25, 30, 25)
image = load_brain(shape=SHAPE)[None]
fine = load_brain(shape=fine_shape(SHAPE))[None]
begun = initial_lines("poisson", SHAPE, lines=220, calibration=8, shutter=True, key=key)
encoding = StraightLineEncoding(begun.points, SHAPE, samples_per_line=SHAPE[0])
losses = {
    "one image": IterativeObjective(encoding, image),
    "random poses": IterativeObjective(encoding, fine, augmented=True),
}


def learn_lines(loss):
    result = fit(
        loss,
        {"points": begun.points},
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, STEPS)),
        steps=STEPS,
        key=key,
        project=lambda params: {"points": jnp.clip(params["points"], -0.5, 0.5)},
        learned={"points": begun.learned[:, None]},
        progress=False,
    )
    return jnp.asarray(result.params["points"])


designs = {"start": begun.points, **{name: learn_lines(loss) for name, loss in losses.items()}}

# %%
# Show: a pose that none has seen
# -------------------------------
# What was learned from one image is better on it, and loses more on another.
keys = jax.random.split(jax.random.key(1), 8)
others = jax.vmap(lambda key: posed(fine[0], key, SHAPE))(keys)
reconstruct = jax.jit(lambda points, images: losses["one image"].reconstruct(points, images, key))
shown, captions = {}, {}
for name, points in designs.items():
    here = float(nrmse(reconstruct(points, image)[0], image[0]))
    found = reconstruct(points, others)
    there = float(jnp.mean(nrmse(found, others)))
    print(f"{name:>12}: NRMSE on the image {here:.3f}, on eight other poses {there:.3f}")
    shown[name], captions[name] = found[0], f"NRMSE, 8 poses {there:.3f}"
figure = plot_images(others[0], shown, captions=captions)
figure

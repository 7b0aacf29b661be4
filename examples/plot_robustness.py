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
# Bounds run over whatever a ``Tissue`` holds: here one tissue under several fields.
import os

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.units import rad_from_deg
from acqdesign.design import Design, Problem, adam, bound, judge, learn
from acqdesign.encoding import Lines
from acqdesign.optim import Limits, lbfgs
from acqdesign.plot import new_figure, plot_images
from acqdesign.plot.style import COLOURS, INK
from acqdesign.scene import Tissue, brain, load_scene
from acqdesign.signal import FSE, relative_bounds

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
ECHOES, ESP, TR = 32, 10e-3, 1.0  # [s]

constant = FSE(jnp.full(ECHOES, rad_from_deg(60.0)), ESP, tr=TR)
comb = FSE(jnp.where(jnp.arange(ECHOES) % 4 == 0, 2.0, 0.5) * constant.flips, ESP, tr=TR)


def tissue(fields):
    return Tissue(t1=1.0, t2=0.1, b1=jnp.asarray(fields))


def learn_flips(fields):
    worst, limit = bound("t2", reduce="max"), Limits(rms=rad_from_deg(60.0))
    problem = Problem(tissue(fields), sequence=constant, terms=worst, limits=[limit])
    starts = [Design(None, constant), Design(None, comb)]
    return learn(problem, STEPS, optimizer=lbfgs(), starts=starts)[1].sequence


trains = {
    "constant 60°": constant,
    "learned for B1 = 1": learn_flips([1.0]),
    "learned for B1 0.7 to 1.3": learn_flips([0.7, 0.85, 1.0, 1.15, 1.3]),
}

# %%
# Show: the bound over B1
# -----------------------
fields = np.linspace(0.7, 1.3, 25)
curves = {name: np.asarray(relative_bounds(train, tissue(fields), ("t2",))) for name, train in trains.items()}
figure = new_figure(6.8, 4.0)
axes = figure.subplots()
looks = ((INK, ":"), (COLOURS[1], "--"), (COLOURS[0], "-"))
for (name, variance), (colour, dashes) in zip(curves.items(), looks, strict=True):
    axes.plot(fields, np.sqrt(variance), dashes, color=colour, lw=2, label=name)
    print(f"{name}: σ(T2)/T2 at B1 = 1 {np.sqrt(variance[12]):.2f} %, worst {np.sqrt(variance.max()):.2f} %")
axes.set(xlabel="B1 relative to nominal", ylabel="σ(T2) / T2 [%], noise 1 % of $M_0$", ylim=(0, None))
axes.grid(axis="y", alpha=0.4)
axes.legend(frameon=False)
figure

# %%
# Lines: one head, or its random poses
# ------------------------------------
# An augmented scene is turned anew at every step, on a finer grid, so that turning does not blur.
SHAPE = (25, 30, 25)
scenes = {"one image": brain(SHAPE), "random poses": brain(SHAPE, augment=True)}
lines = Lines.poisson(scenes["one image"], lines=220, calibration=8)
problems = {name: Problem(scene, lines) for name, scene in scenes.items()}
designs = {"start": problems["one image"].design}
for name, problem in problems.items():
    _, designs[name], _ = learn(problem, STEPS, optimizer=adam(STEPS, trajectory=1e-2))

# %%
# Show: poses that none has seen
# ------------------------------
# What was learned from one image is better on it, and loses more on others.
here = problems["one image"]
there = here.judged_on(load_scene("brain", shape=SHAPE, key=jax.random.key(1), each=8))
shown, captions = {}, {}
for name, design in designs.items():
    own, _ = judge(here, design, jax.random.key(0), 1)
    others, shown[name] = judge(there, design, jax.random.key(0), 1)
    own, others = float(own["nrmse"]), float(others["nrmse"])
    print(f"{name:>12}: NRMSE on the image {own:.3f}, on eight other poses {others:.3f}")
    captions[name] = f"NRMSE, 8 poses {others:.3f}"
figure = plot_images(there.scan().target[0], shown, captions=captions)
figure

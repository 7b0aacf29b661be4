r"""
Learn lines and flips together
==============================

In a fast spin echo scan line :math:`s` is read at echo :math:`e(s)` of a train, so the flip angles :math:`\alpha`
weight k-space, and the positions :math:`k` decide what each echo is used for. With maps :math:`\rho_c` of the tissues
and their echo amplitudes :math:`m_c`,

.. math:: y_s = \sum_c m_c[e(s)](\alpha) \, (A_{k_s} \rho_c) + \text{noise}, \qquad
          \min_{k, \alpha} \; \frac{\|x(k, \alpha) - x^*\|}{\|x^*\|},

where :math:`x` is the image that a scanner would reconstruct and :math:`x^*` the ideal spin echo image at the effective
echo time. One gradient reaches both. This example learns both, lines alone and flips alone, from one start with one
budget. ``python -m acqdesign.learn_joint --compare`` does it from the command line.
"""

# %%
# Set-up: a plane of the brain, 768 lines in 8 trains of 96 echoes
# ----------------------------------------------------------------
# A problem is a scene, a trajectory, a sequence, and what matters. Lines come to echoes at random unless told
# otherwise; without a calibration block, which would stay as it is, all of them may move. The RMS flip, a measure of
# deposited power, may be at most 45°.
import os

import jax
import jax.numpy as jnp

from acqdesign.base.units import rad_from_deg
from acqdesign.design import Problem, adam, run
from acqdesign.encoding import Lines
from acqdesign.optim import Limits
from acqdesign.plot import plot_echoes, plot_flips, plot_images, plot_lines
from acqdesign.scene import brain
from acqdesign.signal import FSE

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "150"))
ECHOES, ESP = 96, 5e-3  # [s]
rms = rad_from_deg(45.0)

scene = brain((1, 48, 48))
lines = Lines.poisson(scene, lines=768, calibration=0)
train = FSE(jnp.full(ECHOES, rms), ESP, te=80e-3)
problem = Problem(scene, lines, train, noise=0.04, limits=[Limits(rms=rms)])
for name, shape in problem.learned().items():
    print(f"learned: {name} {shape}")

# %%
# Solve: the same call, whatever may move
# ---------------------------------------
# Learning rates [cycles/voxel, rad] are those found best by benchmarks/joint_compare.py.
found = run(
    problem,
    STEPS,
    optimizer=adam(STEPS, trajectory=8e-3, sequence=6e-2),
    beside={"lines alone": problem.learning("trajectory"), "flips alone": problem.learning("sequence")},
    name="both",
    key=jax.random.key(0),
    progress=False,
)

# %%
# Show: the four images
# ---------------------
# Every design is judged under noise that none of them was learned with, on the head that was learned on, and on the
# same head in another pose.
scores = found.numbers["compare"]
for name, score in scores.items():
    print(f"{name:>11}: NRMSE {score['nrmse']:.3f}, in another pose {score['nrmse_held_out']:.3f}")
images = found.images | {"none": found.images["start"], "both": found.images["learned"]}
captions = {name: f"NRMSE {score['nrmse']:.3f}" for name, score in scores.items()}
figure = plot_images(problem.scan().target[0], {name: images[name] for name in scores}, captions=captions)
figure

# %%
# Where lines went, by their echo
# -------------------------------
design = found.design
figure = plot_lines(design.trajectory.points, start=found.start.trajectory.points, echo=jnp.arange(768) % ECHOES)
figure

# %%
# The flips that go with them
# ---------------------------
figure = plot_flips(design.sequence.flips, start=found.start.sequence.flips)
figure

# %%
# What the tissues' echoes look like
# ----------------------------------
echoes, before = (d.sequence.signal(scene.tissue) for d in (design, found.start))
figure = plot_echoes(echoes, names=scene.names, esp_s=ESP, start=before)
figure

r"""
Learn straight readout lines
============================

A 3D scan reads k-space along straight lines; where each crosses the plane of phase encodes :math:`(k_y, k_z)` is free.
This example learns those positions from a brain image, first by the recipe of mri-nufft's example "Learn straight line
readout pattern", then by this package's default recipe, from equally many lines in equally many steps.

The reference recipe minimises the mean-normalised error of the density-compensated adjoint,

.. math:: \ell(k) = \Big\| \frac{|a|}{\overline{|a|}} - \frac{f}{\overline{f}} \Big\|^2_{\text{mean}}, \qquad
          a = A_k^H W_k A_k f,

with Adam; the weights :math:`W_k` are recomputed as the points move, and the gradient runs through them. The default
recipe minimises the error of an image reconstructed by conjugate gradients, as a scanner would.
"""

# %%
# Set-up: the package's brain, 253 lines of 128 samples, of which 81 are the fixed centre
# ----------------------------------------------------------------------------------------
# A problem is a scene, a trajectory, and what matters: terms, of an image that a reconstruction makes. Both have
# defaults.
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax

from acqdesign.design import Design, Problem, judge, learn, scaled_error
from acqdesign.encoding import Lines
from acqdesign.optim import Snapshots
from acqdesign.plot import animate_lines, plot_images, plot_lines, plot_loss
from acqdesign.recon import DensityAdjoint
from acqdesign.scene import brain

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "40"))
LINES, SAMPLES = 253, 128

scene = brain((23, 28, 23), contrast="T1w")
key = jax.random.key(0)
# Samples of the reference include both ends of the readout.
ends = {"readout": jnp.linspace(-0.5, 0.5, SAMPLES), "samples": SAMPLES}
uniform = Lines.start(scene, key, init="reference", lines=LINES, **ends)
poisson = Lines.poisson(scene, key=key, lines=LINES, samples=SAMPLES)
problems = {
    "reference": Problem(scene, uniform, terms=scaled_error(), reconstruction=DensityAdjoint()),
    "default": Problem(scene, poisson),
}

# %%
# Solve: one call, whatever the loss
# ----------------------------------
# The fixed centre stays, and lines keep to k-space's box.
watched = Snapshots(1)
found = {}
for name, problem in problems.items():
    callbacks = [watched] if name == "reference" else []
    found[name] = learn(problem, STEPS, optimizer=optax.adam(1e-2), key=key, callbacks=callbacks)
    result = found[name][0]
    print(
        f"{name}: loss {result.initial_loss:.3f} -> {result.final_loss:.3f}, "
        f"{1e3 * result.seconds_per_step:.1f} ms a step after {result.compile_seconds:.1f} s of compilation"
    )
learned = {name: design.trajectory for name, (_, design, _) in found.items()}

# %%
# Show: where the lines went
# --------------------------
moves = uniform.moves
figure = plot_lines(learned["reference"].points, start=uniform.points, learned=moves, title="Reference recipe")
figure

# %%
moves = poisson.moves
figure = plot_lines(learned["default"].points, start=poisson.points, learned=moves, title="Default recipe")
figure

# %%
# How the reference's loss fell
# -----------------------------
history = found["reference"][0].history
figure = plot_loss(history, label="mean-normalised squared error")
figure

# %%
# The designs through one reconstruction
# --------------------------------------
# The same readout and the same conjugate gradients for every design, so that only the positions differ.
designs = {"reference start": uniform, "reference learned": learned["reference"], "default learned": learned["default"]}
images, captions = {}, {}
for name, lines in designs.items():
    alike = Design(Lines(lines.points, samples=SAMPLES), None)
    terms, images[name] = judge(problems["default"], alike, key, 1)
    captions[name] = f"NRMSE {float(terms['nrmse']):.3f}"
figure = plot_images(scene.image()[0], images, captions=captions)
figure

# %%
# The run as an animation
# -----------------------
# Made after the loop from stored snapshots, so that drawing never slows learning.
animate_lines(
    "straight_lines.gif",
    np.stack([design.trajectory.points for design in watched.of(None)]),
    steps=watched.steps(),
    losses=history["loss"],
    loss_steps=history["step"],
)

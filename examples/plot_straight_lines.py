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
import os
from functools import partial

import jax
import jax.numpy as jnp
import optax

from acqdesign.design import AdjointObjective, IterativeObjective
from acqdesign.encoding import StraightLineEncoding, initial_lines
from acqdesign.optim import fit
from acqdesign.plot import animate_lines, plot_images, plot_lines, plot_loss
from acqdesign.recon import nrmse
from acqdesign.scene import load_brain

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "40"))
SHAPE, LINES, SAMPLES = (23, 28, 23), 253, 128

image = load_brain(shape=SHAPE, contrast="T1w")
key = jax.random.key(0)
starts = {
    "reference": initial_lines("reference", SHAPE, lines=LINES, key=key),
    "default": initial_lines("poisson", SHAPE, lines=LINES, calibration=9, shutter=True, key=key),
}
# Samples of the reference include both ends of the readout.
readout = jnp.linspace(-0.5, 0.5, SAMPLES)
losses = {
    "reference": AdjointObjective(
        StraightLineEncoding(starts["reference"].points, SHAPE, readout=readout), image[None]
    ),
    "default": IterativeObjective(
        StraightLineEncoding(starts["default"].points, SHAPE, samples_per_line=SAMPLES), image[None]
    ),
}

# %%
# Solve: one loop, whatever the loss
# ----------------------------------
# The fixed centre is held by a mask, k-space's box by a projection after every step.
learn = partial(
    fit,
    optimizer=optax.adam(1e-2),
    steps=STEPS,
    key=key,
    project=lambda params: {"points": jnp.clip(params["points"], -0.5, 0.5)},
    snapshot_every=1,
    progress=False,
)
found = {
    name: learn(loss, {"points": starts[name].points}, learned={"points": starts[name].learned[:, None]})
    for name, loss in losses.items()
}
for name, result in found.items():
    print(
        f"{name}: loss {result.initial_loss:.3f} -> {result.final_loss:.3f}, "
        f"{1e3 * result.seconds_per_step:.1f} ms a step after {result.compile_seconds:.1f} s of compilation"
    )

# %%
# Show: where the lines went
# --------------------------
figure = plot_lines(
    found["reference"].params["points"],
    start=starts["reference"].points,
    learned=starts["reference"].learned,
    title="Reference recipe",
)
figure

# %%
figure = plot_lines(
    found["default"].params["points"],
    start=starts["default"].points,
    learned=starts["default"].learned,
    title="Default recipe",
)
figure

# %%
# How the reference's loss fell
# -----------------------------
figure = plot_loss(found["reference"].history, label="mean-normalised squared error")
figure

# %%
# Both designs through one reconstruction
# ---------------------------------------
# The same conjugate gradients for every design, so that only the positions differ.
judge = losses["default"]
designs = {
    "reference start": starts["reference"].points,
    "reference learned": found["reference"].params["points"],
    "default learned": found["default"].params["points"],
}
images = {
    name: judge.reconstruct(jnp.asarray(points), image[None], key)[0] for name, points in designs.items()
}
captions = {name: f"NRMSE {float(nrmse(shown, image)):.3f}" for name, shown in images.items()}
figure = plot_images(image, images, captions=captions)
figure

# %%
# The run as an animation
# -----------------------
# Made after the loop from stored snapshots, so that drawing never slows learning.
snapshots = found["reference"].snapshots
animate_lines(
    "straight_lines.gif",
    snapshots.params["points"],
    steps=snapshots.steps,
    losses=found["reference"].history["loss"],
    loss_steps=found["reference"].history["step"],
)

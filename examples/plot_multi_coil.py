r"""
Learn lines for many coils
==========================

Receive coils see the head from different sides, and what one line leaves undetermined they tell apart. The operator
then has a sensitivity :math:`S_c` for each coil and the image is the regularised least-squares one,

.. math:: y_c = A_k S_c f, \qquad
          x = \arg\min_x \sum_c \| A_k S_c x - y_c \|^2 + \lambda \|x\|^2,

by conjugate gradients. Lines that are best for one coil are not best for eight: this example learns both, and judges
both with eight. On the command line it is ``python -m acqdesign.learn_traj --coils 8``.
"""

# %%
# Set-up: eight coils on a birdcage, a sixth of the lines of a full scan
# ----------------------------------------------------------------------
import os

import jax
import jax.numpy as jnp
import matplotlib.figure
import optax

from acqdesign.design import IterativeObjective
from acqdesign.encoding import StraightLineEncoding, initial_lines
from acqdesign.optim import fit
from acqdesign.plot import plot_images, plot_lines
from acqdesign.recon import nrmse
from acqdesign.scene import birdcage_maps, load_brain

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
SHAPE = (30, 36, 30)
key = jax.random.key(0)

image = load_brain(shape=SHAPE)[None]
smaps = birdcage_maps(8, SHAPE)
begun = initial_lines("poisson", SHAPE, acceleration=6, calibration=8, key=key)
noise = 0.01  # of the image's largest value, on every sample of every coil
alone = StraightLineEncoding(begun.points, SHAPE, samples_per_line=SHAPE[0])
together = StraightLineEncoding(begun.points, SHAPE, samples_per_line=SHAPE[0], smaps=smaps)
losses = {
    "for one coil": IterativeObjective(alone, image, noise=noise),
    "for eight coils": IterativeObjective(together, image, noise=noise),
}
print(f"{len(begun.points)} lines of {SHAPE[1] * SHAPE[2]}")

figure = matplotlib.figure.Figure(figsize=(8, 2.4), layout="constrained")
for number, (axes, coil) in enumerate(zip(figure.subplots(1, 4), smaps, strict=False)):
    shown = axes.imshow(
        jnp.abs(coil[SHAPE[0] // 2]), cmap="viridis", vmin=0, vmax=float(jnp.abs(smaps).max())
    )
    axes.set_title(f"coil {number + 1}")
    axes.set_axis_off()
figure.colorbar(shown, ax=figure.axes, label="sensitivity", fraction=0.02)
figure

# %%
# Solve
# -----


def learn(loss):
    return fit(
        loss,
        {"points": begun.points},
        optimizer=optax.adam(optax.cosine_decay_schedule(1e-2, STEPS)),
        steps=STEPS,
        key=key,
        project=lambda params: {"points": jnp.clip(params["points"], -0.5, 0.5)},
        learned={"points": begun.learned[:, None]},
        progress=False,
    )


found = {name: learn(loss) for name, loss in losses.items()}

# %%
# Show: both designs, read with eight coils
# -----------------------------------------
reconstruct = jax.jit(lambda points: losses["for eight coils"].reconstruct(points, image, key)[0])
designs = {"start": begun.points, **{name: jnp.asarray(r.params["points"]) for name, r in found.items()}}
images = {name: reconstruct(points) for name, points in designs.items()}
captions = {name: f"NRMSE {float(nrmse(shown, image[0])):.4f}" for name, shown in images.items()}
figure = plot_images(image[0], images, captions=captions)
figure

# %%
# Where the lines went
# --------------------
figure = plot_lines(
    designs["for eight coils"], start=begun.points, learned=begun.learned, title="Learned for eight coils"
)
figure

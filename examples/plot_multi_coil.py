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
# Two problems from one start, which differ in the scene's coils alone. The noise is that of the real and of the
# imaginary part of every sample of every coil, the image's largest value being one.
import os

import jax
import jax.numpy as jnp

from acqdesign.design import Problem, adam, judge, learn
from acqdesign.encoding import Lines
from acqdesign.plot import new_figure, plot_images, plot_lines
from acqdesign.scene import brain

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
SHAPE = (30, 36, 30)

scenes = {"for one coil": brain(SHAPE), "for eight coils": brain(SHAPE, coils=8)}
lines = Lines.poisson(scenes["for one coil"], acceleration=6, calibration=8)
problems = {name: Problem(scene, lines, noise=0.007) for name, scene in scenes.items()}
print(f"{lines.readouts()} lines of {SHAPE[1] * SHAPE[2]}")

smaps = scenes["for eight coils"].smaps
figure = new_figure(8, 2.4)
for number, (axes, coil) in enumerate(zip(figure.subplots(1, 4), smaps, strict=False)):
    shown = axes.imshow(jnp.abs(coil[SHAPE[0] // 2]), cmap="viridis", vmin=0, vmax=float(jnp.abs(smaps).max()))
    axes.set_title(f"coil {number + 1}")
    axes.set_axis_off()
figure.colorbar(shown, ax=figure.axes, label="sensitivity", fraction=0.02)
figure

# %%
# Solve
# -----
designs = {"start": problems["for one coil"].design}
for name, problem in problems.items():
    result, designs[name], _ = learn(problem, STEPS, optimizer=adam(STEPS, trajectory=1e-2))
    print(f"{name}: loss {result.initial_loss:.4f} -> {result.final_loss:.4f}")

# %%
# Show: both designs, read with eight coils
# -----------------------------------------
# Under noise that neither was learned with.
eight, key = problems["for eight coils"], jax.random.key(1)
judged = {name: judge(eight, design, key, 1) for name, design in designs.items()}
captions = {name: f"NRMSE {float(terms['nrmse']):.4f}" for name, (terms, _) in judged.items()}
images = {name: image for name, (_, image) in judged.items()}
figure = plot_images(eight.scan().target[0], images, captions=captions)
figure

# %%
# Where the lines went
# --------------------
learned = designs["for eight coils"].trajectory
figure = plot_lines(learned.points, start=lines.points, learned=lines.moves, title="Learned for eight coils")
figure

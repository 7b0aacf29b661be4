r"""
Radial spokes at learned angles
===============================

Few spokes of a plane, their angles learned from golden ones. Both are judged on an image of another contrast than
the one learned on, under noise that learning has not seen.
"""

import os

import jax
import optax

from acqdesign.design import Design, Problem, judge, learn
from acqdesign.encoding import Radial
from acqdesign.plot import plot_images, plot_readouts
from acqdesign.scene import brain

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
key = jax.random.key(0)
scene, held_out = (brain((1, 96, 96), coils=4, contrast=contrast) for contrast in ("T1w", "T2w"))
golden = Radial.start(scene, key, lines=16, samples=192)
problem = Problem(scene, golden, noise=0.02)
_, design, _ = learn(problem, STEPS, key=key, optimizer=optax.adam(1e-2))

# %%
# Show: spokes before and after
# -----------------------------
figure = plot_readouts(design.trajectory.coordinates(), start=golden.coordinates())
figure

# %%
# The image held out, after as many readouts of as many samples:
images, captions = {}, {}
for name, spokes in {"golden": golden, "learned": design.trajectory}.items():
    terms, images[name] = judge(problem.judged_on(held_out), Design(spokes, None), jax.random.key(1), 4)
    captions[name] = f"NRMSE {float(terms['nrmse']):.3f}"
figure = plot_images(held_out.image()[0], images, captions=captions)
figure

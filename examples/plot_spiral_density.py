r"""
Spirals of a learned density
============================

How closely the turns of a spiral lie, from the centre outwards, is eight numbers, learned here from an
Archimedean spiral within gradient and slew of a scanner. Both are judged on an image of another contrast.
"""

import os

import jax
import optax

from acqdesign.design import Design, Problem, judge, learn
from acqdesign.encoding import Hardware, Spiral
from acqdesign.plot import plot_images, plot_readouts
from acqdesign.scene import brain, system_limits

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "60"))
key = jax.random.key(0)
scene, held_out = (brain((1, 96, 96), coils=4, contrast=contrast) for contrast in ("T1w", "T2w"))
prisma = Hardware.of(system_limits("prisma"), scene, dwell=10e-6)
archimedean = Spiral.start(scene, key, lines=6, samples=512).within(prisma)
problem = Problem(scene, archimedean, noise=0.02)
_, design, _ = learn(problem, STEPS, key=key, optimizer=optax.adam(3e-2))
# %%
# Show: spirals before and after
# ------------------------------
figure = plot_readouts(design.trajectory.coordinates(), start=archimedean.coordinates())
figure

# %%
# The image held out, after as many readouts of as many samples:
images, captions = {}, {}
for name, spirals in {"Archimedean": archimedean, "learned": design.trajectory}.items():
    terms, images[name] = judge(problem.judged_on(held_out), Design(spirals, None), jax.random.key(1), 4)
    captions[name] = f"NRMSE {float(terms['nrmse']):.3f}"
figure = plot_images(held_out.image()[0], images, captions=captions)
figure

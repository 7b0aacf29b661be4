r"""
Learn on your own images
========================

Any NIfTI volume can be what is learned on. It is turned to this package's axes by its affine, resampled by box overlap
to the grid of the scan, and scaled to a largest value of one; its voxel size becomes the scan's field of view, which
exports to a scanner need. This needs ``pip install ".[nifti]"``. On the command line:
``python -m acqdesign.learn_traj --phantom head.nii.gz --holdout other.nii.gz --shape 25 30 25 --acceleration 4``.
"""

# %%
# Set-up: a file
# --------------
# Put the name of your own file here. So that the example runs anywhere, it writes one: a head of 2 mm voxels with its
# axes to the left, to the front and to the head, as many scanners store them.
import os
import tempfile
from pathlib import Path

import jax
import nibabel
import numpy as np

from acqdesign.design import Problem, judge, learn
from acqdesign.encoding import Lines
from acqdesign.plot import plot_images, plot_lines
from acqdesign.scene import load_brain, load_scene

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "40"))
file = Path(tempfile.mkdtemp()) / "head.nii.gz"

stored = np.asarray(load_brain(voxel_size=2e-3, contrast="T2w"))  # axes to the head, to the back, to the left
turned = 1000 * stored.transpose(2, 1, 0)[:, ::-1]  # to the left, to the front, to the head
affine = np.diag([-2.0, 2.0, 2.0, 1.0])  # voxels to right, anterior and superior [mm]
nibabel.save(nibabel.Nifti1Image(turned.astype(np.int16), affine), file)

# %%
# Load it on the grid of the scan
# -------------------------------
# It is an image rather than maps of tissues, so there are no tissues to name.
scene = load_scene(str(file), shape=(25, 30, 25), tissue_names=None)
truth = scene.image()[0]
print(f"{file.name}: field of view {', '.join(f'{1e3 * f:.0f}' for f in scene.fov)} mm along x, y, z")
print(f"on the scan's grid: {truth.shape}, {truth.dtype}, largest value {float(truth.max()):.2f}")

# %%
# Solve
# -----
# A quarter of the lines, the default optimiser and the default goal, the error of the image.
problem = Problem(scene, Lines.poisson(scene, acceleration=4))
result, design, starts = learn(problem, STEPS)
print(f"loss {result.initial_loss:.3f} -> {result.final_loss:.3f}")

# %%
# Show: the image from a quarter of the lines
# -------------------------------------------
judged = {name: judge(problem, d, jax.random.key(1), 1) for name, d in (("start", starts[0]), ("learned", design))}
captions = {name: f"NRMSE {float(terms['nrmse']):.3f}" for name, (terms, _) in judged.items()}
figure = plot_images(truth, {name: image for name, (_, image) in judged.items()}, captions=captions)
figure

# %%
# The lines
# ---------
lines = design.trajectory
figure = plot_lines(lines.points, start=starts[0].trajectory.points, learned=lines.moves)
figure

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
import jax.numpy as jnp
import nibabel
import numpy as np
import optax

from acqdesign.design import IterativeObjective
from acqdesign.encoding import StraightLineEncoding, initial_lines
from acqdesign.optim import fit
from acqdesign.plot import plot_images, plot_lines
from acqdesign.recon import nrmse
from acqdesign.scene import image_fov_m, load_brain, load_image

STEPS = int(os.environ.get("ACQDESIGN_EXAMPLE_STEPS", "40"))
folder = Path(tempfile.mkdtemp())
file = folder / "head.nii.gz"

stored = np.asarray(
    load_brain(voxel_size_m=2e-3, contrast="T2w")
)  # axes to the head, to the back, to the left
turned = 1000 * stored.transpose(2, 1, 0)[:, ::-1]  # to the left, to the front, to the head
affine = np.diag([-2.0, 2.0, 2.0, 1.0])  # voxels to right, anterior and superior [mm]
nibabel.save(nibabel.Nifti1Image(turned.astype(np.int16), affine), file)

# %%
# Load it on the grid of the scan
# -------------------------------
SHAPE = (25, 30, 25)
image = load_image(str(file), shape=SHAPE)
fov = image_fov_m(str(file))
print(f"{file.name}: field of view {', '.join(f'{1e3 * f:.0f}' for f in fov)} mm along x, y, z")
print(f"on the scan's grid: {image.shape}, {image.dtype}, largest value {float(image.max()):.2f}")

# %%
# Solve
# -----
key = jax.random.key(0)
begun = initial_lines("poisson", SHAPE, acceleration=4, calibration=10, shutter=True, key=key)
encoding = StraightLineEncoding(begun.points, SHAPE, samples_per_line=SHAPE[0])
loss = IterativeObjective(encoding, image[None])
result = fit(
    loss,
    {"points": begun.points},
    optimizer=optax.adam(1e-2),
    steps=STEPS,
    key=key,
    project=lambda params: {"points": jnp.clip(params["points"], -0.5, 0.5)},
    learned={"points": begun.learned[:, None]},
    progress=False,
)
points = jnp.asarray(result.params["points"])

# %%
# Show: the image from a quarter of the lines
# -------------------------------------------
images = {
    name: loss.reconstruct(p, image[None], key)[0]
    for name, p in (("start", begun.points), ("learned", points))
}
captions = {name: f"NRMSE {float(nrmse(shown, image)):.3f}" for name, shown in images.items()}
figure = plot_images(image, images, captions=captions)
figure

# %%
# The lines
# ---------
figure = plot_lines(points, start=begun.points, learned=begun.learned)
figure

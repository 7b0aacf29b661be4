"""The brain phantom inside the package, from the MNI ICBM 152 templates.

Axes: x runs from the feet to the head, y from front to back, z from right to left, so a plane of constant x shown with
y downwards is an axial slice in the radiological convention, and the readout of a 3D scan runs along the head's long
axis as it usually does. The field of view is 160 × 192 × 160 mm; its middle lies about 6 mm above the anterior
commissure. The template is an average of 152 heads made symmetric, so the left side mirrors the right.

V. Fonov et al., NeuroImage 54:313 (2011) and NeuroImage 47:S102 (2009). Licence: data/LICENSE-MNI.
"""

import functools
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice
from acqdesign.base.types import Array, Float
from acqdesign.scene.resample import box_resample, target_grid
from acqdesign.scene.tissue import TISSUES, Properties, tissue_properties

FOV = (0.160, 0.192, 0.160)
"""The phantom's field of view along x, y and z [m]."""


def _spoiled_gre(t: Properties, *, tr: float, te: float, flip: float) -> float:
    e1 = math.exp(-tr / t.t1)
    steady = math.sin(flip) * (1 - e1) / (1 - math.cos(flip) * e1)
    return t.pd * steady * math.exp(-te / t.t2)


def _spin_echo(t: Properties, *, tr: float, te: float) -> float:
    return t.pd * (1 - math.exp(-tr / t.t1)) * math.exp(-te / t.t2)


CONTRASTS = {
    "T1w": functools.partial(_spoiled_gre, tr=0.020, te=0.003, flip=math.pi / 6),
    "T2w": functools.partial(_spin_echo, tr=5.0, te=0.090),
    "PDw": functools.partial(_spin_echo, tr=8.0, te=0.015),
}
"""Signals of a tissue in the contrasts that images may have; see `weighted_image`."""


def contrast_weights(
    contrast: str, names: Sequence[str] | Mapping[str, Properties] = TISSUES, field: str = "3T"
) -> np.ndarray:
    """`(tissues,)` signals of tissues in a contrast, the brightest having the value one; see `weighted_image`."""
    signal = CONTRASTS[check_choice("contrast", contrast, CONTRASTS)]
    values = np.array([signal(t) for t in tissue_properties(names, field).values()])
    return values / values.max()


def weighted_image(
    maps: Float[Array | np.ndarray, "3 nx ny nz"], contrast: str = "T1w", field: str = "3T"
) -> Float[Array, "nx ny nz"]:
    """An image of given contrast: tissue signals, weighted by the maps and summed, in the precision of the maps.

        T1w  spoiled gradient echo, TR 20 ms, TE 3 ms, flip α = 30°:
             PD sin α (1 − E1) / (1 − E1 cos α) exp(−TE/T2), E1 = exp(−TR/T1)
        T2w  spin echo, TR 5 s, TE 90 ms: PD (1 − exp(−TR/T1)) exp(−TE/T2)
        PDw  spin echo, TR 8 s, TE 15 ms, likewise

    The scale is such that the tissue that is brightest in this contrast has the value one.

    Args:
        maps: volume fractions of grey matter, white matter and fluid.
        contrast: `T1w`, `T2w` or `PDw`.
        field: `1.5T`, `3T` or `7T`: whose tissue table.
    """
    weights = contrast_weights(contrast, field=field).astype(maps.dtype)
    if isinstance(maps, np.ndarray):  # without a program
        return jnp.asarray(np.tensordot(weights, maps, axes=1))
    return jnp.tensordot(jnp.asarray(weights), maps, axes=1)


@functools.cache
def _stored() -> tuple[np.ndarray, float]:
    """The packaged maps as float64 fractions, read-only, and their voxel size in metres."""
    with (resources.files("acqdesign.scene") / "data" / "brain.npz").open("rb") as file, np.load(file) as npz:
        left, voxel = npz["left"], float(npz["voxel_size_m"])
    maps = np.concatenate([left[..., ::-1], left], axis=-1) / 255.0
    maps.setflags(write=False)
    return maps, voxel


def load_brain(
    *,
    shape: Sequence[int] | None = None,
    voxel_size: float | Sequence[float] | None = None,
    contrast: str = "T1w",
    field: str = "3T",
) -> Float[Array, "..."]:
    """The packaged brain as an image or as tissue maps, on any grid.

    Resampled by box overlap, so that tissue volumes are conserved wherever the grid covers the head (also with
    anisotropic voxels; a grid finer than the stored 2 mm shows those voxels). Tissue outside the grid is cut off. `nx =
    1` gives one axial plane through the basal ganglia: see `target_grid` for its thickness.

    Args:
        shape: `(nx, ny, nz)`; alone, it keeps the field of view `FOV`.
        voxel_size: one length, or one for each axis [m]; 2 mm where neither is given.
        contrast: `T1w`, `T2w` or `PDw` for an image (see `weighted_image` for the signal equations and the scale: one
            is pure tissue of the brightest kind), or `maps` for volume fractions.
        field: `1.5T`, `3T` or `7T`: whose tissue table.

    Returns:
        float32 image `(nx, ny, nz)` with x along the readout, or maps `(3, nx, ny, nz)` of grey matter, white matter
        and fluid with values in [0, 1] that sum to at most one.
    """
    check_choice("contrast", contrast, (*CONTRASTS, "maps"))
    stored, voxel_in = _stored()
    if shape is None and voxel_size is None:
        voxel_size = voxel_in
    grid, voxel_out = target_grid(FOV, shape, voxel_size)
    maps: Any = box_resample(stored, grid, voxel_in=(voxel_in,) * 3, voxel_out=voxel_out)
    maps = maps.astype(np.float32)
    return jnp.asarray(maps) if contrast == "maps" else weighted_image(maps, contrast, field)

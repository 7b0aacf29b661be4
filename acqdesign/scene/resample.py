"""Resampling by box overlap: what a voxel holds is the mean over its volume, so tissue is conserved."""

import math
from collections.abc import Sequence

import numpy as np

from acqdesign.base.checks import check_positive, check_shape, usage_error


def _overlap(n_in: int, size_in: float, n_out: int, size_out: float) -> np.ndarray:
    """Share of every output box `(n_out)` that each input box `(n_in)` covers, both grids centred."""
    edges_in = (np.arange(n_in + 1) - n_in / 2) * size_in
    edges_out = (np.arange(n_out + 1) - n_out / 2) * size_out
    low = np.maximum(edges_out[:-1, None], edges_in[None, :-1])
    high = np.minimum(edges_out[1:, None], edges_in[None, 1:])
    return np.clip(high - low, 0.0, None) / size_out


def box_resample(
    array: np.ndarray, shape: Sequence[int], *, voxel_in: Sequence[float], voxel_out: Sequence[float]
) -> np.ndarray:
    """Means of a piecewise constant volume over the boxes of another grid with the same centre.

    Where the new field of view covers the old, `Σ values · voxel volume` stays what it was; what lies outside the new
    field of view is cut off, and where the new reaches further it holds zeros. Nearest neighbours would give moiré, and
    interpolation neither conserves volume nor suppresses aliasing.

    Args:
        array: real or complex image, the last three axes `(nx, ny, nz)`; leading axes are carried along.
        shape: the new `(nx, ny, nz)`.
        voxel_in: voxel size of `array` along each of the three axes [m].
        voxel_out: voxel size of the result [m].

    Returns:
        The resampled array `(..., *shape)` in the precision of `array` (float32 for integers).
    """
    array = np.asarray(array)
    if array.ndim < 3 or len(shape) != 3:
        raise usage_error("array", array, f"three spatial axes to resample to {tuple(shape)}")
    for name, sizes in (("voxel_in", voxel_in), ("voxel_out", voxel_out)):
        if len(sizes) != 3 or not all(np.isfinite(s) and s > 0 for s in sizes):
            raise usage_error(name, tuple(sizes), "three finite lengths > 0 in metres")
    dtype = array.dtype if array.dtype.kind in "fc" else np.dtype(np.float32)
    out = array.astype(np.result_type(dtype, np.float64))
    for axis, (n_out, size_in, size_out) in enumerate(zip(shape, voxel_in, voxel_out, strict=True)):
        weights = _overlap(array.shape[axis - 3], size_in, n_out, size_out)
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis - 3)), 0, axis - 3)
    return np.ascontiguousarray(out.astype(dtype))


def target_grid(
    fov: Sequence[float], shape: Sequence[int] | None, voxel_size: float | Sequence[float] | None
) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """The shape and voxel size that a request means for a volume of known extent.

    With a shape alone the field of view is kept; with a voxel size alone it is kept or grown to whole voxels; with both
    they are the grid, about the same centre. A shape with `nx = 1` and no voxel size is one plane through the centre,
    as thick as its pixels are wide on average (or as the volume, where that is thinner). A voxel size is one length, or
    one for each axis; all lengths are in metres.
    """
    voxel: tuple[float, ...] | None = None
    if voxel_size is not None:
        check_positive("voxel_size", voxel_size)
        lengths = np.asarray(voxel_size, np.float64).ravel()
        if lengths.size not in (1, 3):
            raise usage_error("voxel_size", repr(voxel_size), "one length, or one for each of three axes")
        voxel = tuple(float(v) for v in np.broadcast_to(lengths, 3))
    if shape is None:
        if voxel is None:
            raise usage_error("shape", "neither a shape nor a voxel size", "at least one of them")
        return tuple(max(1, math.ceil(f / v - 1e-6)) for f, v in zip(fov, voxel, strict=True)), voxel
    grid = check_shape("shape", shape, dims=(3,))
    if voxel is None:
        voxel = tuple(f / n for f, n in zip(fov, grid, strict=True))
        if grid[0] == 1:
            voxel = (min((voxel[1] + voxel[2]) / 2, fov[0]), *voxel[1:])
    return grid, voxel

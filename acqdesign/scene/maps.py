"""Maps of coils and of the transmit field, measured elsewhere, on the grid of a scene."""

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from acqdesign.base.checks import UsageError, printable, usage_error
from acqdesign.base.untrusted import check_memory, check_regular, npy_header, parsing, read_cfl
from acqdesign.scene.coils import check_covariance, noise_covariance
from acqdesign.scene.files import read_nifti, volumes_in
from acqdesign.scene.resample import box_resample

MOST_BYTES = 2**33
_SIZES = 0.02  # relative difference of fields of view that is one of rounding
_PERCENT = 10.0  # relative transmit fields above it are in percent

Held = tuple[np.ndarray, Sequence[float] | None]
"""Maps `(n, nx, ny, nz)`, and their voxel size [m] where the file says."""


def load_smaps(path: Path | str, shape: Sequence[int], fov: Sequence[float] | None = None) -> np.ndarray:
    """Coil sensitivities `(coils, nx, ny, nz)` from a file, so that the largest root of their sum of squares is one.

    `.npy` holds `(coils, nx, ny, nz)` and `.cfl` BART's `(x, y, z, coils)`, both on the grid of the scene. Of NIfTI
    files the fourth axis is the coils, axes are turned as a phantom's are, and other grids of the same field of view
    are resampled.

    Args:
        path: of the file.
        shape: `(nx, ny, nz)` of the scene.
        fov: its field of view [m], which that of a NIfTI file must be.

    Raises:
        UsageError: what is wrong with the file, its axes, its field of view, or that it has no phases.
    """
    maps = _on_grid("smaps", Path(path), shape, fov)
    if maps.dtype.kind != "c" and len(maps) > 1:
        remedy = "Their phases are lost: save the complex maps, complex64 or complex128."
        raise usage_error("smaps", f"{path}, real numbers", "complex sensitivities", remedy)
    together = float(np.sqrt((np.abs(maps) ** 2).sum(axis=0)).max())
    if not together:
        raise usage_error("smaps", f"{path}, nothing but zeros", "sensitivities")
    return (maps / together).astype(np.complex64)


def load_b1(
    path: Path | str, shape: Sequence[int], fov: Sequence[float] | None = None, support: np.ndarray | None = None
) -> np.ndarray:
    """A transmit field over nominal `(nx, ny, nz)` from a file, as `load_smaps` reads one; 1 where it holds zeros.

    Args:
        path: of the file.
        shape: as of `load_smaps`.
        fov: likewise.
        support: `(nx, ny, nz)`, above zero where there is a head, in which the field must be known.

    Raises:
        UsageError: likewise; or the field is complex, in percent, or not positive in the head.
    """
    field = _on_grid("b1", Path(path), shape, fov)
    if len(field) != 1 or field.dtype.kind == "c":
        what = "complex numbers" if field.dtype.kind == "c" else f"{len(field)} maps"
        raise usage_error("b1", f"{path}, {what}", "one map of real numbers, actual over nominal flip")
    field = field[0].astype(np.float32)
    if field.max() > _PERCENT:
        what = f"{path}, up to {field.max():.4g}"
        raise usage_error("b1", what, "actual over nominal flip", "Percent? Divide by 100.")
    unknown = field == 0
    holes = int((unknown & (np.asarray(support) > 0.5)).sum()) if support is not None else 0
    if field.min() < 0 or holes:
        what = "negative values" if field.min() < 0 else f"zeros in {holes} voxels of the head"
        raise usage_error("b1", f"{path}, {what}", "values above zero in the head")
    return np.where(unknown, np.float32(1), field)


def load_noise(path: Path | str) -> np.ndarray:
    """The covariance `(coils, coils)` of the coils' noise, from a file of noise samples or of that covariance.

    `.npy` holds samples `(coils, samples)`, complex, or the covariance; `.cfl` BART's noise data, coils along the
    fourth dimension, or the covariance along the fourth and fifth, as `bart whiten` writes it.

    Raises:
        UsageError: what is wrong with the file, or with what it holds.
    """
    path, endings = Path(path), (".npy", ".cfl", ".hdr")
    if not path.name.lower().endswith(endings) or not path.exists():
        raise usage_error("noise", str(path), f"a file that ends in {', '.join(endings)}")
    check_regular("noise", path)
    if path.name.lower().endswith(".npy"):
        held, _ = _npy(path)
    else:
        flat, sizes, _ = read_cfl(path.with_suffix(".cfl"), path.with_suffix(".hdr"), MOST_BYTES)
        whole = flat.reshape((sizes + [1] * 4)[: max(4, len(sizes))], order="F")
        held = np.moveaxis(whole, 3, 0).reshape(whole.shape[3], -1)
    try:
        square = held.ndim == 2 and held.shape[0] == held.shape[1]
        found = check_covariance("noise", held) if square else noise_covariance(held)
        check_covariance("noise", found)
    except UsageError as error:
        raise UsageError(f"noise: {path}:{str(error).partition(':')[2]}") from None
    logging.getLogger("acqdesign").info(
        f"{printable(str(path))}: {'covariance' if square else 'noise'} of {len(found)} coils"
    )
    return found


def _on_grid(name: str, path: Path, shape: Sequence[int], fov: Sequence[float] | None) -> np.ndarray:
    reader = next((r for ending, r in _READERS.items() if path.name.lower().endswith(ending)), None)
    if reader is None or not path.exists():
        raise usage_error(name, str(path), f"a file that ends in {', '.join(_READERS)}")
    check_regular(name, path)
    try:
        maps, voxel = reader(path)
    except UsageError as error:
        raise UsageError(f"{name}:{str(error).partition(':')[2]}") from None
    if maps.ndim == 3:
        maps = maps[None]
    if maps.ndim != 4 or maps.dtype.kind not in "biufc" or not np.isfinite(maps).all():
        raise usage_error(name, maps, "finite numbers of shape (maps, nx, ny, nz)")
    grid, told = tuple(shape), " x ".join(map(str, maps.shape[1:]))
    if voxel is not None:
        own = [size * n for size, n in zip(voxel, maps.shape[1:], strict=True)]
        wanted = own if fov is None else list(fov)
        across = slice(1 if grid[0] == 1 else 0, None)  # one plane is cut out of a thicker slab
        if not np.allclose(own[across], wanted[across], rtol=_SIZES):
            seen, scene = (" x ".join(f"{1e3 * length:.4g}" for length in each) + " mm" for each in (own, wanted))
            remedy = "Crop or pad it, or see --fov-mm."
            raise usage_error(name, f"{path}, whose field of view is {seen}", scene, remedy)
        if maps.shape[1:] != grid or grid[0] == 1:
            sizes = [length / n for length, n in zip(wanted, grid, strict=True)]
            maps = box_resample(maps, grid, voxel_in=voxel, voxel_out=sizes)
    elif maps.shape[1:] != grid:
        last = " Is the coil axis the last one? It comes first." if maps.shape[:3] == grid else ""
        expected = f"(maps, {', '.join(map(str, grid))}), the scene's grid"
        raise usage_error(name, f"{path}, of shape {maps.shape}", expected, last)
    logging.getLogger("acqdesign").info(f"{printable(str(path))}: {len(maps)} {name}; matrix {told}")
    return maps


def _npy(path: Path) -> Held:
    with path.open("rb") as file:
        shape, dtype, offset = npy_header("maps", path, file)
    check_memory("maps", path, 3 * math.prod(shape) * dtype.itemsize)
    with parsing("maps", path, "a whole .npy file"):
        if path.stat().st_size < offset + math.prod(shape) * dtype.itemsize:
            raise ValueError("it is cut off")
        return np.load(path, allow_pickle=False), None


def _nifti(path: Path) -> Held:
    count = volumes_in(path)
    found = [read_nifti(path, n if count > 1 else None) for n in range(count)]
    return np.stack([each.data for each in found]), found[0].voxel_size


def _cfl(path: Path) -> Held:
    data, sizes, _ = read_cfl(path.with_suffix(".cfl"), path.with_suffix(".hdr"), MOST_BYTES)
    if any(n != 1 for n in sizes[4:]):
        raise usage_error("maps", f"{path}, of dimensions {sizes}", "x, y, z and coils, and ones")
    return np.moveaxis(data.reshape((sizes + [1] * 4)[:4], order="F"), 3, 0), None


_READERS: dict[str, Callable[[Path], Held]] = {
    ".npy": _npy, **dict.fromkeys((".nii", ".nii.gz", ".mgz", ".mgh"), _nifti), ".cfl": _cfl, ".hdr": _cfl,
}  # fmt: skip

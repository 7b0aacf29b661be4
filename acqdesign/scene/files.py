"""Volumes from `.npy`, `.npz` and NIfTI files: sizes checked before memory is taken, no pickle ever read."""

import gzip
import importlib.util
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.untrusted import check_memory, npy_header, npz_headers, parsing, read_member
from acqdesign.scene.tissue import TISSUES

MAX_VOXELS = 512**3
"""Largest volume that is read: 0.5 GiB in float32."""

_MAX_NIFTI_OFFSET, _MAX_TRAILER = 2**24, 2**20


class Volume(NamedTuple):
    """What a file holds.

    Attributes:
        data: an image `(nx, ny, nz)`, float32 or complex64 with a largest magnitude of one; or tissue fractions
            `(3, nx, ny, nz)`, float32.
        voxel_size: along each axis [m], or None where the file doesn't say.
        said: what else was understood of the file.
    """

    data: np.ndarray
    voxel_size: tuple[float, ...] | None
    said: str = ""


def _wrong(path: Path, reason: str, expected: str) -> ValueError:
    return usage_error("phantom", f"{path}, {reason}", expected)


def _check_header(path: Path, shape: Sequence[int], dtype: np.dtype) -> None:
    """Refuses what is no volume, from its header alone."""
    if len(shape) != 3:
        raise _wrong(path, f"which holds {len(shape)} axes {tuple(shape)}", "three (one plane: (1, ny, nz))")
    if dtype.kind not in "biufc":
        raise _wrong(path, f"which holds dtype {dtype}", "real or complex numbers")
    if min(shape) < 1:
        raise _wrong(path, f"which is empty with shape {tuple(shape)}", "at least one voxel")
    if math.prod(shape) > MAX_VOXELS:
        raise _wrong(path, f"which claims {math.prod(shape):.3g} voxels", f"at most {MAX_VOXELS:.3g}")


def _copied(path: Path, raw: np.ndarray, out: np.ndarray, slope: float = 1.0, intercept: float = 0.0) -> np.ndarray:
    """`slope * raw + intercept` into `out`, in working precision, once its values are usable.

    One plane at a time: beside a large volume there may be no room for another copy of it.
    """
    wrong = 0
    for plane, values in zip(out, raw, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            plane[...] = values if (slope, intercept) == (1.0, 0.0) else values * slope + intercept
        wrong += int((~np.isfinite(plane)).sum())
    if wrong:
        raise _wrong(path, f"which holds {wrong} values that are NaN or beyond float32", "finite values")
    return out


def _image(path: Path, raw: np.ndarray, voxel_size: tuple[float, ...] | None, *scale: float) -> Volume:
    data = _copied(path, raw, np.empty(raw.shape, _working(raw.dtype)), *scale)
    largest = max(max(np.abs(plane.real).max(), np.abs(plane.imag).max()) for plane in data)
    if largest == 0:
        raise _wrong(path, "which holds nothing but zeros", "an image")
    data /= largest  # twice, as a complex magnitude may overflow where its parts do not
    data /= max(np.abs(plane).max() for plane in data)
    return Volume(data, voxel_size)


def _working(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.complex64 if dtype.kind == "c" else np.float32)


def _memory(shape: Sequence[int], dtype: np.dtype) -> int:
    """What a volume takes while it is read: as it is in the file, and in working precision [bytes]."""
    return math.prod(shape) * (dtype.itemsize + _working(dtype).itemsize)


def read_npy(path: Path) -> Volume:
    """The image in an `.npy` file, with no voxel size."""
    with path.open("rb") as file:
        shape, dtype, offset = npy_header("phantom", path, file)
    _check_header(path, shape, dtype)
    check_memory("phantom", path, _memory(shape, dtype))
    want = offset + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < want:
        raise _wrong(path, f"which is cut off at {path.stat().st_size} of {want} bytes", "the whole file")
    return _image(path, np.load(path, allow_pickle=False), None)


def read_npz(path: Path) -> Volume:
    """The image, or the tissue maps, in an `.npz` file, with no voxel size.

    It holds one array, or one named `image`, or arrays `gm`, `wm` and `csf` of one shape with values in [0, 1] that sum
    to at most one.
    """
    with parsing("phantom", path, "an .npz file"), zipfile.ZipFile(path) as archive:
        headers = npz_headers("phantom", path, archive)
        is_maps = set(TISSUES) <= headers.keys()
        names = TISSUES if is_maps else ("image",) if "image" in headers else tuple(headers)
        if not is_maps and len(names) != 1:
            expected = "one array, one named image, or gm, wm and csf"
            raise _wrong(path, f"which holds {', '.join(headers) or 'nothing'}", expected)
        for name in names:
            _check_header(path, *headers[name])
        check_memory("phantom", path, sum(_memory(*headers[name]) for name in names))
        arrays = [read_member(archive, name) for name in names]
        return _maps(path, arrays) if is_maps else _image(path, arrays[0], None)


def _maps(path: Path, arrays: list[np.ndarray]) -> Volume:
    if len({a.shape for a in arrays}) != 1 or any(a.dtype.kind == "c" for a in arrays):
        raise _wrong(path, f"whose maps have shapes {[a.shape for a in arrays]}", "real maps of one shape")
    maps = np.empty((len(arrays), *arrays[0].shape), np.float32)
    for out, array in zip(maps, arrays, strict=True):
        _copied(path, array, out)
    if maps.min() < -1e-3 or max(plane.sum(axis=0).max() for plane in np.moveaxis(maps, 1, 0)) > 1 + 1e-3:
        raise _wrong(path, "whose maps leave [0, 1]", "volume fractions that sum to at most one")
    if not maps.any():
        raise _wrong(path, "which holds nothing but zeros", "tissue")
    return Volume(np.clip(maps, 0.0, 1.0, out=maps), None)


def to_scanner_axes(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """A volume with the packaged brain's axes, x to the head, y to the back, z to the left, and its voxel size [m].

    Axes are exchanged and mirrored, oblique ones going with the nearest. The affine `(4, 4)` maps voxels to right,
    anterior, superior [mm]; a `UsageError` says where it maps no volume.
    """
    from nibabel import affines, orientations

    sizes = affines.voxel_sizes(affine)
    given = orientations.io_orientation(affine)
    if not np.isfinite(sizes).all() or sizes.min() <= 0 or np.isnan(given).any():
        raise usage_error("affine", np.array2string(affine), "an invertible one")
    turn = orientations.ornt_transform(given, orientations.axcodes2ornt(("S", "P", "L")))
    voxel = tuple(float(sizes[axis]) * 1e-3 for axis in np.argsort(turn[:, 0]))
    return np.asarray(orientations.apply_orientation(data, turn)), voxel


def _nifti_header(path: Path, start: bytes) -> tuple[tuple[int, ...], np.dtype, int, float, float, np.ndarray]:
    """Shape, dtype, offset, slope, intercept and affine [mm] in the first 540 bytes of a single NIfTI-1 or -2 file."""
    import nibabel

    try:
        kind = nibabel.Nifti2Header if start[4:7] == b"n+2" else nibabel.Nifti1Header
        header = kind(start[: kind.sizeof_hdr])
        if header["magic"].item()[:3] not in (b"n+1", b"n+2"):
            raise ValueError("not a single file")
        # Trailing axes of one volume carry nothing.
        shape = tuple(int(n) for n in header.get_data_shape())
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        slope, intercept = header.get_slope_inter()
        millimetres = {"meter": 1e3, "micron": 1e-3}.get(header.get_xyzt_units()[0], 1.0)
        affine = np.diag([millimetres] * 3 + [1.0]) @ np.asarray(header.get_best_affine(), np.float64)
        scale = (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
        return shape, header.get_data_dtype(), int(header.get_data_offset()), *scale, affine
    except Exception as error:  # nibabel raises many kinds on a damaged header
        raise _wrong(path, f"which has no sound NIfTI header ({error})", "a .nii or .nii.gz file") from error


def read_nifti(path: Path) -> Volume:
    """The image in a `.nii` or `.nii.gz` file, turned to the packaged brain's axes, and its voxel size."""
    if importlib.util.find_spec("nibabel") is None:
        remedy = 'Install it: pip install "acqdesign[nifti]".'
        raise usage_error("phantom", f"{path}, a NIfTI file", "the package nibabel to be installed", remedy)
    with path.open("rb") as raw_file:
        zipped = raw_file.read(2) == b"\x1f\x8b"
    with (
        parsing("phantom", path, "a whole .nii or .nii.gz file"),
        gzip.open(path) if zipped else path.open("rb") as file,
    ):
        shape, dtype, offset, slope, intercept, affine = _nifti_header(path, file.read(540))
        _check_header(path, shape, dtype)
        if not 0 < offset <= _MAX_NIFTI_OFFSET:
            raise _wrong(path, f"whose data would begin at byte {offset}", "a .nii file")
        check_memory("phantom", path, _memory(shape, dtype))
        file.seek(offset)
        want = math.prod(shape) * dtype.itemsize
        content = file.read(want)
        file.read(_MAX_TRAILER)  # up to the checksum, where it is packed
    if len(content) < want:
        raise _wrong(path, f"which is cut off after {len(content)} of {want} bytes of data", "the whole file")
    data = np.frombuffer(content, dtype).reshape(shape, order="F")
    try:
        turned, voxel = to_scanner_axes(data, affine)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise _wrong(path, f"whose voxels have no place in space ({error})", "an invertible affine") from error
    return _image(path, turned, voxel, slope, intercept)

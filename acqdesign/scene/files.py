"""Volumes from `.npy`, `.npz` and NIfTI files: sizes checked before memory is taken, no pickle ever read."""

import gzip
import importlib.util
import lzma
import math
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acqdesign._checks import bad
from acqdesign.scene.tissue import TISSUES

MAX_VOXELS = 512**3
"""Largest volume that is read: 0.5 GiB in float32."""

_MAX_NIFTI_OFFSET = 2**24
_NPY_HEADER_READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


class Volume(NamedTuple):
    """What a file holds.

    Attributes:
        data: an image `(nx, ny, nz)`, float32 or complex64 with a largest magnitude of one; or tissue
            fractions `(3, nx, ny, nz)`, float32.
        voxel_size_m: along each axis [m], or None where the file doesn't say.
    """

    data: np.ndarray
    voxel_size_m: tuple[float, ...] | None


def _wrong(path: Path, reason: str, expected: str) -> ValueError:
    return bad("phantom", f"{path}, {reason}", expected)


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


def _check_values(path: Path, raw: np.ndarray) -> np.ndarray:
    """`raw` in working precision, once its values are usable."""
    with np.errstate(over="ignore", invalid="ignore"):
        data = np.asarray(raw).astype(np.complex64 if raw.dtype.kind == "c" else np.float32)
    wrong = int((~np.isfinite(data)).sum())
    if wrong:
        raise _wrong(path, f"which holds {wrong} values that are NaN or beyond float32", "finite values")
    return data


def _image(path: Path, raw: np.ndarray, voxel_size_m: tuple[float, ...] | None) -> Volume:
    data = _check_values(path, raw)
    largest = max(np.abs(data.real).max(), np.abs(data.imag).max())
    if largest == 0:
        raise _wrong(path, "which holds nothing but zeros", "an image")
    data = data / largest  # twice, as a complex magnitude may overflow where its parts do not
    return Volume(data / np.abs(data).max(), voxel_size_m)


def _npy_header(path: Path, file: Any) -> tuple[tuple[int, ...], np.dtype, int]:
    """Shape, dtype and header length of an `.npy` stream."""
    try:
        version = np.lib.format.read_magic(file)
        if version not in _NPY_HEADER_READERS:
            raise ValueError(f"format version {version}")
        shape, _, dtype = _NPY_HEADER_READERS[version](file)
    except Exception as error:  # NumPy's parser raises many kinds on a damaged header
        raise _wrong(path, f"which has no sound .npy header ({error})", "a NumPy array") from error
    return shape, dtype, file.tell()


def read_npy(path: Path) -> Volume:
    """The image in an `.npy` file.

    Args:
        path: of the file.

    Returns:
        The image, with no voxel size.

    Raises:
        ValueError: what is wrong with the file.
    """
    with path.open("rb") as file:
        shape, dtype, offset = _npy_header(path, file)
    _check_header(path, shape, dtype)
    want = offset + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < want:
        raise _wrong(path, f"which is cut off at {path.stat().st_size} of {want} bytes", "the whole file")
    return _image(path, np.load(path, allow_pickle=False), None)


def _npz_member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    """One array of an archive, decompressed only once its header has told a sound size."""
    with archive.open(info) as file:
        shape, dtype, offset = _npy_header(path, file)
    _check_header(path, shape, dtype)
    if info.file_size != offset + math.prod(shape) * dtype.itemsize:
        raise _wrong(path, f"whose {info.filename} is {info.file_size} bytes", "what its header claims")
    with archive.open(info) as file:
        return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(path: Path) -> Volume:
    """The image, or the tissue maps, in an `.npz` file.

    Args:
        path: of the file: one array, or one named `image`, or arrays `gm`, `wm` and `csf` of one shape with
            values in [0, 1] that sum to at most one.

    Returns:
        The image or maps, with no voxel size.

    Raises:
        ValueError: what is wrong with the file.
    """
    expected = "one array, one named image, or gm, wm and csf"
    try:
        with zipfile.ZipFile(path) as archive:
            members = {i.filename.removesuffix(".npy"): i for i in archive.infolist()}
            if set(TISSUES) <= members.keys():
                arrays = [_npz_member(path, archive, members[name]) for name in TISSUES]
            elif "image" in members or len(members) == 1:
                only = members.get("image") or next(iter(members.values()))
                return _image(path, _npz_member(path, archive, only), None)
            else:
                raise _wrong(path, f"which holds {', '.join(members) or 'nothing'}", expected)
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        lzma.LZMAError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise _wrong(path, f"which is no sound archive ({error})", "an .npz file") from error
    if len({a.shape for a in arrays}) != 1 or any(a.dtype.kind == "c" for a in arrays):
        raise _wrong(path, f"whose maps have shapes {[a.shape for a in arrays]}", "real maps of one shape")
    maps = np.stack([_check_values(path, a) for a in arrays])
    if maps.min() < -1e-3 or maps.sum(axis=0).max() > 1 + 1e-3:
        raise _wrong(path, "whose maps leave [0, 1]", "volume fractions that sum to at most one")
    if not maps.any():
        raise _wrong(path, "which holds nothing but zeros", "tissue")
    return Volume(np.clip(maps, 0.0, 1.0), None)


def to_scanner_axes(data: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """A volume turned to the packaged brain's axes: x to the head, y to the back, z to the left.

    Args:
        data: `(a, b, c)`.
        affine: `(4, 4)` from voxels to right, anterior, superior [mm].

    Returns:
        The volume with its axes exchanged and mirrored (oblique ones go with the nearest), and its voxel
        size along the new axes [m].

    Raises:
        ValueError: an affine that maps no volume.
    """
    from nibabel import affines, orientations

    sizes = affines.voxel_sizes(affine)
    given = orientations.io_orientation(affine)
    if not np.isfinite(sizes).all() or sizes.min() <= 0 or np.isnan(given).any():
        raise bad("affine", np.array2string(affine), "an invertible one")
    turn = orientations.ornt_transform(given, orientations.axcodes2ornt(("S", "P", "L")))
    voxel = [0.0, 0.0, 0.0]
    for axis, target in enumerate(turn[:, 0].astype(int)):
        voxel[target] = float(sizes[axis]) * 1e-3
    return np.ascontiguousarray(orientations.apply_orientation(data, turn)), tuple(voxel)


class _NiftiHeader(NamedTuple):
    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int
    slope: float
    intercept: float
    affine_mm: np.ndarray


def _nifti_header(path: Path, start: bytes) -> _NiftiHeader:
    """What the first 540 bytes of a single NIfTI-1 or NIfTI-2 file say."""
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
        return _NiftiHeader(
            shape=shape,
            dtype=header.get_data_dtype(),
            offset=int(header.get_data_offset()),
            slope=1.0 if slope is None else slope,
            intercept=0.0 if intercept is None else intercept,
            affine_mm=affine,
        )
    except Exception as error:  # nibabel raises many kinds on a damaged header
        raise _wrong(path, f"which has no sound NIfTI header ({error})", "a .nii or .nii.gz file") from error


def read_nifti(path: Path) -> Volume:
    """The image in a `.nii` or `.nii.gz` file, turned to the packaged brain's axes.

    Args:
        path: of the file.

    Returns:
        The image and its voxel size.

    Raises:
        ValueError: nibabel isn't installed, or what is wrong with the file.
    """
    if importlib.util.find_spec("nibabel") is None:
        remedy = 'Install it: pip install "acqdesign[nifti]".'
        raise bad("phantom", f"{path}, a NIfTI file", "the package nibabel to be installed", remedy)
    with path.open("rb") as raw_file:
        zipped = raw_file.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path) if zipped else path.open("rb") as file:
            start = file.read(540)
            header = _nifti_header(path, start)
            _check_header(path, header.shape, header.dtype)
            if not 0 < header.offset <= _MAX_NIFTI_OFFSET:
                raise _wrong(path, f"whose data would begin at byte {header.offset}", "a .nii file")
            want = header.offset + math.prod(header.shape) * header.dtype.itemsize
            content = start + file.read(max(want - len(start), 0))
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise _wrong(path, f"which is cut off or damaged ({error})", "the whole file") from error
    if len(content) < want:
        raise _wrong(path, f"which is cut off at {len(content)} of {want} bytes", "the whole file")
    data = np.frombuffer(content, header.dtype, math.prod(header.shape), header.offset)
    data = data.reshape(header.shape, order="F")
    if (header.slope, header.intercept) != (1.0, 0.0):
        with np.errstate(over="ignore", invalid="ignore"):
            data = data * header.slope + header.intercept
    try:
        turned, voxel = to_scanner_axes(data, header.affine_mm)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise _wrong(
            path, f"whose voxels have no place in space ({error})", "an invertible affine"
        ) from error
    return _image(path, turned, voxel)

"""Volumes from `.npy`, `.npz`, NIfTI and FreeSurfer files: sizes checked before memory is taken, no pickle ever read.

Everywhere `volume` is the number, from 0, of one of several along a fourth axis, `fill` what takes the place of NaN.
"""

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
        data: an image `(nx, ny, nz)`, float32 or complex64; or tissue fractions `(3, nx, ny, nz)`, float32.
        voxel_size: along each axis [m], or None where the file doesn't say.
        said: what else was understood of the file.
    """

    data: np.ndarray
    voxel_size: tuple[float, ...] | None
    said: str = ""


def _wrong(path: Path, reason: str, expected: str) -> ValueError:
    return usage_error("phantom", f"{path}, {reason}", expected)


def _check_header(path: Path, shape: Sequence[int], dtype: np.dtype, volume: int | None = None) -> tuple[int, ...]:
    """The shape of one volume, of a header that may have several; refuses what is none."""
    if len(shape) == 4 and shape[3] > 1 and volume is None:
        expected = f"one: --volume 0 to {shape[3] - 1} (volume= in Python)"
        raise _wrong(path, f"which holds {shape[3]} volumes {tuple(shape)}", expected)
    if len(shape) not in (3, 4):
        raise _wrong(path, f"which holds {len(shape)} axes {tuple(shape)}", "three (one plane: (1, ny, nz))")
    if volume is not None and volume >= (*shape, 1)[3]:
        raise usage_error("volume", volume, f"0 to {(*shape, 1)[3] - 1}, of the volumes in {path}")
    if dtype.kind not in "biufc":
        raise _wrong(path, f"which holds dtype {dtype}", "real or complex numbers")
    if min(shape) < 1:
        raise _wrong(path, f"which is empty with shape {tuple(shape)}", "at least one voxel")
    if math.prod(shape[:3]) > MAX_VOXELS:
        raise _wrong(path, f"which claims {math.prod(shape[:3]):.3g} voxels", f"at most {MAX_VOXELS:.3g}")
    return tuple(shape[:3])


def _copied(
    path: Path, raw: np.ndarray, out: np.ndarray, fill: float | None, slope: float = 1.0, intercept: float = 0.0
) -> np.ndarray:
    """`slope * raw + intercept` into `out`, in working precision, once its values are usable.

    One plane at a time: beside a large volume there may be no room for another copy of it.
    """
    wrong = missing = 0
    for plane, values in zip(out, raw, strict=True):
        with np.errstate(over="ignore", invalid="ignore"):
            plane[...] = values if (slope, intercept) == (1.0, 0.0) else values * slope + intercept
        absent = np.isnan(plane)
        missing += int(absent.sum())
        if fill is not None:
            plane[absent] = fill
        wrong += int(np.isinf(plane).sum())
    if missing and fill is None:
        raise _wrong(path, f"which holds {missing} NaN voxels", "numbers: --fill 0 (fill=0.0 in Python), or mask them")
    if wrong:
        raise _wrong(path, f"which holds {wrong} values that are infinite or beyond float32", "finite values")
    return out


def _image(
    path: Path, raw: np.ndarray, voxel_size: tuple[float, ...] | None, fill: float | None, said: str, *scale: float
) -> Volume:
    data = _copied(path, raw, np.empty(raw.shape, _working(raw.dtype)), fill, *scale)
    return Volume(data, voxel_size, said)


def scaled(path: Path, volume: Volume) -> Volume:
    """An image with a largest magnitude of one, in place; maps as they are."""
    data = volume.data
    if data.ndim == 3:
        largest = max(max(np.abs(plane.real).max(), np.abs(plane.imag).max()) for plane in data)
        if largest == 0:
            raise _wrong(path, "which holds nothing but zeros", "an image")
        data /= largest  # twice, as a complex magnitude may overflow where its parts do not
        data /= max(np.abs(plane).max() for plane in data)
    return volume


def volumes_in(path: Path) -> int:
    """How many volumes a NIfTI or FreeSurfer file holds along a fourth axis."""
    read_header = _mgh_header if path.name.lower().endswith((".mgh", ".mgz")) else _nifti_header
    with path.open("rb") as raw_file:
        zipped = raw_file.read(2) == b"\x1f\x8b"
    with parsing("phantom", path, "a whole file of its kind"), gzip.open(path) if zipped else path.open("rb") as file:
        return (*read_header(path, file.read(540))[0], 1)[3]


def _said(shape: Sequence[int], volume: int | None) -> str:
    return f"volume {volume or 0} of {shape[3]}, from 0" if len(shape) == 4 else ""


def _working(dtype: np.dtype) -> np.dtype:
    return np.dtype(np.complex64 if dtype.kind == "c" else np.float32)


def _memory(shape: Sequence[int], dtype: np.dtype) -> int:
    """What a volume takes while it is read: as it is in the file, and in working precision [bytes]."""
    return math.prod(shape) * (dtype.itemsize + _working(dtype).itemsize)


def read_npy(path: Path, volume: int | None = None, fill: float | None = None) -> Volume:
    """The image in an `.npy` file, with no voxel size."""
    with path.open("rb") as file:
        shape, dtype, offset = npy_header("phantom", path, file)
    check_memory("phantom", path, _memory(_check_header(path, shape, dtype, volume), dtype))
    want = offset + math.prod(shape) * dtype.itemsize
    if path.stat().st_size < want:
        raise _wrong(path, f"which is cut off at {path.stat().st_size} of {want} bytes", "the whole file")
    held = np.load(path, mmap_mode="r", allow_pickle=False)
    return _image(path, held[..., volume or 0] if len(shape) == 4 else held, None, fill, _said(shape, volume))


def read_npz(path: Path, volume: int | None = None, fill: float | None = None) -> Volume:
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
            _check_header(path, *headers[name], volume)
        check_memory("phantom", path, sum(_memory(*headers[name]) for name in names))
        arrays = [read_member(archive, name) for name in names]
        said = _said(arrays[0].shape, volume)
        arrays = [array[..., volume or 0] if array.ndim == 4 else array for array in arrays]
        return _maps(path, arrays, fill, said) if is_maps else _image(path, arrays[0], None, fill, said)


def _maps(path: Path, arrays: list[np.ndarray], fill: float | None, said: str) -> Volume:
    if len({a.shape for a in arrays}) != 1 or any(a.dtype.kind == "c" for a in arrays):
        raise _wrong(path, f"whose maps have shapes {[a.shape for a in arrays]}", "real maps of one shape")
    maps = np.empty((len(arrays), *arrays[0].shape), np.float32)
    for out, array in zip(maps, arrays, strict=True):
        _copied(path, array, out, fill)
    if maps.min() < -1e-3 or max(plane.sum(axis=0).max() for plane in np.moveaxis(maps, 1, 0)) > 1 + 1e-3:
        raise _wrong(path, "whose maps leave [0, 1]", "volume fractions that sum to at most one")
    if not maps.any():
        raise _wrong(path, "which holds nothing but zeros", "tissue")
    return Volume(np.clip(maps, 0.0, 1.0, out=maps), None, said)


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


_Header = tuple[tuple[int, ...], np.dtype, int, float, float, np.ndarray]


def _mgh_header(path: Path, start: bytes) -> _Header:
    """As of `_nifti_header`, of a file of FreeSurfer's."""
    from nibabel.freesurfer import mghformat

    try:
        header = mghformat.MGHHeader(start[: mghformat.header_dtype.itemsize] + bytes(mghformat.footer_dtype.itemsize))
        shape = tuple(int(n) for n in header.get_data_shape())
        return shape, header.get_data_dtype(), header.get_data_offset(), 1.0, 0.0, np.asarray(header.get_affine())
    except Exception as error:  # nibabel raises many kinds on a damaged header
        raise _wrong(path, f"which has no sound FreeSurfer header ({error})", "a .mgh or .mgz file") from error


def _nifti_header(path: Path, start: bytes) -> _Header:
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


def read_nifti(path: Path, volume: int | None = None, fill: float | None = None) -> Volume:
    """The image in a `.nii`, `.nii.gz`, `.mgh` or `.mgz` file, turned to the packaged brain's axes, with voxel size."""
    if importlib.util.find_spec("nibabel") is None:
        remedy = 'Install it: pip install "acqdesign[nifti]".'
        raise usage_error("phantom", f"{path}, a NIfTI file", "the package nibabel to be installed", remedy)
    read_header = _mgh_header if path.name.lower().endswith((".mgh", ".mgz")) else _nifti_header
    with path.open("rb") as raw_file:
        zipped = raw_file.read(2) == b"\x1f\x8b"
    with parsing("phantom", path, "a whole file of its kind"), gzip.open(path) if zipped else path.open("rb") as file:
        several, dtype, offset, slope, intercept, affine = read_header(path, file.read(540))
        shape = _check_header(path, several, dtype, volume)
        if not 0 < offset <= _MAX_NIFTI_OFFSET:
            raise _wrong(path, f"whose data would begin at byte {offset}", "a .nii file")
        want = math.prod(shape) * dtype.itemsize
        skipped = (volume or 0) * want
        check_memory("phantom", path, _memory(shape, dtype) + (skipped if zipped else 0))  # which is unpacked
        file.seek(offset + skipped)
        content = file.read(want)
        file.read(_MAX_TRAILER)  # up to the checksum, where it is packed
    if len(content) < want:
        raise _wrong(path, f"which is cut off after {len(content)} of {want} bytes of data", "the whole file")
    data = np.frombuffer(content, dtype).reshape(shape, order="F")
    try:
        turned, voxel = to_scanner_axes(data, affine)
    except (ValueError, np.linalg.LinAlgError) as error:
        raise _wrong(path, f"whose voxels have no place in space ({error})", "an invertible affine") from error
    return _image(path, turned, voxel, fill, _said(several, volume), slope, intercept)

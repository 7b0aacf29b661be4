"""`design.npz`: a learned design as plain arrays, loadable without this package and without pickle."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign._checks import bad
from acqdesign._files import write_npz

# Name: dtype and number of axes of what a design may hold; units in DESIGN_KEYS' comments are SI.
DESIGN_KEYS: Mapping[str, tuple[type, int]] = {
    "points": (np.float32, 2),  # (lines, 2) phase encodes (ky, kz) [cycles/voxel]
    "learned": (np.bool_, 1),  # (lines,) whether learning moved the line
    "samples_per_line": (np.int32, 0),
    "readout": (np.float32, 1),  # (samples,) kx [cycles/voxel]
    "shape": (np.int32, 1),  # (nx, ny, nz)
    "fov_m": (np.float32, 1),  # (x, y, z) [m]
    "train": (np.int32, 1),  # (lines,) train of each line
    "echo": (np.int32, 1),  # (lines,) echo of each line in its train, from 0
    "flips_rad": (np.float32, 1),
    "phases_rad": (np.float32, 1),
    "tr_s": (np.float32, 1),
    "te_s": (np.float32, 1),
    "ti_s": (np.float32, 0),
    "excitation_rad": (np.float32, 0),
    "esp_s": (np.float32, 0),
    "dwell_s": (np.float32, 0),
}
_MAX_BYTES = 2**30


def write_design(path: Path | str, design: Mapping[str, Any]) -> None:
    """Writes a design, atomically; equal designs give equal bytes.

    Args:
        path: of the `.npz` file.
        design: values for any of `DESIGN_KEYS`; those that are None are left out.

    Raises:
        ValueError: an unknown key, or an array with the wrong number of axes.
        OSError: the file cannot be written.
    """
    arrays: dict[str, np.ndarray] = {}
    for name, value in design.items():
        if name not in DESIGN_KEYS:
            raise bad("design", f"the key {name!r}", "keys out of " + ", ".join(DESIGN_KEYS))
        if value is None:
            continue
        dtype, axes = DESIGN_KEYS[name]
        arrays[name] = np.asarray(value, dtype)
        if arrays[name].ndim != axes:
            raise bad(f"design[{name!r}]", arrays[name], f"{axes} axes")
    write_npz(path, arrays)


def read_design(path: Path | str) -> dict[str, np.ndarray]:
    """Reads a `design.npz`, trusting nothing in it.

    Args:
        path: of the file.

    Returns:
        Its arrays by the names of `DESIGN_KEYS`, finite and in their dtypes; unknown names are left out.

    Raises:
        ValueError: what is wrong with the file, by name; no pickle is ever loaded.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
            if size > _MAX_BYTES:
                raise bad("design", f"{path}, which unpacks to {size} bytes", f"at most {_MAX_BYTES}")
        with np.load(path, allow_pickle=False) as npz:
            found = {name: npz[name] for name in npz.files if name in DESIGN_KEYS}
    except (OSError, EOFError, zipfile.BadZipFile, ValueError, KeyError, NotImplementedError) as error:
        raise bad("design", f"{path} ({error})", "a readable design.npz") from error
    for name, array in found.items():
        dtype, axes = DESIGN_KEYS[name]
        if array.ndim != axes or array.dtype.kind not in "biuf":
            raise bad(f"design {path}: {name}", array, f"numbers with {axes} axes")
        found[name] = array.astype(dtype)
        if not np.isfinite(found[name]).all():
            raise bad(f"design {path}: {name}", "values that are not finite", "finite values")
    if "points" not in found or found["points"].shape[1:] != (2,) or not len(found["points"]):
        raise bad("design", f"{path} without line positions", "an array named points of shape (lines, 2)")
    learned = found.setdefault("learned", np.ones(len(found["points"]), bool))
    if len(learned) != len(found["points"]):
        raise bad(f"design {path}: learned", learned, f"one entry for each of {len(found['points'])} lines")
    return found

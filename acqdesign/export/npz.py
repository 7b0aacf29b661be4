"""`design.npz`: a learned design as plain arrays, loadable without this package and without pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.files import write_npz
from acqdesign.base.untrusted import read_npz

# Name: dtype and number of axes of what a design may hold.
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


def check_design(where: str, design: Mapping[str, np.ndarray]) -> None:
    """Raises unless the arrays are finite, of the right number of axes, and agree on the number of lines."""
    for name, array in design.items():
        if array.ndim != DESIGN_KEYS[name][1]:
            raise usage_error(f"{where}: {name}", array, f"{DESIGN_KEYS[name][1]} axes")
        if not np.isfinite(array).all():
            raise usage_error(f"{where}: {name}", "values that are not finite", "finite values")
    points = design.get("points")
    if points is not None and (points.shape[1:] != (2,) or not len(points)):
        raise usage_error(f"{where}: points", points, "shape (lines, 2), at least one line")
    for name in ("learned", "train", "echo"):
        if points is not None and name in design and len(design[name]) != len(points):
            raise usage_error(f"{where}: {name}", design[name], f"one entry for each of {len(points)} lines")
    flips, phases = design.get("flips_rad"), design.get("phases_rad")
    if flips is not None and phases is not None and len(flips) != len(phases):
        raise usage_error(f"{where}: phases_rad", phases, f"one entry for each of {len(flips)} pulses")


def cast_entry(where: str, name: str, array: np.ndarray) -> np.ndarray:
    """In the dtype of its key; floats that do not fit become infinite, integers and booleans must be exact."""
    dtype = DESIGN_KEYS[name][0]
    with np.errstate(over="ignore", invalid="ignore"):
        cast: np.ndarray = array.astype(dtype)
    if cast.dtype.kind != "f" and not np.array_equal(cast, array):
        raise usage_error(f"{where}: {name}", array, f"values that {cast.dtype} holds")
    return cast


def write_design(path: Path | str, design: Mapping[str, Any]) -> None:
    """Writes a design, atomically; equal designs give equal bytes.

    Args:
        path: of the `.npz` file.
        design: values for any of `DESIGN_KEYS`; those that are None are left out.

    Raises:
        ValueError: an unknown key, an array with the wrong number of axes or that is not finite, or arrays
            that disagree on the number of lines.
        OSError: the file cannot be written.
    """
    for name in design:
        if name not in DESIGN_KEYS:
            raise usage_error("design", f"the key {name!r}", "keys out of " + ", ".join(DESIGN_KEYS))
    given = {name: np.asarray(value) for name, value in design.items() if value is not None}
    arrays = {name: cast_entry("design", name, value) for name, value in given.items()}
    check_design("design", arrays)
    write_npz(path, arrays)


def read_design(path: Path | str) -> dict[str, np.ndarray]:
    """Reads a `design.npz`, trusting nothing in it.

    Args:
        path: of the file.

    Returns:
        Its arrays by the names of `DESIGN_KEYS`, finite and in their dtypes; unknown names are left out. It holds
        `points`, `flips_rad` or both, and every line counts as learned where the file doesn't say.

    Raises:
        ValueError: what is wrong with the file, by name; no pickle is ever loaded.
    """
    path = Path(path)
    found = read_npz("design", path, DESIGN_KEYS)
    for name, array in found.items():
        if array.dtype.kind not in "biuf":
            raise usage_error(f"design {path}: {name}", array, "real numbers")
        found[name] = cast_entry(f"design {path}", name, array)
    if not {"points", "flips_rad"} & set(found):
        raise usage_error(
            "design", f"{path} without a design", "an array named points (lines, 2) or flips_rad (pulses,)"
        )
    check_design(f"design {path}", found)
    if "points" in found:
        found.setdefault("learned", np.ones(len(found["points"]), bool))
    return found

"""`design.npz`: a learned design as plain arrays, loadable without this package and without pickle."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.files import write_npz
from acqdesign.base.untrusted import read_npz
from acqdesign.export.formats import Format
from acqdesign.export.straight import MAX_LINE, MAX_MATRIX, OURS, SAID

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
    "events": (np.float32, 2),  # (events, 6) of repetitions, as `signal.events.event_table` has them
    "recovers": (np.bool_, 0),  # whether each repetition begins at equilibrium
    "coordinates": (np.float32, 3),  # (readouts, samples, D) of other trajectories [cycles/voxel]
}
# Name: least and largest value of a design that can be.
_RANGES = dict.fromkeys(("tr_s", "te_s", "ti_s", "esp_s", "dwell_s"), (0.0, 3600.0))
_RANGES |= dict.fromkeys(("flips_rad", "excitation_rad"), (-1e3, 1e3))
_RANGES |= {"samples_per_line": (1, MAX_LINE), "shape": (1, MAX_MATRIX), "fov_m": (1e-6, 1e6)}
_RANGES |= {"train": (0, 2**31 - 1), "echo": (0, 2**20)}
PARTS = ("trajectory.", "sequence.")  # before the names of one's own arrays


def is_key(name: str) -> bool:
    """Whether a design may hold an array of this name: one of `DESIGN_KEYS`, or an array of one's own part."""
    return name in DESIGN_KEYS or name.startswith(PARTS)


def axes_of(name: str, array: np.ndarray) -> int:
    """Number of axes of an entry; one's own arrays keep theirs."""
    return DESIGN_KEYS[name][1] if name in DESIGN_KEYS else array.ndim


def as_design(where: str, design: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A design as arrays in their stated dtypes, without entries that are None; `where` is what gave it, for errors."""
    given = {name: value for name, value in design.items() if value is not None}
    found = {name: _as_entry(where, name, np.asarray(value)) for name, value in given.items()}
    points = found.get("points")
    if points is not None and (points.shape[1:] != (2,) or not len(points)):
        raise usage_error(f"{where}: points", points, "shape (lines, 2), at least one line")
    for name in ("learned", "train", "echo"):
        if points is not None and name in found and len(found[name]) != len(points):
            raise usage_error(f"{where}: {name}", found[name], f"one entry for each of {len(points)} lines")
    flips, phases = found.get("flips_rad"), found.get("phases_rad")
    if flips is not None and phases is not None and len(flips) != len(phases):
        raise usage_error(f"{where}: phases_rad", phases, f"one entry for each of {len(flips)} pulses")
    readout, samples = found.get("readout"), found.get("samples_per_line")
    if readout is not None and samples is not None and len(readout) != int(samples):
        raise usage_error(f"{where}: readout", readout, f"{int(samples)} positions, as samples_per_line says")
    return found


def _as_entry(where: str, name: str, array: np.ndarray) -> np.ndarray:
    """In the dtype and range of its key, or its own in single precision; integers and booleans must be exact."""
    if not is_key(name):
        raise usage_error(where, f"the key {name!r}", "keys out of " + ", ".join(DESIGN_KEYS))
    if array.dtype.kind not in "biuf":
        raise usage_error(f"{where}: {name}", array, "real numbers")
    own = np.float32 if array.dtype.kind == "f" else array.dtype.type
    with np.errstate(over="ignore", invalid="ignore"):
        cast: np.ndarray = array.astype(DESIGN_KEYS[name][0] if name in DESIGN_KEYS else own)
    if cast.ndim != axes_of(name, cast):
        raise usage_error(f"{where}: {name}", cast, f"{axes_of(name, cast)} axes")
    if cast.dtype.kind != "f" and not np.array_equal(cast, array):
        raise usage_error(f"{where}: {name}", array, f"values that {cast.dtype} holds")
    if not np.isfinite(cast).all():
        raise usage_error(f"{where}: {name}", "values that are not finite", "finite values")
    if name in ("shape", "fov_m") and len(cast) != 3:
        raise usage_error(f"{where}: {name}", cast.tolist(), "three numbers, along x, y and z")
    low, high = _RANGES.get(name, (-np.inf, np.inf))
    if not cast.size and name in (*_RANGES, "readout"):
        raise usage_error(f"{where}: {name}", "nothing", "at least one value")
    if cast.size and not (low <= cast.min() and cast.max() <= high):
        worst = cast.min() if cast.min() < low else cast.max()
        raise usage_error(f"{where}: {name}", f"{worst:.6g}", f"{low:.6g} to {high:.6g}")
    return cast


class Npz(Format):
    """`design.npz`: plain arrays, loadable without this package and without pickle."""

    ending, about = "npz", "NumPy arrays by name, as every run writes them"
    keeps = "everything, in single precision"
    loses = "nothing"

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        write_npz(path, design)

    def read(self, path: Path) -> dict[str, Any]:
        """Reads a design: no pickle is ever loaded, and unknown names are left out."""
        found = read_npz("design", path, is_key)
        if not {"points", "flips_rad", "coordinates"} & set(found) and not any(n.startswith(PARTS) for n in found):
            expected = "an array named points (lines, 2) or flips_rad (pulses,)"
            raise usage_error("design", f"{path} without a design", expected)
        return found | {SAID: OURS}

"""MATLAB files (`.mat`, level 5): a design's arrays by their names."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from acqdesign._checks import bad
from acqdesign._files import atomic_write
from acqdesign.export.npz import DESIGN_KEYS, _cast, _check
from acqdesign.export.straight import MAX_BYTES

# In place of SciPy's own first text, which holds the time.
_TITLE = b"MATLAB 5.0 MAT-file, an acquisition design of acqdesign".ljust(116)


def write_mat(path: Path | str, design: Mapping[str, Any]) -> None:
    """Writes a design as a MATLAB file, atomically; equal designs give equal bytes.

    Args:
        path: of the `.mat` file.
        design: arrays by the names of `design.npz`; vectors become rows.

    Raises:
        ValueError: an unknown name.
        OSError: the file cannot be written.
    """
    for name in design:
        if name not in DESIGN_KEYS:
            raise bad("design", f"the key {name!r}", "keys out of " + ", ".join(DESIGN_KEYS))
    given = {name: np.asarray(value) for name, value in sorted(design.items()) if value is not None}
    buffer = io.BytesIO()
    arrays: dict[str, np.ndarray] = {
        name: value.astype(DESIGN_KEYS[name][0]) for name, value in given.items()
    }
    scipy.io.savemat(buffer, arrays, do_compression=True)  # type: ignore[arg-type]
    with atomic_write(path) as file:
        file.write(_TITLE + buffer.getvalue()[len(_TITLE) :])


def read_mat(path: Path | str) -> dict[str, np.ndarray]:
    """Reads a design from a MATLAB file, trusting nothing in it.

    Args:
        path: of the `.mat` file.

    Returns:
        Arrays by the names of `design.npz`, in their dtypes; other names are left out.

    Raises:
        ValueError: what is wrong with the file, by name.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.stat().st_size > MAX_BYTES:
        raise bad("mat", f"{path}: {path.stat().st_size} bytes", f"at most {MAX_BYTES}")
    try:
        sizes = {
            name: (shape, kind) for name, shape, kind in scipy.io.whosmat(str(path)) if name in DESIGN_KEYS
        }
    except Exception as error:  # SciPy's parser raises many kinds on a damaged file
        raise _unreadable(path, error) from error
    for name, (shape, kind) in sizes.items():
        if np.prod(shape, dtype=float) * 8 > MAX_BYTES:
            raise bad("mat", f"{path}: {name} of shape {shape}", f"at most {MAX_BYTES} bytes")
        if kind in ("cell", "struct", "object", "function", "opaque", "char", "sparse", "unknown"):
            raise bad("mat", f"{path}: {name}, a {kind}", "real numbers")
    if not sizes:
        raise bad("mat", f"{path} without any of a design's arrays", "some of " + ", ".join(DESIGN_KEYS))
    try:
        held = scipy.io.loadmat(str(path), variable_names=list(sizes))
    except Exception as error:
        raise _unreadable(path, error) from error
    found = {name: _cast(f"mat {path}", name, _plain(path, name, held[name])) for name in sizes}
    _check(f"mat {path}", found)
    if "points" in found:
        found.setdefault("learned", np.ones(len(found["points"]), bool))
    return found


def _unreadable(path: Path, error: Exception) -> ValueError:
    return bad("mat", f"{path} ({type(error).__name__}: {error})", "a readable MATLAB file of level 5")


def _plain(path: Path, name: str, array: np.ndarray) -> np.ndarray:
    """A MATLAB matrix with the number of axes that its name asks for."""
    if array.dtype.kind not in "biuf":
        raise bad(f"mat {path}: {name}", array, "real numbers")
    axes = DESIGN_KEYS[name][1]
    return array.reshape([n for n in array.shape if n > 1] if axes == 0 else -1) if axes < 2 else array

"""BART's `.cfl` and `.hdr`: trajectories, complex64 `(3, samples, lines)` in cycles per field of view, and masks."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import check_shape, usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.untrusted import read_cfl
from acqdesign.export.formats import Format
from acqdesign.export.mask import lines_of
from acqdesign.export.straight import MAX_BYTES, MAX_MATRIX, SAID, need, straight_lines, trajectory

_DIMS = 16
_OURS = "# acqdesign"


def _names(path: Path) -> tuple[Path, Path]:
    if path.suffix not in (".cfl", ".hdr"):
        raise usage_error("path", str(path), "a name ending in .cfl")
    return path.with_suffix(".cfl"), path.with_suffix(".hdr")


def _comment(lines: list[str], name: str) -> list[float] | None:
    """Three numbers after a name in our comment, or None."""
    words = next((line.split() for line in lines if line.startswith(_OURS)), [])
    try:
        at = words.index(name) + 1
        return [float(word) for word in words[at : at + 3]]
    except ValueError:
        return None


class Bart(Format):
    """BART trajectories; also masks of lines, which are only read.

    Args:
        shape: `(nx, ny, nz)` of the image, where the header of a file that is read doesn't say.
    """

    ending, about, also = "cfl", "a BART trajectory or mask, with its .hdr", ("hdr",)
    keeps = "positions of all samples; matrix and field of view in a comment"
    loses = "flips, times and trains"

    def __init__(self, shape: Sequence[int] | None = None):
        self.shape = shape

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        """Writes a design's lines as a BART trajectory, each of the two files atomically; equal designs, equal bytes.

        Matrix and field of view stand in a comment of the header, which BART skips. `bart nufft -P` knows that k-space
        is periodic, which lines near its ends need; BART's origin lies half a voxel from ours along axes of odd length.
        """
        samples = trajectory(design)
        need(design, "shape")
        shape = np.asarray(design["shape"], int)
        cfl, hdr = _names(path)
        sizes = (3, samples.shape[1], samples.shape[0], *[1] * (_DIMS - 3))
        fov = [] if design.get("fov_m") is None else ["fov_m", *(f"{f:.9g}" for f in np.asarray(design["fov_m"]))]
        ours = " ".join([_OURS, "shape", *map(str, shape), *fov])
        text = f"# Dimensions\n{' '.join(map(str, sizes))}\n{ours}\n"
        with atomic_write(cfl) as file:
            file.write((samples * shape).astype("<c8").tobytes())  # the last axis varies fastest: BART's first
        with atomic_write(hdr) as file:
            file.write(text.encode())

    def read(self, path: Path) -> dict[str, Any]:
        """Reads the straight lines of a BART trajectory, or those that a mask of zeros and ones acquires."""
        cfl, hdr = _names(path)
        data, given, lines = read_cfl(cfl, hdr, MAX_BYTES)
        sizes = given + [1] * (3 - len(given))
        if np.isin(data, (0, 1)).all():
            if any(n != 1 for n in sizes[3:]):
                raise usage_error("cfl", f"{hdr}: a mask of dimensions {given}", "x, y and z, and ones")
            return lines_of("cfl", cfl, data.real.reshape(sizes[:3], order="F"), self.shape)
        if sizes[0] != 3:
            what = f"{hdr}: dimensions {given}, of other values than 0 and 1"
            raise usage_error("cfl", what, "a trajectory of 3, samples and lines, or a mask of zeros and ones")
        data = data.reshape(-1, sizes[1], 3)
        if (data.imag != 0).any():
            raise usage_error("cfl", f"{cfl}: complex positions", "a trajectory, which is real")
        held = _comment(lines, "shape") if self.shape is None else check_shape("shape", self.shape, dims=(3,))
        if held is None:
            extent = [max(1, round(2 * float(n))) for n in np.nan_to_num(np.abs(data.real).max((0, 1)), posinf=0.0)]
            remedy = f"Say it: --shape, or Bart(shape=(nx, ny, nz)); its samples fill about {tuple(extent)}."
            raise usage_error("cfl", f"{hdr}: no matrix", "a header with one, as we write it", remedy)
        matrix = np.array(held)
        if matrix.shape != (3,) or (matrix % 1 != 0).any() or matrix.min() < 1 or matrix.max() > MAX_MATRIX:
            raise usage_error("cfl", f"{hdr}: matrix {matrix.tolist()}", "three positive integers")
        matrix = matrix.astype(int)
        fov = _comment(lines, "fov_m")
        if fov is not None and (len(fov) != 3 or not all(0 < f < math.inf for f in fov)):
            raise usage_error("cfl", f"{hdr}: fov_m {fov}", "three positive lengths")
        lengths = None if fov is None else np.array(fov)
        design = straight_lines("cfl", str(cfl), data.real.astype(float) / matrix, matrix, lengths)
        return design | {SAID: f"positions in cycles per field of view; {design[SAID]}"}

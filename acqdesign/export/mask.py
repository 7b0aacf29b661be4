"""Cartesian masks (`.npy`, `.txt`): which lines of a matrix are acquired."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import check_shape, usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.untrusted import check_memory, npy_header, parsing, read_text
from acqdesign.export.formats import Format
from acqdesign.export.straight import MAX_MATRIX, SAID, need

_MAX_BYTES = 2**28
_ON_GRID = 1e-2  # cells that a line may be off


def lines_of(name: str, path: Path, mask: np.ndarray, shape: Sequence[int] | None) -> dict[str, Any]:
    """The lines that a mask acquires, by the names of `design.npz`; format and path are for errors.

    The mask is zeros and ones, `(ny,)`, `(ny, nz)` or `(nx, ny, nz)` equal along x, the readout; cell `n` of `N` lies
    at `(n - N//2)/N`. `shape` is `(nx, ny, nz)` where nx is not the mask's: the readout is then one whole line.
    """
    where = f"{path}, of shape {mask.shape}"
    if mask.ndim not in (1, 2, 3) or not mask.size or max(mask.shape) > MAX_MATRIX:
        raise usage_error(name, where, "a mask (ny,), (ny, nz) or (nx, ny, nz)")
    if not np.isin(mask, (0, 1)).all():
        raise usage_error(name, f"{where}, with other values than 0 and 1", "a mask of zeros and ones")
    full = mask if mask.ndim == 3 else mask.reshape(1, mask.shape[0], -1)
    if (full != full[:1]).any():
        raise usage_error(name, f"{where}, which varies along its first axis", "whole lines along x")
    cells = np.argwhere(full[0] != 0)
    if not len(cells):
        raise usage_error(name, f"{where}, of zeros", "at least one line")
    sizes = np.array(full.shape)
    if shape is not None:
        given = np.array(check_shape("shape", shape, dims=(3,)))
        if (given[1:] != sizes[1:]).any() or sizes[0] not in (1, given[0]):
            raise usage_error(name, where, f"a mask of {given[1]} x {given[2]} for the shape {given.tolist()}")
        sizes = given
    return {
        "points": (cells - sizes[1:] // 2) / sizes[1:],
        "samples_per_line": np.array(sizes[0]),
        "readout": (np.arange(sizes[0]) - sizes[0] // 2) / sizes[0],
        "shape": sizes,
        SAID: f"mask of {len(cells)} of {sizes[1] * sizes[2]} cells, centre at n//2",
    }


class Mask(Format):
    """Masks of lines: 0 and 1, or False and True, `(ny,)`, `(ny, nz)` or `(nx, ny, nz)`; written as `(ny, nz)`.

    Args:
        shape: `(nx, ny, nz)` of the image, where the mask has no nx; without, it is a design of one plane.
    """

    ending, about, also = "npy", "a mask of lines", ("txt",)
    keeps = "the cells of phase encodes in which lines lie; lines off the grid are refused"
    loses = "everything else"

    def __init__(self, shape: Sequence[int] | None = None):
        self.shape = shape

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        need(design, "points", "shape")
        sizes = np.asarray(design["shape"])[1:]
        index = np.asarray(design["points"], float) * sizes + sizes // 2
        cells = np.round(index).astype(int)
        off, outside = np.abs(index - cells).max(), ((cells < 0) | (cells >= sizes)).any()
        twice = len(cells) - len(np.unique(cells, axis=0))
        if off > _ON_GRID or outside or twice:
            got = f"lines up to {off:.2g} cells off the grid, {twice} of them where another one is"
            raise usage_error(
                "design", got, "lines in cells of their own", "learn_traj --trajectory grid learns such lines."
            )
        mask = np.zeros(sizes, bool)
        mask[tuple(cells.T)] = True
        with atomic_write(path) as file:
            if path.suffix == ".txt":
                np.savetxt(file, mask, "%d")
            else:
                np.save(file, mask)

    def read(self, path: Path) -> dict[str, Any]:
        data = read_text("mask", path, _MAX_BYTES)
        if path.suffix == ".txt":
            with parsing("mask", path, "rows of zeros and ones"):
                check_memory("mask", path, 16 * len(data))
                text = data.replace(b",", b" ")
                if not text.strip():
                    raise ValueError("it is empty")
                return lines_of("mask", path, np.loadtxt(io.BytesIO(text), ndmin=1), self.shape)
        file = io.BytesIO(data)
        shape, dtype, offset = npy_header("mask", path, file)
        if dtype.kind not in "biuf" or len(data) != offset + math.prod(shape) * dtype.itemsize:
            raise usage_error("mask", f"{path}: {len(data)} bytes for {shape} of {dtype}", "a whole mask of numbers")
        file.seek(0)
        with parsing("mask", path, "a readable .npy file"):
            return lines_of("mask", path, np.lib.format.read_array(file, allow_pickle=False), self.shape)

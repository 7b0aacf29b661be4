"""Line positions out of any file that holds them, by the file's ending."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from acqdesign.base.checks import check_choice, usage_error
from acqdesign.export.bart import read_bart
from acqdesign.export.mat import read_mat
from acqdesign.export.mrd import read_mrd
from acqdesign.export.npz import read_design
from acqdesign.export.pulseq_read import read_pulseq
from acqdesign.export.sparkling import read_sparkling

_READERS: Mapping[str, Callable[[Path], dict[str, np.ndarray]]] = {
    ".npz": read_design,
    ".seq": read_pulseq,
    ".bin": read_sparkling,
    ".cfl": read_bart,
    ".hdr": read_bart,
    ".mrd": read_mrd,
    ".h5": read_mrd,
    ".mat": read_mat,
}
POSITION_FILES = tuple(_READERS)
"""Endings of files that `read_positions` reads."""


def read_positions(path: Path | str) -> dict[str, np.ndarray]:
    """Reads a design, at least its line positions, from a file of any format that the package writes.

    Args:
        path: ending in .npz, .seq (Pulseq), .bin (SPARKLING), .cfl or .hdr (BART), .mrd or .h5 (ISMRM Raw Data)
            or .mat (MATLAB).

    Returns:
        Arrays by the names of `design.npz`, `points` `(lines, 2)` [cycles/voxel] and `learned` `(lines,)` among
        them; positions in the dtype that the format's own precision asks for.

    Raises:
        ValueError: another ending, or what is wrong with the file.
        OSError: it cannot be read.
    """
    path = Path(path)
    design = _READERS[check_choice("ending", path.suffix, POSITION_FILES)](path)
    if "points" not in design:
        raise usage_error(
            "design", f"{path} without line positions", "an array named points of shape (lines, 2)"
        )
    return design

"""Designs as files that scanners and other packages read, and back."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import printable, usage_error
from acqdesign.base.untrusted import check_regular
from acqdesign.export.bart import Bart as Bart
from acqdesign.export.formats import Format as Format
from acqdesign.export.formats import Tell, by_endings, design_file, format_of, reads, writes
from acqdesign.export.mask import Mask as Mask
from acqdesign.export.mat import Mat as Mat
from acqdesign.export.mrd import Mrd as Mrd
from acqdesign.export.mrd import read_noise as read_noise
from acqdesign.export.npz import Npz as Npz
from acqdesign.export.npz import as_design
from acqdesign.export.pulseq import Pulseq as Pulseq
from acqdesign.export.shapes import PulseqOptions as PulseqOptions
from acqdesign.export.sparkling import Sparkling as Sparkling
from acqdesign.export.straight import SAID, check_units
from acqdesign.export.straight import trajectory as trajectory
from acqdesign.export.straight import with_lines as with_lines
from acqdesign.export.straight import with_samples as with_samples
from acqdesign.export.table import Csv as Csv

FORMATS: dict[str, type[Format]] = {kind.ending: kind for kind in (Npz, Pulseq, Sparkling, Bart, Mrd, Mat, Mask, Csv)}
"""Formats by their files' ending; one of your own that is put here is found by its ending."""

POSITION_FILES = tuple(by_endings(FORMATS, reads))
"""Endings of files that `read_positions` reads."""


def read_design(path: Path | str, by: Format | None = None, tell: Tell | None = None) -> dict[str, np.ndarray]:
    """Reads a design from the folder of a run, or from a file of any format that is read.

    Args:
        path: of the folder or the file; the file's ending says the format, unless `by` does.
        by: the format, with its settings.
        tell: is given one line of what was understood: format and version, matrix, field of view, lines, readout,
            trains, units, and what was ignored; the logger `acqdesign` has it at level INFO unless given.

    Returns:
        Arrays by the names and in the dtypes of `design.npz`; every line counts as learned where the file doesn't say.

    Raises:
        UsageError: another ending, or what is wrong with the file or with what its format gave, by the format's name.
        OSError: it cannot be read.
    """
    file = design_file(path)
    form = by or format_of(file, FORMATS, reads)
    where = f"{type(form).__name__}.read of {file}"
    check_regular(where, file)
    found = form.read(file)
    if not isinstance(found, Mapping) or not found:
        raise usage_error(where, found, "a mapping from names of design.npz to arrays")
    said = found.get(SAID, "")
    design = as_design(where, {name: value for name, value in found.items() if name != SAID})
    check_units(where, design)
    if "points" in design:
        design.setdefault("learned", np.ones(len(design["points"]), bool))
    (tell or logging.getLogger("acqdesign").info)(f"{file}: {_understood(form, design, str(said))}")
    return design


def _understood(form: Format, design: Mapping[str, np.ndarray], said: str) -> str:
    """What a file was taken for, in one line."""
    lines = [type(form).__name__ + (f": {said}" if said else "")]
    if "shape" in design:
        lines.append("matrix " + " x ".join(str(n) for n in design["shape"].tolist()))
    if "fov_m" in design:
        lines.append("field of view " + " x ".join(f"{1e3 * f:.5g}" for f in design["fov_m"].tolist()) + " mm")
    if "points" in design:
        samples = len(design["readout"]) if "readout" in design else design.get("samples_per_line")
        lines.append(f"{len(design['points'])} lines" + ("" if samples is None else f" of {samples} samples"))
    if "coordinates" in design:
        lines.append("{} readouts of {} samples in {} dimensions".format(*design["coordinates"].shape))
    if "train" in design and "echo" in design:
        lines.append(f"{len(np.unique(design['train']))} trains of {int(design['echo'].max()) + 1} echoes")
    elif "flips_rad" in design:
        lines.append(f"{len(design['flips_rad'])} flip" + ("s" if len(design["flips_rad"]) > 1 else ""))
    return printable("; ".join(lines))


def read_positions(path: Path | str, by: Format | None = None, tell: Tell | None = None) -> dict[str, np.ndarray]:
    """Reads a design that has line positions, as `read_design` does: `points` `(lines, 2)` [cycles/voxel].

    Raises:
        UsageError: as `read_design`; a design without positions.
    """
    design = read_design(path, by, tell)
    if "points" not in design:
        raise usage_error("design", f"{path} without line positions", "an array named points of shape (lines, 2)")
    return design


def write_design(path: Path | str, design: Mapping[str, Any], to: Format | None = None) -> Any:
    """Writes a design, atomically; equal designs give equal bytes.

    Args:
        path: of the file; its ending says the format, unless `to` does.
        design: values for any of the names of `design.npz`; those that are None are left out.
        to: the format, with its settings.

    Returns:
        What the format says of what it wrote; a warning has its advice, where it has any.

    Raises:
        UsageError: another ending, an unknown name, or what is wrong with the design.
        OSError: the file cannot be written.
    """
    file = Path(path)
    said = (to or format_of(file, FORMATS, writes)).write(as_design("design", design), file)
    if getattr(said, "advice", ""):
        warnings.warn(said.advice, stacklevel=2)
    return said

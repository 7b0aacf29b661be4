"""Tables (`.csv`) of pulses and lines in the units of protocols, for product sequences and spreadsheets."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.units import deg_from_rad, m_from_mm, mm_from_m, ms_from_s, rad_from_deg, s_from_ms
from acqdesign.base.untrusted import check_memory, parsing, read_text
from acqdesign.export.formats import Format
from acqdesign.export.straight import SAID

_MAX_BYTES = 2**28


class _Column(NamedTuple):
    key: str  # of `design.npz`
    out: Callable[[Any], Any] = lambda x: x
    back: Callable[[Any], Any] = lambda x: x


_DEG, _MS, _MM = (deg_from_rad, rad_from_deg), (ms_from_s, s_from_ms), (mm_from_m, m_from_mm)
_OF_PULSES = {
    "flip [deg]": _Column("flips_rad", *_DEG),
    "phase [deg]": _Column("phases_rad", *_DEG),
    "TR [ms]": _Column("tr_s", *_MS),
    "TE [ms]": _Column("te_s", *_MS),
}
_OF_LINES = {"train": "train", "echo": "echo", "ky [cycles/voxel]": "ky", "kz [cycles/voxel]": "kz"}
_OF_ALL = {
    "excitation [deg]": _Column("excitation_rad", *_DEG),
    "ESP [ms]": _Column("esp_s", *_MS),
    "TI [ms]": _Column("ti_s", *_MS),
    "TR [ms]": _Column("tr_s", *_MS),
    "TE [ms]": _Column("te_s", *_MS),
    "dwell [ms]": _Column("dwell_s", *_MS),
    "samples": _Column("samples_per_line"),
    "matrix": _Column("shape"),
    "FOV [mm]": _Column("fov_m", *_MM),
}
_RADIANS = {"flip [rad]": _Column("flips_rad"), "phase [rad]": _Column("phases_rad")}


class Csv(Format):
    """Tables of pulses, a row each, or of lines in the order of playing, each with the pulse of its echo.

    The first row names the columns with their units: `flip [deg]`, `phase [deg]`, `TR [ms]`, `TE [ms]` and for lines
    `train`, `echo`, `ky [cycles/voxel]`, `kz [cycles/voxel]`. What is one number for all stands above it, such as
    `# ESP [ms]: 5`. Columns `flip [rad]` and `phase [rad]` are read too.
    """

    ending, about = "csv", "a table of flips [deg], phases, times [ms] and the order of lines"
    keeps = "flips, phases, times, lines and the echo of each"
    loses = "which lines were learned, other readouts than straight ones, events of a sequence"

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        arrays = {name: np.asarray(value, float) for name, value in design.items()}
        columns, pulses = dict[str, np.ndarray](), len(np.atleast_1d(arrays.get("flips_rad", [])))
        points = arrays.get("points")
        if points is None and not pulses:
            raise usage_error(
                "design", "neither lines nor flips", "a design with points or flips_rad", "bin and cfl take any."
            )
        which: Any = slice(None)
        if points is not None:
            order = np.arange(len(points))
            if "echo" in arrays:
                order = np.lexsort((arrays["echo"], arrays["train"]))
                columns |= {name: arrays[name][order] for name in ("train", "echo")}
                which = arrays["echo"][order].astype(int)
            columns |= {"ky [cycles/voxel]": points[order, 0], "kz [cycles/voxel]": points[order, 1]}
        if points is None or "echo" in arrays:
            own = {name: np.atleast_1d(arrays[c.key]) for name, c in _OF_PULSES.items() if c.key in arrays}
            columns |= {n: _OF_PULSES[n].out(x[which]) for n, x in own.items() if len(x) == pulses and pulses > 1}
        single = {name: c for name, c in (_OF_PULSES | _OF_ALL).items() if c.key in arrays and name not in columns}
        text = io.StringIO()
        count = len(next(iter(columns.values())))
        text.write(f"# rows: {count}\n")
        for name, column in single.items():
            values = " ".join(f"{x:.7g}" for x in np.ravel(column.out(arrays[column.key])))
            text.write(f"# {name}: {values}\n")
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(columns)
        rows.writerows([f"{x:.7g}" for x in row] for row in zip(*columns.values(), strict=True))
        with atomic_write(path) as file:
            file.write(text.getvalue().encode())

    def read(self, path: Path) -> dict[str, Any]:
        data = read_text("csv", path, _MAX_BYTES)
        with parsing("csv", path, "a table of numbers, whose first row names its columns"):
            check_memory("csv", path, 16 * len(data))
            lines = data.decode("utf-8-sig").splitlines()
        pairs = (line[1:].split(":", 1) for line in lines if line.startswith("#") and ":" in line)
        about = {name.strip(): text for name, text in pairs}
        body = [line for line in lines if line.strip() and not line.startswith("#")]
        known = (*_OF_PULSES, *_OF_LINES, *_RADIANS)
        delimiter = max(",;\t", key=lambda d: sum(name.strip() in known for name in (body or [""])[0].split(d)))
        names = [name.strip().strip('"') for name in (body or [""])[0].split(delimiter)]
        wrong = [name for name in names if name not in known]
        if wrong or len(set(names)) < len(names):
            got = f"{path} with the columns {', '.join(map(repr, names))}"
            raise usage_error("csv", got, "some of " + ", ".join(map(repr, known)) + ", each once")
        with parsing("csv", path, f"{len(names)} numbers in each row"):
            rows = np.array([[float(x) for x in row] for row in csv.reader(body[1:], delimiter=delimiter)], float)
            if "rows" in about and int(about["rows"]) != len(rows):
                raise ValueError(f"{len(rows)} rows of {int(about['rows'])}")
            columns = dict(zip(names, rows.reshape(-1, len(names)).T, strict=True))
        design = {}
        for name, text in about.items():
            column = (_OF_PULSES | _OF_ALL).get(name)
            if column is not None:
                with parsing("csv", path, f"numbers after {name!r}"):
                    values = np.array([float(x) for x in text.split()])
                shaped = values if column.key in ("shape", "fov_m", "tr_s", "te_s", "flips_rad") else values.reshape(())
                design[column.key] = column.back(shaped)
        return design | _design(path, columns)


def _design(path: Path, columns: dict[str, np.ndarray]) -> dict[str, Any]:
    """The columns of a table by the names of `design.npz`."""
    flips = columns.get("flip [deg]")
    if flips is not None and flips.size and 0 < np.abs(flips).max() <= math.pi:
        got = f"{path}, whose flips are {np.abs(flips).max():.3g} deg at most"
        raise usage_error("csv", got, "degrees", "Where they are radians call the column 'flip [rad]'.")
    found: dict[str, Any] = {}
    if {"ky [cycles/voxel]", "kz [cycles/voxel]"} & set(columns):
        if len({"ky [cycles/voxel]", "kz [cycles/voxel]"} & set(columns)) == 1:
            raise usage_error("csv", f"{path} with one of ky and kz", "both")
        found["points"] = np.stack([columns["ky [cycles/voxel]"], columns["kz [cycles/voxel]"]], axis=-1)
    found |= {name: columns[name] for name in ("train", "echo") if name in columns}
    pulses = {name: column for name, column in (_OF_PULSES | _RADIANS).items() if name in columns}
    where: Any = slice(None)
    if "echo" in found:
        # Of each echo its first row; the others have to say the same.
        echoes, where, of = np.unique(found["echo"], return_index=True, return_inverse=True)
        for name in pulses:
            if (columns[name] != columns[name][where][of]).any():
                raise usage_error(
                    "csv", f"{path}, where {name} of one echo differs between trains", "one value an echo"
                )
        if pulses and not np.array_equal(echoes, np.arange(len(echoes))):
            raise usage_error(
                "csv", f"{path} with echoes {echoes[0]:g} to {echoes[-1]:g}, some missing", "all from 0 on"
            )
    elif "points" in found and pulses:
        raise usage_error(
            "csv", f"{path} with lines and pulses, but no echo", "a column 'echo', from 0 on, and 'train'"
        )
    found |= {column.key: column.back(columns[name][where]) for name, column in pulses.items()}
    return found | {SAID: "flips in degrees" if flips is not None else "flips in radians" if pulses else "lines"}

"""SPARKLING gradient files (`.bin`), as mri-nufft reads and writes them: flat float32, version 5."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.files import atomic_write
from acqdesign.base.units import GAMMA_HZ_PER_T, cycles_from_per_m, per_m_from_cycles
from acqdesign.export.formats import Format
from acqdesign.export.straight import MAX_BYTES, SAID, need, straight_lines, trajectory
from acqdesign.scene.scanner import SYSTEMS, SystemLimits

RASTER_S = 10e-6  # the format's: one gradient, one step between samples
_VERSION, _RECON_TAG, _RESERVED = 5.0, 1.1, 10
# Versions times ten that can be read; of 41 on, with the header written here.
_READABLE = (41, 42, 50, 51)


def _centre(samples: np.ndarray) -> float:
    """Where a readout passes the centre of k-space most closely, as the index of a sample or between two."""
    start, step = samples[:-1], np.diff(samples, axis=0)
    share = -(start * step).sum(-1) / np.maximum((step**2).sum(-1), 1e-30)
    share = np.clip(share, 0, 1)
    nearest = int(np.argmin(np.linalg.norm(start + share[:, None] * step, axis=-1)))
    return nearest + float(share[nearest])


def _field(
    path: Path, data: np.ndarray, index: int, name: str, low: float | int, high: float | int, whole: bool = False
) -> float:
    """One value of the header, within its range."""
    value = float(data[index])
    if not low <= value <= high or (whole and value != round(value)):
        raise usage_error("bin", f"{path}: {name} {value:.6g} at byte {4 * index}", f"{low:g} to {high:g}")
    return value


class Sparkling(Format):
    """SPARKLING gradients.

    Args:
        system: limits of the scanner.
    """

    ending, about = "bin", "SPARKLING gradients, as mri-nufft reads them"
    keeps = "positions of all samples, 10 us apart; matrix and field of view"
    loses = "flips, times and trains"

    def __init__(self, system: SystemLimits = SYSTEMS["generic"]):
        self.system = system

    def write(self, design: Mapping[str, Any], path: Path) -> None:
        """Writes a design's lines as a SPARKLING gradient file, atomically; equal designs give equal bytes.

        Float32 values: version (5), dimensions D, field of view [m], matrix, least oversampling, γ [Hz/T], shots,
        gradients per shot, position of the echo time, largest gradient [mT/m], tag of the reconstruction, ten
        reserved; first and last position of each shot [1/m]; gradients over the largest. One gradient of 10 µs leads
        from sample to sample, so there is one fewer than samples.
        """
        samples = trajectory(design)
        need(design, "shape", "fov_m")
        shape, fov = np.asarray(design["shape"], int), np.asarray(design["fov_m"], float)
        shots, count, _ = samples.shape
        if count < 2:
            raise usage_error("samples_per_line", count, "at least 2 samples", "Learn with --samples.")
        k = np.stack([per_m_from_cycles(samples[..., i], float(fov[i] / shape[i])) for i in range(3)], -1)
        gradients = np.diff(k, axis=1) / (GAMMA_HZ_PER_T * RASTER_S)
        largest = float(np.abs(gradients).max())
        if largest > self.system.max_gradient_t_per_m:
            fits = int(np.ceil(count * largest / self.system.max_gradient_t_per_m))
            got = f"a readout gradient of {largest:.3g} T/m at one sample every 10 µs"
            limit = f"at most {self.system.max_gradient_t_per_m:.3g} T/m ({self.system.name})"
            raise usage_error("samples_per_line", got, limit, f"Learn with --samples {fits} or more.")
        centre = _centre(samples[0])
        header = [
            *(_VERSION, 3, *fov, *shape, 1, GAMMA_HZ_PER_T, shots, count - 1),
            *(centre / (count - 1), 1e3 * largest, _RECON_TAG, *np.zeros(_RESERVED)),
        ]
        parts = (header, k[:, 0], k[:, -1], gradients / largest)
        data = np.concatenate([np.ravel(part).astype("<f4") for part in parts])
        with atomic_write(path) as file:
            file.write(data.tobytes())

    def read(self, path: Path) -> dict[str, Any]:
        size = path.stat().st_size
        if not path.is_file() or size > MAX_BYTES or size % 4 or size < 4 * 25:
            wanted = f"a multiple of 4 from 100 to {MAX_BYTES}, as float32 values take"
            raise usage_error("bin", f"{path}: {size} bytes", wanted)
        data = np.fromfile(path, "<f4").astype(float)
        version = _field(path, data, 0, "version", 0.0, 100.0)
        if round(10 * version) not in _READABLE:
            known = ", ".join(f"{v / 10}" for v in _READABLE)
            raise usage_error("bin", f"{path}: version {version:.3g} at byte 0", f"version {known}")
        dimensions = _field(path, data, 1, "dimensions", 1, 3, whole=True)
        if dimensions != 3:
            raise usage_error("bin", f"{path}: {dimensions:.0f} dimensions at byte 4", "3")
        fov = np.array([_field(path, data, 2 + i, "field of view", 1e-6, 1e3) for i in range(3)])
        shape = np.array([_field(path, data, 5 + i, "matrix", 1, 2**15, whole=True) for i in range(3)])
        gamma = _field(path, data, 9, "γ", 1e3, 1e9)
        shots = int(_field(path, data, 10, "shots", 1, 2**26, whole=True))
        count = int(_field(path, data, 11, "samples per shot", 1, 2**26, whole=True))
        largest = _field(path, data, 13, "largest gradient", 0.0, 1e6)
        ends = 2 if round(10 * version) >= 50 else 1  # where each shot ends stands in the file from version 5 on
        skips = [0, 0]  # gradients that lead to the first sample, and away from the last
        if round(10 * version) == 51:
            skips = [int(_field(path, data, 16 + i, "skipped samples", 0, count - 1, whole=True)) for i in range(2)]
        first = 15 + _RESERVED
        expected = first + shots * 3 * (ends + count)
        if len(data) != expected:
            what = f"{path}: {size} bytes for {shots} shots of {count} gradients (bytes 40 and 44)"
            raise usage_error("bin", what, f"{4 * expected} bytes", "It is truncated, or no such file.")
        start = data[first : first + 3 * shots].reshape(shots, 1, 3)
        steps = data[first + 3 * shots * ends :].reshape(shots, count, 3) * (1e-3 * largest)
        k = np.concatenate([start, start + np.cumsum(steps, 1) * gamma * RASTER_S], 1)
        k = k[:, skips[0] : count + 1 - skips[1]]
        samples = np.stack([cycles_from_per_m(k[..., i], float(fov[i] / shape[i])) for i in range(3)], -1)
        design = straight_lines("bin", str(path), samples, shape.astype(int), fov)
        return design | {SAID: f"version {version:.2g}; positions in 1/m; {design[SAID]}"}

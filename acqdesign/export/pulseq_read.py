"""Pulseq files back to designs, trusting nothing in them."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from acqdesign.base.checks import UsageError, check_shape
from acqdesign.base.units import cycles_from_per_m
from acqdesign.base.untrusted import parsing
from acqdesign.export.pulseq_play import ECHO_S, Pulses, Readouts, crosses, play, read_axis
from acqdesign.export.pulseq_text import Tables, read_tables, wrong
from acqdesign.export.straight import MAX_MATRIX, SAID, STRAIGHT, axes_from, check_fov, falling


def read_pulseq(
    path: Path | str, shape: Sequence[int] | None = None, fov_m: Sequence[float] | None = None, uses: str | None = None
) -> dict[str, Any]:
    """Reads the design that a Pulseq file plays.

    Args:
        path: of a `.seq` file of straight lines along x, y or z; ours or another program's, version 1.2 to 1.5.
        shape: voxels along x, y and z of the file; its definition's unless given.
        fov_m: likewise the field of view [m].
        uses: of its pulses, one letter each, repeated over all of them; the file's, or told from it, unless given.

    Returns:
        Arrays by the names of `design.npz`: positions and readout [cycles/voxel] in the order of playing; with
        refocusing pulses also train, echo, flips, phases and times. In float64, as exact as the file's digits. The
        readout's axis comes first. Under `said`, a few words on what was understood.
    """
    path = Path(path)
    with parsing("seq", path, "a consistent Pulseq file of straight lines"), np.errstate(all="ignore"):
        tables = read_tables(path)
        voxels, field = _geometry(tables, shape, fov_m)
        pulses, read, said = play(tables, uses)
        design = _design(tables, pulses, read, voxels, field)
        for name, values in design.items():
            if name != SAID and not np.isfinite(values).all():
                raise wrong(path, f"{name} beyond all numbers")
        ignored = ["ignored: " + ", ".join(tables.ignored)] if tables.ignored else []
        design[SAID] = "; ".join([f"version 1.{tables.version}; positions in 1/m", design[SAID], *said, *ignored])
        return design


def _design(
    tables: Tables, pulses: Pulses, read: Readouts, shape: np.ndarray | None, fov: np.ndarray
) -> dict[str, Any]:
    path, samples = tables.path, read.kinds.shape[-1]
    said = ""
    if shape is None:
        shape, said = _from_labels(path, read, fov), ", matrix from the labels LIN and PAR"
    missed = ~crosses(read.start, read)
    order, axes = axes_from(np.eye(3)[read_axis(read.kinds)])
    shape, fov, start, kinds = shape[order], fov[order], read.start[:, order], read.kinds[:, order]
    voxel = (fov / shape).tolist()
    for axis in range(3):  # in place: they may be large
        start[:, axis] = cycles_from_per_m(start[:, axis], voxel[axis])
        kinds[:, axis] = cycles_from_per_m(kinds[:, axis], voxel[axis])
    readout = start[:, 0].mean() + np.bincount(read.kind) / len(read.kind) @ kinds[:, 0]
    middle = kinds[:, 1:].mean(-1)
    points = start[:, 1:] + middle[read.kind]
    if missed.any():
        first = int(np.argmax(missed))
        ends = start[first, 0] + kinds[read.kind[first], 0, [0, -1]]
        remedy = 'If its pulses have other uses, say them: Pulseq(uses="errrr") for trains of four echoes, and so on.'
        what = f"readout {first}, from {ends[0]:.3g} to {ends[1]:.3g} cycles/voxel"
        raise wrong(path, what, "readouts through the centre of k-space", remedy)
    # How far a line's samples leave the mean readout and the line's position: of each kind, and of each line.
    kinds[:, 0] -= readout
    kinds[:, 1:] -= middle[..., None]
    along = [kinds[:, 0].min(-1)[read.kind] + start[:, 0], kinds[:, 0].max(-1)[read.kind] + start[:, 0]]
    spread = float(max(np.abs(along).max(), np.abs([kinds[:, 1:].min(), kinds[:, 1:].max()]).max()))
    if not spread <= STRAIGHT:
        what = f"k-space lines that are not straight along {'xyz'[order[0]]}, by {spread:.2g} cycles/voxel"
        raise wrong(path, what, "straight lines with one readout")
    rising = readout if readout[-1] >= readout[0] else -readout
    centre = float(np.interp(0.0, rising, np.arange(samples))) if samples > 1 else 0.0
    design = {
        "points": points,
        "samples_per_line": np.array(samples),
        "readout": readout,
        "shape": shape.astype(int),
        "fov_m": fov,
        "dwell_s": np.array(read.dwell_s),
        SAID: axes + falling(readout) + said,
    }
    return design | _trains(path, pulses, read.time + centre * read.dwell_s, max(ECHO_S, read.dwell_s))


def _from_labels(path: Path, read: Readouts, fov: np.ndarray) -> np.ndarray:
    """The matrix that the labels count, where the lines fill it, of a file that does not say; else an error."""
    axis, samples = read_axis(read.kinds), read.kinds.shape[-1]
    extent = 2 * np.abs(read.start + read.kinds.mean(-1)[read.kind]).max(0)
    extent[axis] = np.ptp(read.kinds[:, axis], axis=-1).max() * samples / max(samples - 1, 1)
    filled = [max(1, round(float(cells))) for cells in extent * fov]
    counts, others = read.counters.max(0) + 1, [other for other in range(3) if other != axis]
    for first, second in (others, others[::-1]):
        # Odd matrices reach half a cell less.
        if counts.max() > 1 and 0 <= counts[0] - filled[first] <= 1 and 0 <= counts[1] - filled[second] <= 1:
            found = np.array(filled)
            found[[first, second]] = counts
            return found
    remedy = f"Say it: --shape, or Pulseq(shape=(nx, ny, nz)); its lines fill about {tuple(filled)}."
    raise wrong(path, f"no matrix in its definitions ({', '.join(_MATRICES)}, Nx Ny Nz) or labels", "one", remedy)


_MATRICES = ("ImgSize", "MatrixSize", "Matrix", "matrix_size", "ReconMatrix", "EncodingMatrix")


def _geometry(
    tables: Tables, shape: Sequence[int] | None, fov_m: Sequence[float] | None
) -> tuple[np.ndarray | None, np.ndarray]:
    """Voxels, None where no definition has them, and field of view [m]: those given, or the file's."""
    path, known = tables.path, tables.definitions
    fov = known.get("FOV", np.zeros(0)) if fov_m is None else np.array(fov_m, float)
    if fov.shape != (3,) or not (np.isfinite(fov).all() and (fov > 0).all()):
        what = f"definition FOV {fov.tolist()}"
        raise wrong(path, what, "a definition FOV of three positive numbers", "Or say it: Pulseq(fov_m=(x, y, z)).")
    try:
        check_fov(f"seq: {path}", fov)
    except UsageError as error:
        raise UsageError(f"{error} Say it: Pulseq(fov_m=...).") from None
    if shape is not None:
        return np.array(check_shape("shape", shape, dims=(3,))), fov
    name = next((name for name in _MATRICES if name in known), "Nx Ny Nz")
    parts = [known.get(axis, np.zeros(0)) for axis in name.split()]
    if name not in known and not parts[0].size == parts[1].size == 1:
        return None, fov
    found = np.concatenate(parts)
    found = np.append(found, 1.0) if len(found) == 2 else found  # of one slice
    if found.shape != (3,) or not (found > 0).all() or (found != np.round(found)).any() or found.max() > MAX_MATRIX:
        what = f"definition {name} {found.tolist()}"
        raise wrong(path, what, "three numbers of voxels", "Or say them: Pulseq(shape=(nx, ny, nz)).")
    return found, fov


def _trains(path: Path, pulses: Pulses, centres: np.ndarray, near: float) -> dict[str, Any]:
    """Train and echo of each line, and the flips, phases and times of a train, from the times of the pulses.

    `centres` is when each line passes the centre of k-space, within `near` of the echo [s].
    """
    is_first = pulses.use == "e"
    excited, refocused = pulses.time[is_first], pulses.time[~is_first]
    index = np.searchsorted(excited, centres) - 1
    if (index < 0).any():
        raise wrong(path, "a readout before the first excitation, not labelled NOISE")
    start = excited[index]
    flips = pulses.flip[is_first][index]
    te = centres - start
    period = np.diff(np.unique(start))
    tr = {"tr_s": np.array([period.min()], float)} if period.size else {}
    before = np.searchsorted(refocused, start)
    echo = np.searchsorted(refocused, centres) - before - 1
    if (echo < 0).all():
        same = np.ptp(flips) < 1e-3
        return {"te_s": te[:1], **({"flips_rad": flips[:1]} if same else {}), **tr}
    if (echo < 0).any():
        got = f"{(echo < 0).sum()} gradient echoes among {(echo >= 0).sum()} spin echoes"
        raise wrong(path, got, "lines of one kind")
    trains, train = np.unique(index, return_inverse=True)
    first = np.searchsorted(refocused, excited[trains])
    ends = np.append(excited, np.inf)[trains + 1]
    counts = np.searchsorted(refocused, ends) - first
    if np.ptp(counts):
        raise wrong(path, "echo trains of unequal length", "as many refocusing pulses in every train")
    played = first[:, None] + np.arange(counts[0])
    refocusing, phases = pulses.flip[~is_first][played], pulses.phase[~is_first][played]
    if np.ptp(refocusing, axis=0).max() > 1e-6 or np.ptp(phases, axis=0).max() > 1e-6:
        raise wrong(path, "flips that differ from train to train", "the same in every train")
    pulse_times = refocused[first[0] : first[0] + counts[0]] - excited[trains[0]]
    # An echo lies as long after its pulse as the one before did before it.
    times = np.array([*itertools.accumulate(pulse_times, lambda last, when: 2 * when - last, initial=0.0)][1:])
    off = float(np.abs(times[echo] - te).max())
    if off > near:
        expected = f"the centre of k-space within {near:.2g} s of each"
        raise wrong(path, f"readouts off spin echoes by {off:.3g} s", expected)
    return {
        "train": train,
        "echo": echo,
        "flips_rad": refocusing[0],
        "phases_rad": phases[0],
        "excitation_rad": np.array(flips[0]),
        "esp_s": np.array(2 * pulse_times[0]),
        "te_s": times,
        **tr,
    }

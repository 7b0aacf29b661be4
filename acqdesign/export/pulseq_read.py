"""Pulseq files back to designs, trusting nothing in them."""

from pathlib import Path

import numpy as np

from acqdesign.base.units import cycles_from_per_m
from acqdesign.base.untrusted import parsing
from acqdesign.export.pulseq_play import Pulses, Readouts, play
from acqdesign.export.pulseq_text import Tables, read_tables, wrong
from acqdesign.export.straight import STRAIGHT


def read_pulseq(path: Path | str) -> dict[str, np.ndarray]:
    """Reads the design that a Pulseq file plays.

    Args:
        path: of a `.seq` file of straight lines along x, with a signature and the definitions FOV and ImgSize;
            ours or another program's, version 1.4 or 1.5.

    Returns:
        Arrays by the names of `design.npz`: positions and readout [cycles/voxel] in the order of playing; with
        refocusing pulses also train, echo, flips, phases and times. In float64, as exact as the file's digits.

    Raises:
        ValueError: what is wrong with the file.
        OSError: it cannot be read.
    """
    path = Path(path)
    with parsing("seq", path, "a consistent Pulseq file of straight lines"), np.errstate(all="ignore"):
        tables = read_tables(path)
        design = _design(tables, *play(tables))
        for name, values in design.items():
            if not np.isfinite(values).all():
                raise wrong(path, f"{name} beyond all numbers")
        return design


def _design(tables: Tables, pulses: Pulses, read: Readouts) -> dict[str, np.ndarray]:
    path, samples = tables.path, read.kinds.shape[-1]
    shape, fov = _definition(tables, "ImgSize"), _definition(tables, "FOV")
    if (shape != np.round(shape)).any() or shape.max() > 2**15:
        raise wrong(path, f"ImgSize {shape.tolist()}", "three numbers of voxels")
    voxel = (fov / shape).tolist()
    start, kinds = read.start, read.kinds
    for axis in range(3):  # in place: they may be large
        start[:, axis] = cycles_from_per_m(start[:, axis], voxel[axis])
        kinds[:, axis] = cycles_from_per_m(kinds[:, axis], voxel[axis])
    readout = start[:, 0].mean() + np.bincount(read.kind) / len(read.kind) @ kinds[:, 0]
    middle = kinds[:, 1:].mean(-1)
    points = start[:, 1:] + middle[read.kind]
    # How far a line's samples leave the mean readout and the line's position: of each kind, and of each line.
    kinds[:, 0] -= readout
    kinds[:, 1:] -= middle[..., None]
    along = start[:, 0]
    low, high = (kinds[:, 0].min(-1)[read.kind] + along).min(), (kinds[:, 0].max(-1)[read.kind] + along).max()
    spread = float(np.abs([low, high, kinds[:, 1:].min(), kinds[:, 1:].max()]).max())
    if not spread <= STRAIGHT:
        raise wrong(path, f"k-space lines that are not straight along x, by {spread:.2g} cycles/voxel")
    centre = float(np.interp(0.0, readout, np.arange(samples))) if samples > 1 else 0.0
    design = {
        "points": points,
        "samples_per_line": np.array(samples),
        "readout": readout,
        "shape": shape.astype(int),
        "fov_m": fov,
        "dwell_s": np.array(read.dwell_s),
    }
    return design | _trains(path, pulses, read.time + centre * read.dwell_s)


def _definition(tables: Tables, name: str) -> np.ndarray:
    value = tables.definitions.get(name, np.zeros(0))
    if value.shape != (3,) or not (np.isfinite(value).all() and (value > 0).all()):
        raise wrong(
            tables.path, f"definition {name} {value.tolist()}", f"a definition {name} of three positive numbers"
        )
    return value


def _trains(path: Path, pulses: Pulses, centres: np.ndarray) -> dict[str, np.ndarray]:
    """Train and echo of each line, and the flips, phases and times of a train, from the times of the pulses."""
    is_first = pulses.use == "e"
    excited, refocused = pulses.time[is_first], pulses.time[~is_first]
    index = np.searchsorted(excited, centres) - 1
    if (index < 0).any():
        raise wrong(path, "a readout before the first excitation, not labelled NOISE")
    start = excited[index]
    excitation = pulses.flip[is_first][index[0]]
    te = centres - start
    period = np.diff(np.unique(start))
    tr = np.array([period.min()] if period.size else [], float)
    if not len(refocused):
        return {"flips_rad": np.array([excitation]), "te_s": te[:1], **({"tr_s": tr} if tr.size else {})}
    before = np.searchsorted(refocused, start)
    echo = np.searchsorted(refocused, centres) - before - 1
    trains, train = np.unique(index, return_inverse=True)
    first = np.searchsorted(refocused, excited[trains])
    ends = np.append(excited, np.inf)[trains + 1]
    counts = np.searchsorted(refocused, ends) - first
    if np.ptp(counts) or (echo < 0).any():
        raise wrong(path, "echo trains of unequal length", "as many refocusing pulses in every train")
    played = first[:, None] + np.arange(counts[0])
    flips, phases = pulses.flip[~is_first][played], pulses.phase[~is_first][played]
    if np.ptp(flips, axis=0).max() > 1e-6 or np.ptp(phases, axis=0).max() > 1e-6:
        raise wrong(path, "flips that differ from train to train", "the same in every train")
    pulse_times = refocused[first[0] : first[0] + counts[0]] - excited[trains[0]]
    # An echo lies as long after its pulse as the one before did before it.
    times = np.empty(counts[0])
    last = 0.0
    for n, when in enumerate(pulse_times):
        last = 2 * when - last
        times[n] = last
    if np.abs(times[echo] - te).max() > 1e-6:
        raise wrong(path, "readouts that are not centred on spin echoes", "the centre of k-space at each echo")
    return {
        "train": train,
        "echo": echo,
        "flips_rad": flips[0],
        "phases_rad": phases[0],
        "excitation_rad": np.array(excitation),
        "esp_s": np.array(2 * pulse_times[0]),
        "te_s": times,
        **({"tr_s": tr} if tr.size else {}),
    }

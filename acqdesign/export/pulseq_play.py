"""What a Pulseq file plays: k-space at its readouts, and its pulses, in memory that does not grow with samples.

As pypulseq's `calculate_kspace` has it: the integral of the gradients, zero again at the centre of every excitation
and of the other sign after every refocusing pulse.
"""

import math
from typing import NamedTuple

import numpy as np

from acqdesign.base.untrusted import check_memory
from acqdesign.export.pulseq_text import Tables, wrong

_MAX_WORK = 2**24  # samples of shapes that are evaluated
_FAT_SAT_S, _FAT_SAT_HZ, _EXCITES_RAD = 6e-3, 100.0, 0.5 * math.pi + 2e-4


class Pulses(NamedTuple):
    """Excitations and refocusing pulses as they are played."""

    use: np.ndarray
    """`e` or `r`."""
    time: np.ndarray
    """Of their centres [s]."""
    flip: np.ndarray
    """[rad]"""
    phase: np.ndarray
    """[rad]"""


class Readouts(NamedTuple):
    """Readouts as they are played, noise scans aside: at sample `s` of line `n`, `start[n] + kinds[kind[n], :, s]`."""

    time: np.ndarray
    """`(lines,)` of the first sample [s]."""
    dwell_s: float
    start: np.ndarray
    """`(lines, 3)` k-space at the start of the block [1/m]."""
    kind: np.ndarray
    """`(lines,)`"""
    kinds: np.ndarray
    """`(kinds, 3, samples)` what the block's gradients add [1/m]."""


def play(tables: Tables) -> tuple[Pulses, Readouts]:
    """Pulses and readouts of a file, in order.

    Raises:
        ValueError: the file holds no readout, or readouts that differ in samples or dwell time.
    """
    starts = np.cumsum(tables.durations) - tables.durations
    pulses, centres, at = _pulses(tables, starts)
    lines = np.flatnonzero(tables.blocks[:, 4] >= 0)
    lines = lines[~_is_noise(tables)[lines]]
    if not lines.size:
        raise wrong(tables.path, "no readout", "at least one")
    held = tables.readouts[tables.blocks[lines, 4]]
    for name, column in (("samples", held[:, 0]), ("dwell time", held[:, 1])):
        if np.ptp(column) > 1e-12:
            raise wrong(tables.path, f"readouts that differ in {name}", "the same for every line")
    samples, dwell = held[0, 0], held[0, 1]
    if samples != int(samples) or not 0 < samples <= _MAX_WORK or dwell <= 0:
        raise wrong(tables.path, f"readouts of {samples:g} samples, {dwell:g} s apart", "a whole number, and a time")
    delays, delay = np.unique(held[:, 2], return_inverse=True)
    played = np.column_stack([tables.blocks[lines, 1:4], delay.reshape(-1)])
    unique, kind = np.unique(played, axis=0, return_inverse=True)
    check_memory("seq", tables.path, (48 * len(unique) + 64) * samples)
    kinds = np.empty((len(unique), 3, int(samples)))
    start = np.empty((len(lines), 3))
    when = starts[lines] + held[:, 2] + 0.5 * dwell
    before = np.searchsorted(pulses.time, when) - 1
    if (before != np.searchsorted(pulses.time, when + (samples - 1) * dwell) - 1).any():
        raise wrong(tables.path, "a pulse within a readout", "pulses between readouts")
    areas, middles = _areas(tables), (np.arange(int(samples)) + 0.5) * dwell
    for axis in range(3):
        rows = tables.blocks[:, 1 + axis]
        moments = np.append(areas, 0.0)[rows]
        moments = np.cumsum(moments) - moments
        for k in range(len(unique)):
            kinds[k, axis] = _moment(tables, int(unique[k, axis]), delays[unique[k, 3]] + middles)
        middle = moments[at] + _moments(tables, rows[at], centres)
        origin, offset = _offsets(pulses.use, middle)
        none = before < 0
        start[:, axis] = moments[lines] - np.where(none, 0.0, origin[before]) + np.where(none, 0.0, offset[before])
    return pulses, Readouts(when, float(dwell), start, kind.reshape(-1), kinds)


def _is_noise(tables: Tables) -> np.ndarray:
    """Whether the label NOISE is set in each block."""
    noise, value, since = np.zeros(len(tables.blocks), bool), 0.0, np.intp(0)
    acts = tables.blocks[:, 5] >= 0
    acts[acts] = ~(np.isnan(tables.noise[:, 0]) & (tables.noise[:, 1] == 0))[tables.blocks[acts, 5]]
    for block in np.flatnonzero(acts):
        noise[since:block], since = value != 0, block
        fixed, added = tables.noise[tables.blocks[block, 5]]
        value = (value if math.isnan(fixed) else fixed) + added
    noise[since:] = value != 0
    return noise


def _offsets(use: np.ndarray, moment: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Between k-space after each pulse and the gradients' integral: that at the excitation, and what refocusing adds.

    After an excitation `k = m - m_e`; after a refocusing pulse at `m_n`, `k = m - m_e + c_n` with
    `c_n = -2 (m_n - m_e) - c_(n-1)`, which is a sum of alternating terms.
    """
    if not len(use):
        return np.zeros(1), np.zeros(1)
    order = np.arange(len(use))
    excitation = np.maximum.accumulate(np.where(use == "e", order, -1))
    origin = np.where(excitation < 0, 0.0, moment[excitation])
    sign = 1.0 - 2.0 * ((order - excitation) % 2)
    total = np.cumsum(np.where(use == "r", -2.0 * sign * (moment - origin), 0.0))
    return origin, sign * (total - np.where(excitation < 0, 0.0, total[excitation]))


def _corners(tables: Tables, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Times in its block [s] and amplitudes [Hz/m] between which a gradient runs straight."""
    traps = len(tables.trapezoids)
    if row < traps:
        amplitude, rise, flat, fall, delay = tables.trapezoids[row]
        return delay + np.cumsum([0.0, rise, flat, fall]), amplitude * np.array([0.0, 1.0, 1.0, 0.0])
    event = tables.shaped[row - traps]
    shape = event[0] * _shape(tables, event[-3])
    times, raster = event[-2], float(tables.definitions["GradientRasterTime"][0])
    if times > 0:
        steps = _shape(tables, times)
        if len(steps) != len(shape) or (np.diff(steps) < 0).any():
            raise wrong(tables.path, "a gradient whose times do not rise or do not fit its shape")
        return event[-1] + steps * raster, shape
    n = len(shape)
    # The edges lie half a raster off the samples; version 1.4 leaves them to those who read.
    ends = event[1:3] if tables.version == 5 else 0.5 * (3 * shape[[0, -1]] - shape[[min(1, n - 1), max(n - 2, 0)]])
    middle = 0.5 * np.arange(1, n + 1) if times < 0 else np.arange(n) + 0.5
    steps = np.concatenate([[0.0], middle, [middle[-1] + 0.5]])
    return event[-1] + steps * raster, np.concatenate([ends[:1], shape, ends[1:]])


def _shape(tables: Tables, number: float) -> np.ndarray:
    shape = tables.shapes.get(int(number)) if number == int(number) else None
    if shape is None or not len(shape):
        raise wrong(tables.path, f"shape {number:g}, which is not in it or empty", "a consistent file")
    return shape


def _areas(tables: Tables) -> np.ndarray:
    """Of every gradient [1/m]."""
    amplitude, rise, flat, fall, _ = tables.trapezoids.T
    _check_work(tables, tables.shaped[:, -3])
    shaped = [np.trapezoid(*_corners(tables, len(amplitude) + n)[::-1]) for n in range(len(tables.shaped))]
    return np.concatenate([amplitude * (flat + 0.5 * (rise + fall)), shaped])


def _check_work(tables: Tables, shapes: np.ndarray) -> None:
    """Raises where events would play more samples of shapes than any scan has."""
    if sum(len(tables.shapes.get(int(n), ())) for n in shapes) > _MAX_WORK:
        raise wrong(tables.path, f"events of over {_MAX_WORK} samples of shapes", "fewer")


def _moment(tables: Tables, row: int, times: np.ndarray) -> np.ndarray:
    """Integral of a gradient up to times in its block [1/m]; zero for none."""
    if row < 0:
        return np.zeros(len(times))
    t, g = _corners(tables, row)
    whole = np.concatenate([[0.0], np.cumsum(0.5 * np.diff(t) * (g[1:] + g[:-1]))])
    at = np.clip(times, t[0], t[-1])
    segment = np.clip(np.searchsorted(t, at, "right") - 1, 0, max(len(t) - 2, 0))
    return whole[segment] + 0.5 * (at - t[segment]) * (g[segment] + np.interp(at, t, g))


def _moments(tables: Tables, rows: np.ndarray, times: np.ndarray) -> np.ndarray:
    """`_moment` of many gradients, each up to one time; equal pairs once."""
    when, index = np.unique(times, return_inverse=True)
    pairs, back = np.unique(np.column_stack([rows, index.reshape(-1)]), axis=0, return_inverse=True)
    traps = len(tables.trapezoids)
    _check_work(tables, tables.shaped[pairs[pairs[:, 0] >= traps, 0] - traps, -3])
    found = [_moment(tables, row, when[n : n + 1])[0] for row, n in pairs.tolist()]
    return np.array(found, float)[back.reshape(-1)]


def _pulses(tables: Tables, starts: np.ndarray) -> tuple[Pulses, np.ndarray, np.ndarray]:
    """Excitations and refocusing pulses, with their centres in their blocks [s], and those blocks."""
    # Many pulses differ by their size or phase alone.
    unique, index = np.unique(tables.pulses[:, 1:4], axis=0, return_inverse=True)
    _check_work(tables, unique[:, 0])
    made = np.array([_pulse(tables, *shapes) for shapes in unique], float).reshape(-1, 3)
    area, length, peak = made[index.reshape(-1)].T
    flip = 2 * math.pi * np.abs(tables.pulses[:, 0]) * area
    if tables.version == 5:
        use, centre, delay, phase = tables.uses, tables.pulses[:, 4], tables.pulses[:, 5], tables.pulses[:, 9]
        use = np.where(np.isin(use, list("ripso")), use, "e")
    else:  # which leaves a pulse's use to those who read
        centre, delay, phase = peak, tables.pulses[:, 4], tables.pulses[:, 6]
        saturates = (length > _FAT_SAT_S) & (np.abs(tables.pulses[:, 5]) > _FAT_SAT_HZ)
        use = np.where(flip < _EXCITES_RAD, "e", np.where(saturates, "s", "r"))
    at = np.flatnonzero(tables.blocks[:, 0] >= 0)
    row = tables.blocks[at, 0]
    kept = np.isin(use[row], ["e", "r"])
    at, row = at[kept], row[kept]
    centres = (delay + centre)[row]
    return Pulses(use[row], starts[at] + centres, flip[row], phase[row]), centres, at


def _pulse(tables: Tables, magnitude: float, phase: float, times: float) -> tuple[float, ...]:
    """Of a pulse of unit size: area [s], length [s], and where its largest magnitude lies [s]."""
    raster = float(tables.definitions["RadiofrequencyRasterTime"][0])
    size = _shape(tables, magnitude)
    turns = _shape(tables, phase) if phase else np.zeros(len(size))
    steps = _shape(tables, times) if times > 0 else np.arange(len(size)) + 0.5
    if not len(size) == len(turns) == len(steps):
        raise wrong(tables.path, "a pulse whose magnitude, phase and times are not equally long")
    signal, t = size * np.exp(2j * math.pi * turns), steps * raster
    length = math.ceil(steps[-1] - 1e-9) * raster
    # A hard pulse by its two ends, or samples in the middle of equal intervals.
    area = (t[1] - t[0]) * signal.mean() if len(t) == 2 else signal.sum() * length / len(t)
    high = np.flatnonzero(np.abs(signal) >= 0.99999 * np.abs(signal).max())
    return abs(area), length, 0.5 * (t[high[0]] + t[high[-1]])

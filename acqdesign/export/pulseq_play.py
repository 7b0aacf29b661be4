"""What a Pulseq file plays: k-space at its readouts, and its pulses, in memory that does not grow with samples.

As pypulseq's `calculate_kspace` has it: the integral of the gradients, zero again at the centre of every excitation
and of the other sign after every refocusing pulse.
"""

import math
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from acqdesign.base.untrusted import check_memory
from acqdesign.export.pulseq_text import LABELS, Tables, wrong

_MAX_WORK = 2**24  # samples of shapes that are evaluated
ECHO_S = 40e-6  # that the centre of k-space may lie from the echo, or a dwell time
# Of gaps between pulses [s]; moments that count as none, of a readout's length; the cosine of a phase that is not 90°.
_RASTER_S, _BALANCED, _CPMG = 10e-6, 0.02, 0.02


class Pulses(NamedTuple):
    """Excitations and refocusing pulses as they are played."""

    use: np.ndarray  # `e` or `r`; before they are told from others, any letter, `u` where the file does not say
    time: np.ndarray  # of their centres [s]
    flip: np.ndarray  # [rad]
    phase: np.ndarray  # [rad]


class Readouts(NamedTuple):
    """Readouts as they are played, noise scans aside: at sample `s` of line `n`, `start[n] + kinds[kind[n], :, s]`."""

    time: np.ndarray  # (lines,) of the first sample [s]
    dwell_s: float
    start: np.ndarray  # (lines, 3) k-space at the start of the block [1/m]
    kind: np.ndarray  # (lines,)
    kinds: np.ndarray  # (kinds, 3, samples) what the block's gradients add [1/m]
    counters: np.ndarray  # (lines, 2) labels LIN and PAR


def play(tables: Tables, uses: str | None = None, *, straight: bool = True) -> tuple[Pulses, Readouts, list[str]]:
    """Pulses and readouts of a file, in order, and what else there is: preparations, noise.

    Args:
        tables: of the file.
        uses: of its pulses, one letter each and repeated over all; the file's unless given, and where it has none,
            those of gradient echoes or of spin-echo trains, by timing, phase and moment.
        straight: whether readouts have to be straight lines.
    """
    starts = np.cumsum(tables.durations) - tables.durations
    pulses, centres, at = _pulses(tables, starts)
    lines = np.flatnonzero(tables.blocks[:, 4] >= 0)
    lines = lines[_label(tables, "NOISE")[lines] == 0]
    if not lines.size:
        raise wrong(tables.path, "no readout", "at least one")
    held, said = tables.readouts[tables.blocks[lines, 4]], []
    before = np.searchsorted(pulses.time, starts[lines] + held[:, 2] + 0.5 * held[:, 1]) - 1
    if (before < 0).all():
        raise wrong(tables.path, "no readout after a pulse", "at least one")
    if (before < 0).any():
        said.append(f"{(before < 0).sum()} readouts before the first pulse left out, as noise")
        lines, held, before = lines[before >= 0], held[before >= 0], before[before >= 0]
    for name, column in (("samples", held[:, 0]), ("dwell time", held[:, 1])):
        if np.ptp(column) > 1e-12:
            kinds, counts = np.unique(column, return_counts=True)
            each = ", ".join(f"{count} of {kind:g}" for kind, count in zip(kinds[:9], counts[:9], strict=True))
            raise wrong(tables.path, f"readouts that differ in {name}: {each}", "the same for every line")
    samples, dwell = held[0, 0], held[0, 1]
    if samples != int(samples) or not 0 < samples <= _MAX_WORK or dwell <= 0:
        raise wrong(tables.path, f"readouts of {samples:g} samples, {dwell:g} s apart", "a whole number, and a time")
    when = starts[lines] + held[:, 2] + 0.5 * dwell
    if (before != np.searchsorted(pulses.time, when + (samples - 1) * dwell) - 1).any():
        raise wrong(tables.path, "a pulse within a readout", "pulses between readouts")
    delays, delay = np.unique(held[:, 2], return_inverse=True)
    played = np.column_stack([tables.blocks[lines, 1:4], delay.reshape(-1)])
    unique, kind = np.unique(played, axis=0, return_inverse=True)
    check_memory("seq", tables.path, (48 * len(unique) + 64) * samples)
    kinds = np.empty((len(unique), 3, int(samples)))
    moment, middle = np.empty((len(lines), 3)), np.empty((len(at), 3))
    areas, middles = _areas(tables), (np.arange(int(samples)) + 0.5) * dwell
    for axis in range(3):
        rows = tables.blocks[:, 1 + axis]
        pairs, back = np.unique(unique[:, [axis, 3]], axis=0, return_inverse=True)
        _check_gradients(tables, pairs[:, 0])
        for k, (row, n) in enumerate(pairs.tolist()):
            kinds[back.reshape(-1) == k, axis] = _moment(tables, row, delays[n] + middles)
        moments = np.append(areas, 0.0)[rows]
        moments = np.cumsum(moments) - moments
        moment[:, axis] = moments[lines]
        middle[:, axis] = moments[at] + _moments(tables, rows[at], centres)
    if straight:
        _check_straight(tables.path, kinds)
    counters = np.stack([_label(tables, name)[lines] for name in ("LIN", "PAR")], -1)
    found = Readouts(when, float(dwell), moment, kind.reshape(-1), kinds, counters)
    use = _tell_uses(tables.path, pulses, middle, found, before, uses)
    said += _preparations(pulses, use, before)
    keep = (use == "e") | (use == "r")
    moment -= _shift(use, keep, middle, before)
    return Pulses(*(part[keep] for part in (use, *pulses[1:]))), found, said


def _check_straight(path: Path, kinds: np.ndarray) -> None:
    """Raises unless all readouts `(kinds, 3, samples)` go along one axis, in one direction."""
    axis, extent = read_axis(kinds), np.ptp(kinds, axis=-1)
    if np.delete(extent, axis, 1).max() > _BALANCED * extent[:, axis].max():
        raise wrong(path, "readouts that turn, or go in several directions", "straight ones along x, y or z")
    ends = kinds[:, axis, -1] - kinds[:, axis, 0]
    if ends.min() < 0 < ends.max():
        raise wrong(path, "readouts from - to + and from + to -, as of echo-planar imaging", "one direction for all")


def _shift(use: np.ndarray, keep: np.ndarray, middle: np.ndarray, before: np.ndarray) -> np.ndarray:
    """What readouts after the pulses `before` have to take off the gradients' integral, `(lines, 3)`."""
    kept = np.cumsum(keep)[before] - 1  # the last pulse that counts
    shift = np.zeros((len(before), 3))
    for axis in range(3):
        origin, offset = _offsets(use[keep], middle[keep, axis])
        shift[:, axis] = np.where(kept < 0, 0.0, (origin - offset)[kept])
    return shift


def crosses(start: np.ndarray, read: Readouts) -> np.ndarray:
    """Whether each line, begun at `(lines, 3)`, passes the centre of k-space within its readout."""
    axis = read_axis(read.kinds)
    along, samples = read.kinds[:, axis], read.kinds.shape[-1]
    low, high = along.min(-1)[read.kind] + start[:, axis], along.max(-1)[read.kind] + start[:, axis]
    step = np.ptp(along, axis=-1)[read.kind] / max(samples - 1, 1)
    return (low < (-0.25 if samples > 2 else 0.25) * step) & (high > (0.25 if samples > 2 else -0.25) * step)


def read_axis(kinds: np.ndarray) -> int:
    """The axis along which readouts `(kinds, 3, samples)` go farthest."""
    return int(np.argmax(np.ptp(kinds, axis=-1).max(0)))


def _tell_uses(
    path: Path, pulses: Pulses, middle: np.ndarray, read: Readouts, before: np.ndarray, uses: str | None
) -> np.ndarray:
    """One letter for each pulse; where the file has none, told by what its readouts then are.

    As gradient echoes every pulse excites; as spin echoes those refocus that follow one half a spacing before the
    first and whole ones before the others. Those readings stand in which every line crosses the centre of k-space, as
    spin echoes at the time of the echo. Both do for balanced SSFP, whose gradients have no moment between pulses.

    `middle` `(pulses, 3)` is the integral of the gradients at the pulses' centres [1/m], as yet also `read.start`;
    `before` the pulse before each readout; `uses` letters to take instead.
    """
    if uses is not None:
        if not uses or set(uses) - set("erispo") or len(pulses.use) % len(uses):
            letters = "letters out of e, r, i, s, p and o whose number divides that of the pulses"
            raise wrong(path, f"{len(pulses.use)} pulses for uses={uses!r}", letters)
        return np.tile(list(uses), len(pulses.use) // len(uses))
    unknown = pulses.use == "u"
    if not unknown.any():
        return pulses.use
    gradient = np.where(unknown, "e", pulses.use)
    as_gradient = crosses(read.start - _shift(gradient, gradient == "e", middle, before), read).all()
    by_timing, start = _timed(pulses.time, np.bincount(before, minlength=len(unknown)))
    spin = np.where(unknown, by_timing, pulses.use)
    counts = (spin == "e") | (spin == "r")
    shifted = read.start - _shift(spin, counts, middle, before)
    as_spin = bool((spin[before] == "r").all()) and crosses(shifted, read).all()
    if as_spin:
        # A spin echo forms after the pulse before the readout, in trains of the spacing of their first.
        first, last = start[before], len(unknown) - 1
        echo = pulses.time[before] + pulses.time[np.minimum(first + 1, last)] - pulses.time[first]
        as_spin = np.abs(_centre_times(shifted, read) - echo).max() <= max(ECHO_S, read.dwell_s)
    if not as_spin and as_gradient:
        return gradient
    within = np.flatnonzero((spin[1:] == "r") & (spin[:-1] == "r")) + 1
    if as_spin:
        rest = np.abs(middle[within] - middle[within - 1])
        length = np.ptp(read.kinds[:, read_axis(read.kinds)], axis=-1).max()
        if as_gradient and within.size and rest.max() < _BALANCED * length:
            return gradient
        turned = pulses.phase - pulses.phase[start]
        cpmg = np.abs(np.cos(turned[spin == "r"])).max() < _CPMG or not within.size
        if not as_gradient and cpmg:
            return spin
    unsure, neither = "may be gradient or spin echoes", "miss the centre of k-space as gradient and as spin echoes"
    got = f"{unknown.sum()} pulses without uses, and readouts that {unsure if as_gradient or as_spin else neither}"
    remedy = 'Say them: Pulseq(uses="e") for gradient echoes, Pulseq(uses="errrr") for trains of four, and so on.'
    raise wrong(path, got, "a file that says what its pulses are for, as of version 1.5", remedy)


def _timed(time: np.ndarray, acquires: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The use of each pulse by timing, `o` outside of trains, and which pulse excited its train.

    A train's first refocusing pulse follows its excitation by half of what the others follow each other by; of one
    echo, it is the pulse that acquires after one that does not.
    """
    count, order = len(time), np.arange(len(time))
    gap = np.append(np.diff(time), np.inf)
    after = np.append(gap[1:], np.inf)
    with np.errstate(invalid="ignore"):
        excites = (acquires == 0) & (np.abs(after - 2 * gap) <= 2 * _RASTER_S)
    # Where the gap before a pulse differs from that before the pulse before it.
    breaks = np.append(np.flatnonzero(np.abs(np.diff(gap[:-1])) > 2 * _RASTER_S) + 2, count)
    use, start = np.full(count, "o"), order.copy()
    last = np.where(excites, breaks[np.searchsorted(breaks, order + 3).clip(max=len(breaks) - 1)], order)
    for first in np.flatnonzero(excites):
        if use[first] == "o":
            use[first], use[first + 1 : last[first]] = "e", "r"
            start[first : last[first]] = first
    alone = np.flatnonzero((use[:-1] == "o") & (use[1:] == "o") & (acquires[:-1] == 0) & (acquires[1:] > 0))
    use[alone], use[alone + 1], start[alone + 1] = "e", "r", alone
    return use, start


def _centre_times(start: np.ndarray, read: Readouts) -> np.ndarray:
    """When each line passes the centre of k-space along its readout [s]."""
    axis = read_axis(read.kinds)
    times = np.empty(len(start))
    for kind in range(len(read.kinds)):
        mine, along = read.kind == kind, read.kinds[kind, axis]
        along, sign = (along, 1.0) if along[-1] >= along[0] else (-along, -1.0)
        times[mine] = np.interp(-sign * start[mine, axis], along, np.arange(len(along)))
    return read.time + times * read.dwell_s


def _preparations(pulses: Pulses, use: np.ndarray, before: np.ndarray) -> list[str]:
    """What prepares the magnetisation: runs of pulses unlike those that excite or refocus lines, by name and count."""
    order = np.arange(len(use))
    excitation = np.maximum.accumulate(np.where(use == "e", order, -1))[before]
    active = np.unique(np.concatenate([excitation[excitation >= 0], before[use[before] == "r"]]))
    alike = np.isin(np.round(pulses.flip, 3), np.round(pulses.flip[active], 3)) & np.isin(use, ["e", "r"])
    others = np.flatnonzero(~alike)
    runs = np.split(others, np.flatnonzero(np.diff(others) > 1) + 1)
    names = Counter(_name(use[run], np.degrees(pulses.flip[run])) for run in runs if run.size)
    return [f"{count} x {name}" for name, count in names.items()]


def _name(use: np.ndarray, flips: np.ndarray) -> str:
    """What a run of pulses, of flips in degrees, prepares."""
    if len(use) >= 3 and (flips[1:-1] > 120).all() and 45 < flips[0] < 135 and 45 < flips[-1] < 135:
        return "T2 preparation"
    if len(use) > 1:
        return f"preparation of {len(use)} pulses"
    other = "inversion" if flips[0] > 135 else f"pulse of {flips[0]:.3g} deg without a line"
    return {"i": "inversion", "s": "saturation", "p": "preparation"}.get(str(use[0]), other)


def _label(tables: Tables, name: str) -> np.ndarray:
    """The value of a label in each block."""
    does, found, value, since = tables.labels[LABELS.index(name)], np.zeros(len(tables.blocks)), 0.0, np.intp(0)
    acts = tables.blocks[:, 5] >= 0
    acts[acts] = ~(np.isnan(does[:, 0]) & (does[:, 1] == 0))[tables.blocks[acts, 5]]
    for block in np.flatnonzero(acts):
        found[since:block], since = value, block
        fixed, added = does[tables.blocks[block, 5]]
        value = (value if math.isnan(fixed) else fixed) + added
    found[since:] = value
    return found


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
    rows = len(amplitude) + np.arange(len(tables.shaped))
    _check_gradients(tables, rows)
    shaped = [np.trapezoid(*_corners(tables, row)[::-1]) for row in rows.tolist()]
    return np.concatenate([amplitude * (flat + 0.5 * (rise + fall)), shaped])


def _check_gradients(tables: Tables, rows: np.ndarray) -> None:
    """`_check_work` of the shapes of gradients, by their rows; trapezoids have none."""
    traps = len(tables.trapezoids)
    _check_work(tables, tables.shaped[rows[rows >= traps].astype(int) - traps, -3])


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
    _check_gradients(tables, pairs[:, 0])
    found = [_moment(tables, row, when[n : n + 1])[0] for row, n in pairs.tolist()]
    return np.array(found, float)[back.reshape(-1)]


def _pulses(tables: Tables, starts: np.ndarray) -> tuple[Pulses, np.ndarray, np.ndarray]:
    """Pulses, with their centres in their blocks [s], and those blocks."""
    # Many pulses differ by their size or phase alone.
    unique, index = np.unique(tables.pulses[:, 1:4], axis=0, return_inverse=True)
    _check_work(tables, unique[:, 0])
    made = np.array([_pulse(tables, *shapes) for shapes in unique], float).reshape(-1, 2)
    area, peak = made[index.reshape(-1)].T
    flip = 2 * math.pi * np.abs(tables.pulses[:, 0]) * area
    if tables.version == 5:
        use, centre, delay, phase = tables.uses, tables.pulses[:, 4], tables.pulses[:, 5], tables.pulses[:, 9]
        use = np.where(np.isin(use, list("erispo")), use, "u")
    else:  # which leaves a pulse's use to those who read
        use, centre, delay, phase = np.full(len(flip), "u"), peak, tables.pulses[:, 4], tables.pulses[:, 6]
    at = np.flatnonzero(tables.blocks[:, 0] >= 0)
    row = tables.blocks[at, 0]
    centres = (delay + centre)[row]
    return Pulses(use[row], starts[at] + centres, flip[row], phase[row]), centres, at


def _pulse(tables: Tables, magnitude: float, phase: float, times: float) -> tuple[float, ...]:
    """Of a pulse of unit size: area [s], and where its largest magnitude lies [s]."""
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
    return abs(area), 0.5 * (t[high[0]] + t[high[-1]])

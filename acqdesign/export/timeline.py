"""What a scanner will play of a sequence's events: when, between which gradients, all of it within the limits.

Pulses and echoes have the times of the events. Dephasing of one order is along one axis, the same everywhere, so that
every interval has the moment that the signal model gives it: nothing where it has no order, as balanced SSFP.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from acqdesign.base.checks import UsageError, usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, ms_from_s, per_m_from_cycles
from acqdesign.export.shapes import (  # fmt: skip
    SLAB_PEAK,
    SPOILING_RAD,
    TRAIN_SPOILING_RAD,
    Planned,
    PulseqOptions,
    by_train,
    echo_shape,
    excitation_duration,
    grid,
    nearest_cells,
    read_shape,
)
from acqdesign.export.straight import read_out
from acqdesign.scene import scanner
from acqdesign.scene.scanner import Lobes, gentlest_lobes
from acqdesign.signal import Invert, Pulse, Readout, Spoil, Wait
from acqdesign.signal.events import KINDS, event_table

INVERSION_S = 10.24e-3
"""Duration of an adiabatic inversion, a hyperbolic secant of β = 672/s and μ = 5, whose B1 reaches 11.3 µT."""
INVERSION_B1_T = 11.3e-6
REST_S = 5.0
"""Between repetitions that begin at equilibrium, and before those of a steady state, unless told otherwise."""
_SPOILS_AFTER_INVERSION = 4
_LONGEST_READOUT_S = 2.5e-3
_SHOWN = 8  # readouts of a repetition in its diagram
# Pulses and readouts that say what stimulates most, the rest after them, and the time that is looked at [s].
_ITEMS, _REST_S, _STRETCH_S = 16, 0.02, 0.15


class Item(NamedTuple):
    """A pulse, an inversion or a readout."""

    kind: str
    step: int  # of its centre after the repetition's first, on the raster of blocks
    angle: float  # [rad]
    phase: float  # of a pulse or of the receiver [rad]
    use: str  # of a pulse, as Pulseq has them: e, r or i
    orders: int  # of dephasing since the item before
    spoilers: int  # since the repetition's start


class Repetition(NamedTuple):
    """One repetition of an acquisition."""

    items: tuple[Item, ...]
    first: int  # readout of all, from 0
    orders: int  # after the last item
    spoilers: int  # in all
    steps: int  # how long the events last


class Lobe(NamedTuple):
    """What the gradients do in a window: from rest, or from or to a readout's gradient and position."""

    side: str  # "before" or "after" a readout, or "" between others
    lobes: Lobes
    extra: np.ndarray  # moment beside that of positions, along x, y and z [T s/m]


Step = Item | Lobe | float
"""What a repetition is made of: pulses and readouts, lobes, and waits [s]."""


@dataclasses.dataclass(frozen=True)
class Timeline(Planned):
    """A design in the scanner's terms, by its events.

    `lines[t, r]` is the index of the line that readout `r` acquires in repetition `t`, -1 for none; acquisitions follow
    each other, each with all repetitions.
    """

    k_per_m: np.ndarray
    lines: np.ndarray
    repetitions: tuple[Repetition, ...]
    excitation: float
    recovers: bool
    tr_s: float | None
    te_s: float
    dummies: int
    noise_scan: bool
    matrix: tuple[int, ...]
    fov_m: tuple[float, ...]

    name = "acqdesign_events"
    select_axis = 2
    spoil_axis = 0

    @property
    def spoiling_rad(self) -> float:
        """Quadratic increment of the phase from spoiler to spoiler [rad]."""
        return TRAIN_SPOILING_RAD if any(r.spoilers > 1 for r in self.repetitions) else SPOILING_RAD

    @property
    def peak_b1_t(self) -> float:
        """Largest B1 of any pulse [T]."""
        peak = 1.0 if self.shape.slab_m is None else SLAB_PEAK
        inversion = INVERSION_B1_T if any(i.kind == "inversion" for r in self.repetitions for i in r.items) else 0.0
        return max(inversion, peak * self.excitation / self.shape.excitation_s / (2 * math.pi * GAMMA_HZ_PER_T))

    @property
    def power(self) -> float:
        """Mean square of the pulses' flips over that of 180°."""
        flips = [i.angle if i.use != "i" else math.pi for r in self.repetitions for i in r.items if i.use]
        return float(np.mean(np.square(flips)) / math.pi**2)

    # Readouts

    @property
    def read_gradient(self) -> float:
        """Gradient along x at the ends of a readout [T/m]."""
        return self.shape.readout_gradient_t_per_m

    @functools.cached_property
    def start(self) -> np.ndarray:
        """k-space at the start of a readout's block, `(lines, 3)` [1/m]."""
        along = 0.5 * self.read_gradient * self.timing.readout_s * GAMMA_HZ_PER_T
        return np.column_stack([np.full(len(self.k_per_m), -along), self.k_per_m])

    @functools.cached_property
    def end(self) -> np.ndarray:
        """k-space at the end of a readout's block, `(lines, 3)` [1/m]."""
        return self.start * np.array([-1, 1, 1])

    @property
    def cells(self) -> np.ndarray:
        """The nearest cell of the grid of every line, `(lines, 2)` from 0."""
        return nearest_cells(self.k_per_m, self.fov_m, self.matrix)

    @property
    def read_sides(self) -> tuple[float, float]:
        """From the start of a readout's block to the echo, and from there to its end [s]."""
        return 0.5 * self.timing.readout_s, 0.5 * self.timing.readout_s

    @property
    def order_area(self) -> float:
        """Moment of one order of dephasing [T s/m]: half a readout and the crusher."""
        return 0.5 * self.read_gradient * self.timing.readout_s + self.shape.crusher_area

    def sides(self, item: Item) -> tuple[float, float]:
        """How long an item's block lasts before its centre and after it [s]."""
        if item.kind == "readout":
            return self.read_sides
        half = 0.5 * self.timing.excitation_s if item.kind == "pulse" else self._inversion_side
        return half, half

    @property
    def _inversion_side(self) -> float:
        return scanner.up(0.5 * INVERSION_S + self.limits.rf_margin_s, self.limits.block_raster_s)

    # Windows

    @functools.cached_property
    def winding(self) -> dict[str, np.ndarray]:
        """Moments that take every line to its start, and back from its end, `(lines, 3)` [T s/m]."""
        return {"before": self.start / GAMMA_HZ_PER_T, "after": -self.end / GAMMA_HZ_PER_T}

    def _lobes(self, side: str, extra: np.ndarray, steps: int) -> Lobes | None:
        """The gentlest lobes of a window that serve every line."""
        x, across, end = extra[0], float(np.hypot(*extra[1:])), 0.0
        if side:
            area, end = self.winding[side], self.read_gradient
            along = np.array([area[:, 0].min(), area[:, 0].max()]) + extra[0]
            x, across = float(along[np.argmax(np.abs(along))]), float(np.hypot(*(area[:, 1:] + extra[1:]).T).max())
        return gentlest_lobes(self.limits, steps * self.limits.block_raster_s, x_area=x, x_end=end, yz_area=across)

    def shortest(self, side: str, extra: np.ndarray) -> int:
        """The shortest window of lobes, on the raster of blocks; 0 where none are needed."""
        key = (side, *np.round(extra, 12).tolist())
        if key not in self._shortest:
            found = 0 if not side and not extra.any() else 1
            while found and self._lobes(side, extra, found) is None:
                found = found + max(1, found // 20)
                if found * self.limits.block_raster_s > 0.2:
                    name = self.limits.name
                    raise usage_error(
                        "points", "lines out of reach in 0.2 s", f"phase encodes within the limits of {name}"
                    )
            while found > 1 and self._lobes(side, extra, found - 1) is not None:
                found -= 1
            self._shortest[key] = found
        return self._shortest[key]

    @functools.cached_property
    def _shortest(self) -> dict[tuple, int]:
        return {}

    def extra(self, orders: int, *pulses: Item | None) -> np.ndarray:
        """Moment of orders, and to rephase what selective pulses beside a window dephase [T s/m]."""
        found = np.zeros(3)
        found[self.spoil_axis] += orders * self.order_area
        found[self.select_axis] -= self.rephasing_area * sum(i is not None and i.kind == "pulse" for i in pulses)
        return found

    @functools.cached_property
    def played(self) -> tuple[tuple[tuple[Step, ...], float], ...]:
        """The steps of each acquisition's repetitions, and how long one lasts [s]."""
        return tuple(self._steps(repetition) for repetition in self.repetitions)

    def _steps(self, repetition: Repetition) -> tuple[tuple[Step, ...], float]:
        raster, items = self.limits.block_raster_s, repetition.items
        before, found, busy = round(self.sides(items[0])[0] / raster), list[Step]([items[0]]), 0
        for this, following in itertools.pairwise(items):
            gap = following.step - this.step - round((self.sides(this)[1] + self.sides(following)[0]) / raster)
            found += [*self._gap(this, following, following.orders, gap), following]
        last = items[-1]
        busy = before + last.step + round(self.sides(last)[1] / raster)
        # What comes next is another repetition, whose first pulse nothing transverse outlasts.
        sides = ["after"] if last.kind == "readout" else [""]
        needed = sum(self.shortest(side, self.extra(repetition.orders, last)) for side in sides)
        length = repetition.steps
        if self.recovers:
            length = max(length, busy + needed) + round(REST_S / raster)
        if self.tr_s is not None:
            length = round(scanner.up(self.tr_s, raster, slack=1e-4) / raster)
        if length < busy + needed:
            least = f"at least {(busy + needed) * raster:.6g} s"
            raise usage_error("tr_s", round(length * raster, 9), least, "Or fewer samples, or shorter ones.")
        found += self._gap(last, None, repetition.orders, length - busy)
        return tuple(found), round(length * raster, 9)

    def _gap(self, this: Item, following: Item | None, orders: int, gap: int) -> list[Step]:
        """Lobes and waits between two items, in so many steps."""
        sides = ["after"] * (this.kind == "readout")
        sides += ["before"] * (following is not None and following.kind == "readout")
        # One moment for the window of each side; orders and a first pulse's in the first.
        extras = [self.extra(orders, this, None if len(sides) == 2 else following)]
        extras += [self.extra(0, None, following)] * (len(sides) - 1)
        sides = sides or [""]
        needed = [self.shortest(side, extra) for side, extra in zip(sides, extras, strict=True)]
        raster = self.limits.block_raster_s
        if gap < sum(needed):
            names = f"{this.kind} to {following.kind if following else 'the end'}"
            short = (sum(needed) - gap) * raster
            raise usage_error(
                "te_s" if sides[0] == "before" else "tr_s",
                f"{max(gap, 0) * raster:.4g} s for gradients from {names}",
                f"at least {sum(needed) * raster:.4g} s, {ms_from_s(short):.3g} ms more ({self.limits.name})",
                "Learn with a longer time there, or export with fewer or shorter samples.",
            )
        share = min(1.5, gap / max(sum(needed), 1))
        windows = [math.floor(share * steps) for steps in needed]
        wait = round((gap - sum(windows)) * raster, 9)
        made: list[Step] = []
        for side, extra, steps in zip(sides, extras, windows, strict=True):
            lobes = self._lobes(side, extra, steps) if steps else None
            made += [] if lobes is None else [Lobe(side, lobes, extra)]
        pause: list[Step] = [wait] if wait > 0.5 * raster else []
        return [*made[:-1], *pause, *made[-1:]] if sides[-1] == "before" else [*made, *pause]

    # What others ask of a plan

    def asked(self) -> np.ndarray:
        """Phase encodes of the lines in the order of playing, `(lines, 2)` [1/m]."""
        return self.k_per_m[np.concatenate([lines[lines >= 0] for _, _, lines in self.order()])]

    def order(self) -> Iterator[tuple[int, int, np.ndarray]]:
        """Acquisition, repetition (negative for dummies) and its lines, in the order of playing."""
        for number, repetition in enumerate(self.repetitions):
            count = sum(item.kind == "readout" for item in repetition.items)
            mine = self.lines[:, repetition.first : repetition.first + count]
            for n in range(-self.dummies, len(mine)):
                yield number, n, mine[n] if n >= 0 else np.full(count, -1)

    @property
    def shown_s(self) -> tuple[float, float]:
        """When the first repetition with readouts begins, after a noise scan, and how long its first part lasts [s]."""
        raster, first = self.limits.block_raster_s, self.repetitions[0]
        items = [n for n, item in enumerate(first.items) if item.kind == "readout"]
        last = first.items[items[min(_SHOWN, len(items)) - 1]]
        window = self.shortest("after", self.extra(first.orders, last)) * 1.5 * raster
        end = self.sides(first.items[0])[0] + last.step * raster + self.sides(last)[1] + window
        return self.dummies * self.played[0][1], min(end, self.played[0][1])

    def uses(self) -> str:
        """Of every pulse, one letter each; of a whole period where all are alike."""
        rows = ["".join(item.use for item in repetition.items) for repetition in self.repetitions]
        return rows[0] if len(set(rows)) == 1 else "".join(row * (len(self.lines) + self.dummies) for row in rows)

    def hardest(self) -> list["Timeline"]:
        """Short plans of the lines that wind y, z or both farthest, where readouts follow each other most closely."""
        whole = min(self.repetitions, key=lambda r: min(np.diff([i.step for i in r.items]), default=r.steps))
        close = np.diff([item.step for item in whole.items if item.kind == "readout"])
        reads = [n for n, item in enumerate(whole.items) if item.kind == "readout"]
        first = max(reads[int(np.argmin(close)) if close.size else 0] - 1, 0)
        items = [item._replace(step=item.step - whole.items[first].step) for item in whole.items[first:][:_ITEMS]]
        rest = (
            whole.steps if len(whole.items) < _ITEMS else items[-1].step + round(_REST_S / self.limits.block_raster_s)
        )
        part = Repetition(tuple(items), 0, whole.orders, 0, rest)
        counted = max(1, sum(item.kind == "readout" for item in items))
        held: dict[str, Any] = {"dummies": 0, "noise_scan": False, "recovers": False, "tr_s": None}
        return [
            dataclasses.replace(self, lines=np.full((2, counted), line), repetitions=(part,), **held)
            for line in self.hard_lines()
        ]

    def hard_lines(self) -> list[int]:
        """Lines that may stimulate most."""
        k = np.abs(self.start)
        return sorted({int(np.argmax(m)) for m in (k[:, 1], k[:, 2], np.linalg.norm(k, axis=1))})

    def stretch_s(self, total: float) -> float:
        """How much of such a plan says what stimulates most [s]."""
        return min(total, _STRETCH_S)

    def all_lobes(self) -> list[Lobes]:
        """All lobes that are played."""
        return [step.lobes for steps, _ in self.played for step in steps if isinstance(step, Lobe)]

    def told(self, lines: int, seconds: float) -> list[str]:
        """What is played, in words."""
        if len(self.repetitions) == 1 and self.lines.shape[1] == 1:
            return [f"3D spoiled gradient echo: {lines} lines, TE {ms_from_s(self.te_s):.4g} ms; {seconds:.0f} s"]
        (_, tr), *_ = self.played
        several = f"{len(self.repetitions)} acquisitions of " if len(self.repetitions) > 1 else ""
        each = f"{several}{len(self.lines)} repetitions of {self.lines.shape[1] // len(self.repetitions)} readouts"
        rest = f"; {REST_S:g} s of rest, as its signal begins at equilibrium" if self.recovers and not self.tr_s else ""
        return [f"3D events of a sequence: {each}, {lines} lines, {tr:.6g} s each{rest}; {seconds:.0f} s"]

    def definitions(self) -> dict[str, Any]:
        """What a reader needs to know beside the geometry."""
        single = self.lines.shape[1] == 1
        found = {"Name": "acqdesign_spgr3d" if single else self.name, "TR": self.played[0][1], "TE": self.te_s}
        found |= {"DummyEchoes" if single else "DummyTrains": self.dummies}
        return found if single else found | {"Readouts": self.lines.shape[1], "Repetitions": len(self.lines)}


def make_timeline(design: Mapping[str, Any], options: PulseqOptions) -> Timeline:
    """Settles what is played of a design's events, and checks that the scanner can.

    Without events: a spoiled gradient echo of each line.

    Raises:
        UsageError: an event that no scanner plays, or times too short for what is between them, by how much.
    """
    matrix, fov = grid(design)
    voxel = tuple(f / n for f, n in zip(fov, matrix, strict=True))
    k = np.stack([per_m_from_cycles(np.asarray(design["points"], float)[:, i], voxel[1 + i]) for i in (0, 1)], 1)
    readout = {"voxel_m": voxel, "slab_m": options.slab_m, "crusher": options.crusher, **read_shape(design)}
    geometry = {"k_per_m": k, "matrix": matrix, "fov_m": fov, "noise_scan": options.noise_scan}
    return _settled(design, options, readout, geometry)


def _settled(
    design: Mapping[str, Any], options: PulseqOptions, readout: Mapping[str, Any], geometry: Mapping[str, Any]
) -> Timeline:
    """The plan with the longest dwell time, in even µs, that its times leave; or why none does."""
    flip = largest_flip(design, options)
    excitation_s = excitation_duration(options, flip)
    even, failed = 2 * options.system.rf_raster_s, None
    longest = _LONGEST_READOUT_S / readout["samples"]
    tried = None
    while longest >= even:
        shape = echo_shape(options, readout, longest, excitation_s=excitation_s)
        longest = shape.dwell_s - even
        if shape.dwell_s == tried or (tried is not None and shape.dwell_s > tried):
            break
        tried = shape.dwell_s
        timing = dataclasses.replace(scanner.echo_timing(options.system, shape, 1.0), refocusing_s=0.0)
        common = {"limits": options.system, "shape": shape, "timing": timing, "excitation": flip, **geometry}
        try:
            return timed(design, options, common, Timeline)
        except UsageError as error:
            failed = failed or error
            if options.dwell_s is not None or design.get("events") is None:
                break
    assert failed is not None
    raise failed


def largest_flip(design: Mapping[str, Any], options: PulseqOptions) -> float:
    """The largest flip of a design's pulses, or that of single echoes [rad]."""
    if design.get("events") is not None:
        table = np.asarray(design["events"], float)
        return float(np.abs(table[table[:, 1] == KINDS.index(Pulse), 2]).max(initial=0.0))
    flips = np.ravel(options.flip_rad if design.get("flips_rad") is None else design["flips_rad"])
    if np.ptp(flips) > 0:
        got = "flips that vary, without echoes of lines"
        raise usage_error("flips_rad", got, "one flip for a spoiled gradient echo")
    return float(flips[0])


def timed(
    design: Mapping[str, Any], options: PulseqOptions, common: Mapping[str, Any], kind: type[Timeline]
) -> Timeline:
    """The plan of a kind whose readouts are settled: with `common` of its fields, at the times of the events."""
    table = None if design.get("events") is None else np.asarray(design["events"], float)
    raster = options.system.block_raster_s
    recovers = bool(design.get("recovers", False)) and table is not None
    none = kind(
        **common, lines=np.zeros((0, 1), int), repetitions=(), recovers=recovers, tr_s=None, te_s=0.0, dummies=0
    )
    if table is None:
        table = _spoiled(options, none)
    repetitions = _repetitions(table, raster, none)
    if any(item.use == "r" for r in repetitions for item in r.items):
        raise usage_error("events", "refocusing pulses", "gradient echoes, or trains of fse", "csv and mat hold any.")
    readouts = read_out(table)
    count = len(common["k_per_m"])
    lines = np.arange(count)[:, None]
    if design.get("echo") is not None:
        lines = by_train(np.asarray(design["train"]), np.asarray(design["echo"]), readouts)
    elif readouts > 1:
        lines = np.tile(lines, readouts)
    tr = options.tr_s if design.get("events") is not None else None
    te = next(i.step for r in repetitions for i in r.items if i.kind == "readout") * raster
    last = [i for i in repetitions[0].items[: [i.kind for i in repetitions[0].items].index("readout")] if i.use]
    te -= last[-1].step * raster
    found = dataclasses.replace(
        none, lines=lines, repetitions=repetitions, tr_s=tr, te_s=round(te, 9), excitation=common["excitation"]
    )
    seconds = found.played[0][1]
    before = 0 if recovers else min(64, math.ceil(REST_S / seconds))
    return dataclasses.replace(found, dummies=before if options.dummies is None else options.dummies)


def _spoiled(options: PulseqOptions, none: Timeline) -> np.ndarray:
    """The events of a spoiled gradient echo, as short as gentle gradients are unless told otherwise."""
    raster, pulse = options.system.block_raster_s, Item("pulse", 0, 0.0, 0.0, "e", 0, 0)
    shortest = max(none.shortest("before", none.extra(0, pulse)), none.shortest("after", none.extra(1)))
    fixed = 0.5 * none.timing.excitation_s + none.read_sides[0]
    window = math.ceil(1.5 * shortest)
    if options.te_s is not None:
        window = math.floor((options.te_s - fixed) / raster + 1e-6)
    if window < shortest:
        far, least = int(np.argmax(np.linalg.norm(none.start, axis=1))), fixed + shortest * raster
        raise usage_error("te_s", options.te_s, f"at least {least:.6g} s for line {far}, the farthest")
    te, rest = fixed + window * raster, none.read_sides[1] + window * raster + 0.5 * none.timing.excitation_s
    tr = te + rest if options.tr_s is None else options.tr_s
    if tr < te + rest - 1e-9:
        raise usage_error("tr_s", tr, f"at least {te + rest:.6g} s")
    return event_table([[Pulse(none.excitation), Readout(te), Wait(tr - te), Spoil()]])


def _repetitions(table: np.ndarray, raster: float, none: Timeline) -> tuple[Repetition, ...]:
    """The rows of an event table as repetitions."""
    if table.ndim != 2 or table.shape[1] != 6 or ((table[:, 1] < 0) | (table[:, 1] >= len(KINDS))).any():
        raise usage_error("events", table, "rows of six numbers, as signal.events.event_table makes them")
    found, readouts = [], 0
    for number in np.unique(table[:, 0]):
        now, orders, spoilers, items = 0.0, 0, 0, list[Item]()
        for _, kind, angle, phase, seconds, turns in table[table[:, 0] == number].tolist():
            event = KINDS[int(kind)]
            now, orders = now + seconds, orders + round(turns)
            if event is Spoil:
                spoilers, orders = spoilers + 1, max(orders, 1)
            name = {Pulse: "pulse", Invert: "inversion", Readout: "readout"}.get(event)
            if name is None and event not in (Wait, Spoil):
                raise usage_error("events", event.__name__, "pulses, inversions, waits, spoilers and readouts")
            if name is not None:
                if items and items[-1].kind == "inversion":
                    orders = max(orders, _SPOILS_AFTER_INVERSION)
                use = {"pulse": "e", "inversion": "i"}.get(name, "")
                if name == "pulse" and angle < 0:
                    angle, phase = -angle, phase + math.pi
                items.append(Item(name, round(now / raster), angle, phase, use, orders, spoilers))
                orders = 0
        if not any(item.kind == "readout" for item in items):
            raise usage_error("events", "a repetition without a readout", "at least one")
        begin = items[0].step
        items = [item._replace(step=item.step - begin) for item in _with_uses(items)]
        found.append(Repetition(tuple(items), readouts, orders, spoilers, round(now / raster)))
        readouts += sum(item.kind == "readout" for item in items)
    return tuple(found)


def _with_uses(items: list[Item]) -> list[Item]:
    """Pulses with what they are for: those refocus that are followed by a readout of what is dephased between them."""
    found, near, away = list(items), None, 0
    for n, item in enumerate(items):
        away += item.orders
        if item.kind == "readout" and near is not None:
            found[near] = found[near]._replace(use="r" if away else "e")
            near = None
        if item.kind == "pulse":
            near, away = n, 0
    return found

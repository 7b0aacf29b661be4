"""What a scanner will play of trains of spin echoes: every number settled and checked against the limits."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, ms_from_s, per_m_from_cycles, rad_from_deg
from acqdesign.export.shapes import (  # fmt: skip
    SLAB_PEAK,
    Planned,
    PulseqOptions,
    by_train,
    echo_shape,
    excitation_duration,
    grid,
    nearest_cells,
    pulse_duration,
    read_shape,
)
from acqdesign.scene import scanner
from acqdesign.scene.scanner import EchoShape, EchoTiming, Lobes, SystemLimits, gentlest_lobes

# The model of stimulation forgets within four of its longest time constants, 12 ms.
_ECHOES, _MEMORY_S = 8, 15e-3


@dataclasses.dataclass(frozen=True)
class Trains(Planned):
    """A design in the scanner's terms.

    `lines[t, e]` is the index of the line that echo `e` of train `t` acquires, -1 for none. Positions in 1/m, times in
    seconds.
    """

    lobes: Lobes
    first: Lobes
    spoil: Lobes
    k_per_m: np.ndarray
    lines: np.ndarray
    flips: np.ndarray
    phases: np.ndarray
    excitation: float
    esp_s: float
    te_s: float
    tr_s: float
    dummies: int
    noise_scan: bool
    matrix: tuple[int, ...]
    fov_m: tuple[float, ...]

    select_axis = 2

    @property
    def busy_s(self) -> float:
        """What of a repetition is not waiting [s]."""
        timing = self.timing
        return timing.excitation_s + timing.first_window_s + len(self.flips) * self.esp_s + self.spoil.duration_s

    @property
    def peak_b1_t(self) -> float:
        """Largest B1 of any pulse [T]."""
        peak = 1.0 if self.shape.slab_m is None else SLAB_PEAK
        hardest = [peak * self.excitation / self.shape.excitation_s, *(self.flips / self.shape.refocusing_s)]
        return float(max(hardest)) / (2 * math.pi * GAMMA_HZ_PER_T)

    @property
    def power(self) -> float:
        """Mean square of the refocusing flips over that of 180°."""
        return float(np.mean(self.flips**2) / math.pi**2)

    def asked(self) -> np.ndarray:
        """Phase encodes of the lines in the order of playing, `(lines, 2)` [1/m]."""
        return self.k_per_m[self.lines[self.lines >= 0]]

    @property
    def shown_s(self) -> tuple[float, float]:
        """When the first train with readouts begins, after a noise scan, and how long it lasts [s]."""
        return self.dummies * self.tr_s, self.busy_s

    def uses(self) -> str:
        """Of the pulses of a train, one letter each."""
        return "e" + "r" * len(self.flips)

    def hardest(self) -> list["Trains"]:
        """Short plans of consecutive lines around those that wind y, z or both farthest."""
        lines = self.lines
        k = np.where((lines >= 0)[..., None], self.k_per_m[lines], 0.0)
        following = np.concatenate([k[:, 1:], np.zeros_like(k[:, :1])], axis=1)
        # A rewinder's second ramp and the next winder's first have one sign where the positions have.
        pairs = k + following
        measures = [*np.moveaxis(np.abs(pairs), -1, 0), np.linalg.norm(pairs, axis=-1), np.linalg.norm(k, axis=-1)]
        places = {np.unravel_index(int(np.argmax(m)), m.shape) for m in measures}
        parts = []
        for train, echo in sorted((int(t), int(e)) for t, e in places):
            start = max(0, min(echo - _ECHOES // 2, lines.shape[1] - _ECHOES))
            chosen = lines[train, start : start + _ECHOES]
            held: dict[str, Any] = {
                "flips": self.flips[: len(chosen)],
                "phases": self.phases[: len(chosen)],
                "lines": chosen[None],
            }
            parts.append(dataclasses.replace(self, dummies=0, noise_scan=False, **held))
        return parts

    def stretch_s(self, total: float) -> float:
        """How much of such a plan says what stimulates most [s]: not the wait for the next train."""
        return min(total, self.busy_s + _MEMORY_S)

    def all_lobes(self) -> list[Lobes]:
        """Lobes that are played."""
        return [self.lobes, self.spoil, self.first]

    @property
    def cells(self) -> np.ndarray:
        """The nearest cell of the grid of every line, `(lines, 2)` from 0."""
        return nearest_cells(self.k_per_m, self.fov_m, self.matrix)

    def told(self, lines: int, seconds: float) -> list[str]:
        """What is played, in words."""
        trains, spacing = len(self.lines), ms_from_s(self.esp_s)
        said = f"3D fast spin echo: {trains} trains of {len(self.flips)} echoes, {spacing:.4g} ms apart"
        return [f"{said}; {seconds:.0f} s", f"mean squared flip over that of 180°: {self.power:.3f}"]

    def definitions(self) -> dict[str, Any]:
        """What a reader needs to know beside the geometry."""
        known = {"Name": "acqdesign_fse3d", "TE": self.te_s, "TR": self.tr_s, "DummyTrains": self.dummies}
        return known | {"EchoSpacing": self.esp_s, "TurboFactor": len(self.flips), "Trains": len(self.lines)}


def make_trains(design: Mapping[str, Any], options: PulseqOptions) -> Trains:
    """Settles what a fast spin echo plays for a design, and checks that the scanner can.

    Args:
        design: arrays by the names of `design.npz`, with `train`, `echo`, `flips_rad` and `esp_s`.
        options: what the design doesn't say.
    """
    names = ("train", "echo", "flips_rad", "esp_s")
    absent = [name for name in names if design.get(name) is None]
    # A TR for each pulse, or an inversion.
    if design.get("ti_s") is not None or ("esp_s" in absent and np.size(design.get("tr_s", ())) > 1):
        got = "trains of gradient echoes, as of mprage, spgr, mrf and bssfp, without their events"
        raise usage_error(
            "design", got, "a design with events", "Learn it again with this version, or write csv or mat."
        )
    if absent:
        raise usage_error("design", "echoes without " + ", ".join(absent), "all of " + ", ".join(names))
    matrix, fov = grid(design)
    voxel = tuple(f / n for f, n in zip(fov, matrix, strict=True))
    k = np.stack([per_m_from_cycles(np.asarray(design["points"], float)[:, i], voxel[1 + i]) for i in (0, 1)], 1)
    shape = {"voxel_m": voxel, "slab_m": options.slab_m, "crusher": options.crusher, **read_shape(design)}
    played = _train(design, options, k, shape)
    dummies = 1 if options.dummies is None else options.dummies
    played |= {"k_per_m": k, "matrix": matrix, "fov_m": fov, "dummies": dummies, "noise_scan": options.noise_scan}
    plan = Trains(options.system, tr_s=0.0, **played)
    raster = options.system.block_raster_s
    shortest = max(3.0, plan.busy_s + raster)
    tr_s = round(scanner.up(options.tr_s or shortest, raster, slack=1e-4), 9)  # single precision in the file
    if tr_s < plan.busy_s - 1e-9:
        least = f"at least {plan.busy_s:.6g} s, what a train takes"
        raise usage_error("tr_s", tr_s, least, "Or shorten the trains.")
    return dataclasses.replace(plan, tr_s=tr_s)


def _train(
    design: Mapping[str, Any], options: PulseqOptions, k: np.ndarray, readout: Mapping[str, Any]
) -> dict[str, Any]:
    """What a fast spin echo of lines at `k` [1/m] plays, by the names of `Plan`."""
    limits, raster = options.system, options.system.block_raster_s
    flips, phases, lines = _echoes(design)
    esp = round(round(float(design["esp_s"]) / raster) * raster, 9)
    if abs(esp - float(design["esp_s"])) > 1e-6 * esp:  # single precision in the file
        remedy = f"The nearest is {esp:.6g} s."
        raise usage_error("esp_s", float(design["esp_s"]), f"a multiple of {raster:.1g} s", remedy)
    excitation = float(design.get("excitation_rad") or rad_from_deg(90.0))
    refocusing_s = pulse_duration(options, "refocusing_s", float(flips.max()))
    longest = 0.5 * (esp - refocusing_s - 2 * limits.rf_margin_s) / readout["samples"]
    excitation_s = excitation_duration(options, excitation)
    shape = echo_shape(options, readout, longest, refocusing_s=refocusing_s, excitation_s=excitation_s)
    if options.dwell_s is None:
        shape = _slowest_that_fits(limits, shape, esp, k)
    _refuse_far_lines(limits, shape, esp, k, lines)
    lobes, first = _lobes(limits, shape, esp, k)
    assert lobes
    assert first
    timing = scanner.echo_timing(limits, shape, esp)
    first = _as_written(limits, shape, timing, lobes, first)
    # Four crushers along x after a train, in twice the shortest time.
    area = 4 * shape.crusher_area
    shortest = scanner.up(2 * scanner.shortest_lobe(limits, area), 2 * raster)
    spoil = gentlest_lobes(limits, round(shortest, 9), x_area=area)
    echo = {"shape": shape, "timing": timing, "lobes": lobes, "first": first, "spoil": spoil}
    pulses = {"flips": flips, "phases": phases, "excitation": excitation}
    return {**echo, **pulses, "lines": lines, "esp_s": esp, "te_s": esp}


def _echoes(design: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Refocusing flips and phases [rad], and which line each echo of each train acquires."""
    flips = np.asarray(design["flips_rad"], float)
    phases = np.zeros(flips.shape) if design.get("phases_rad") is None else np.asarray(design["phases_rad"], float)
    train, echo = np.asarray(design["train"]), np.asarray(design["echo"])
    if phases.shape != flips.shape:
        raise usage_error("phases_rad", phases, f"one for each of {flips.size} flips")
    lines = by_train(train, echo, flips.size)
    # A negative flip is a positive one of opposite phase.
    phases = np.mod(np.where(flips < 0, phases + math.pi, phases), 2 * math.pi)
    return np.abs(flips), phases, lines


def _slowest_that_fits(limits: SystemLimits, shape: EchoShape, esp: float, k: np.ndarray) -> EchoShape:
    """The shape with the longest dwell time, in even µs, that the echo spacing has room for.

    Where none does, that which needs the least more.
    """
    even, most = 2 * limits.rf_raster_s, limits.max_gradient_t_per_m * (1 - 1e-4)
    dwells = [round(n * even, 9) for n in range(round(shape.dwell_s / even), 0, -1)]
    slower = (dataclasses.replace(shape, dwell_s=dwell) for dwell in dwells)
    allowed = [one for one in slower if one.readout_gradient_t_per_m <= most]
    fitting = (one for one in allowed if None not in _lobes(limits, one, esp, k))
    return next(fitting, None) or min(allowed, key=lambda one: shortest_spacing(limits, one, k))


def _lobes(limits: SystemLimits, shape: EchoShape, esp: float, k: np.ndarray) -> tuple[Lobes | None, Lobes | None]:
    """The lobes before readouts that reach the farthest line, and those before the first pulse, where there are any."""
    return scanner.echo_lobes(limits, shape, esp, _farthest(k)), scanner.first_lobes(limits, shape, esp)


def _farthest(k: np.ndarray) -> float:
    return float(np.hypot(*k.T).max())


def shortest_spacing(limits: SystemLimits, shape: EchoShape, k: np.ndarray) -> float:
    """The shortest echo spacing [s] at which the farthest of the positions `(lines, 2)` [1/m] can be played."""
    far = _farthest(k) / math.hypot(*(1 / v for v in shape.voxel_m[1:]))
    return scanner.min_echo_spacing(limits, shape, phase_encode=far)


def _refuse_far_lines(limits: SystemLimits, shape: EchoShape, esp: float, k: np.ndarray, lines: np.ndarray) -> None:
    """Raises with the line farthest out of reach and the echo spacing that reaches it."""
    reach, length = scanner.largest_k(limits, shape, esp), np.hypot(*k.T)
    line = int(np.argmax(length))
    if length[line] <= reach:
        return
    train, echo = (int(found[0]) for found in np.nonzero(lines == line))
    raise usage_error(
        "points",
        f"{(length > reach).sum()} lines out of reach on {limits.name}, the worst line {line} (train {train}, "
        f"echo {echo}) at |k| = {length[line]:.4g}/m",
        f"at most {reach:.4g}/m at an echo spacing of {esp:.4g} s",
        f"Learn with an echo spacing of {shortest_spacing(limits, shape, k):.4g} s or longer, or export with a shorter "
        "dwell time or a smaller crusher.",
    )


def _as_written(limits: SystemLimits, shape: EchoShape, timing: EchoTiming, lobes: Lobes, first: Lobes) -> Lobes:
    """The first lobes, with the ramps at which six digits of their height hold their area best.

    What they miss of the area between a refocusing pulse and an echo, as the file says it, shifts every line.
    """
    end, raster = shape.readout_gradient_t_per_m, limits.gradient_raster_s
    highest = max(abs(lobes.x_t_per_m), end)  # to which the file's shape of the crusher is relative
    area = shape.crusher_area * _digits(highest) / highest + 0.5 * _digits(end) * timing.readout_s
    ramp = np.arange(1, round(first.duration_s / raster) // 2 + 1) * raster
    flat = first.duration_s - ramp
    yz = first.yz_t_per_m * (first.duration_s - first.ramp_s) / flat
    slew, gradient = np.hypot(area / flat, yz) / ramp, np.hypot(area / flat, yz)
    most = min(1.5 * first.slew_t_per_m_s, limits.max_slew_t_per_m_s * (1 - 1e-5))
    allowed = (slew <= most) & (gradient <= limits.max_gradient_t_per_m * (1 - 1e-5))
    if not allowed.any():  # within the margin of rounding
        return first
    missed = np.abs(np.array([_digits(a) for a in area / flat]) * flat - area)
    best = int(np.argmin(np.where(allowed, missed, np.inf)))
    x, size = _digits(float(area / flat[best])), float(yz[best])
    return Lobes(first.duration_s, float(ramp[best]), x, size, float(slew[best]))


def _digits(gradient_t_per_m: float) -> float:
    """A gradient as the file says it: six digits, in Hz/m."""
    return float(f"{gradient_t_per_m * GAMMA_HZ_PER_T:.6g}") / GAMMA_HZ_PER_T

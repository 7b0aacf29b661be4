"""What a scanner will play for a design: every number settled and checked against the limits, nothing built yet.

A fast spin echo for trains, a spoiled gradient echo without.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_positive, usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, per_m_from_cycles, rad_from_deg
from acqdesign.export.straight import need, readout_of
from acqdesign.scene import scanner
from acqdesign.scene.scanner import SYSTEMS, EchoShape, EchoTiming, Lobes, SystemLimits, gentlest_lobes

# Peak over mean of a sinc of time-bandwidth 4 under a Hann window: what a selective pulse's B1 is to a hard one's.
SLAB_PEAK = 3.95
SLAB_APODIZATION = 0.5
SPOILING_RAD = rad_from_deg(117.0)  # RF spoiling (Zur et al. 1991, doi:10.1002/mrm.1910210210)
ADC_DIVISOR = 4  # pypulseq's `adc_samples_divisor`: scanners decimate readouts in such groups
_STEP = 20e-6  # pulses and dwell times are chosen on multiples that every raster divides
_LONGEST_DWELL_S = 20e-6


@dataclasses.dataclass(frozen=True)
class PulseqOptions:
    """How a design is played where the design itself doesn't say, all SI.

    Attributes:
        system: limits of the scanner.
        dwell_s: between samples; the design's, or one that leaves the gradients as much time as the readout.
        tr_s: from excitation to excitation; the design's, or 3 s for trains and the shortest for single echoes.
        te_s: of single echoes; the shortest but for gentler ramps unless given.
        flip_rad: of single echoes, where the design has none.
        refocusing_s: duration of refocusing pulses; the shortest within B1 unless given.
        excitation_s: duration of excitation pulses, likewise.
        slab_m: thickness of a selective excitation; a hard pulse excites everything unless given.
        crusher: dephasing along the readout on each side of a refocusing pulse, or at the end of a single echo's
            repetition [cycles/voxel].
        dummies: trains, or single echoes, played without a readout at the start; 1 and 64 unless given.
        noise_scan: sample noise once, before anything else.
        version: of the file, 1.5 or, for older interpreters, 1.4.
    """

    system: SystemLimits = SYSTEMS["generic"]
    dwell_s: float | None = None
    tr_s: float | None = None
    te_s: float | None = None
    flip_rad: float = rad_from_deg(15.0)
    refocusing_s: float | None = None
    excitation_s: float | None = None
    slab_m: float | None = None
    crusher: float = 1.0
    dummies: int | None = None
    noise_scan: bool = True
    version: str = "1.5"

    def __post_init__(self) -> None:
        check_choice("version", self.version, ("1.4", "1.5"))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float):
                check_positive(field.name, value)
        if self.dummies is not None:
            check_count("dummies", self.dummies, minimum=0)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A design in the scanner's terms.

    `lines[t, e]` is the index of the line that echo `e` of train `t` acquires, -1 for none; single echoes are
    trains of one without refocusing pulses (`flips` empty). Positions in 1/m, times in seconds.
    """

    limits: SystemLimits
    shape: EchoShape
    timing: EchoTiming
    lobes: Lobes
    first: Lobes | None
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

    @property
    def is_train(self) -> bool:
        """Whether refocusing pulses are played."""
        return self.flips.size > 0

    @property
    def busy_s(self) -> float:
        """What of a repetition is not waiting [s]."""
        timing = self.timing
        if not self.is_train:
            return timing.excitation_s + 2 * timing.window_s + timing.readout_s
        return timing.excitation_s + timing.first_window_s + len(self.flips) * self.esp_s + self.spoil.duration_s

    @property
    def slab_ramp_s(self) -> float:
        """Ramps of a selective excitation's gradient [s]."""
        return scanner.slab_ramp(self.limits, self.shape, self.timing)

    @property
    def rephasing_area(self) -> float:
        """What a selective excitation leaves along z to be undone [T s/m]."""
        return scanner.rephasing_area(self.limits, self.shape, self.timing)

    @property
    def peak_b1_t(self) -> float:
        """Largest B1 of any pulse [T]."""
        peak = 1.0 if self.shape.slab_m is None else SLAB_PEAK
        hardest = [peak * self.excitation / self.shape.excitation_s, *(self.flips / self.shape.refocusing_s)]
        return float(max(hardest)) / (2 * math.pi * GAMMA_HZ_PER_T)


def make_plan(design: Mapping[str, Any], options: PulseqOptions | None = None) -> Plan:
    """Settles what is played for a design, and checks that the scanner can.

    Args:
        design: arrays by the names of `design.npz`; with `train`, `echo`, `flips_rad` and `esp_s` a fast spin
            echo, without them a spoiled gradient echo.
        options: what the design doesn't say.
    """
    need(design, "points", "shape", "fov_m")
    options = options or PulseqOptions()
    known = {name: design.get(name) for name in ("dwell_s", "tr_s") if getattr(options, name) is None}
    known = {name: float(np.ravel(value)[0]) for name, value in known.items() if value is not None}
    options = dataclasses.replace(options, **known)  # type: ignore[arg-type]
    names = ("train", "echo", "flips_rad", "esp_s")
    absent = [name for name in names if design.get(name) is None]
    is_train = "echo" not in absent
    # A TR for each pulse, or an inversion.
    gradient_echoes = design.get("ti_s") is not None or ("esp_s" in absent and np.size(design.get("tr_s", ())) > 1)
    if is_train and gradient_echoes:
        got = "trains of gradient echoes, as of mprage, spgr, mrf and bssfp"
        raise usage_error("design", got, "fast spin echo, or single echoes", "csv and mat hold any train.")
    if is_train and absent:
        raise usage_error("design", "echoes without " + ", ".join(absent), "all of " + ", ".join(names))
    matrix, fov = _grid(design)
    voxel = tuple(f / n for f, n in zip(fov, matrix, strict=True))
    k = np.stack([per_m_from_cycles(np.asarray(design["points"], float)[:, i], voxel[1 + i]) for i in (0, 1)], 1)
    shape = {"voxel_m": voxel, "slab_m": options.slab_m, "crusher": options.crusher, **_readout(design)}
    dummies = (1 if is_train else 64) if options.dummies is None else options.dummies
    played = (_train if is_train else _single)(design, options, k, shape)
    played |= {"k_per_m": k, "matrix": matrix, "fov_m": fov, "dummies": dummies, "noise_scan": options.noise_scan}
    plan = Plan(options.system, tr_s=0.0, **played)
    raster = options.system.block_raster_s
    shortest = max(3.0, plan.busy_s + raster) if is_train else plan.busy_s
    tr_s = round(scanner.up(options.tr_s or shortest, raster, slack=1e-4), 9)  # single precision in the file
    if tr_s < plan.busy_s - 1e-9:
        what, remedy = (", what a train takes", "Or shorten the trains.") if is_train else ("", "")
        raise usage_error("tr_s", tr_s, f"at least {plan.busy_s:.6g} s{what}", remedy)
    return dataclasses.replace(plan, tr_s=tr_s)


def _grid(design: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Voxels and field of view [m]."""
    matrix = tuple(int(n) for n in np.asarray(design["shape"]))
    fov = tuple(round(float(f), 9) for f in np.asarray(design["fov_m"]))
    if len(matrix) != 3 or len(fov) != 3 or min(matrix) < 1 or min(fov) <= 0:
        raise usage_error("shape and fov_m", f"{matrix} and {fov}", "three positive numbers each")
    if matrix[0] == 1:
        remedy = "Say how many samples: --samples."
        raise usage_error("shape", f"{matrix}, one plane", "voxels along the readout", remedy)
    return matrix, fov


def _readout(design: Mapping[str, Any]) -> dict[str, Any]:
    """Step of a readout [cycles/voxel], index of its centre, and number of samples."""
    readout = readout_of(design)
    count = len(readout)
    step = (readout[-1] - readout[0]) / max(count - 1, 1)
    uneven = np.abs(np.diff(readout) - step).max(initial=0)
    if step < 0 and uneven <= -1e-3 * step:
        remedy = "The same points in the other order: readout[::-1]."
        raise usage_error("readout", "samples from + to -", "samples that rise", remedy)
    if count < 2 or step <= 0 or uneven > 1e-3 * step:
        raise usage_error("readout", "samples that are not evenly spaced", "at least two, rising by equal steps")
    if count % ADC_DIVISOR:
        low = count // ADC_DIVISOR * ADC_DIVISOR
        remedy = f"Learn or export with --samples {f'{low} or ' if low else ''}{low + ADC_DIVISOR}."
        raise usage_error("samples_per_line", count, f"a multiple of {ADC_DIVISOR}, as scanners decimate", remedy)
    step = 1 / round(1 / step, 4)  # single precision in the file: half-open grids are exact again
    centre = round(-readout[0] / step, 2)
    if not 0 <= centre <= count - 1:
        raise usage_error("readout", "samples all on one side", "samples on both sides of the centre of k-space")
    return {"step": step, "centre": centre, "samples": count}


def _pulse_s(options: PulseqOptions, name: str, radians: float, peak: float = 1.0, least: float = 0.2e-3) -> float:
    """Duration of a pulse: that given, if B1 allows it, or the shortest that B1 allows."""
    limits, given = options.system, getattr(options, name)
    needed = peak * radians / (2 * math.pi * GAMMA_HZ_PER_T * limits.max_b1_t)
    if given is None:
        return round(max(least, math.ceil(needed / _STEP - 1e-6) * _STEP), 9)
    if given < needed * (1 - 1e-6):
        got = f"{given:.6g} s, which takes a B1 of {needed / given * limits.max_b1_t:.3g} T"
        remedy = f"Make it {math.ceil(needed / _STEP) * _STEP:.6g} s or longer."
        raise usage_error(name, got, f"at most {limits.max_b1_t:.3g} T", remedy)
    if abs(given / (2 * limits.rf_raster_s) - round(given / (2 * limits.rf_raster_s))) > 1e-6:
        raise usage_error(name, given, f"a multiple of {2 * limits.rf_raster_s:.1g} s")
    return float(given)


def _excitation_s(options: PulseqOptions, radians: float) -> float:
    """Duration of the excitation pulse [s], hard or selective."""
    selective = () if options.slab_m is None else (SLAB_PEAK, 0.6e-3)
    return _pulse_s(options, "excitation_s", radians, *selective)


def _shape(options: PulseqOptions, readout: Mapping[str, Any], longest: float, **pulses: Any) -> EchoShape:
    """What an echo asks of the gradients, within the limits.

    At the dwell time asked for, its echo on the raster of the ADC; or the longest in even µs up to `longest`, or the
    shortest that the readout's gradient allows.
    """
    limits, dwell = options.system, options.dwell_s
    even, most = 2 * limits.rf_raster_s, limits.max_gradient_t_per_m * (1 - 1e-4)
    if dwell is None:
        dwell = max(even, math.floor(min(longest, _LONGEST_DWELL_S) / even + 1e-6) * even)
    else:
        dwell = round(dwell, 9)
        for time, raster in ((readout["centre"] + 0.5) * dwell, limits.rf_raster_s), (dwell, limits.adc_raster_s):
            if abs(time / raster - round(time / raster)) > 1e-4:
                remedy = f"Even µs always are: {max(even, round(dwell / even) * even):.3g} s."
                raise usage_error("dwell_s", dwell, "a time that puts the centre of k-space on the raster", remedy)
    shape = EchoShape(dwell_s=dwell, **readout, **pulses)
    least = dwell * shape.readout_gradient_t_per_m / most
    if dwell < least and options.dwell_s is not None:
        what = f"at least {least:.3g} s for a readout gradient within {limits.name}'s limits"
        raise usage_error("dwell_s", dwell, what)
    if dwell < least:
        shape = dataclasses.replace(shape, dwell_s=round(math.ceil(least / even) * even, 9))
    if shape.slab_m is not None and shape.slab_gradient_t_per_m > most:
        gradient = shape.slab_gradient_t_per_m
        got = f"{shape.slab_m:.4g} m, which takes a gradient of {gradient:.3g} T/m"
        expected = f"at least {shape.slab_m * gradient / most:.4g} m ({limits.name})"
        raise usage_error("slab_m", got, expected, "Or a longer excitation.")
    return shape


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
    refocusing_s = _pulse_s(options, "refocusing_s", float(flips.max()))
    longest = 0.5 * (esp - refocusing_s - 2 * limits.rf_margin_s) / readout["samples"]
    excitation_s = _excitation_s(options, excitation)
    shape = _shape(options, readout, longest, refocusing_s=refocusing_s, excitation_s=excitation_s)
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
    if echo.min() < 0 or echo.max() >= flips.size:
        worst = int(np.argmax(np.abs(echo - 0.5 * (flips.size - 1))))
        raise usage_error("echo", f"{int(echo[worst])} for line {worst}", f"0 to {flips.size - 1}, one for each flip")
    trains, index = np.unique(train, return_inverse=True)
    lines = np.full((len(trains), flips.size), -1)
    lines[index, echo] = np.arange(len(echo))
    if (lines >= 0).sum() != len(echo):
        clash = int(np.flatnonzero(lines[index, echo] != np.arange(len(echo)))[0])
        got = f"line {clash} at another's echo {int(echo[clash])} of train {int(train[clash])}"
        raise usage_error("train and echo", got, "one line for each echo of a train")
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


def _single(
    design: Mapping[str, Any], options: PulseqOptions, k: np.ndarray, readout: Mapping[str, Any]
) -> dict[str, Any]:
    """What a spoiled gradient echo plays, as `_train` has it."""
    limits, raster = options.system, options.system.block_raster_s
    flips = np.ravel(options.flip_rad if design.get("flips_rad") is None else design["flips_rad"])
    if np.ptp(flips) > 0:
        got = "flips that vary, without echoes of lines"
        raise usage_error("flips_rad", got, "one flip for a spoiled gradient echo")
    flip = float(flips[0])
    shape = _shape(options, readout, 2.5e-3 / readout["samples"], excitation_s=_excitation_s(options, flip))
    timing = dataclasses.replace(scanner.echo_timing(limits, shape, 1.0), refocusing_s=0.0, first_window_s=0.0)
    rephase = scanner.rephasing_area(limits, shape, timing)
    end, yz_area = shape.readout_gradient_t_per_m, _farthest(k) / GAMMA_HZ_PER_T
    parts = ((-0.5 * end * timing.readout_s, yz_area + rephase), (shape.crusher_area, yz_area))

    def lobes(window: float) -> list[Lobes | None]:
        return [gentlest_lobes(limits, window, x_area=x, x_end=end, yz_area=yz) for x, yz in parts]

    shortest = next((n for n in range(1, round(0.1 / raster)) if all(lobes(n * raster))), None)
    if shortest is None:
        raise usage_error("points", "lines out of reach in 0.1 s", "phase encodes within the limits of " + limits.name)
    fixed = 0.5 * (timing.excitation_s + timing.readout_s)
    window = math.ceil(1.5 * shortest) * raster
    if options.te_s is not None:
        window = math.floor((options.te_s - fixed) / raster + 1e-6) * raster
    before, after = lobes(window)
    if before is None or after is None:
        far, least = int(np.argmax(np.hypot(*k.T))), fixed + shortest * raster
        raise usage_error("te_s", options.te_s, f"at least {least:.6g} s for line {far}, the farthest")
    timing, none = dataclasses.replace(timing, window_s=window), np.zeros(0)
    echo = {"shape": shape, "timing": timing, "lobes": before, "first": None, "spoil": after}
    pulses = {"flips": none, "phases": none, "excitation": flip}
    return {**echo, **pulses, "lines": np.arange(len(k))[:, None], "esp_s": 0.0, "te_s": round(fixed + window, 9)}

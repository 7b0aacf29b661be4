"""From a design to the plan of what is played for it: fast spin echo for trains, spoiled gradient echo without."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, per_m_from_cycles, rad_from_deg
from acqdesign.export.plan import (
    Plan,
    PulseqOptions,
    dwell_time,
    excitation_duration,
    grid,
    on_raster,
    pulse_duration,
    readout_steps,
)
from acqdesign.export.straight import need
from acqdesign.scene.scanner import (
    EchoShape,
    EchoTiming,
    Lobes,
    SystemLimits,
    echo_lobes,
    echo_timing,
    first_lobes,
    gentlest_lobes,
    largest_k,
    min_echo_spacing,
    shortest_lobe,
    slab_ramp,
)


def make_plan(design: Mapping[str, Any], options: PulseqOptions | None = None) -> Plan:
    """Settles what is played for a design, and checks that the scanner can.

    Args:
        design: arrays by the names of `design.npz`; with `train`, `echo`, `flips_rad` and `esp_s` a fast spin
            echo, without them a spoiled gradient echo.
        options: what the design doesn't say.

    Returns:
        The plan.

    Raises:
        ValueError: something the export needs is missing, or beyond the limits: the worst of it, and what would
            fix it.
    """
    options = options or PulseqOptions()
    need(design, "points", "shape", "fov_m")
    train_keys = ("train", "echo", "flips_rad", "esp_s")
    held = [name for name in train_keys if design.get(name) is not None]
    if "echo" in held and len(held) < len(train_keys):
        absent = [name for name in train_keys if name not in held]
        raise usage_error("design", "echoes without " + ", ".join(absent), "all of " + ", ".join(train_keys))
    matrix, fov = grid(design)
    voxel = tuple(f / n for f, n in zip(fov, matrix, strict=True))
    k = np.stack([per_m_from_cycles(np.asarray(design["points"], float)[:, i], voxel[1 + i]) for i in (0, 1)], 1)
    step, centre, samples = readout_steps(design)
    common = {"voxel_m": voxel, "step": step, "centre": centre, "slab_m": options.slab_m}
    given = {**common, "crusher": options.crusher, "samples": samples}
    settle = _train if "echo" in held else _single
    return settle(design, options, given, k, matrix, fov)


def _train(
    design: Mapping[str, Any],
    options: PulseqOptions,
    given: dict[str, Any],
    k: np.ndarray,
    matrix: tuple[int, ...],
    fov: tuple[float, ...],
) -> Plan:
    limits = options.system
    flips, phases, lines = _echoes(design)
    esp = float(design["esp_s"])
    raster = limits.block_raster_s
    rounded = round(round(esp / raster) * raster, 9)
    if abs(rounded - esp) > 1e-6 * esp:  # single precision in the file
        raise usage_error("esp_s", esp, f"a multiple of {raster:.1g} s", f"The nearest is {rounded:.6g} s.")
    esp = rounded
    excitation = float(design.get("excitation_rad") or rad_from_deg(90.0))
    given |= {
        "refocusing_s": pulse_duration("refocusing_s", options.refocusing_s, float(flips.max()), 1.0, limits, 0.2e-3),
        "excitation_s": excitation_duration(options, excitation),
    }
    free = esp - given["refocusing_s"] - 2 * limits.rf_margin_s
    dwell = dwell_time(options, design, given["centre"], 0.5 * free / given["samples"])
    shape = _readable(EchoShape(dwell_s=dwell, **given), options, design)
    if _may_choose(options, design):
        shape = _slowest_that_fits(limits, shape, esp, k)
    _refuse_thin_slab(limits, shape)
    _refuse_far_lines(limits, shape, esp, k, lines)
    lobes, first = echo_lobes(limits, shape, esp, _length(k)), first_lobes(limits, shape, esp)
    assert lobes is not None
    assert first is not None
    timing = echo_timing(limits, shape, esp)
    first = _as_written(limits, shape, timing, lobes, first)
    spoil = _spoiler(limits, shape)
    busy = 0.5 * timing.excitation_s + (len(flips) + 0.5) * esp + spoil.duration_s
    asked = options.tr_s if options.tr_s is not None else design.get("tr_s")
    tr = 3.0 if asked is None else float(np.ravel(asked)[0])
    tr = on_raster(max(tr, busy + raster) if asked is None else tr, raster)
    if tr < busy:
        raise usage_error("tr_s", tr, f"at least {busy:.4g} s, what a train takes", "Or shorten the trains.")
    ramp = slab_ramp(limits, shape, timing)
    dummies = 1 if options.dummies is None else options.dummies
    return Plan(
        limits, shape, timing, lobes, first, spoil, k, lines, flips, phases, excitation,
        esp, esp, tr, ramp, dummies, options.noise_scan, matrix, fov,
    )  # fmt: skip


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


def _may_choose(options: PulseqOptions, design: Mapping[str, Any]) -> bool:
    """Whether nobody has said what the dwell time is."""
    return options.dwell_s is None and design.get("dwell_s") is None


def _readable(shape: EchoShape, options: PulseqOptions, design: Mapping[str, Any]) -> EchoShape:
    """The shape with a readout gradient within the limits: at a longer dwell time where that may be chosen."""
    limits = options.system
    least = shape.dwell_s * shape.readout_gradient_t_per_m / (limits.max_gradient_t_per_m * (1 - 1e-4))
    if shape.dwell_s >= least:
        return shape
    if not _may_choose(options, design):
        what = f"at least {least:.3g} s for a readout gradient within {limits.name}'s limits"
        raise usage_error("dwell_s", shape.dwell_s, what)
    even = 2 * limits.rf_raster_s
    return dataclasses.replace(shape, dwell_s=round(math.ceil(least / even) * even, 9))


def _slowest_that_fits(limits: SystemLimits, shape: EchoShape, esp: float, k: np.ndarray) -> EchoShape:
    """The shape with the longest dwell time, in even µs, that the echo spacing has room for.

    Where none does, that which needs the least more.
    """
    even, far = 2 * limits.rf_raster_s, _length(k) / math.hypot(*(1 / v for v in shape.voxel_m[1:]))
    dwells = [round(n * even, 9) for n in range(round(shape.dwell_s / even), 0, -1)]
    slower = [dataclasses.replace(shape, dwell_s=dwell) for dwell in dwells]
    most = limits.max_gradient_t_per_m * (1 - 1e-4)
    allowed = [s for s in slower if s.readout_gradient_t_per_m <= most]
    fitting = (s for s in allowed if _fits(limits, s, esp, k))
    found = next(fitting, None)
    return found or min(allowed, key=lambda s: min_echo_spacing(limits, s, phase_encode=far))


def _fits(limits: SystemLimits, shape: EchoShape, esp: float, k: np.ndarray) -> bool:
    return None not in (echo_lobes(limits, shape, esp, _length(k)), first_lobes(limits, shape, esp))


def _length(k: np.ndarray) -> float:
    return float(np.hypot(k[:, 0], k[:, 1]).max())


def _refuse_far_lines(limits: SystemLimits, shape: EchoShape, esp: float, k: np.ndarray, lines: np.ndarray) -> None:
    """Raises with the line farthest out of reach and the echo spacing that reaches it."""
    far = _length(k)
    reach = largest_k(limits, shape, esp)
    if far <= reach:
        return
    line = int(np.argmax(np.hypot(k[:, 0], k[:, 1])))
    train, echo = (int(found[0]) for found in np.nonzero(lines == line))
    count = int((np.hypot(k[:, 0], k[:, 1]) > reach).sum())
    needed = min_echo_spacing(limits, shape, phase_encode=far / math.hypot(*(1 / v for v in shape.voxel_m[1:])))
    raise usage_error(
        "points",
        f"{count} lines out of reach on {limits.name}, the worst line {line} (train {train}, echo {echo}) at "
        f"|k| = {far:.4g}/m",
        f"at most {reach:.4g}/m at an echo spacing of {esp:.4g} s",
        f"Learn with an echo spacing of {needed:.4g} s or longer, or export with a shorter dwell time or a "
        "smaller crusher.",
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


def _refuse_thin_slab(limits: SystemLimits, shape: EchoShape) -> None:
    gradient, most = shape.slab_gradient_t_per_m, limits.max_gradient_t_per_m * (1 - 1e-4)
    if shape.slab_m is not None and gradient > most:
        least = shape.slab_m * gradient / most
        got = f"{shape.slab_m:.4g} m, which takes a gradient of {gradient:.3g} T/m"
        raise usage_error("slab_m", got, f"at least {least:.4g} m ({limits.name})", "Or a longer excitation.")


def _spoiler(limits: SystemLimits, shape: EchoShape) -> Lobes:
    """Four crushers along x after a train, in twice the shortest time."""
    area = 4 * shape.crusher_area
    raster = 2 * limits.gradient_raster_s
    duration = math.ceil(2 * shortest_lobe(limits, area) / raster) * raster
    found = gentlest_lobes(limits, on_raster(duration, limits.block_raster_s), x_area=area)
    assert found is not None
    return found


def _single(
    design: Mapping[str, Any],
    options: PulseqOptions,
    given: dict[str, Any],
    k: np.ndarray,
    matrix: tuple[int, ...],
    fov: tuple[float, ...],
) -> Plan:
    limits, raster = options.system, options.system.block_raster_s
    held = np.ravel(design["flips_rad"]) if design.get("flips_rad") is not None else np.array([options.flip_rad])
    if np.ptp(held) > 0:
        raise usage_error(
            "flips_rad", "flips that vary, without echoes of lines", "one flip for a spoiled gradient echo"
        )
    flip = float(held[0])
    excitation = excitation_duration(options, flip)
    dwell = dwell_time(options, design, given["centre"], 2.5e-3 / given["samples"])
    shape = _readable(EchoShape(dwell_s=dwell, excitation_s=excitation, **given), options, design)
    _refuse_thin_slab(limits, shape)
    timing = echo_timing(limits, shape, 1.0)
    ramp = slab_ramp(limits, shape, timing)
    rephase = 0.5 * shape.slab_gradient_t_per_m * (shape.excitation_s + ramp)
    end = shape.readout_gradient_t_per_m
    x_area, yz_area = -0.5 * end * timing.readout_s, _length(k) / GAMMA_HZ_PER_T

    def lobes(window: float, x: float, yz: float) -> Lobes | None:
        return gentlest_lobes(limits, window, x_area=x, x_end=end, yz_area=yz)

    steps = range(1, round(0.1 / raster))
    parts = ((x_area, yz_area + rephase), (shape.crusher_area, yz_area))
    shortest = next((n for n in steps if all(lobes(n * raster, *part) for part in parts)), None)
    if shortest is None:
        raise usage_error("points", "lines out of reach in 0.1 s", "phase encodes within the limits of " + limits.name)
    fixed = 0.5 * (timing.excitation_s + timing.readout_s)
    least_te, window = fixed + shortest * raster, math.ceil(1.5 * shortest) * raster
    if options.te_s is not None:
        window = math.floor((options.te_s - fixed) / raster + 1e-6) * raster
    before, after = (lobes(window, *part) for part in parts)
    if before is None or after is None:
        far = int(np.argmax(np.hypot(k[:, 0], k[:, 1])))
        raise usage_error("te_s", options.te_s, f"at least {least_te:.6g} s for line {far}, the farthest")
    te = round(fixed + window, 9)
    busy = timing.excitation_s + 2 * window + timing.readout_s
    asked = options.tr_s if options.tr_s is not None else design.get("tr_s")
    tr = busy if asked is None else float(np.ravel(asked)[0])
    tr = on_raster(tr, raster)
    if tr < busy - 1e-9:
        raise usage_error("tr_s", tr, f"at least {busy:.6g} s")
    timing = dataclasses.replace(timing, window_s=window, refocusing_s=0.0, first_window_s=0.0)
    dummies = 64 if options.dummies is None else options.dummies
    none = np.zeros(0)
    return Plan(
        limits, shape, timing, before, None, after, k, np.arange(len(k))[:, None], none, none, flip,
        0.0, te, tr, ramp, dummies, options.noise_scan, matrix, fov,
    )  # fmt: skip

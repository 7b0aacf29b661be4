"""What a scanner can play: gradient, slew, rasters and B1, and what they leave for an echo.

All SI: tesla, metres, seconds. Gradients and slews hold for the vector sum over x, y and z, so that a design may
be turned to any orientation.
"""

import bisect
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_positive, usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T

MARGIN = 1 - 1e-5
"""What is used of gradient and slew: room for what a file with six digits rounds up."""


@dataclasses.dataclass(frozen=True)
class SystemLimits:
    """Limits of one scanner, all SI."""

    name: str
    max_gradient_t_per_m: float
    max_slew_t_per_m_s: float
    b0_t: float = 3.0
    max_b1_t: float = 20e-6
    gradient_raster_s: float = 10e-6
    block_raster_s: float = 10e-6
    rf_raster_s: float = 1e-6
    adc_raster_s: float = 1e-7
    rf_dead_time_s: float = 100e-6
    rf_ringdown_time_s: float = 30e-6
    adc_dead_time_s: float = 10e-6
    source: str = ""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, str) and "dead_time" not in field.name and "ringdown" not in field.name:
                check_positive(field.name, value)

    @property
    def rf_margin_s(self) -> float:
        """Time kept free on both sides of a pulse, the longer of dead time and ringdown, so that it is centred."""
        return max(self.rf_dead_time_s, self.rf_ringdown_time_s)


def _siemens(name: str, gradient: float, slew: float, source: str, **more: Any) -> SystemLimits:
    source += "; dead times as in the Siemens examples of Pulseq"
    return SystemLimits(name, gradient, slew, source=source, **more)


def _ge(name: str, gradient: float, slew: float, source: str) -> SystemLimits:
    source += "; rasters and dead times as in TOPPE's examples of Pulseq on GE"
    rasters = {"gradient_raster_s": 4e-6, "block_raster_s": 4e-6, "rf_raster_s": 2e-6, "adc_raster_s": 2e-6}
    dead: dict[str, Any] = {"rf_ringdown_time_s": 60e-6, "adc_dead_time_s": 20e-6}
    return SystemLimits(name, gradient, slew, source=source, **rasters, **dead)


# Gradient and slew stand in the sources. The B1 of a loaded body coil does not: 20 µT at 3 T and 25 µT at 1.5 T are
# cautious figures, to be replaced by the scanner's own.
SYSTEMS: Mapping[str, SystemLimits] = {
    limits.name: limits
    for limits in (
        SystemLimits("generic", 0.040, 150.0, source="what every vendor's whole-body systems of 3 T can do"),
        _siemens("prisma", 0.080, 200.0, "Siemens MAGNETOM Prisma, XR gradients, data sheet"),
        _siemens("skyra", 0.045, 200.0, "Siemens MAGNETOM Skyra, XQ gradients, data sheet"),
        _siemens("aera", 0.045, 200.0, "Siemens MAGNETOM Aera, data sheet", b0_t=1.5, max_b1_t=25e-6),
        _siemens("connectom", 0.300, 200.0, "Setsompop et al. 2013, doi:10.1016/j.neuroimage.2013.05.078"),
        _ge("mr750", 0.050, 200.0, "GE Discovery MR750, data sheet"),
        _ge("uhp", 0.100, 200.0, "GE SIGNA UHP, data sheet"),
    )
}


def system_limits(name: str) -> SystemLimits:
    """The limits of a named scanner, one of `SYSTEMS`."""
    return SYSTEMS[check_choice("system", name, SYSTEMS)]


@dataclasses.dataclass(frozen=True)
class EchoShape:
    """What each echo of a train asks of the gradients.

    A pulse refocuses; in the window up to the readout, x crushes and runs up to the readout's gradient while y and
    z wind to the line's position; after the readout all three do the same backwards.

    Attributes:
        samples: of a readout line.
        dwell_s: time between them [s].
        voxel_m: lengths of a voxel along x (the readout), y and z [m].
        refocusing_s: duration of the refocusing pulses [s].
        excitation_s: duration of the excitation pulse [s].
        crusher: dephasing along x on each side of a refocusing pulse, before the readout's own [cycles/voxel].
        step: between samples [cycles/voxel], 1/samples unless given.
        centre: index of the sample at the centre of k-space, samples//2 unless given.
        slab_m: thickness of a selective excitation along z [m]; None for a hard pulse.
        slab_bandwidth: time-bandwidth product of the selective excitation.
    """

    samples: int
    dwell_s: float
    voxel_m: tuple[float, ...]
    refocusing_s: float = 0.6e-3
    excitation_s: float = 0.4e-3
    crusher: float = 1.0
    step: float | None = None
    centre: float | None = None
    slab_m: float | None = None
    slab_bandwidth: float = 4.0

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        if len(self.voxel_m) != 3:
            raise usage_error("voxel_m", self.voxel_m, "three lengths")
        names = ("dwell_s", "voxel_m", "refocusing_s", "excitation_s", "crusher", "step", "slab_m", "slab_bandwidth")
        for name in names:
            if getattr(self, name) is not None:
                check_positive(name, getattr(self, name))

    @property
    def readout_gradient_t_per_m(self) -> float:
        """Gradient during the readout: `step / (γ voxel dwell)`."""
        step = 1 / self.samples if self.step is None else self.step
        return step / (GAMMA_HZ_PER_T * self.voxel_m[0] * self.dwell_s)

    @property
    def crusher_area(self) -> float:
        """Area of one crusher [T s/m]."""
        return self.crusher / (GAMMA_HZ_PER_T * self.voxel_m[0])

    @property
    def slab_gradient_t_per_m(self) -> float:
        """Gradient during a selective excitation, zero for a hard pulse."""
        slab = self.slab_m
        return 0.0 if slab is None else self.slab_bandwidth / (GAMMA_HZ_PER_T * self.excitation_s * slab)

    @property
    def sample_centre(self) -> float:
        """Index of the sample at the centre of k-space."""
        return float(self.samples // 2 if self.centre is None else self.centre)


@dataclasses.dataclass(frozen=True)
class EchoTiming:
    """Durations of the parts of one echo [s]; twice the window, the pulse's block and the readout's are the spacing.

    Attributes:
        refocusing_s: block of the refocusing pulse, which lies in its middle.
        window_s: for crusher and phase encode, on both sides of the readout.
        readout_s: block of the readout, the centre of k-space in its middle.
        excitation_s: block of the excitation pulse, which lies in its middle, with a slab gradient's ramps.
        first_window_s: between excitation and first refocusing block.
    """

    refocusing_s: float
    window_s: float
    readout_s: float
    excitation_s: float
    first_window_s: float


@dataclasses.dataclass(frozen=True)
class Lobes:
    """Simultaneous lobes that start at zero, hold and end, with ramps of one length.

    Gradients are held along x and, as a length, in the plane of y and z; the slew is the largest of the vector sum.
    """

    duration_s: float
    ramp_s: float
    x_t_per_m: float
    yz_t_per_m: float
    slew_t_per_m_s: float


def shortest_lobe(limits: SystemLimits, area: float) -> float:
    """The shortest duration [s], off the raster, in which one axis reaches an area [T s/m] from zero to zero.

    `2 sqrt(A/S)` for a triangle, `A/G + G/S` for a trapezoid, whichever the area asks for.
    """
    gradient, slew = limits.max_gradient_t_per_m, limits.max_slew_t_per_m_s
    area = abs(area)
    return 2 * math.sqrt(area / slew) if area <= gradient**2 / slew else area / gradient + gradient / slew


def echo_timing(limits: SystemLimits, shape: EchoShape, esp_s: float) -> EchoTiming:
    """How an echo spacing [s], rounded to the scanner's raster, is spent on it; windows may come out negative."""
    raster, margin = limits.block_raster_s, limits.rf_margin_s
    centre = shape.sample_centre + 0.5  # samples lie in the middle of their dwell time
    side = max(centre, shape.samples - centre) * shape.dwell_s + limits.adc_dead_time_s
    readout = 2 * up(side, raster)
    esp = round(esp_s / raster) * raster
    pulse = shape.refocusing_s + 2 * margin
    window = _down((esp - readout - pulse) / 2, raster)
    ramp = up(shape.slab_gradient_t_per_m / (limits.max_slew_t_per_m_s * MARGIN), limits.gradient_raster_s)
    excitation = 2 * up(shape.excitation_s / 2 + max(margin, ramp), raster)
    refocusing = esp - readout - 2 * window
    first = _down((esp - excitation - refocusing) / 2, raster)
    return EchoTiming(refocusing, window, readout, excitation, first)


def gentlest_lobes(
    limits: SystemLimits, duration_s: float, *, x_area: float, x_end: float = 0.0, yz_area: float = 0.0
) -> Lobes | None:
    """Lobes of given areas [T s/m] and duration [s] with the least slew, or None where the limits forbid any.

    x goes from zero to a held value to `x_end` [T/m], y and z, as a length in their plane, to a held value and back to
    zero, all with ramps of one length; gradient and slew are those of the vector sum.
    """
    ramp, x = _ramps(limits, duration_s, x_area, x_end)
    yz = yz_area / (duration_s - ramp)
    slew = np.hypot(np.maximum(np.abs(x), np.abs(x - x_end)), yz) / ramp
    gradient = np.maximum(np.hypot(x, yz), abs(x_end))
    most, steepest = limits.max_gradient_t_per_m * MARGIN, limits.max_slew_t_per_m_s * MARGIN
    allowed = (gradient <= most) & (slew <= steepest)
    if not allowed.any():
        return None
    best = int(np.argmin(np.where(allowed, slew, np.inf)))
    return Lobes(duration_s, float(ramp[best]), float(x[best]), float(yz[best]), float(slew[best]))


def echo_lobes(limits: SystemLimits, shape: EchoShape, esp_s: float, k_per_m: float) -> Lobes | None:
    """The lobes before each readout that reach `|(ky, kz)| = k_per_m` [1/m]; None where the limits forbid it."""
    window = echo_timing(limits, shape, esp_s).window_s
    end, yz_area = shape.readout_gradient_t_per_m, k_per_m / GAMMA_HZ_PER_T
    return gentlest_lobes(limits, window, x_area=shape.crusher_area, x_end=end, yz_area=yz_area)


def first_lobes(limits: SystemLimits, shape: EchoShape, esp_s: float) -> Lobes | None:
    """The lobes between excitation and first refocusing pulse; None where the limits forbid them.

    x gets what a refocusing pulse and the following echo's centre have between them (the CPMG condition), z undoes
    the dephasing of a selective excitation.
    """
    timing = echo_timing(limits, shape, esp_s)
    x_area = shape.crusher_area + 0.5 * shape.readout_gradient_t_per_m * timing.readout_s
    z_area = rephasing_area(limits, shape, timing)
    return gentlest_lobes(limits, timing.first_window_s, x_area=x_area, yz_area=z_area)


def slab_ramp(limits: SystemLimits, shape: EchoShape, timing: EchoTiming) -> float:
    """Ramps of the slab gradient [s]: all the time that the excitation's block leaves them."""
    spare = 0.5 * (timing.excitation_s - shape.excitation_s)
    return _down(spare, limits.gradient_raster_s) if shape.slab_m is not None else 0.0


def rephasing_area(limits: SystemLimits, shape: EchoShape, timing: EchoTiming) -> float:
    """What a selective excitation leaves along z to be undone [T s/m]."""
    return 0.5 * shape.slab_gradient_t_per_m * (shape.excitation_s + slab_ramp(limits, shape, timing))


def largest_k(limits: SystemLimits, shape: EchoShape, esp_s: float) -> float:
    """The largest `|(ky, kz)|` [1/m] that the windows of an echo spacing let y and z wind to.

    For each length of the ramps, what the crusher leaves of gradient and slew in the vector sum; the best of them.

    Raises:
        UsageError: the echo spacing [s] is too short even for the centre of k-space.
    """
    window, end = echo_timing(limits, shape, esp_s).window_s, shape.readout_gradient_t_per_m
    ramp, x = _ramps(limits, window, shape.crusher_area, end)
    gradient, slew = limits.max_gradient_t_per_m * MARGIN, limits.max_slew_t_per_m_s * MARGIN
    change = np.maximum(np.abs(x), np.abs(x - end))
    spare = np.minimum((slew * ramp) ** 2 - change**2, gradient**2 - x**2)
    if not (spare >= 0).any() or end > gradient or first_lobes(limits, shape, esp_s) is None:
        shortest = f"at least {min_echo_spacing(limits, shape, phase_encode=0.0):.6g} s"
        raise usage_error("esp_s", esp_s, shortest, "Or: fewer samples, a smaller crusher, shorter pulses.")
    area = np.sqrt(np.maximum(spare, 0)) * (window - ramp)
    return float(np.where(spare >= 0, area, 0).max()) * GAMMA_HZ_PER_T


def max_phase_encode(limits: SystemLimits, shape: EchoShape, esp_s: float) -> float:
    """The half-width [cycles/voxel] of the box of `(ky, kz)` whose corners an echo spacing still reaches.

    At most 0.5: the box limit of line positions while learning. Errors are those of `largest_k`.
    """
    return min(0.5, largest_k(limits, shape, esp_s) / _corner(shape))


def min_echo_spacing(limits: SystemLimits, shape: EchoShape, *, phase_encode: float = 0.5) -> float:
    """The shortest echo spacing [s] on the raster in which every line of a box can be played.

    `phase_encode` is the half-width of the box of `(ky, kz)` [cycles/voxel].

    Raises:
        UsageError: the readout alone needs more gradient than there is; the error says which dwell time fits.
    """
    end, most = shape.readout_gradient_t_per_m, limits.max_gradient_t_per_m * MARGIN
    if end > most:
        wanted = f"at least {shape.dwell_s * end / most:.3g} s for a readout gradient within {limits.name}'s limits"
        raise usage_error("dwell_s", shape.dwell_s, wanted)
    corner, raster = phase_encode * _corner(shape), limits.block_raster_s

    def fits(steps: int) -> bool:
        esp = steps * raster
        return None not in (echo_lobes(limits, shape, esp, corner), first_lobes(limits, shape, esp))

    steps = range(round(1.0 / raster))
    shortest = bisect.bisect_left(steps, True, key=fits)
    if shortest == len(steps):
        raise usage_error("shape", "an echo longer than a second", "a crusher and pulses within the limits")
    return round(shortest * raster, 9)


def _ramps(limits: SystemLimits, duration: float, x_area: float, x_end: float) -> tuple[np.ndarray, ...]:
    """Every length of ramps [s] that the raster allows, and the gradient along x [T/m] held between them."""
    steps = max(round(duration / limits.gradient_raster_s) // 2, 0)
    ramp = np.arange(1, steps + 1) * limits.gradient_raster_s
    return ramp, (x_area - 0.5 * x_end * ramp) / (duration - ramp)


def _corner(shape: EchoShape) -> float:
    """|k| [1/m] of the corner of a box of one cycle per voxel."""
    return math.hypot(1 / shape.voxel_m[1], 1 / shape.voxel_m[2])


def up(seconds: float, raster: float, slack: float = 1e-6) -> float:
    """The first time on a raster that is not before `seconds`, by more than a `slack` of the raster."""
    return math.ceil(seconds / raster - slack) * raster


def _down(seconds: float, raster: float) -> float:
    return math.floor(seconds / raster + 1e-6) * raster

"""What a scanner will play for a design: every number settled and checked against the limits, nothing built yet."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import check_count, check_positive, usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, rad_from_deg
from acqdesign.export.straight import readout_of
from acqdesign.scene.scanner import SYSTEMS, EchoShape, EchoTiming, Lobes, SystemLimits

# Peak over mean of a sinc of time-bandwidth 4 under a Hann window: what a selective pulse's B1 is to a hard one's.
SLAB_PEAK = 3.95
SLAB_APODIZATION = 0.5
# RF spoiling (Zur et al. 1991, doi:10.1002/mrm.1910210210).
SPOILING_RAD = rad_from_deg(117.0)
_STEP = 20e-6  # pulses and dwell times are chosen on multiples that every raster divides
_LONGEST_DWELL_S = 20e-6
ADC_DIVISOR = 4  # pypulseq's `adc_samples_divisor`: scanners decimate readouts in such groups


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

    def __post_init__(self) -> None:
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
    slab_ramp_s: float
    dummies: int
    noise_scan: bool
    matrix: tuple[int, ...]
    fov_m: tuple[float, ...]

    @property
    def rephasing_area(self) -> float:
        """What a selective excitation leaves along z to be undone [T s/m]."""
        return 0.5 * self.shape.slab_gradient_t_per_m * (self.shape.excitation_s + self.slab_ramp_s)

    @property
    def peak_b1_t(self) -> float:
        """Largest B1 of any pulse [T]."""
        peak = 1.0 if self.shape.slab_m is None else SLAB_PEAK
        hardest = [peak * self.excitation / self.shape.excitation_s, *(self.flips / self.shape.refocusing_s)]
        return float(max(hardest)) / (2 * math.pi * GAMMA_HZ_PER_T)

    @property
    def is_train(self) -> bool:
        """Whether refocusing pulses are played."""
        return self.flips.size > 0


def grid(design: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Voxels and field of view [m]."""
    matrix = tuple(int(n) for n in np.asarray(design["shape"]))
    fov = tuple(round(float(f), 9) for f in np.asarray(design["fov_m"]))
    if len(matrix) != 3 or len(fov) != 3 or min(matrix) < 1 or min(fov) <= 0:
        raise usage_error("shape and fov_m", f"{matrix} and {fov}", "three positive numbers each")
    if matrix[0] == 1:
        raise usage_error(
            "shape", f"{matrix}, one plane", "voxels along the readout", "Say how many samples: --samples."
        )
    return matrix, fov


def readout_steps(design: Mapping[str, Any]) -> tuple[float, float, int]:
    """Step of a readout [cycles/voxel], index of its centre, and number of samples."""
    readout = readout_of(design)
    step = (readout[-1] - readout[0]) / max(len(readout) - 1, 1)
    uneven = np.abs(np.diff(readout) - step).max(initial=0)
    if step < 0 and uneven <= -1e-3 * step:
        remedy = "The same points in the other order: readout[::-1]."
        raise usage_error("readout", "samples from + to -", "samples that rise", remedy)
    if len(readout) < 2 or step <= 0 or uneven > 1e-3 * step:
        raise usage_error("readout", "samples that are not evenly spaced", "at least two, rising by equal steps")
    if len(readout) % ADC_DIVISOR:
        low = len(readout) // ADC_DIVISOR * ADC_DIVISOR
        remedy = f"Learn or export with --samples {f'{low} or ' if low else ''}{low + ADC_DIVISOR}."
        raise usage_error(
            "samples_per_line", len(readout), f"a multiple of {ADC_DIVISOR}, as scanners decimate", remedy
        )
    # Single precision in the file: half-open grids are exact again.
    step = 1 / round(1 / step, 4)
    centre = round(-readout[0] / step, 2)
    if not 0 <= centre <= len(readout) - 1:
        raise usage_error("readout", "samples all on one side", "samples on both sides of the centre of k-space")
    return step, centre, len(readout)


def pulse_duration(
    name: str, given: float | None, radians: float, peak: float, limits: SystemLimits, least: float
) -> float:
    """Duration of a pulse: that given, if B1 allows it, or the shortest that B1 allows."""
    needed = peak * radians / (2 * math.pi * GAMMA_HZ_PER_T * limits.max_b1_t)
    if given is None:
        return round(max(least, math.ceil(needed / _STEP - 1e-6) * _STEP), 9)
    if given < needed * (1 - 1e-6):
        b1 = needed / given * limits.max_b1_t
        raise usage_error(name, f"{given:.6g} s, which takes a B1 of {b1:.3g} T", f"at most {limits.max_b1_t:.3g} T",
                  f"Make it {math.ceil(needed / _STEP) * _STEP:.6g} s or longer.")  # fmt: skip
    if abs(given / (2 * limits.rf_raster_s) - round(given / (2 * limits.rf_raster_s))) > 1e-6:
        raise usage_error(name, given, f"a multiple of {2 * limits.rf_raster_s:.1g} s")
    return given


def excitation_duration(options: PulseqOptions, radians: float) -> float:
    """Duration of the excitation pulse [s], hard or selective."""
    if options.slab_m is None:
        return pulse_duration("excitation_s", options.excitation_s, radians, 1.0, options.system, 0.2e-3)
    return pulse_duration("excitation_s", options.excitation_s, radians, SLAB_PEAK, options.system, 0.6e-3)


def dwell_time(options: PulseqOptions, design: Mapping[str, Any], centre: float, longest: float) -> float:
    """The dwell time asked for, or the longest in even µs up to `longest`; its echo on the raster of the ADC."""
    asked = options.dwell_s if options.dwell_s is not None else design.get("dwell_s")
    even = 2 * options.system.rf_raster_s
    if asked is None:
        return max(even, math.floor(min(longest, _LONGEST_DWELL_S) / even + 1e-6) * even)
    dwell = round(float(asked), 9)
    for what, raster in (((centre + 0.5) * dwell, options.system.rf_raster_s), (dwell, options.system.adc_raster_s)):
        if abs(what / raster - round(what / raster)) > 1e-4:
            remedy = f"Even µs always are: {max(even, round(dwell / even) * even):.3g} s."
            raise usage_error("dwell_s", dwell, "a time that puts the centre of k-space on the raster", remedy)
    return dwell


def on_raster(seconds: float, raster: float) -> float:
    """The first time on the raster that is not before `seconds`."""
    return round(math.ceil(seconds / raster - 1e-4) * raster, 9)

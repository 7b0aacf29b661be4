"""How a design is played where it does not say, and what its readouts and pulses ask of a scanner."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_positive, usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, rad_from_deg
from acqdesign.export.straight import readout_of
from acqdesign.scene import scanner
from acqdesign.scene.scanner import SYSTEMS, EchoShape, EchoTiming, SystemLimits

# Peak over mean of a sinc of time-bandwidth 4 under a Hann window: what a selective pulse's B1 is to a hard one's.
SLAB_PEAK = 3.95
SLAB_APODIZATION = 0.5
SPOILING_RAD = rad_from_deg(117.0)  # RF spoiling (Zur et al. 1991, doi:10.1002/mrm.1910210210)
# In trains that do not settle, where 117° leaves echoes of brain tissue 4.5 % from ideal spoiling, and this 1.1 %.
TRAIN_SPOILING_RAD = rad_from_deg(84.0)
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
class Planned:
    """What every plan settles: the scanner's limits, and shape and timing of pulses and readouts."""

    limits: SystemLimits
    shape: EchoShape
    timing: EchoTiming

    @property
    def slab_ramp_s(self) -> float:
        """Ramps of a selective excitation's gradient [s]."""
        return scanner.slab_ramp(self.limits, self.shape, self.timing)

    @property
    def rephasing_area(self) -> float:
        """What a selective excitation leaves along its axis to be undone [T s/m], and asks for before it."""
        return scanner.rephasing_area(self.limits, self.shape, self.timing)


def grid(design: Mapping[str, Any]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Voxels and field of view [m]."""
    matrix = tuple(int(n) for n in np.asarray(design["shape"]))
    fov = tuple(round(float(f), 9) for f in np.asarray(design["fov_m"]))
    if len(matrix) != 3 or len(fov) != 3 or min(matrix) < 1 or min(fov) <= 0:
        raise usage_error("shape and fov_m", f"{matrix} and {fov}", "three positive numbers each")
    if matrix[0] == 1:
        remedy = "Say how many samples: --samples."
        raise usage_error("shape", f"{matrix}, one plane", "voxels along the readout", remedy)
    return matrix, fov


def read_shape(design: Mapping[str, Any]) -> dict[str, Any]:
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


def pulse_duration(
    options: PulseqOptions, name: str, radians: float, peak: float = 1.0, least: float = 0.2e-3
) -> float:
    """Duration of a pulse: that given, if B1 allows it, or the shortest that B1 allows."""
    limits, given = options.system, getattr(options, name)
    # The gradient of a selective pulse begins and ends with it, on its own raster.
    hard = peak == 1.0
    step, raster = (_STEP, limits.rf_raster_s) if hard else (2 * _STEP, limits.gradient_raster_s)
    needed = peak * radians / (2 * math.pi * GAMMA_HZ_PER_T * limits.max_b1_t)
    if given is None:
        return round(max(least, math.ceil(needed / step - 1e-6) * step), 9)
    if given < needed * (1 - 1e-6):
        got = f"{given:.6g} s, which takes a B1 of {needed / given * limits.max_b1_t:.3g} T"
        remedy = f"Make it {math.ceil(needed / step) * step:.6g} s or longer."
        raise usage_error(name, got, f"at most {limits.max_b1_t:.3g} T", remedy)
    if abs(given / (2 * raster) - round(given / (2 * raster))) > 1e-6:
        raise usage_error(name, given, f"a multiple of {2 * raster:.1g} s")
    return float(given)


def excitation_duration(options: PulseqOptions, radians: float) -> float:
    """Duration of the excitation pulse [s], hard or selective."""
    selective = () if options.slab_m is None else (SLAB_PEAK, 0.64e-3)
    return pulse_duration(options, "excitation_s", radians, *selective)


def echo_shape(options: PulseqOptions, readout: Mapping[str, Any], longest: float, **pulses: Any) -> EchoShape:
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


def nearest_cells(k_per_m: np.ndarray, fov_m: tuple[float, ...], matrix: tuple[int, ...]) -> np.ndarray:
    """The nearest cell of the grid of phase encodes `(lines, 2)` [1/m], from 0."""
    cells, most = np.round(k_per_m * np.array(fov_m[1:])).astype(int), np.array(matrix[1:])
    return np.clip(cells + most // 2, 0, most - 1)


def by_train(train: np.ndarray, echo: np.ndarray, echoes: int) -> np.ndarray:
    """Which line each echo of each train acquires, `(trains, echoes)`, -1 for none."""
    if echo.min() < 0 or echo.max() >= echoes:
        worst = int(np.argmax(np.abs(echo - 0.5 * (echoes - 1))))
        raise usage_error("echo", f"{int(echo[worst])} for line {worst}", f"0 to {echoes - 1}, one for each flip")
    trains, index = np.unique(train, return_inverse=True)
    lines = np.full((len(trains), echoes), -1)
    lines[index, echo] = np.arange(len(echo))
    if (lines >= 0).sum() != len(echo):
        clash = int(np.flatnonzero(lines[index, echo] != np.arange(len(echo)))[0])
        got = f"line {clash} at another's echo {int(echo[clash])} of train {int(train[clash])}"
        raise usage_error("train and echo", got, "one line for each echo of a train")
    return lines

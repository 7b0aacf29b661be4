"""What a scanner will play for a design: every number settled and checked against the limits, nothing built yet."""

import dataclasses
import math

import numpy as np

from acqdesign.base.checks import check_count, check_positive
from acqdesign.base.units import GAMMA_HZ_PER_T, rad_from_deg
from acqdesign.scene.scanner import SYSTEMS, EchoShape, EchoTiming, Lobes, SystemLimits, slab_ramp

# Peak over mean of a sinc of time-bandwidth 4 under a Hann window: what a selective pulse's B1 is to a hard one's.
SLAB_PEAK = 3.95
SLAB_APODIZATION = 0.5
SPOILING_RAD = rad_from_deg(117.0)  # RF spoiling (Zur et al. 1991, doi:10.1002/mrm.1910210210)
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
        return slab_ramp(self.limits, self.shape, self.timing)

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

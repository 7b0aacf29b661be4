"""What `learn_joint` asks: its scene, its echo trains, and what is learned for what."""

import dataclasses
import math
from typing import Literal

import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_positive, usage_error
from acqdesign.base.units import GAMMA_HZ_PER_T, deg_from_rad, ms_from_s, rad_from_deg, s_from_ms
from acqdesign.commands.options import LineOptions, SceneOptions
from acqdesign.commands.run import RunOptions
from acqdesign.design.joint_objective import RECONSTRUCTIONS, TERMS, JointSettings
from acqdesign.encoding import ORDERINGS, echo_of_te
from acqdesign.export import POSITION_FILES
from acqdesign.optim import ScheduleLimits
from acqdesign.scene.scanner import SYSTEMS, EchoShape, max_phase_encode, min_echo_spacing, system_limits

_RMS_DEG, _LINES = 45.0, 768


@dataclasses.dataclass(frozen=True)
class JointRunOptions(RunOptions):
    """How the run is made and where its results go."""

    steps: int = 150
    """Optimisation steps."""
    schedule: str = "cosine"
    """Learning rate over the run: constant, cosine, exponential (to 1 %), linear or warmup-cosine."""
    lr: float | None = None
    """Learning rate of the lines [cycles/voxel]; unless given, that found best for the design (see the benchmarks)."""


@dataclasses.dataclass(frozen=True)
class JointSceneOptions(SceneOptions):
    """What is scanned: phantoms that have tissue maps."""

    shape: tuple[int, int, int] = (1, 48, 48)
    """Voxels NX NY NZ, x along the readout; NX = 1 is one plane."""
    noise: float = 0.06
    """Standard deviation of the complex noise on each sample, of a unitary transform."""
    b1_spread: float = 0.0
    """Half the range of a smooth transmit field about one, 0.2 at 3 T; 0 is a perfect field."""
    t2_spread: float = 0.0
    """Standard deviation of ln T2 inside each tissue; 0 is one T2 a tissue."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        super().check()
        for name, limit in (("b1_spread", 1.0), ("t2_spread", math.inf)):
            if not 0 <= getattr(self, name) < limit:
                within = "a finite number >= 0" if limit == math.inf else "0 or more and below 1"
                raise usage_error("--" + name.replace("_", "-"), getattr(self, name), within)


@dataclasses.dataclass(frozen=True)
class JointLineOptions(LineOptions):
    """How k-space is sampled."""

    lines: int | None = None
    """Number of readout lines, a multiple of --echoes; 768 unless --acceleration or a file is given."""
    samples: int | None = None  # type: ignore[assignment]
    """Samples of a line; NX unless given."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        LineOptions.check(self if self.samples is not None else self.resolved((1, 1, 1)))

    def resolved(self, shape: tuple[int, int, int]) -> LineOptions:
        """The lines of a scan of this shape, once what is not given is filled in."""
        from_file = self.init is not None and self.init.endswith(POSITION_FILES)
        count = self.lines
        if count is None and self.acceleration is None and not from_file and self.init != "full":
            count = _LINES
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(LineOptions)}
        return LineOptions(**fields | {"samples": self.samples or shape[0], "lines": count})


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The echo trains; excitation 90°, refocusing along its axis (CPMG)."""

    echoes: int = 96
    """Echoes of a train."""
    esp_ms: float = 5.0
    """Echo spacing [ms]."""
    te_eff_ms: float = 80.0
    """Effective echo time [ms]: the contrast to reach."""
    tissue: str = "gm,wm,csf"
    """Tissues of the phantom's maps, in their order, from the tissue table."""
    ordering: str = "random"
    """Which line starts at which echo: linear, centre-out, radial-fan or random."""
    rms_flip_deg: float | None = None
    """Largest root mean square of the refocusing flips [°], the limit on SAR; 45 unless one of the next two is."""
    sar_fraction: float | None = None
    """Instead: largest power of the refocusing pulses, as a fraction of that of all-180° pulses."""
    b1rms_ut: float | None = None
    """Instead: largest root mean square of B1 over the train [µT], of rectangular pulses of --pulse-ms."""
    min_flip_deg: float = 0.0
    """Smallest flip [°]."""
    max_flip_deg: float = 180.0
    """Largest flip [°]."""
    max_step_deg: float | None = None
    """Largest change of flip from one echo to the next [°]."""
    max_bend_deg: float | None = None
    """Smoothness: largest root mean square of the flips' second difference [°]."""
    system: str | None = None
    """Scanner whose gradients, slew and B1 bound the echo spacing, the lines and the flips; none unless given."""
    dwell_us: float = 10.0
    """Time between samples of a line [µs], for --system."""
    pulse_ms: float = 0.6
    """Duration of a refocusing pulse [ms], for --system and --b1rms-ut."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        check_count("--echoes", self.echoes)
        for name in ("esp_ms", "te_eff_ms", "max_flip_deg", "dwell_us", "pulse_ms"):
            check_positive("--" + name.replace("_", "-"), getattr(self, name))
        for name in ("rms_flip_deg", "sar_fraction", "b1rms_ut", "max_step_deg", "max_bend_deg"):
            if getattr(self, name) is not None:
                check_positive("--" + name.replace("_", "-"), getattr(self, name))
        powers = [n for n in ("rms_flip_deg", "sar_fraction", "b1rms_ut") if getattr(self, n) is not None]
        if len(powers) > 1:
            flags = " and ".join("--" + name.replace("_", "-") for name in powers)
            raise usage_error("SAR", flags, "one of them")
        if not 0 <= self.min_flip_deg <= self.max_flip_deg:
            raise usage_error(
                "--min-flip-deg", self.min_flip_deg, f"0 to --max-flip-deg, {self.max_flip_deg:g}"
            )
        if self.max_flip_deg > 180:
            raise usage_error("--max-flip-deg", self.max_flip_deg, "at most 180")
        check_choice("--ordering", self.ordering, ORDERINGS)
        if self.system is not None:
            check_choice("--system", self.system, SYSTEMS)

    @property
    def te_echo(self) -> int:
        """The echo, from 0, that defines contrast."""
        return echo_of_te(s_from_ms(self.te_eff_ms), s_from_ms(self.esp_ms), self.echoes)

    def _rms_deg(self) -> tuple[str, float, float]:
        """The flag that limits power, its value, and the root mean square [°] that it allows."""
        if self.sar_fraction is not None:
            return "--sar-fraction", self.sar_fraction, 180 * math.sqrt(self.sar_fraction)
        if self.b1rms_ut is not None:
            # A rectangular pulse of flip a and length d has B1 = a / (2π γ d); it is on for d of each spacing.
            lasting = s_from_ms(math.sqrt(self.pulse_ms * self.esp_ms))
            flip = 2 * math.pi * GAMMA_HZ_PER_T * 1e-6 * self.b1rms_ut * lasting
            return "--b1rms-ut", self.b1rms_ut, deg_from_rad(flip)
        rms = _RMS_DEG if self.rms_flip_deg is None else self.rms_flip_deg
        return "--rms-flip-deg", rms, rms

    def limits(self) -> ScheduleLimits:
        """Limits on the flips [rad], once some train meets them.

        Raises:
            ValueError: limits that exclude each other, with the nearest value that would do.
        """
        low, high = self.min_flip_deg, self.max_flip_deg
        if self.system is not None:
            peak = system_limits(self.system).max_b1_t
            most = deg_from_rad(2 * math.pi * GAMMA_HZ_PER_T * peak * s_from_ms(self.pulse_ms))
            if low > most:
                longer = self.pulse_ms * low / most
                text = f"{self.pulse_ms:g}, too short for {low:g}° at the {1e6 * peak:g} µT of {self.system}"
                raise usage_error("--pulse-ms", text, f"at least {longer:.3g}")
            high = min(high, most)
        flag, given, rms = self._rms_deg()
        if rms < low:
            # Power goes with the square, B1 and flips themselves do not.
            least = given * (low / rms) ** (2 if flag == "--sar-fraction" else 1)
            remedy = f"--min-flip-deg alone needs as much: {low:g}° where {rms:.4g}° are allowed."
            raise usage_error(flag, f"{given:g}", f"at least {least:.4g}", remedy)
        step, bend = (None if d is None else rad_from_deg(d) for d in (self.max_step_deg, self.max_bend_deg))
        low, high = rad_from_deg(low), rad_from_deg(high)
        limit = rad_from_deg(rms) if rad_from_deg(rms) < high else None
        return ScheduleLimits(lower=low, upper=high, rms=limit, step=step, bend=bend)

    def start_deg(self) -> float:
        """Constant flip [°] to start from, the largest that is allowed."""
        return min(self._rms_deg()[2], self.max_flip_deg)

    def half_width(self, shape: tuple[int, int, int], voxel_m: tuple[float, ...], samples: int) -> float:
        """Half the side of the box [cycles/voxel] that the prewinders of an echo reach; 0.5 without a system.

        A single plane stands for a scan whose readout is as long and as fine as the plane's longer side.

        Raises:
            ValueError: an echo spacing that is too short, and by how much; an unknown size of the voxels.
        """
        if self.system is None:
            return 0.5
        if voxel_m == (1.0, 1.0, 1.0):
            raise usage_error(
                "--fov-mm", "nothing, with --system", "a field of view", "The phantom does not say."
            )
        if shape[0] == 1:
            side = int(np.argmax(shape[1:])) + 1
            samples, voxel_m = max(samples, shape[side]), (voxel_m[side], *voxel_m[1:])
        limits, pulse = system_limits(self.system), s_from_ms(self.pulse_ms)
        echo = EchoShape(samples, 1e-6 * self.dwell_us, tuple(voxel_m), refocusing_s=pulse)
        try:
            shortest = ms_from_s(min_echo_spacing(limits, echo, phase_encode=0.0))
        except ValueError as error:
            raise usage_error(
                "--dwell-us", f"{self.dwell_us:g}", f"what {self.system} can read", str(error)
            ) from None
        if self.esp_ms < shortest:
            short = f"{shortest - self.esp_ms:.3g} ms too short for {samples} samples on {self.system}"
            raise usage_error("--esp-ms", f"{self.esp_ms:g}, {short}", f"at least {shortest:g}")
        return max_phase_encode(limits, echo, s_from_ms(self.esp_ms))


@dataclasses.dataclass(frozen=True)
class GoalOptions:
    """What is learned, and for what."""

    learn: Literal["joint", "lines", "flips", "none"] = "joint"
    """What learning may change."""
    compare: bool = False
    """Learn all four designs from the same starts with one budget, and compare them."""
    reconstruction: str = "image"
    """image: one image by amplitude-weighted iterative SENSE; subspace: --rank coefficient images."""
    rank: int = 2
    """Coefficients of the subspace reconstruction."""
    prior: float = 1.5
    """Exponent of the power spectrum that the reconstruction expects of images; 0 is plain Tikhonov."""
    ridge: float | None = None
    """Weight of that prior: noise variance over the head's mean power; those of the scene unless given."""
    iterations: int = 12
    """Conjugate-gradient iterations of the reconstruction."""
    weight_nrmse: float = 1.0
    """Weight of the image's normalised error."""
    weight_noise: float = 0.0
    """Weight of the reconstruction's noise over the image."""
    weight_width: float = 0.0
    """Weight of the point spread function's width [voxels]."""
    weight_side_lobes: float = 0.0
    """Weight of the point spread function's side-lobe energy."""
    weight_crlb_t2: float = 0.0
    """Weight of the relative Cramér–Rao standard deviation of T2."""
    weight_crlb_t1: float = 0.0
    """Weight of the relative Cramér–Rao standard deviation of T1."""
    lr_flips: float | None = None
    """Learning rate of the flips [rad]; --lr is that of the lines. Unless given, that found best for the design."""
    exchange_every: int = 0
    """Steps between exchanges of echoes among lines by linear assignment; 0 for none."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        check_choice("--reconstruction", self.reconstruction, RECONSTRUCTIONS)
        check_count("--exchange-every", self.exchange_every, minimum=0)
        if self.lr_flips is not None:
            check_positive("--lr-flips", self.lr_flips)

    def settings(self, train: TrainOptions, noise: float) -> JointSettings:
        """Those of the objective."""
        names = ("ridge", "prior", "iterations", "reconstruction", "rank", *(f"weight_{t}" for t in TERMS))
        chosen = {name: getattr(self, name) for name in names}
        return JointSettings(esp_s=s_from_ms(train.esp_ms), te_echo=train.te_echo, noise=noise, **chosen)


@dataclasses.dataclass(frozen=True)
class JointOptions:
    """Learn where readout lines lie and the flip angles of the echo trains that acquire them, with one gradient.

    Every line is acquired at an echo of a train, so flips weight k-space and positions decide what each echo is
    used for. Results go to a folder: design.npz, summary.json, history.csv, figures. Examples:

    python -m acqdesign.learn_joint

    python -m acqdesign.learn_joint --compare

    python -m acqdesign.learn_joint --learn flips --rms-flip-deg 60 --te-eff-ms 100

    python -m acqdesign.learn_joint --shape 48 48 32 --coils 4 --lines 384 --system generic
    """

    scene: JointSceneOptions = dataclasses.field(default_factory=JointSceneOptions)
    line: JointLineOptions = dataclasses.field(default_factory=JointLineOptions)
    train: TrainOptions = dataclasses.field(default_factory=TrainOptions)
    goal: GoalOptions = dataclasses.field(default_factory=GoalOptions)
    run: JointRunOptions = dataclasses.field(default_factory=JointRunOptions)

"""What the commands ask of echo trains: sequence, tissues, limits and starts, in the same words everywhere."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_positive, usage_error
from acqdesign.base.types import Array
from acqdesign.base.units import rad_from_deg, s_from_ms
from acqdesign.design.flip_objectives import SEQUENCES, TARGETS, Schedule
from acqdesign.optim import ScheduleLimits
from acqdesign.optim.parametrise import spline_basis
from acqdesign.scene import tissues
from acqdesign.signal.target import exponential_decay, flips_for_echoes, pseudo_steady_state

STARTS = ("constant", "sinusoid", "pss", "exponential", "comb", "random")
PRESCRIBED = ("pss", "exponential")
"""Starts that solve for the flips of prescribed echoes: of fse only."""
# What each sequence means where the flags are silent.
DEFAULTS: dict[str, dict[str, Any]] = {
    "fse": {
        "echoes": 32,
        "tr_ms": 1000.0,
        "rms": 60.0,
        "max": 180.0,
        "step": math.inf,
        "start": "constant",
        "more": "comb",
    },
    "mrf": {
        "echoes": 400,
        "tr_ms": 10.0,
        "rms": math.inf,
        "max": 90.0,
        "step": 1.0,
        "start": "sinusoid",
        "more": "random",
    },
    "bssfp": {
        "echoes": 400,
        "tr_ms": 5.0,
        "rms": math.inf,
        "max": 90.0,
        "step": 1.0,
        "start": "sinusoid",
        "more": "random",
    },
}
HUMP, SWING_DEG = 250, (10.0, 50.0)
"""Pulses of one hump of a sinusoidal start, its least flip and its height, every second one half as high: the
schedule of Ma et al., Nature 495:187, 2013, without its noise."""
LEVELS = 1000
"""Echo amplitudes that prescribed starts are tried at."""
COMB = (2, 7)
"""From one strong pulse of a comb to the next: at least the first, less than the second."""


@dataclasses.dataclass(frozen=True)
class TrainOptions:
    """The train of pulses."""

    sequence: str = "fse"
    """fse (echo trains in their steady state), mrf (spoiled, with inversion) or bssfp (balanced, with
    inversion)."""
    echoes: int | None = None
    """Echoes of a train; 32 for fse, 400 for mrf and bssfp unless given."""
    esp_ms: float = 10.0
    """Echo spacing of fse [ms]."""
    tr_ms: float | None = None
    """Repetition time [ms]: from train to train for fse (1000), from pulse to pulse for mrf (10) and bssfp (5)."""
    te_ms: float = 2.0
    """Echo time of mrf [ms]; that of bssfp is half of TR."""
    ti_ms: float = 20.0
    """From the inversion to the first pulse of mrf and bssfp [ms]."""
    excitation_deg: float = 90.0
    """Excitation flip of fse [deg]."""
    learn_tr_ms: tuple[float, float] | None = None
    """Shortest and longest TR [ms]: learn the TR of every pulse too, with --tr-ms as the largest mean (mrf)."""
    learn_ti_ms: tuple[float, float] | None = None
    """Shortest and longest TI [ms]: learn the inversion delay too (mrf, bssfp)."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        check_choice("--sequence", self.sequence, SEQUENCES)
        if self.echoes is not None:
            check_count("--echoes", self.echoes, minimum=2)
        for name in ("esp_ms", "tr_ms", "te_ms", "ti_ms", "excitation_deg"):
            if getattr(self, name) is not None:
                check_positive("--" + name.replace("_", "-"), getattr(self, name))
        for name, sequences in (("learn_tr_ms", ("mrf",)), ("learn_ti_ms", ("mrf", "bssfp"))):
            span, flag = getattr(self, name), "--" + name.replace("_", "-")
            if span is None:
                continue
            if self.sequence not in sequences:
                raise usage_error(
                    flag, f"{span} with --sequence {self.sequence}", "it with " + " or ".join(sequences)
                )
            check_positive(flag, np.asarray(span))
            held = {"learn_tr_ms": self.tr, "learn_ti_ms": self.ti_ms}[name]
            if not span[0] <= held <= span[1]:
                raise usage_error(
                    flag, f"{span[0]:g} {span[1]:g}", f"a range that holds {held:g} ms, the start"
                )
        if self.sequence == "fse" and self.count * self.esp_ms > self.tr:
            raise usage_error(
                "--esp-ms",
                f"{self.esp_ms:g} with {self.count} echoes in a TR of {self.tr:g} ms",
                f"at most {self.tr / self.count:g} ms",
                f"Or use --tr-ms {self.count * self.esp_ms:g}.",
            )
        shortest = self.learn_tr_ms[0] if self.learn_tr_ms else self.tr
        if self.sequence == "mrf" and self.te_ms > shortest:
            raise usage_error(
                "--te-ms", f"{self.te_ms:g} with a TR of {shortest:g} ms", f"at most {shortest:g} ms"
            )

    @property
    def count(self) -> int:
        """Echoes of a train."""
        return self.echoes or DEFAULTS[self.sequence]["echoes"]

    @property
    def tr(self) -> float:
        """Repetition time [ms]."""
        return self.tr_ms or DEFAULTS[self.sequence]["tr_ms"]

    def schedule(self, dtype: type[np.floating], basis: np.ndarray | None) -> Schedule:
        """The train, to be completed by what is learned."""
        fast = self.sequence == "fse"
        times = {"tr": self.tr, "te": self.te_ms}
        times |= {"esp": self.esp_ms} if fast else {"ti": self.ti_ms}
        return Schedule(
            self.sequence,
            **{name: jnp.asarray(s_from_ms(value), dtype) for name, value in times.items()},
            excitation=jnp.asarray(rad_from_deg(self.excitation_deg), dtype),
            basis=None if basis is None else jnp.asarray(basis, dtype),
        )


@dataclasses.dataclass(frozen=True)
class TissueOptions:
    """What is measured, and what of it."""

    tissue: str | None = None
    """Tissues from the table, with commas: wm,gm,csf; wm,gm unless --t1-ms is given."""
    field: Literal["1.5T", "3T"] = "3T"
    """Field strength, for the tissues' relaxation times."""
    t1_ms: tuple[float, ...] = ()
    """T1 of each tissue [ms], instead of --tissue."""
    t2_ms: tuple[float, ...] = ()
    """T2 of each tissue [ms]."""
    b1: tuple[float, ...] = (1.0,)
    """Transmit fields relative to nominal that every tissue is seen at."""
    objective: str | None = None
    """Relative Cramér–Rao bound of t2 (T1 known), t1 (T2 known) or t1t2 (their sum), M0 and its phase unknown.
    Unless given, t2 for fse, t1t2 for mrf and bssfp."""
    ensemble: Literal["mean", "worst"] = "mean"
    """Over tissues and B1: mean, or worst case (a smooth maximum)."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        if self.objective is not None:
            check_choice("--objective", self.objective, TARGETS)
        given = bool(self.t1_ms or self.t2_ms)
        if self.tissue is not None and given:
            raise usage_error("--tissue", f"{self.tissue} and --t1-ms or --t2-ms", "one of the two")
        if len(self.t1_ms) != len(self.t2_ms):
            raise usage_error(
                "--t2-ms", f"{len(self.t2_ms)} values", f"one for each of the {len(self.t1_ms)} of --t1-ms"
            )
        if not self.b1:
            raise usage_error("--b1", "nothing", "at least one transmit field")
        for name in ("t1_ms", "t2_ms", "b1"):
            check_positive("--" + name.replace("_", "-"), np.asarray(getattr(self, name)))
        for t1, t2 in zip(self.t1_ms, self.t2_ms, strict=True):
            if t2 > 2 * t1:
                raise usage_error("--t2-ms", f"{t2:g} with T1 {t1:g} ms", f"at most 2 T1, {2 * t1:g} ms")
        self.table()

    def table(self) -> dict[str, tuple[float, float]]:
        """T1 and T2 [s] by name."""
        if self.t1_ms:
            pairs = zip(self.t1_ms, self.t2_ms, strict=True)
            return {f"{t1:g}/{t2:g} ms": (s_from_ms(t1), s_from_ms(t2)) for t1, t2 in pairs}
        names = "wm,gm" if self.tissue is None else self.tissue
        return {tissue.name: (tissue.t1_s, tissue.t2_s) for tissue in tissues(names, self.field)}


@dataclasses.dataclass(frozen=True)
class LimitOptions:
    """What the flips must keep to, and where they start."""

    rms_flip_deg: float | None = None
    """Largest root mean square of the flips [deg], a limit on SAR; 60 for fse, else inf (none) unless given."""
    min_flip_deg: float = 0.0
    """Smallest flip [deg]."""
    max_flip_deg: float | None = None
    """Largest flip [deg]; 180 for fse, 90 for mrf and bssfp unless given."""
    max_step_deg: float | None = None
    """Largest change from one pulse to the next [deg]; inf (none) for fse, 1 for mrf and bssfp unless given."""
    symmetric: bool = False
    """Flips that read the same backwards."""
    rising: tuple[tuple[int, int], ...] = ()
    """First and last pulse, counted from 1, of each segment over which flips may not fall: 1 10 20 32."""
    falling: tuple[tuple[int, int], ...] = ()
    """First and last pulse of each segment over which flips may not rise."""
    spline: int | None = None
    """Learn this many B-spline control points in place of free flips."""
    start: str | None = None
    """Flips to start from: constant (at the RMS), sinusoid, random (smooth) or comb (a strong pulse every few).
    For fse also those whose echoes settle at a level (pss) or decay with twice the T2 (exponential).
    Unless given, constant for fse, sinusoid for mrf and bssfp.
    Further --starts are combs for fse, random for mrf and bssfp."""

    def check(self) -> None:
        """Raises `ValueError` where options are wrong or exclude each other; called once they are all read."""
        if self.start is not None:
            check_choice("--start", self.start, STARTS)
        for name in ("rms_flip_deg", "max_flip_deg", "max_step_deg"):
            if getattr(self, name) is not None:
                check_positive("--" + name.replace("_", "-"), getattr(self, name), allow_inf=True)
        if not 0 <= self.min_flip_deg <= 180:
            raise usage_error("--min-flip-deg", self.min_flip_deg, "0 to 180 degrees")
        if self.max_flip_deg is not None and self.max_flip_deg > 180:
            raise usage_error("--max-flip-deg", self.max_flip_deg, "at most 180 degrees")


def flip_limits(given: LimitOptions, sequence: str, echoes: int) -> ScheduleLimits:
    """The limits [rad], once some schedule meets them.

    Args:
        given: the options.
        sequence: whose defaults fill what is not given.
        echoes: number of flips.

    Raises:
        ValueError: limits that exclude each other, with the nearest value that would do.
    """
    default = DEFAULTS[sequence]
    low = given.min_flip_deg
    high = default["max"] if given.max_flip_deg is None else given.max_flip_deg
    rms = default["rms"] if given.rms_flip_deg is None else given.rms_flip_deg
    step = default["step"] if given.max_step_deg is None else given.max_step_deg
    if low > high:
        raise usage_error("--min-flip-deg", low, f"at most --max-flip-deg, {high:g}")
    if rms < low:
        raise usage_error("--rms-flip-deg", rms, f"at least {low:g}", "--min-flip-deg alone needs as much.")
    for name in ("rising", "falling"):
        for first, last in getattr(given, name):
            if not 1 <= first < last <= echoes:
                raise usage_error(f"--{name}", f"{first} {last}", f"1 <= first < last <= {echoes}")
            if given.spline is not None:
                raise usage_error(f"--{name}", f"{first} {last} with --spline", "one of the two")
    if given.symmetric and given.spline is not None:
        raise usage_error("--symmetric", "it with --spline", "one of the two")
    return ScheduleLimits(
        rad_from_deg(low),
        rad_from_deg(high),
        rms=rad_from_deg(rms) if rms < high else None,
        step=rad_from_deg(step) if step < high - low else None,
        symmetric=given.symmetric,
        rising=tuple((first - 1, last - 1) for first, last in given.rising),
        falling=tuple((first - 1, last - 1) for first, last in given.falling),
    )


def start_flips(
    kind: str, train: TrainOptions, tissue: tuple[float, float], limits: ScheduleLimits, key: Array
) -> np.ndarray:
    """Flips `(echoes,)` [rad] to start from, before they are projected onto the limits.

    Args:
        kind: one of `STARTS`.
        train: how many pulses, and how far apart.
        tissue: T1 and T2 [s] that an `exponential` start is solved for.
        limits: range and root mean square, which set the level.
        key: for `comb` and `random`.
    """
    low, high = float(np.asarray(limits.lower)), float(np.asarray(limits.upper))
    level, echoes = high if limits.rms is None else limits.rms, train.count
    if kind == "constant":
        return np.full(echoes, level)
    if kind == "sinusoid":
        base, height = (rad_from_deg(degrees) for degrees in SWING_DEG)
        number, within = np.divmod(np.arange(echoes), min(HUMP, echoes))
        swing = base + height * np.sin(math.pi * within / min(HUMP, echoes))
        return np.where(number % 2, 0.5 * swing, swing)
    if kind == "random":
        control = np.asarray(jax.random.uniform(key, (min(8, echoes),), minval=low, maxval=high))
        return spline_basis(echoes, control.size) @ control
    if kind == "comb":
        every, first, weak = jax.random.split(key, 3)
        period = int(jax.random.randint(every, (), *COMB))
        teeth = np.arange(echoes) % period == int(jax.random.randint(first, (), 0, period))
        # Strong and weak pulses whose power together is that of the level.
        share = float(jax.random.uniform(weak, minval=0.4, maxval=0.8))
        strong = math.sqrt(period - (period - 1) * share**2)
        return level * np.where(teeth, strong, share)
    return _prescribed(kind, train, tissue, level, high)


def _prescribed(
    kind: str, train: TrainOptions, tissue: tuple[float, float], rms: float, upper: float
) -> np.ndarray:
    """The flips of echoes as prescribed, at the level whose flips have nearest to the allowed mean power."""
    esp, (t1, t2), echoes = s_from_ms(train.esp_ms), tissue, train.count

    def solve(level: Array) -> Array:
        if kind == "pss":
            return flips_for_echoes(pseudo_steady_state(echoes, level), esp, upper=upper)
        return flips_for_echoes(exponential_decay(echoes, esp, 2 * t2, level=level), esp, t1, t2, upper=upper)

    flips = np.asarray(jax.jit(jax.vmap(solve))(jnp.linspace(1e-3, 1.0, LEVELS)))
    return flips[np.argmin(np.abs(np.sqrt(np.mean(flips**2, axis=1)) - rms))]

"""Prepared sequences as lists of events: inversion, saturation, T2, T1ρ and diffusion preparations, and T1 mapping."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, usage_error
from acqdesign.base.types import Array, PRNGKey
from acqdesign.base.units import rad_from_deg
from acqdesign.optim import Limits, Scaled, held
from acqdesign.scene.tissue import Tissue
from acqdesign.signal.events import Event, Invert, Lock, Pulse, Readout, Spoil, Wait
from acqdesign.signal.repeated import Repeated, as_many, gradient_echo
from acqdesign.signal.spin_echoes import refocused
from acqdesign.signal.starts import start_flips


def _spread(first: float, last: float, count: int, dtype: Any) -> Array:
    """Times in geometric steps."""
    return jnp.asarray(np.geomspace(first, last, count), dtype)


class InversionRecovery(Repeated):
    """An adiabatic inversion, a delay and a gradient echo an acquisition.

    Args:
        flips: of the pulse that is read [rad]; one for all acquisitions or one for each, as `ti` and `tr`.
        ti: from the inversion to the pulse [s].
        te: echo time [s].
        tr: from inversion to inversion [s]; None: from equilibrium.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].

    At a pulse of 90°, `1 - (1 + f - f exp(-(tr - ti)/T1)) exp(-ti/T1)` of M0 for the efficiency `f`.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1",)
    each: ClassVar[tuple[str, ...]] = ("flips", "ti", "tr")
    angles: ClassVar[tuple[str, ...]] = ("flips", "inversion_efficiency")

    ti: Any
    _: KW_ONLY
    tr: Any = None
    te: Any = 2e-3
    inversion_efficiency: Any = held(default=1.0)

    def prepare(self) -> Iterable[Event]:
        """What comes before the delay."""
        yield Invert(self.inversion_efficiency)

    def events(self) -> Iterable[Event]:
        yield from self.prepare()
        yield Wait(self.ti)
        yield from gradient_echo(self.flips, self.te)
        if self.tr is not None:
            yield Wait(self.tr - self.ti - self.te)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 6, te: float = 2e-3, tr: float | None = 4.0,
        ti: float = 50e-3, rms: float | None = None, upper: float = math.pi,
    ) -> "InversionRecovery":  # fmt: skip
        """Delays from `ti` on, in geometric steps, and pulses of 90°; both are learned."""
        flips = start_flips("constant", echoes, level=min(rms or 0.5 * math.pi, upper), upper=upper, key=key)
        dtype, last = tissue.t1.dtype, 2.5 if tr is None else 0.6 * tr
        return cls(jnp.asarray(flips, dtype), _spread(ti, last, echoes, dtype), te=te, tr=tr)


class SaturationRecovery(InversionRecovery):
    """The same after a 90° pulse, of which `b1` scales the flip, and spoiling; `ti` is from it to the pulse."""

    inversion_efficiency: None = eqx.field(init=False, default=None)

    def prepare(self) -> Iterable[Event]:
        yield Pulse(0.5 * math.pi)
        yield Spoil()


class FLAIR(Repeated):
    """An inversion whose delay nulls fluid, and a train of spin echoes.

    Args:
        flips: of the refocusing pulses `(N,)` [rad].
        esp: echo spacing [s].
        ti: from the inversion to the excitation [s].
        tr: from inversion to inversion [s]; None: from equilibrium.
        excitation: flip of the excitation [rad].
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].

    Hajnal et al., J Comput Assist Tomogr 16:841, 1992.
    """

    measures: ClassVar[tuple[str, ...]] = ("t2",)
    rows: ClassVar[tuple[str, ...]] = ("flips",)
    angles: ClassVar[tuple[str, ...]] = ("flips", "excitation", "inversion_efficiency")

    esp: Any
    ti: Any
    _: KW_ONLY
    tr: Any = None
    excitation: Any = 0.5 * math.pi
    inversion_efficiency: Any = held(default=1.0)

    def events(self) -> Iterable[Event]:
        yield Invert(self.inversion_efficiency)
        yield Wait(self.ti)
        yield Pulse(self.excitation)
        for flip in self.flips:
            yield from refocused(flip, 0.5 * self.esp)
            yield Readout(dephased=0.0)
        yield Spoil()
        if self.tr is not None:
            yield Wait(self.tr - self.ti - len(self.flips) * self.esp)

    def contrast(self, tissue: Tissue) -> Array:
        """That of a train of 180° pulses at its middle echo, `m0 (1 - 2 exp(-ti/T1) + exp(-tr/T1)) exp(-te/T2)`."""
        ideal = eqx.tree_at(lambda s: s.flips, self, jnp.full(self.readouts(), math.pi, tissue.t1.dtype))
        return ideal.signal(tissue)[..., self.readouts() // 2].real

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 16, esp: float = 10e-3, tr: float | None = 8.0,
        ti: float = 2.32, start: str | None = None, rms: float | None = None, upper: float = math.pi,
    ) -> "FLAIR":  # fmt: skip
        """A train of refocusing pulses; arguments as of `FSE.start`. TI nulls cerebrospinal fluid at 3 T."""
        flips = start_flips(start or "constant", echoes, level=rms, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), esp, ti, tr=tr)


class LookLocker(Repeated):
    """An inversion whose recovery is read by a train of spoiled pulses.

    `Mz` tends to `(1 - E1) / (1 - E1 cos α)` of M0 as `exp(-t/T1*)`, `1/T1* = 1/T1 - ln(cos α) / esp`.

    Args:
        flips: `(N,)` [rad].
        esp: from pulse to pulse [s].
        ti: from the inversion to the first pulse [s].
        te: echo time [s].
        tr: from inversion to inversion [s]; None: from equilibrium.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].

    Look & Locker, Rev Sci Instrum 41:250, 1970; Deichmann & Haase, J Magn Reson 96:608, 1992.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1",)
    rows: ClassVar[tuple[str, ...]] = ("flips",)
    angles: ClassVar[tuple[str, ...]] = ("flips", "inversion_efficiency")

    esp: Any
    ti: Any = 20e-3
    _: KW_ONLY
    tr: Any = None
    te: Any = 2e-3
    inversion_efficiency: Any = held(default=1.0)

    def events(self) -> Iterable[Event]:
        yield Invert(self.inversion_efficiency)
        yield Wait(self.ti)
        for flip in self.flips:
            yield from gradient_echo(flip, self.te)
            yield Wait(self.esp - self.te)
        if self.tr is not None:
            yield Wait(self.tr - self.ti - len(self.flips) * self.esp)

    @classmethod
    def usual_limits(cls) -> Limits:
        """At most 30°."""
        return Limits(0.0, rad_from_deg(30.0))

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 32, esp: float = 80e-3, tr: float | None = 6.0,
        te: float = 2e-3, ti: float = 20e-3, start: str | None = None, rms: float | None = None,
        upper: float = rad_from_deg(30.0),
    ) -> "LookLocker":  # fmt: skip
        """A train of pulses, of 10° unless told otherwise; arguments as of `MPRAGE.start`."""
        level = rad_from_deg(10.0) if rms is None else rms
        flips = start_flips(start or "constant", echoes, level=level, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), esp, ti, tr=tr, te=te)


class MOLLI(Repeated):
    """Images by balanced pulses, one a heart beat, after inversions with pauses between them: 5(3)3.

    An image is an `α/2` pulse and `pulses` pulses of `±α`, read in the middle of the readout; its magnetisation is then
    spoiled. The first image after each inversion is read `ti` after it.

    Args:
        flips: of each image `(N,)` [rad], as many as `groups` together.
        ti: of each group `(groups,)` [s].
        beat: from image to image [s].
        groups: how many images follow each inversion.
        pause: beats between the last image of a group and the next inversion.
        pulses: of an image.
        esp: from pulse to pulse [s].
        inversion_efficiency: `-Mz` after over `Mz` before an inversion [1].

    Messroghli et al., Magn Reson Med 52:141, 2004.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1",)
    rows: ClassVar[tuple[str, ...]] = ("flips", "ti")
    angles: ClassVar[tuple[str, ...]] = ("flips", "inversion_efficiency")

    ti: Any
    _: KW_ONLY
    tr: None = eqx.field(init=False, default=None)
    beat: Any = 1.0
    esp: Any = 2.8e-3
    inversion_efficiency: Any = held(default=1.0)
    groups: tuple[int, ...] = eqx.field(static=True, default=(5, 3))
    pause: int = eqx.field(static=True, default=3)
    pulses: int = eqx.field(static=True, default=24)

    def events(self) -> Iterable[Event]:
        check_count("pulses", self.pulses, minimum=2)
        check_count("pause", self.pause)
        flips, ti = iter(as_many("flips", self.flips, sum(self.groups))), as_many("ti", self.ti, len(self.groups))
        to_centre, length = (self.pulses // 2 + 1) * self.esp, (self.pulses + 0.5) * self.esp
        for group, (images, delay) in enumerate(zip(self.groups, ti, strict=True)):
            if group:
                yield Wait(self.pause * self.beat - (length - to_centre))
            yield Invert(self.inversion_efficiency)
            yield Wait(delay - to_centre)
            for image, flip in enumerate(itertools.islice(flips, images)):
                if image:
                    yield Wait(self.beat - length)
                yield Pulse(-0.5 * flip)
                yield Wait(0.5 * self.esp)
                for pulse in range(self.pulses):
                    sign = -1.0 if pulse % 2 else 1.0
                    yield Pulse(sign * flip)
                    yield Wait(0.5 * self.esp)
                    if pulse == self.pulses // 2:
                        yield Readout(phase=0.0 if sign > 0 else math.pi)
                    yield Wait(0.5 * self.esp)
                yield Spoil()

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 8, esp: float = 2.8e-3, ti: float = 0.1,
        start: str | None = None, rms: float | None = None, upper: float = rad_from_deg(60.0),
    ) -> "MOLLI":  # fmt: skip
        """Five and three images of 35°, the second group read 80 ms later than the first; TI is learned as well."""
        if echoes < 4:
            raise usage_error("echoes", echoes, "at least 4 images, in two groups")
        flips = start_flips(start or "constant", echoes, level=rms or rad_from_deg(35.0), upper=upper, key=key)
        dtype, second = tissue.t1.dtype, 3 * echoes // 8
        times, groups = jnp.asarray([ti, ti + 80e-3], dtype), (echoes - second, second)
        return cls(jnp.asarray(flips, dtype), times, esp=esp, groups=groups)


class MP2RAGE(Repeated):
    """An inversion and two trains of small flips, each read in its middle.

    Args:
        flips: of the two trains `(2,)` [rad].
        ti: from the inversion to the middle of each `(2,)` [s].
        esp: from pulse to pulse [s].
        tr: from inversion to inversion [s]; None: from equilibrium.
        pulses: of each train; the pulse after so many halves of them is read.
        te: echo time [s].
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].

    Marques et al., NeuroImage 49:1271, 2010.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1",)
    rows: ClassVar[tuple[str, ...]] = ("flips", "ti")
    angles: ClassVar[tuple[str, ...]] = ("flips", "inversion_efficiency")

    ti: Any
    esp: Any
    _: KW_ONLY
    tr: Any = None
    te: Any = 0.0
    inversion_efficiency: Any = held(default=0.96)
    pulses: int = eqx.field(static=True, default=160)

    def events(self) -> Iterable[Event]:
        check_count("pulses", self.pulses, minimum=2)
        flips, (first, second) = as_many("flips", self.flips, 2), as_many("ti", self.ti, 2)
        before = self.pulses // 2
        yield Invert(self.inversion_efficiency)
        yield Wait(first - before * self.esp)
        for train, flip in enumerate(flips):
            if train:
                yield Wait(second - first - self.pulses * self.esp)
            for pulse in range(self.pulses):
                yield Pulse(flip)
                if pulse == before:
                    yield Readout(self.te, dephased=self.te)
                    yield Spoil()
                    yield Wait(self.esp - self.te)
                else:
                    yield Spoil()
                    yield Wait(self.esp)
        if self.tr is not None:
            yield Wait(self.tr - second - (self.pulses - before) * self.esp)

    @staticmethod
    def uniform(signal: Array) -> Array:
        """The uniform image `Re(S1* S2) / (|S1|² + |S2|²)` of `(..., 2)` signals, free of M0, T2* and reception."""
        first, second = signal[..., 0], signal[..., 1]
        power = jnp.abs(first) ** 2 + jnp.abs(second) ** 2
        return (first.conj() * second).real / jnp.where(power == 0, 1, power)

    @classmethod
    def usual_limits(cls) -> Limits:
        """At most 15°."""
        return Limits(0.0, rad_from_deg(15.0))

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, esp: float = 7e-3, tr: float = 5.0, te: float = 3e-3, ti: float = 0.7,
        upper: float = rad_from_deg(15.0),
    ) -> "MP2RAGE":  # fmt: skip
        """Trains of 4° and 5°, the second 1.8 s after the first; flips and inversion times are learned."""
        dtype = tissue.t1.dtype
        flips = jnp.minimum(jnp.asarray(rad_from_deg(np.array([4.0, 5.0])), dtype), upper)
        return cls(flips, jnp.asarray([ti, ti + 1.8], dtype), esp, tr=tr, te=te)


class Prepared(Repeated):
    """A preparation that stores along z what it has weighted, and a gradient echo an acquisition.

    Args:
        flips: of the pulse that is read [rad]; one for all acquisitions or one for each.
        te: echo time [s].
        tr: from preparation to preparation [s]; None: from equilibrium.
    """

    each: ClassVar[tuple[str, ...]] = ("flips", "prep")

    _: KW_ONLY
    tr: Any = None
    te: Any = 2e-3

    def prepare(self) -> Iterable[Event]:
        """What the magnetisation goes through between two 90° pulses."""
        raise NotImplementedError

    def events(self) -> Iterable[Event]:
        yield Pulse(0.5 * math.pi)
        lasting: Any = 0.0
        for event in self.prepare():
            lasting = lasting + getattr(event, "duration", 0.0)
            yield event
        yield Pulse(-0.5 * math.pi)
        yield Spoil()
        yield from gradient_echo(self.flips, self.te)
        if self.tr is not None:
            yield Wait(self.tr - self.te - lasting)


class T2Prepared(Prepared):
    """A T2 preparation, 90° - 180° - -90°: `exp(-prep/T2)` of what has recovered is stored; `b1` acts on its pulses.

    Args:
        flips: as of `Prepared`, as `te` and `tr`.
        prep: duration of the preparation [s]; one for all acquisitions or one for each.

    Brittain et al., Magn Reson Med 33:689, 1995.
    """

    measures: ClassVar[tuple[str, ...]] = ("t2",)

    prep: Any

    def prepare(self) -> Iterable[Event]:
        yield from refocused(math.pi, 0.5 * self.prep)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 6, te: float = 2e-3, tr: float | None = 2.0,
        rms: float | None = None, upper: float = math.pi,
    ) -> "T2Prepared":  # fmt: skip
        """Preparations of 10 to 150 ms, in geometric steps, and pulses of 90°; both are learned."""
        flips = start_flips("constant", echoes, level=min(rms or 0.5 * math.pi, upper), upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), _spread(10e-3, 150e-3, echoes, tissue.t1.dtype), te=te, tr=tr)


class SpinLock(T2Prepared):
    """A spin lock between a 90° and a -90° pulse: `exp(-prep/T1ρ)` of what has recovered is stored.

    Args:
        flips: as of `Prepared`, as `te` and `tr`.
        prep: duration of the lock [s]; one for all acquisitions or one for each.

    Redfield, Phys Rev 98:1787, 1955; Wáng et al., Quant Imaging Med Surg 5:858, 2015.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1_rho",)

    def prepare(self) -> Iterable[Event]:
        yield Lock(self.prep)


class DiffusionPrepared(Prepared):
    """Two gradient pulses about a 180° pulse between a 90° and a -90° pulse: `exp(-b D)` of what they leave is stored.

    `b = order_moment² (separation - delta/3)`; with them go `exp(-(separation + delta)/T2)`.

    Args:
        flips: as of `Prepared`, as `te` and `tr`.
        order_moment: dephasing by one gradient pulse, `γ G δ` [rad/m]; one for all acquisitions or one for each.
        delta: duration of a gradient pulse [s].
        separation: from the start of the first to that of the second [s].

    Stejskal & Tanner, J Chem Phys 42:288, 1965.
    """

    measures: ClassVar[tuple[str, ...]] = ("diffusivity",)
    each: ClassVar[tuple[str, ...]] = ("flips", "order_moment")

    order_moment: Any
    _: KW_ONLY
    delta: Any = 15e-3
    separation: Any = 25e-3

    def prepare(self) -> Iterable[Event]:
        half = 0.5 * (self.separation - self.delta)
        yield Wait(self.delta, 1)
        yield Wait(half)
        yield Pulse(math.pi, -0.5 * math.pi)
        yield Wait(half)
        yield Wait(self.delta, 1)

    @property
    def b(self) -> Array:
        """The b-values [s/m²]."""
        return jnp.asarray(self.order_moment) ** 2 * (self.separation - self.delta / 3)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 6, te: float = 2e-3, tr: float | None = 2.0,
        rms: float | None = None, upper: float = math.pi,
    ) -> "DiffusionPrepared":  # fmt: skip
        """b-values from 0 to 1000 s/mm², and pulses of 90°; both are learned."""
        dtype, unit = tissue.t1.dtype, 1e5
        flips = start_flips("constant", echoes, level=min(rms or 0.5 * math.pi, upper), upper=upper, key=key)
        moments = jnp.sqrt(jnp.linspace(0, 1e9, echoes, dtype=dtype) / (25e-3 - 15e-3 / 3))
        return cls(jnp.asarray(flips, dtype), Scaled(moments / unit, unit), te=te, tr=tr)

"""Spin echoes as lists of events: single, many with spacings of their own, stimulated, and hyperechoes."""

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax.numpy as jnp

from acqdesign.base.types import PRNGKey
from acqdesign.optim import held
from acqdesign.scene.tissue import Tissue
from acqdesign.signal.events import Event, Pulse, Readout, Spoil, Wait
from acqdesign.signal.repeated import Repeated, as_many
from acqdesign.signal.starts import start_flips

ACROSS = -0.5 * math.pi
"""Phase of pulses about the axis along which a pulse of phase 0 leaves the spins (CPMG) [rad]."""


def refocused(flip: Any, half: Any, phase: Any = ACROSS) -> Iterable[Event]:
    """A refocusing pulse between two waits with the same crusher."""
    yield Wait(half, 1)
    yield Pulse(flip, phase)
    yield Wait(half, 1)


class SpinEcho(Repeated):
    """One spin echo an acquisition: `sin α sin²(β/2) exp(-te/T2)` of what has recovered.

    Args:
        flips: of the excitation [rad]; one for all acquisitions or one for each, as `te` and `tr`.
        te: echo time [s].
        tr: repetition time [s]; None: from equilibrium.
        refocusing: flip of the refocusing pulse [rad].

    Hahn, Phys Rev 80:580, 1950; Bernstein, King & Zhou, Handbook of MRI Pulse Sequences, 14.3, 2004.
    """

    measures: ClassVar[tuple[str, ...]] = ("t2",)
    each: ClassVar[tuple[str, ...]] = ("flips", "te", "tr")

    te: Any
    _: KW_ONLY
    tr: Any = None
    refocusing: Any = math.pi

    def events(self) -> Iterable[Event]:
        yield Pulse(self.flips)
        yield from refocused(self.refocusing, 0.5 * self.te)
        yield Readout(dephased=0.0)
        yield Spoil()
        if self.tr is not None:
            yield Wait(self.tr - self.te)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 6, te: float = 15e-3, tr: float | None = 2.0,
        rms: float | None = None, upper: float = math.pi,
    ) -> "SpinEcho":  # fmt: skip
        """Acquisitions of 90° at one, two and more times `te`; flips and echo times are learned."""
        dtype = tissue.t1.dtype
        flips = start_flips("constant", echoes, level=min(rms or 0.5 * math.pi, upper), upper=upper, key=key)
        return cls(jnp.asarray(flips, dtype), te * jnp.arange(1, echoes + 1, dtype=dtype), tr=tr)


class MultiSpinEcho(Repeated):
    """A train of spin echoes with a spacing for each, stimulated and indirect echoes included.

    Crushers are the same around all refocusing pulses. T2' does not act on spin echoes; on indirect echoes of unequal
    spacings it would, and is left out.

    Args:
        flips: of the refocusing pulses `(N,)` [rad], about the axis along which the excitation leaves the spins.
        spacings: from the echo, or the excitation, before each pulse to the echo after it `(N,)` [s].
        tr: repetition time [s]; None: from equilibrium.
        excitation: flip of the excitation [rad].

    Hennig, J Magn Reson 78:397, 1988.
    """

    measures: ClassVar[tuple[str, ...]] = ("t2",)
    rows: ClassVar[tuple[str, ...]] = ("flips", "spacings")

    spacings: Any
    _: KW_ONLY
    tr: Any = None
    excitation: Any = 0.5 * math.pi

    def events(self) -> Iterable[Event]:
        yield Pulse(self.excitation)
        for flip, spacing in zip(self.flips, as_many("spacings", self.spacings, len(self.flips)), strict=True):
            yield from refocused(flip, 0.5 * spacing)
            yield Readout(dephased=0.0)
        yield Spoil()
        if self.tr is not None:
            yield Wait(self.tr - self.spacings.sum())

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 16, esp: float = 10e-3, tr: float | None = 2.0,
        start: str | None = None, rms: float | None = None, upper: float = math.pi,
    ) -> "MultiSpinEcho":  # fmt: skip
        """A train of equal spacings `esp`, which are learned as well; other arguments as of `FSE.start`."""
        flips = start_flips(start or "constant", echoes, level=rms, upper=upper, key=key)
        dtype = tissue.t1.dtype
        return cls(jnp.asarray(flips, dtype), jnp.full(echoes, esp, dtype), tr=tr)


class StimulatedEcho(Repeated):
    """A stimulated echo an acquisition (STEAM): `sin α sin β sin γ / 2 exp(-te/T2 - tm/T1)` of what has recovered.

    Args:
        flips: of the three pulses `(3,)` [rad].
        te: twice the time from the first pulse to the second, and from the third to the echo [s]; one for all
            acquisitions or one for each, as `tm`.
        tm: mixing time, from the second pulse to the third [s].
        tr: repetition time [s]; None: from equilibrium.

    Hahn, Phys Rev 80:580, 1950; Frahm et al., J Magn Reson 64:81, 1985.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1",)
    each: ClassVar[tuple[str, ...]] = ("te", "tm")
    rows: ClassVar[tuple[str, ...]] = ("flips",)

    te: Any
    tm: Any
    _: KW_ONLY
    tr: Any = None

    def events(self) -> Iterable[Event]:
        first, second, third = as_many("flips", self.flips, 3)
        yield Pulse(first)
        yield Wait(0.5 * self.te, 1)
        yield Pulse(-second)  # so that the echo is positive
        yield Spoil()
        yield Wait(self.tm)
        yield Pulse(third)
        yield Wait(0.5 * self.te, 1)
        yield Readout(dephased=0.0)
        yield Spoil()
        if self.tr is not None:
            yield Wait(self.tr - self.te - self.tm)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 6, te: float = 20e-3, tr: float | None = 3.0,
        upper: float = math.pi,
    ) -> "StimulatedEcho":  # fmt: skip
        """Three pulses of 90°, and mixing times up to half of TR, which are learned as well."""
        dtype = tissue.t1.dtype
        times = jnp.linspace(te, 0.5 * (3.0 if tr is None else tr), echoes, dtype=dtype)
        return cls(jnp.full(3, min(0.5 * math.pi, upper), dtype), te, times, tr=tr)


class Hyperecho(Repeated):
    """Any pulses, a 180° pulse, and the same pulses backwards: without relaxation the last echo is as large as can be.

    The pulses `α_i` about axes at `φ_i` come back as `-α_i` about `-φ_i`, in a train of one echo spacing.

    Args:
        flips: of the pulses before the 180° pulse `(N,)` [rad].
        esp: echo spacing [s].
        phases: of their axes, 0 along the spins after the excitation [rad]: one for all.
        tr: repetition time [s]; None: from equilibrium.

    Returns `2 N + 1` echoes. Hennig & Scheffler, Magn Reson Med 46:6, 2001.
    """

    measures: ClassVar[tuple[str, ...]] = ("t2",)
    rows: ClassVar[tuple[str, ...]] = ("flips",)

    esp: Any
    _: KW_ONLY
    tr: Any = None
    phases: Any = held(default=0.0)

    def events(self) -> Iterable[Event]:
        before = [(flip, self.phases) for flip in self.flips]
        after = [(-flip, -phase) for flip, phase in reversed(before)]
        yield Pulse(0.5 * math.pi)
        for flip, phase in [*before, (math.pi, 0.0), *after]:
            yield from refocused(flip, 0.5 * self.esp, phase + ACROSS)
            yield Readout(dephased=0.0)
        yield Spoil()
        if self.tr is not None:
            yield Wait(self.tr - (2 * len(before) + 1) * self.esp)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 15, esp: float = 10e-3, tr: float | None = 2.0,
        start: str | None = None, rms: float | None = None, upper: float = math.pi,
    ) -> "Hyperecho":  # fmt: skip
        """A train of an odd number of echoes; other arguments as of `FSE.start`."""
        level = 0.25 * math.pi if rms is None else rms
        flips = start_flips(start or "constant", max(1, echoes // 2), level=level, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), esp, tr=tr)

"""Gradient echoes beside trains: several echoes of a spoiled pulse, and both echoes of the spoiled steady state."""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp

from acqdesign.base.types import Array, Inexact, PRNGKey
from acqdesign.base.units import rad_from_deg
from acqdesign.optim import Limits
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import decay, echo_factor, precession_phase
from acqdesign.signal.bssfp import configurations
from acqdesign.signal.events import Event, Pulse, Readout, Spoil, Wait
from acqdesign.signal.repeated import Repeated
from acqdesign.signal.starts import start_flips
from acqdesign.signal.trains import MAX_FLIP, GradientEchoes


class MultiGradientEcho(Repeated):
    """Several gradient echoes after each pulse, ideally spoiled: `ernst exp(-te/T2* + 2πi b0 te)`.

    Args:
        flips: of the pulses `(N,)` [rad], each in a steady state of its own.
        spacings: from the pulse to the first echo, and from echo to echo `(E,)` [s].
        tr: repetition time [s]; None: from equilibrium.

    Returns the echoes of the first flip, of the second, and so on.
    """

    each: ClassVar[tuple[str, ...]] = ("flips", "tr")
    rows: ClassVar[tuple[str, ...]] = ("spacings",)

    spacings: Any
    _: KW_ONLY
    tr: Any = None

    def events(self) -> Iterable[Event]:
        yield Pulse(self.flips)
        te: Any = 0.0
        for spacing in self.spacings:
            te = te + spacing
            yield Readout(spacing, dephased=te)
        yield Spoil()
        if self.tr is not None:
            yield Wait(self.tr - te)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 8, esp: float = 5e-3, tr: float = 60e-3, te: float = 3e-3,
        rms: float | None = None, upper: float = MAX_FLIP,
    ) -> "MultiGradientEcho":  # fmt: skip
        """Pulses of 5° and 25°, the first echo at `te` and others `esp` apart; flips and spacings are learned."""
        dtype = tissue.t1.dtype
        flips = jnp.minimum(jnp.asarray(rad_from_deg(jnp.array([5.0, 25.0])), dtype), min(rms or upper, upper))
        return cls(flips, jnp.full(echoes, esp, dtype).at[0].set(te), tr=tr)


class DESS(GradientEchoes):
    """Both echoes of pulses with one order of gradient spoiling, each flip in its own steady state.

    The FID `te` after a pulse, and the echo `te` before the next one (PSIF): the orders 0 and -1 of the balanced
    steady state over its turn in one `tr`.

    Args:
        flips: `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s].
        te: `()` or `(N,)` [s], within `tr`.

    Returns the FIDs, then the echoes. Gyngell, J Magn Reson 81:474, 1989; Hänicke & Vogel, Magn Reson Med 49:771, 2003.
    """

    phases: None = eqx.field(init=False, default=None)
    inversion_time: None = eqx.field(init=False, default=None)
    inversion_efficiency: None = eqx.field(init=False, default=None)

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... readouts"]:
        """Signals; real unless the tissue has a `b0` or a complex `m0`, or pulses are selective."""
        return jnp.concatenate(self.echoes(tissue, values), axis=-1)

    def echoes(self, tissue: Tissue, values: dict[str, Any]) -> tuple[Array, Array]:
        """The FIDs `(..., N)` and the echoes `(..., N)`."""
        values = self.steady_values(tissue, values)
        te, amplitude, ratio = values["te"], *configurations(values)
        fid = amplitude * (1.0 - values["e2"] * ratio) * echo_factor(te, values)
        echo = amplitude * (ratio - values["e2"]) * echo_factor(te, values, ("t2_prime",))
        echo = echo * decay(values["tr"] - te, values["t2"])
        if "turn" in values:  # of selective pulses
            echo = echo * values["turn"].conj()
        if "b0" in values:
            echo = echo * precession_phase(te, -values["b0"])
        return values["m0"] * fid, values["m0"] * echo

    def readouts(self) -> int:
        return 2 * super().readouts()

    def repetitions(self) -> Iterable[Iterable[Event]]:
        return []

    def design(self) -> Mapping[str, Any]:
        return {f"sequence.{name}": getattr(self, name) for name in ("flips", "tr", "te")}

    @classmethod
    def usual_limits(cls) -> Limits:
        """At most 90°."""
        return Limits(0.0, MAX_FLIP)

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 4, tr: float = 20e-3, te: float = 5e-3,
        start: str | None = None, rms: float | None = None, upper: float = MAX_FLIP,
    ) -> "DESS":  # fmt: skip
        """Flips in equal steps up to 60°; arguments as of `SSFPFID.start`."""
        top = min(rad_from_deg(60.0) if rms is None else rms, upper)
        flips = top * jnp.arange(1, echoes + 1) / echoes
        if start is not None:
            flips = jnp.asarray(start_flips(start, echoes, level=rms, upper=upper, key=key))
        return cls(flips.astype(tissue.t1.dtype), tr, te)


class PSIF(DESS):
    """The second echo of `DESS` alone, `te` before the next pulse (SSFP-ECHO, T2-FFE)."""

    measures: ClassVar[tuple[str, ...]] = ("t2",)

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... pulses"]:
        return self.echoes(tissue, values)[1]

    def readouts(self) -> int:
        return super().readouts() // 2

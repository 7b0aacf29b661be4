"""MPRAGE: an inversion, a train of small flips, and recovery, repeated."""

from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax

from acqdesign.base.checks import check_kind, check_number
from acqdesign.base.types import Array, Inexact, PRNGKey
from acqdesign.base.units import rad_from_deg
from acqdesign.optim import Limits, held, resolve
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import check_echo_time, check_repetition, decay, echo_factor
from acqdesign.signal.events import Event, Invert, Pulse, Readout, Spoil, Wait
from acqdesign.signal.starts import start_flips
from acqdesign.signal.trains import PulseTrain, by_pulse


class MPRAGE(PulseTrain):
    """The pulses of one MPRAGE repetition, with ideal spoiling.

    Longitudinal magnetisation is inverted (`-efficiency · Mz`), recovers for `inversion_time`, is read by N
    pulses `esp` apart, and recovers for the rest of `tr`. Each step is affine in `Mz`, so that the steady
    state over repetitions is the fixed point of their composition. B1 multiplies every flip but not the (adiabatic)
    inversion.

    Args:
        flips: flip angles `(N,)` [rad].
        esp: from pulse to pulse [s], a number.
        inversion_time: from the inversion to the first pulse [s].
        tr: from inversion to inversion, at least `inversion_time + N esp` [s].
        te: echo time within `esp` [s].
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        steady: whether repetitions have reached their steady state; otherwise the first, from equilibrium.

    Mugler & Brookeman, Magn Reson Med 15:152, 1990; Deichmann et al., NeuroImage 12:112, 2000.
    """

    measures: ClassVar[tuple[str, ...]] = ("t1",)

    esp: Any
    _: KW_ONLY
    inversion_time: Any
    tr: Any
    te: Any = 0.0
    inversion_efficiency: Any = held(default=1.0)
    steady: bool = eqx.field(static=True, default=True)

    def values(self, tissue: Tissue | None = None) -> dict[str, Array]:
        check_kind("steady", self.steady, bool, "True or False")
        values = super().values(tissue)
        for name in ("esp", "tr", "inversion_time", "te"):
            check_number(name, values[name], positive=name != "te")
        check_echo_time(values["te"], values["esp"], self.readouts(), "esp")
        check_repetition(values, "inversion_time")
        return values

    def events(self) -> Iterable[Event]:
        yield Invert(self.inversion_efficiency)
        yield Wait(self.inversion_time)
        for flip in self.flips:
            yield Pulse(flip)
            yield Readout(self.te, dephased=self.te)
            yield Wait(self.esp - self.te)
            yield Spoil()
        yield Wait(self.tr - self.inversion_time - len(self.flips) * self.esp)

    def recovers(self) -> bool:
        return not self.steady

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)`; real unless the tissue has a `b0` or a complex `m0`, or pulses are selective."""
        return _simulate(values, self.steady)

    def duration(self) -> Any:
        """From inversion to inversion [s]."""
        return resolve(self).tr

    @classmethod
    def usual_limits(cls) -> Limits:
        """At most 30°."""
        return Limits(0.0, rad_from_deg(30.0))

    def design(self) -> Mapping[str, Any]:
        this, n = resolve(self), self.readouts()
        times = {"tr_s": np.atleast_1d(this.tr), "te_s": np.full(n, this.te), "ti_s": this.inversion_time}
        return {"flips_rad": this.flips, "phases_rad": np.zeros(n), "esp_s": this.esp, **times, **this.played_as()}

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *,
        echoes: int = 128, esp: float = 8e-3, tr: float = 2.3, te: float = 3e-3, ti: float = 0.9,
        start: str | None = None, rms: float | None = None, upper: float = rad_from_deg(30.0),
    ) -> "MPRAGE":  # fmt: skip
        """A train to start learning from; arguments as of `SSFPFID.start`.

        Here `esp` is from pulse to pulse and `tr` from inversion to inversion [s]; the start is `constant`, at 9° or
        the given `rms`, unless given.
        """
        level = rad_from_deg(9.0) if rms is None else rms
        flips = start_flips(start or "constant", echoes, level=level, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), esp, inversion_time=ti, tr=tr, te=te)


@eqx.filter_jit
def _simulate(values: dict[str, Array], steady: bool) -> Array:
    """Signal from checked arguments; compiled once for equal shapes, outside of `jit` too."""
    n = len(values["flips"])
    esp, tr, wait = (values[name] for name in ("esp", "tr", "inversion_time"))
    t1, efficiency = values["t1"], values["inversion_efficiency"]
    flips = values["flips"].reshape(-1, *(1,) * values["b1"].ndim) * values["b1"]
    seen = by_pulse(values, flips)
    shape = jnp.broadcast_shapes(t1.shape, efficiency.shape, seen["cos"].shape[1:])
    e_esp, e_wait, e_rest = decay(esp, t1), decay(wait, t1), decay(tr - wait - n * esp, t1)

    Longitudinal = tuple[Array, Array]  # the share of Mz before the inversion, and what recovery has added

    def pulse(mz: Longitudinal, turn: Longitudinal) -> tuple[Longitudinal, Longitudinal]:
        (share, added), (cos, tipped) = mz, turn
        return (share * cos * e_esp, added * cos * e_esp + (1.0 - e_esp)), (share * tipped, added * tipped)

    start = (jnp.broadcast_to(-efficiency * e_wait, shape), jnp.broadcast_to(1.0 - e_wait, shape))
    (share, added), tipped = lax.scan(pulse, start, (seen["cos"], seen["tipped"]))
    before = (added * e_rest + (1.0 - e_rest)) / (1.0 - share * e_rest) if steady else 1.0
    signal = jnp.moveaxis(tipped[0] * before + tipped[1], 0, -1)
    return (values["m0"] * echo_factor(values["te"], values))[..., None] * signal

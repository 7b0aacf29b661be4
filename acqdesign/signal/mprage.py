"""MPRAGE: an inversion, a train of small flips, and recovery, repeated."""

import math
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax

from acqdesign.base.checks import as_real, check_positive, is_concrete, usage_error
from acqdesign.base.types import Array, Inexact, PRNGKey, Real
from acqdesign.base.units import rad_from_deg
from acqdesign.optim import Constraint, Limits, held, resolve
from acqdesign.optim.parts import is_parametrised
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import check_echo_time, check_flips, decay, echo_factor, in_one_precision
from acqdesign.signal.sequence import Sequence, number
from acqdesign.signal.starts import start_flips


class MPRAGE(Sequence):
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
        te: echo time [s].
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        steady: whether repetitions have reached their steady state; otherwise the first, from equilibrium.

    Raises:
        UsageError: for times that are not positive, TE > ESP, or a TR too short for the train.

    Mugler & Brookeman, Magn Reson Med 15:152, 1990; Deichmann et al., NeuroImage 12:112, 2000.
    """

    flips: Real
    esp: Real | float
    inversion_time: Real | float
    tr: Real | float
    te: Real | float
    inversion_efficiency: Real | float = held()
    steady: bool = eqx.field(static=True)

    def __init__(
        self,
        flips: Any,
        esp: Any,
        *,
        inversion_time: Any,
        tr: Any,
        te: Any = 0.0,
        inversion_efficiency: Any = 1.0,
        steady: bool = True,
    ):
        self.flips = flips if is_parametrised(flips) else as_real("flips", flips)
        self.esp, self.tr, self.te = number("esp", esp), number("tr", tr), number("te", te)
        self.inversion_time = number("inversion_time", inversion_time)
        self.inversion_efficiency = number("inversion_efficiency", inversion_efficiency)
        self.steady = bool(steady)
        self._values()

    def _values(self, **effects: Any) -> dict[str, Array]:
        this = resolve(self)
        names = ("flips", "esp", "tr", "te", "inversion_time", "inversion_efficiency")
        values = in_one_precision(**{name: getattr(this, name) for name in names}, **effects)
        n = check_flips(values["flips"])
        _check_timing(values["esp"], values["tr"], values["inversion_time"], values["te"], n)
        return values

    def signal(self, tissue: Tissue) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)`; real unless the tissue has a `b0` or a complex `m0`."""
        return _simulate(self._values(**tissue.effects()), self.steady)

    def readouts(self) -> int:
        """The number of pulses."""
        return resolve(self).flips.shape[0]

    def duration(self) -> float:
        """From inversion to inversion [s]."""
        return float(self.tr)

    def limits(self) -> tuple[Constraint, ...]:
        """Flips between 0 and 180°."""
        return (Limits(0.0, math.pi, where="flips"),)

    @classmethod
    def usual_limits(cls) -> Limits:
        """At most 30°."""
        return Limits(0.0, rad_from_deg(30.0))

    def design(self) -> Mapping[str, Any]:
        """Entries of `design.npz`."""
        this, n = resolve(self), self.readouts()
        times = {"tr_s": np.atleast_1d(this.tr), "te_s": np.full(n, this.te), "ti_s": this.inversion_time}
        return {"flips_rad": this.flips, "phases_rad": np.zeros(n), "esp_s": this.esp, **times}

    @classmethod
    def start(
        cls,
        tissue: Tissue,
        key: PRNGKey,
        *,
        echoes: int = 128,
        esp: float = 8e-3,
        tr: float = 2.3,
        te: float = 3e-3,
        ti: float = 0.9,
        start: str | None = None,
        rms: float | None = None,
        upper: float = rad_from_deg(30.0),
    ) -> "MPRAGE":
        """A train to start learning from; see `start_flips`.

        Args:
            tissue: of the precision to work in.
            key: for random starts.
            echoes: number of pulses.
            esp: from pulse to pulse [s].
            tr: from inversion to inversion [s].
            te: echo time [s].
            ti: from the inversion to the first pulse [s].
            start: name of a start; `constant`, at 9° or the given `rms`, unless given.
            rms: root mean square of the flips [rad].
            upper: largest flip [rad].
        """
        level = min(rad_from_deg(9.0) if rms is None else rms, upper)
        flips = start_flips(start or "constant", echoes, level=level, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), esp, inversion_time=ti, tr=tr, te=te)


@eqx.filter_jit
def _simulate(values: dict[str, Array], steady: bool) -> Array:
    """Signal from checked arguments; compiled once for equal shapes, outside of `jit` too."""
    n = len(values["flips"])
    esp, tr, wait = (values[name] for name in ("esp", "tr", "inversion_time"))
    t1, efficiency = values["t1"], values["inversion_efficiency"]
    seen = jnp.moveaxis(values["b1"][..., None] * values["flips"], -1, 0)
    shape = jnp.broadcast_shapes(t1.shape, efficiency.shape, seen.shape[1:])
    e_esp, e_wait, e_rest = decay(esp, t1), decay(wait, t1), decay(tr - wait - n * esp, t1)

    Longitudinal = tuple[Array, Array]  # the share of Mz before the inversion, and what recovery has added

    def pulse(mz: Longitudinal, turn: Longitudinal) -> tuple[Longitudinal, Longitudinal]:
        (share, added), (cos, sin) = mz, turn
        return (share * cos * e_esp, added * cos * e_esp + (1.0 - e_esp)), (share * sin, added * sin)

    start = (jnp.broadcast_to(-efficiency * e_wait, shape), jnp.broadcast_to(1.0 - e_wait, shape))
    (share, added), tipped = lax.scan(pulse, start, (jnp.cos(seen), jnp.sin(seen)))
    before = (added * e_rest + (1.0 - e_rest)) / (1.0 - share * e_rest) if steady else 1.0
    signal = jnp.moveaxis(tipped[0] * before + tipped[1], 0, -1)
    gain = values["m0"] * echo_factor(
        values["te"], t2=values["t2"], t2_prime=values.get("t2_prime"), b0=values.get("b0")
    )
    return gain[..., None] * signal


def _check_timing(esp: Array, tr: Array, wait: Array, te: Array, n: int) -> None:
    for name, time in (("esp", esp), ("tr", tr), ("inversion_time", wait)):
        check_positive(name, time)
        if time.ndim:
            raise usage_error(name, time, "one time [s]")
    check_echo_time(te, esp, n, "esp")
    if te.ndim:
        raise usage_error("te", te, "one time [s]")
    if is_concrete(tr) and is_concrete(wait) and is_concrete(esp):
        shortest = float(wait) + n * float(esp)
        if float(tr) < shortest * (1.0 - 1e-6):
            expected = "at least inversion_time + N esp"
            raise usage_error("tr", f"{float(tr):g} s", expected, f"The shortest is {shortest:g} s for {n} pulses.")

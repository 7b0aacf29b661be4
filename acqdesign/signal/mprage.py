"""MPRAGE: an inversion, a train of small flips, and recovery, repeated."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact

from acqdesign.base.checks import check_positive, is_concrete, usage_error
from acqdesign.base.types import Real
from acqdesign.signal._arguments import (
    check_echo_time,
    check_flips,
    decay,
    echo_factor,
    in_one_precision,
    unless,
)
from acqdesign.signal.sequence import TissueParams, as_real, check_relaxation


def mprage(
    flips: ArrayLike,
    esp: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    inversion_time: ArrayLike,
    tr: ArrayLike,
    te: ArrayLike = 0.0,
    inversion_efficiency: ArrayLike = 1.0,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
    b0: ArrayLike | None = None,
    t2_prime: ArrayLike | None = None,
    steady: bool = True,
) -> Inexact[Array, "... pulses"]:
    """Signal of the pulses of one MPRAGE repetition, with ideal spoiling.

    Longitudinal magnetisation is inverted (`-efficiency · Mz`), recovers for `inversion_time`, is read by N
    pulses `esp` apart, and recovers for the rest of `tr`. Each step is affine in `Mz`, so that the steady
    state over repetitions is the fixed point of their composition.

    Args:
        flips: flip angles `(N,)` [rad].
        esp: from pulse to pulse [s], a number.
        t1: longitudinal relaxation time [s]; this and the tissue parameters below broadcast to a batch shape.
        t2: transverse relaxation time [s]; matters through `te`.
        inversion_time: from the inversion to the first pulse [s].
        tr: from inversion to inversion, at least `inversion_time + N esp` [s].
        te: echo time [s].
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        m0: equilibrium magnetisation, real or complex, in the units of the signal.
        b1: transmit field relative to nominal; multiplies every flip but not the (adiabatic) inversion.
        b0: off-resonance [Hz]; the transverse magnetisation turns by `exp(2πi b0 t)`.
        t2_prime: reversible transverse decay T2' [s].
        steady: whether repetitions have reached their steady state; otherwise the first, from equilibrium.

    Returns:
        Signal `(..., N)`; real unless `b0` is given or `m0` is complex.

    Raises:
        ValueError: for times that are not positive, T2 > 2 T1, TE > ESP, or a TR too short for the train.

    Mugler & Brookeman, Magn Reson Med 15:152, 1990; Deichmann et al., NeuroImage 12:112, 2000.
    """
    if t2_prime is not None:
        check_positive("t2_prime", t2_prime, allow_inf=True)
    values = in_one_precision(
        flips=flips, esp=esp, tr=tr, te=te, t1=t1, t2=t2, m0=m0, b1=b1, b0=b0, t2_prime=t2_prime,
        inversion_time=inversion_time, inversion_efficiency=inversion_efficiency,
    )  # fmt: skip
    check_relaxation(values["t1"], values["t2"])
    n = check_flips(values["flips"])
    esp, tr, wait = (values[name] for name in ("esp", "tr", "inversion_time"))
    _check_timing(esp, tr, wait, values["te"], n)

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
            raise usage_error(
                "tr", f"{float(tr):g} s", expected, f"The shortest is {shortest:g} s for {n} pulses."
            )


class MPRAGE(eqx.Module):
    """MPRAGE with free flips and times; called with a tissue.

    The signal is real where the tissue's `m0` is, and its `b0` is known to be zero.

    Args:
        flips: flip angles `(N,)` [rad].
        esp: from pulse to pulse [s].
        inversion_time: from the inversion to the first pulse [s].
        tr: from inversion to inversion [s].
        te: echo time [s].
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        steady: whether repetitions have reached their steady state; otherwise the first, from equilibrium.
    """

    flips: Real
    esp: Real
    inversion_time: Real
    tr: Real
    te: Real
    inversion_efficiency: Real
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
        self.flips = as_real("flips", flips)
        self.esp, self.tr, self.te = as_real("esp", esp), as_real("tr", tr), as_real("te", te)
        self.inversion_time = as_real("inversion_time", inversion_time)
        _check_timing(self.esp, self.tr, self.inversion_time, self.te, check_flips(self.flips))
        self.inversion_efficiency = as_real("inversion_efficiency", inversion_efficiency)
        self.steady = steady

    def __call__(self, tissue: TissueParams) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)` of tissues of any batch shape."""
        return mprage(
            self.flips,
            self.esp,
            tissue.t1,
            tissue.t2,
            inversion_time=self.inversion_time,
            tr=self.tr,
            te=self.te,
            inversion_efficiency=self.inversion_efficiency,
            m0=tissue.m0,
            b1=tissue.b1,
            b0=unless(tissue.b0, 0.0),
            t2_prime=unless(tissue.t2_prime, jnp.inf),
            steady=self.steady,
        )

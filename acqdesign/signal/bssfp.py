"""Balanced SSFP: trains from any start, and the steady state at any off-resonance."""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact

from acqdesign.base.checks import check_positive, usage_error
from acqdesign.base.types import Real
from acqdesign.signal._arguments import (
    check_echo_time,
    check_flips,
    check_lengths,
    decay,
    echo_factor,
    in_one_precision,
    inverted,
    precession_phase,
    steady_arguments,
    unless,
)
from acqdesign.signal.engine import Echo, Interval, Tissue, train, turns_of
from acqdesign.signal.sequence import TissueParams, as_real, check_relaxation


def bssfp(
    flips: ArrayLike,
    tr: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    te: ArrayLike | None = None,
    phases: ArrayLike | None = None,
    inversion_time: ArrayLike | None = None,
    inversion_efficiency: ArrayLike = 1.0,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
    b0: ArrayLike | None = None,
    t2_prime: ArrayLike | None = None,
) -> Inexact[Array, "... pulses"]:
    """Signal of a train of pulses with fully rewound gradients, from equilibrium or from an inversion.

    The receiver follows the pulses' phases; a first pulse on equilibrium gives `m0 sin(flip)` and its decay.
    An α/2 preparation is a first flip of α/2 with a `tr` of half the others. T2' is a Lorentzian spread of
    off-resonance: its isochromats are carried as an extended phase graph over the turn in one `tr`, which is
    exact and costs as much as the square of the pulses.

    Args:
        flips: flip angles `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s]; one value where `t2_prime` is given.
        t1: longitudinal relaxation time [s]; this and the tissue parameters below broadcast to a batch shape.
        t2: transverse relaxation time [s].
        te: echo times, `()` or `(N,)` [s]; left out, `tr / 2`. One value where `t2_prime` is given.
        phases: phases of the pulses `(N,)` [rad], of which only differences matter. Left out, they alternate
            between 0 and π.
        inversion_time: from an inversion to the first pulse [s]; left out, there is no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        m0: equilibrium magnetisation, real or complex, in the units of the signal.
        b1: transmit field relative to nominal; multiplies every flip.
        b0: off-resonance [Hz]; the transverse magnetisation turns by `exp(2πi b0 t)`.
        t2_prime: reversible transverse decay T2' [s].

    Returns:
        Signal `(..., N)`; real where neither `phases` nor `b0` is given and `m0` is real.

    Raises:
        ValueError: for times that are not positive, T2 > 2 T1, TE > TR, or lengths that differ.
    """
    values = in_one_precision(
        flips=flips, tr=tr, te=te, t1=t1, t2=t2, m0=m0, b1=b1, b0=b0, t2_prime=t2_prime, phases=phases,
        inversion_time=inversion_time, inversion_efficiency=inversion_efficiency,
    )  # fmt: skip
    check_relaxation(values["t1"], values["t2"])
    n = check_flips(values["flips"])
    tr = values["tr"]
    te = values.get("te", 0.5 * tr)
    check_echo_time(te, tr, n)
    turns = jnp.full(n, -1.0, tr.dtype) if phases is None else turns_of(values["phases"], n)

    tissue: Tissue = {name: values[name] for name in ("t1", "t2", "m0", "b1", "b0") if name in values}
    tissue["z0"] = jnp.ones((), tr.dtype)
    if inversion_time is not None:
        tissue["z0"] = inverted(values["inversion_time"], values["inversion_efficiency"], values["t1"])

    if t2_prime is None:
        waits = [Interval(te), Interval(tr - te)]
        return train(values["flips"], waits, tissue, _centre, read=1, turns=turns)

    check_positive("t2_prime", t2_prime, allow_inf=True)
    if tr.ndim or te.ndim:
        raise usage_error("tr, te", "a time for each pulse", "one tr and one te where t2_prime is given")
    # The spread is the voxel's dephasing, one order a tr; the echo sees every order at its own time.
    if b0 is not None:
        tissue["centre"] = tissue.pop("b0")
    tissue["t2_prime"] = values["t2_prime"]
    return train(values["flips"], [Interval(tr, 1)], tissue, _spread(tr, te), read=0, turns=turns, lead=n)


def _centre(tissue: Tissue, orders: int) -> Echo:
    return lambda state: tissue["m0"] * state.plus[0]


def _spread(tr: Array, te: Array) -> Callable[[Tissue, int], Echo]:
    """Echoes of a Lorentzian spread: `Σ_k F_k exp(2πi b0 τ_k - |τ_k| / T2')`, `τ_k = te + k tr`."""

    def make_echo(tissue: Tissue, orders: int) -> Echo:
        k = jnp.arange(orders, dtype=tr.dtype)[:, None]

        def weight(time: Array) -> Array:
            spread = decay(jnp.abs(time), tissue["t2_prime"])
            return spread * precession_phase(time, tissue["centre"]) if "centre" in tissue else spread

        gain = tissue["m0"] * decay(te, tissue["t2"])
        ahead, behind = gain * weight(te + k * tr), jnp.where(k > 0, gain * weight(te - k * tr), 0.0)
        return lambda state: (ahead * state.plus + behind * state.minus.conj()).sum(axis=0)

    return make_echo


def bssfp_steady(
    flips: ArrayLike,
    tr: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    te: ArrayLike | None = None,
    phase_increment: ArrayLike = math.pi,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
    b0: ArrayLike | None = None,
    t2_prime: ArrayLike | None = None,
) -> Inexact[Array, "... flips"]:
    """Steady-state signal of balanced SSFP, for each of several flip angles.

    With θ the turn in one `tr` (off-resonance less phase increment) and E1, E2 the decays over it,
    `M = sin α (1-E1) (1 - E2 exp(-iθ)) / [(1 - E1 cos α)(1 - E2 cos θ) - E2 (E1 - cos α)(E2 - cos θ)]`
    after the pulse. It is summed here as the two geometric series of `Σ_n c_n exp(inθ)`, so that T2', a
    Lorentzian spread of off-resonance, weighs each term by `exp(-|te + n tr| / T2')`.

    Args:
        flips: flip angles `(N,)`, each in its own steady state [rad].
        tr: repetition times, `()` or `(N,)` [s].
        t1: longitudinal relaxation time [s]; this and the tissue parameters below broadcast to a batch shape.
        t2: transverse relaxation time [s].
        te: echo times, `()` or `(N,)` [s]; left out, `tr / 2`.
        phase_increment: step of the pulses' phase, `()` or `(N,)` [rad].
        m0: equilibrium magnetisation, real or complex, in the units of the signal.
        b1: transmit field relative to nominal; multiplies every flip.
        b0: off-resonance [Hz]; the transverse magnetisation turns by `exp(2πi b0 t)`.
        t2_prime: reversible transverse decay T2' [s].

    Returns:
        Complex signal `(..., N)` in the units of `m0`, demodulated with the pulses' phases.

    Raises:
        ValueError: for times that are not positive, T2 > 2 T1, TE > TR, or lengths that differ.

    Freeman & Hill, J Magn Reson 4:366, 1971.
    """
    te = 0.5 * as_real("tr", tr) if te is None else te
    values = steady_arguments(flips, tr, t1, t2, te, m0, b1, b0, t2_prime)
    cos, sin, e1, e2, tr, te = (values[name] for name in ("cos", "sin", "e1", "e2", "tr", "te"))
    step = check_lengths("phase_increment", as_real("phase_increment", phase_increment), cos.shape[-1])
    step = step.astype(cos.dtype)
    turn = lax.complex(jnp.cos(step), -jnp.sin(step))
    if b0 is not None:
        turn = turn * precession_phase(tr, values["b0"])
    ahead, behind, over_tr = jnp.ones((3, 1), cos.dtype)
    if t2_prime is not None:
        ahead, behind, over_tr = (decay(time, values["t2_prime"]) for time in (te, tr - te, tr))

    recovered = 1.0 - cos * e1
    recovered = jnp.where(recovered == 0, 1.0, recovered)
    mirrored = (cos - e1) / recovered
    square = (1.0 - e2**2) * (1.0 - (mirrored * e2) ** 2)
    damped = square > 0  # not where T1 and T2 are infinite: without any decay there is no steady state
    root = jnp.sqrt(jnp.where(damped, square, 1.0))
    ratio = jnp.where(damped, e2 * (1.0 + mirrored) / (1.0 + mirrored * e2**2 + root), 0.0)
    series = (1.0 - e2 * ratio) * ahead / (1.0 - over_tr * ratio * turn)
    series += (ratio - e2) * behind * turn.conj() / (1.0 - over_tr * ratio * turn.conj())
    gain = values["m0"] * echo_factor(te, t2=values["t2"], b0=values.get("b0"))
    return gain * sin * (1.0 - e1) / recovered / root * series


class BSSFP(eqx.Module):
    """Balanced SSFP; called with a tissue.

    The signal of a train is real where `phases` is None and the tissue's `b0` is known to be zero.

    Args:
        flips: flip angles `(N,)` [rad]: the pulses of a train from equilibrium, or with `steady` those of N
            acquisitions that are each in their steady state.
        tr: repetition times, `()` or `(N,)` [s].
        te: echo times, `()` or `(N,)` [s]; None for `tr / 2`.
        phases: phases of the pulses of a train `(N,)` [rad]; None to alternate between 0 and π.
        phase_increment: step of the pulses' phase in the steady state, `()` or `(N,)` [rad].
        inversion_time: from an inversion to the first pulse of a train [s]; None for no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        steady: whether each flip is in its own steady state.
    """

    flips: Real
    tr: Real
    te: Real | None
    phases: Real | None
    phase_increment: Real
    inversion_time: Real | None
    inversion_efficiency: Real
    steady: bool = eqx.field(static=True)

    def __init__(
        self,
        flips: Any,
        tr: Any,
        te: Any = None,
        *,
        phases: Any = None,
        phase_increment: Any = math.pi,
        inversion_time: Any = None,
        inversion_efficiency: Any = 1.0,
        steady: bool = False,
    ):
        self.flips = as_real("flips", flips)
        self.tr = as_real("tr", tr)
        self.te = None if te is None else as_real("te", te)
        check_echo_time(0.0 * self.tr if self.te is None else self.te, self.tr, check_flips(self.flips))
        if steady and not (phases is None and inversion_time is None):
            raise usage_error(
                "steady", True, "no phases or inversion with it", "Give phase_increment, or leave steady out."
            )
        self.phases = None if phases is None else as_real("phases", phases)
        self.phase_increment = as_real("phase_increment", phase_increment)
        self.inversion_time = None if inversion_time is None else as_real("inversion_time", inversion_time)
        self.inversion_efficiency = as_real("inversion_efficiency", inversion_efficiency)
        self.steady = steady

    def __call__(self, tissue: TissueParams) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)` of tissues of any batch shape."""
        effects: dict[str, Any] = {
            "te": self.te,
            "m0": tissue.m0,
            "b1": tissue.b1,
            "b0": unless(tissue.b0, 0.0),
            "t2_prime": unless(tissue.t2_prime, math.inf),
        }
        if self.steady:
            steps = self.phase_increment
            return bssfp_steady(self.flips, self.tr, tissue.t1, tissue.t2, phase_increment=steps, **effects)
        return bssfp(
            self.flips,
            self.tr,
            tissue.t1,
            tissue.t2,
            phases=self.phases,
            inversion_time=self.inversion_time,
            inversion_efficiency=self.inversion_efficiency,
            **effects,
        )

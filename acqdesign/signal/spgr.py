"""Spoiled gradient echo: RF and gradient spoiling in transience and steady state, and ideal spoiling."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact

from acqdesign.base.checks import check_count, usage_error
from acqdesign.base.types import Real
from acqdesign.base.units import deg_from_rad, rad_from_deg
from acqdesign.signal._arguments import (
    check_echo_time,
    check_flips,
    echo_factor,
    in_one_precision,
    steady_arguments,
    unless,
)
from acqdesign.signal.sequence import TissueParams, as_real
from acqdesign.signal.ssfp import ssfp_fid

RF_INCREMENT = rad_from_deg(117.0)
"""The usual quadratic phase increment [rad]; 50° is the other one in use."""

MAX_PERIOD = 720
"""Whole and half degrees make whole turns after at most so many increments."""

DOUBLINGS = 24
"""So many times is the number of orders doubled: to 16 million, longer than any T2 in repetitions."""


def quadratic_phases(n: int, rf_increment: float) -> np.ndarray:
    """Phases `rf_increment · j (j + 1) / 2` of pulses `j = 0 … n-1`, within a turn, `(n,)` float64 [rad]."""
    steps = np.arange(n) * (np.arange(n) + 1) // 2
    if (period := _period(rf_increment)) is not None:
        steps %= period  # otherwise digits are lost as the square of n
    return np.remainder(rf_increment * steps, 2.0 * np.pi)


def _period(rf_increment: float) -> int | None:
    """The number of increments that make whole turns, if there is a small one."""
    turns = rf_increment / (2.0 * math.pi)
    whole = (
        period for period in range(1, MAX_PERIOD + 1) if abs(turns * period - round(turns * period)) < 1e-9
    )
    return next(whole, None)


def spgr(
    flips: ArrayLike,
    tr: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    te: ArrayLike = 0.0,
    rf_increment: float = RF_INCREMENT,
    inversion_time: ArrayLike | None = None,
    inversion_efficiency: ArrayLike = 1.0,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
    b0: ArrayLike | None = None,
    t2_prime: ArrayLike | None = None,
    diffusivity: ArrayLike | None = None,
    spoiler_moment: ArrayLike | None = None,
    n_states: int | None = None,
) -> Inexact[Array, "... pulses"]:
    """Signal of a train of RF- and gradient-spoiled pulses from equilibrium, or from an inversion.

    `ssfp_fid` with phases `rf_increment · j (j + 1) / 2`: see there for the other arguments and the errors.

    Args:
        flips: flip angles `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s].
        t1: longitudinal relaxation time [s]; this and the tissue parameters below broadcast to a batch shape.
        t2: transverse relaxation time [s].
        te: echo times, `()` or `(N,)` [s].
        rf_increment: quadratic phase increment [rad].
        inversion_time: from the inversion to the first pulse [s]; left out, there is no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        m0: equilibrium magnetisation, real or complex, in the units of the signal.
        b1: transmit field relative to nominal; multiplies every flip.
        b0: off-resonance [Hz].
        t2_prime: reversible transverse decay T2' [s].
        diffusivity: diffusion coefficient [m²/s]; needs `spoiler_moment`.
        spoiler_moment: dephasing by the spoiler of one repetition [rad/m].
        n_states: orders kept; left out, all that reach an echo, which is exact.

    Returns:
        Complex signal `(..., N)` in the units of `m0`, demodulated with the pulses' phases.

    Zur, Wood & Neuringer, Magn Reson Med 21:251, 1991.
    """
    n = check_flips(as_real("flips", flips))
    dtype = in_one_precision(flips=flips, tr=tr, t1=t1, t2=t2)["flips"].dtype
    return ssfp_fid(
        flips,
        tr,
        t1,
        t2,
        te=te,
        phases=jnp.asarray(quadratic_phases(n, rf_increment), dtype),
        inversion_time=inversion_time,
        inversion_efficiency=inversion_efficiency,
        m0=m0,
        b1=b1,
        b0=b0,
        t2_prime=t2_prime,
        diffusivity=diffusivity,
        spoiler_moment=spoiler_moment,
        n_states=n_states,
    )


def spgr_steady(
    flips: ArrayLike,
    tr: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    te: ArrayLike = 0.0,
    rf_increment: float = RF_INCREMENT,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
    b0: ArrayLike | None = None,
    t2_prime: ArrayLike | None = None,
) -> Inexact[Array, "... flips"]:
    """Steady-state signal of RF- and gradient-spoiled pulses, for each of several flip angles; exact.

    In the frame of the pulses, order `k` advances by a phase that is constant from pulse to pulse. In the
    steady state, `F_-k` after a pulse is then `σ_k` times `F_k` before it, and `σ_k` follows from `σ_k+1` by
    a fraction that is linear above and below. These fractions repeat with the increment's period, so that
    composing one period and squaring it sums all orders. `rf_increment=0` is gradient spoiling alone (FISP).

    Args:
        flips: flip angles `(N,)`, each in its own steady state [rad].
        tr: repetition times, `()` or `(N,)` [s].
        t1: longitudinal relaxation time [s]; this and the tissue parameters below broadcast to a batch shape.
        t2: transverse relaxation time [s].
        te: echo times, `()` or `(N,)` [s].
        rf_increment: quadratic phase increment, a whole number of half degrees [rad].
        m0: equilibrium magnetisation, real or complex, in the units of the signal.
        b1: transmit field relative to nominal; multiplies every flip.
        b0: off-resonance [Hz].
        t2_prime: reversible transverse decay T2' [s].

    Returns:
        Complex signal `(..., N)` in the units of `m0`, demodulated with the pulses' phases.

    Raises:
        ValueError: for times that are not positive, T2 > 2 T1, TE > TR, lengths that differ, or an increment
            that does not repeat.

    Ganter, Magn Reson Med 55:98, 2006; Sobol & Gauntt, J Magn Reson Imaging 6:384, 1996.
    """
    values = steady_arguments(flips, tr, t1, t2, te, m0, b1, b0, t2_prime)
    cos, sin, e1, e2 = (values[name] for name in ("cos", "sin", "e1", "e2"))
    dtype = jnp.result_type(cos, 1j)
    period = _period(rf_increment)
    if period is None:
        got = f"{deg_from_rad(rf_increment):g}°"
        raise usage_error(
            "rf_increment", got, "a whole number of half degrees", "Or use spgr, which takes any."
        )
    turns = rf_increment * np.arange(period + 1)

    Fraction = tuple[Array, Array, Array]  # σ_k = (p σ_k+1 + q) / (r σ_k+1 + 1)

    def fraction(turn: Array, there_and_back: Array) -> Fraction:
        # Z_k settles to a multiple of F_k + F_-k, which leaves a pulse that mixes only these two.
        z = e1 * turn
        kept = 1.0 - cos * z
        q = 0.5 * (cos - 1.0) - 0.5 * sin**2 * z / jnp.where(kept == 0, 1.0, kept)
        damped = e2**2 * there_and_back
        return (1.0 + 2.0 * q) * damped, q, -q * damped

    def compose(outer: Fraction, inner: Fraction) -> Fraction:
        p, q, r = outer
        a, b, c = inner
        # σ = 0 is never sent to infinity: the last coefficient can be kept at one.
        scale = 1.0 / (r * b + 1.0)
        return (p * a + q * c) * scale, (p * b + q) * scale, (r * a + c) * scale

    shape = jnp.broadcast_shapes(cos.shape, e1.shape, e2.shape)
    start = (jnp.ones(shape, dtype), jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))
    factors = tuple(jnp.asarray(np.exp(1j * angle), dtype) for angle in (turns, 2.0 * turns + rf_increment))
    one_period, _ = lax.scan(
        lambda found, x: (compose(found, fraction(*x)), None), start, tuple(each[1:] for each in factors)
    )
    _, last, _ = lax.fori_loop(0, DOUBLINGS, lambda _, found: compose(found, found), one_period)
    back = e2**2 * factors[1][0] * last  # what returns to F_0 of what left it

    # F_0 is its own mirror image, and recovery feeds Z_0.
    real, imag = back.real, back.imag
    recovered = 1.0 - cos * e1
    recovered = jnp.where(recovered == 0, 1.0, recovered)
    returned = real + imag**2 / (1.0 + real)
    across = sin * (1.0 - e1) / recovered / (1.0 - returned * (cos - e1) / recovered)
    signal = lax.complex(across, -across * imag / (1.0 + real))
    return _gain(values) * signal


def spgr_ernst(
    flips: ArrayLike,
    tr: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    te: ArrayLike = 0.0,
    m0: ArrayLike = 1.0,
    b1: ArrayLike = 1.0,
    b0: ArrayLike | None = None,
    t2_prime: ArrayLike | None = None,
) -> Inexact[Array, "... flips"]:
    """Steady-state signal with ideal spoiling: `m0 sin α (1-E1) / (1-E1 cos α) exp(-te/T2*)`.

    Arguments and errors are those of `spgr_steady`; T2 matters only through `te`.

    Returns:
        Signal `(..., N)`; real unless `b0` is given or `m0` is complex.

    Ernst & Anderson, Rev Sci Instrum 37:93, 1966.
    """
    values = steady_arguments(flips, tr, t1, t2, te, m0, b1, b0, t2_prime)
    cos, sin, e1 = values["cos"], values["sin"], values["e1"]
    recovered = 1.0 - cos * e1
    return _gain(values) * sin * (1.0 - e1) / jnp.where(recovered == 0, 1.0, recovered)


def _gain(values: dict[str, Array]) -> Array:
    decayed = echo_factor(values["te"], t2=values["t2"], t2_prime=values.get("t2_prime"), b0=values.get("b0"))
    return values["m0"] * decayed


class SPGR(eqx.Module):
    """RF-spoiled gradient echo; called with a tissue.

    Args:
        flips: flip angles `(N,)` [rad]: the pulses of a train from equilibrium, or with `steady` those of N
            acquisitions that are each in their steady state.
        tr: repetition times, `()` or `(N,)` [s].
        te: echo times, `()` or `(N,)` [s].
        rf_increment: quadratic phase increment [rad].
        steady: whether each flip is in its own steady state.
        inversion_time: from an inversion to the first pulse of a train [s]; None for no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        spoiler_moment: dephasing by one spoiler [rad/m]; where given, trains have diffusion.
        n_states: orders kept in a train; None for all that reach an echo, which is exact.
    """

    flips: Real
    tr: Real
    te: Real
    inversion_time: Real | None
    inversion_efficiency: Real
    spoiler_moment: Real | None
    rf_increment: float = eqx.field(static=True)
    steady: bool = eqx.field(static=True)
    n_states: int | None = eqx.field(static=True)

    def __init__(
        self,
        flips: Any,
        tr: Any,
        te: Any = 0.0,
        *,
        rf_increment: float = RF_INCREMENT,
        steady: bool = False,
        inversion_time: Any = None,
        inversion_efficiency: Any = 1.0,
        spoiler_moment: Any = None,
        n_states: int | None = None,
    ):
        self.flips = as_real("flips", flips)
        self.tr, self.te = as_real("tr", tr), as_real("te", te)
        check_echo_time(self.te, self.tr, check_flips(self.flips))
        self.rf_increment, self.steady = float(rf_increment), steady
        if steady and not (inversion_time is None and spoiler_moment is None and n_states is None):
            raise usage_error(
                "steady", True, "no inversion, diffusion or number of states with it", "Leave those out."
            )
        self.inversion_time = None if inversion_time is None else as_real("inversion_time", inversion_time)
        self.inversion_efficiency = as_real("inversion_efficiency", inversion_efficiency)
        self.spoiler_moment = None if spoiler_moment is None else as_real("spoiler_moment", spoiler_moment)
        self.n_states = None if n_states is None else check_count("n_states", n_states)

    def __call__(self, tissue: TissueParams) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)` of tissues of any batch shape."""
        times = (self.flips, self.tr, tissue.t1, tissue.t2)
        effects: dict[str, Any] = {
            "te": self.te,
            "rf_increment": self.rf_increment,
            "m0": tissue.m0,
            "b1": tissue.b1,
            "b0": unless(tissue.b0, 0.0),
            "t2_prime": unless(tissue.t2_prime, math.inf),
        }
        if self.steady:
            return spgr_steady(*times, **effects)
        return spgr(
            *times,
            **effects,
            inversion_time=self.inversion_time,
            inversion_efficiency=self.inversion_efficiency,
            diffusivity=None if self.spoiler_moment is None else tissue.diffusivity,
            spoiler_moment=self.spoiler_moment,
            n_states=self.n_states,
        )

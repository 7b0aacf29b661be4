"""Spoiled gradient echo: RF and gradient spoiling in transience and steady state, and ideal spoiling."""

import math
from collections.abc import Iterable
from dataclasses import KW_ONLY
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from acqdesign.base.checks import check_choice, check_finite, check_number, is_concrete, usage_error
from acqdesign.base.types import Array, Inexact
from acqdesign.base.units import deg_from_rad, rad_from_deg
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import echo_factor
from acqdesign.signal.events import Event, Pulse, Readout, Spoil, Wait
from acqdesign.signal.ssfp import SSFPFID

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
    whole = (period for period in range(1, MAX_PERIOD + 1) if abs(turns * period - round(turns * period)) < 1e-9)
    return next(whole, None)


STEADY = ("transient", "steady", "ideal")
"""Of a train from its start; of every flip in its own steady state; and that with ideal spoiling."""


class SPGR(SSFPFID):
    """RF- and gradient-spoiled pulses: `SSFPFID` with phases `rf_increment · j (j + 1) / 2`, or their steady state.

    Args:
        flips: flip angles `(N,)` [rad]: the pulses of a train, or those of N acquisitions that are each in their
            steady state.
        tr: as the further arguments, those of `SSFPFID`, of which steady states take `te` alone.
        rf_increment: quadratic phase increment [rad].
        state: `transient`, a train from equilibrium or an inversion; `steady`, each flip in its own steady state, exact
            for increments of a whole number of half degrees; or `ideal`, that with all transverse magnetisation
            spoiled: `m0 sin α (1-E1) / (1-E1 cos α) exp(-te/T2*)`.

    Zur, Wood & Neuringer, Magn Reson Med 21:251, 1991; Ganter, Magn Reson Med 55:98, 2006; Ernst & Anderson, Rev Sci
    Instrum 37:93, 1966.
    """

    phases: None = eqx.field(init=False, default=None)
    _: KW_ONLY
    rf_increment: float = eqx.field(static=True, default=RF_INCREMENT)
    state: str = eqx.field(static=True, default="transient")

    def __post_init__(self) -> None:
        if not is_concrete(self.rf_increment):
            raise usage_error("rf_increment", "a traced number", "one that is known before compilation")
        check_number("rf_increment", self.rf_increment)
        check_finite("rf_increment", self.rf_increment)
        degrees = deg_from_rad(float(self.rf_increment))
        half = round(2 * degrees) / 2  # as which a half degree in single precision counts
        near = abs(half - degrees) < 4 * np.finfo(np.float32).eps * abs(degrees)
        self.rf_increment = rad_from_deg(half) if near else float(self.rf_increment)
        check_choice("state", self.state, STEADY)
        of_trains = (self.inversion_time, self.spoiler_moment, self.n_states)
        if self.state != "transient" and any(value is not None for value in of_trains):
            what = f"{self.state!r} with an inversion, diffusion or a number of states"
            raise usage_error("state", what, "none of them", "Leave those out.")
        if self.state == "steady" and _period(self.rf_increment) is None:
            got, remedy = f"{deg_from_rad(self.rf_increment):g}°", "A train takes any: state='transient'."
            raise usage_error("rf_increment", got, "a whole number of half degrees", remedy)
        super().__post_init__()

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)`, complex but for ideal spoiling without `b0`, demodulated with the pulses' phases."""
        if self.state == "transient":
            phases = quadratic_phases(self.readouts(), self.rf_increment)
            return super().played(tissue, values | {"phases": jnp.asarray(phases, values["tr"].dtype)})
        values = self.steady_values(tissue, values)
        found = values["ernst"] if self.state == "ideal" else _steady(values, self.rf_increment)
        return values["m0"] * echo_factor(values["te"], values) * found

    def angles(self) -> Array:
        n = self.readouts()
        return jnp.asarray(quadratic_phases(n, self.rf_increment)) if self.state == "transient" else jnp.zeros(n)

    def repetitions(self) -> Iterable[Iterable[Event]]:
        if self.state == "transient":
            return super().repetitions()
        n = self.readouts()
        tr, te = (jnp.broadcast_to(time, n) for time in (self.tr, 0.5 * self.tr if self.te is None else self.te))
        return [
            [Pulse(flip), Readout(until), Wait(length - until), Spoil()]
            for flip, until, length in zip(self.flips, te, tr, strict=True)
        ]

    def recovers(self) -> bool:
        return self.state == "transient"


@partial(jax.jit, static_argnums=1)
def _steady(values: dict[str, Array], rf_increment: float) -> Array:
    """The steady state of unit M0 right after the pulses; compiled once for equal shapes, outside of `jit` too.

    In the frame of the pulses, order `k` advances by a phase that is constant from pulse to pulse. In the
    steady state, `F_-k` after a pulse is then `σ_k` times `F_k` before it, and `σ_k` follows from `σ_k+1` by
    a fraction that is linear above and below. These fractions repeat with the increment's period, so that
    composing one period and squaring it sums all orders. `rf_increment=0` is gradient spoiling alone (FISP).

    Ganter, Magn Reson Med 55:98, 2006; Sobol & Gauntt, J Magn Reson Imaging 6:384, 1996.
    """
    cos, e1, e2 = (values[name] for name in ("cos", "e1", "e2"))
    sin_square = values["tipped"].real ** 2 + values["tipped"].imag ** 2
    dtype = jnp.result_type(cos, 1j)
    period = _period(rf_increment)
    assert period is not None
    turns = rf_increment * np.arange(period + 1)

    Fraction = tuple[Array, Array, Array]  # σ_k = (p σ_k+1 + q) / (r σ_k+1 + 1)

    def fraction(turn: Array, there_and_back: Array) -> Fraction:
        # Z_k settles to a multiple of F_k + F_-k, which leaves a pulse that mixes only these two.
        z = e1 * turn
        kept = 1.0 - cos * z
        q = 0.5 * (cos - 1.0) - 0.5 * sin_square * z / jnp.where(kept == 0, 1.0, kept)
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
    returned = real + imag**2 / (1.0 + real)
    across = values["ernst"] / (1.0 - returned * values["mirrored"])
    return across * lax.complex(jnp.ones_like(real), -imag / (1.0 + real))

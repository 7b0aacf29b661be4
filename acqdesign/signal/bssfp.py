"""Balanced SSFP: trains from any start, and the steady state at any off-resonance."""

import math
from collections.abc import Callable, Iterable
from dataclasses import KW_ONLY
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_kind, usage_error
from acqdesign.base.types import Array, Inexact, PRNGKey
from acqdesign.optim import held
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import check_lengths, decay, echo_factor, precession_phase, unit_phase
from acqdesign.signal.engine import Echo, Interval, Spins, train, turns_of
from acqdesign.signal.events import Event
from acqdesign.signal.starts import start_flips
from acqdesign.signal.trains import MAX_FLIP, GradientEchoes


class BSSFP(GradientEchoes):
    """Pulses with fully rewound gradients, from equilibrium or from an inversion, or their steady state.

    The receiver follows the pulses' phases; a first pulse on equilibrium gives `m0 sin(flip)` and its decay.
    An α/2 preparation is a first flip of α/2 with a `tr` of half the others. T2' is a Lorentzian spread of
    off-resonance: its isochromats are carried as an extended phase graph over the turn in one `tr`, which is
    exact and costs as much as the square of the pulses.

    Args:
        flips: flip angles `(N,)` [rad]: the pulses of a train, or with `steady` those of N acquisitions that are each
            in their steady state.
        tr: as the further arguments, that of `SSFPFID`; one value for trains of tissues with a T2'.
        te: likewise; None for `tr / 2`.
        phases: likewise; None: they alternate between 0 and π.
        phase_increment: step of the pulses' phase in the steady state, `()` or `(N,)` [rad].
        steady: whether each flip is in its own steady state, without phases or inversion.

    Freeman & Hill, J Magn Reson 4:366, 1971.
    """

    te: Any = None
    _: KW_ONLY
    phase_increment: Any = held(default=math.pi)
    steady: bool = eqx.field(static=True, default=False)

    def __post_init__(self) -> None:
        check_kind("steady", self.steady, bool, "True or False")
        if self.steady and not (self.phases is None and self.inversion_time is None):
            expected, remedy = "no phases or inversion with it", "Give phase_increment, or leave steady out."
            raise usage_error("steady", True, expected, remedy)
        super().__post_init__()

    def values(self, tissue: Tissue | None = None) -> dict[str, Array]:
        values = super().values(tissue)
        check_lengths("phase_increment", values["phase_increment"], self.readouts())
        return values

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)`; that of a train is real without phases, profile and `b0` and for a real `m0`."""
        if self.steady:
            return _steady(self.steady_values(tissue, values))
        if tissue.t2_prime is not None and (values["tr"].ndim or values["te"].ndim):
            raise usage_error("tr, te", "a time for each pulse", "one tr and one te for tissues with a T2'")
        return _train(values | {"z0": self.prepared(values)})

    orders: ClassVar[int] = 0

    def angles(self) -> Array:
        return jnp.asarray(math.pi * (np.arange(self.readouts()) % 2)) if self.phases is None else self.phases

    def repetitions(self) -> Iterable[Iterable[Event]]:
        return [] if self.steady else super().repetitions()

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 400, tr: float = 5e-3, ti: float | None = 20e-3,
        start: str | None = None, rms: float | None = None, upper: float = MAX_FLIP,
    ) -> "BSSFP":  # fmt: skip
        """A train to start learning from, echoes in the middle of TR; arguments as of `SSFPFID.start`."""
        flips = start_flips(start or "sinusoid", echoes, level=rms, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), tr, inversion_time=ti)


@jax.jit
def _train(values: dict[str, Any]) -> Array:
    """Echoes of a train from checked arguments; compiled once for equal shapes, outside of `jit` too."""
    tr, te, n = values["tr"], values["te"], len(values["flips"])
    turns = turns_of(values["phases"]) if "phases" in values else jnp.full(n, -1.0, tr.dtype)
    spins: Spins = {name: values[name] for name in ("t1", "t2", "m0", "b1", "b0", "z0", "place") if name in values}
    play = partial(train, values["flips"], turns=turns, pulse=values.get("pulse"))
    if "t2_prime" not in values:
        return play([Interval(te), Interval(tr - te)], spins, read=1)
    # The spread is the voxel's dephasing, one order a tr; the echo sees every order at its own time.
    if "b0" in spins:
        spins["centre"] = spins.pop("b0")
    spins["t2_prime"] = values["t2_prime"]
    return play([Interval(tr, 1)], spins, read=0, make_echo=_spread(tr, te), lead=n)


def _spread(tr: Array, te: Array) -> Callable[[Spins, int], Echo]:
    """Echoes of a Lorentzian spread: `Σ_k F_k exp(2πi b0 τ_k - |τ_k| / T2')`, `τ_k = te + k tr`."""

    def make_echo(spins: Spins, orders: int) -> Echo:
        k = jnp.arange(orders, dtype=tr.dtype)[:, None]

        def weight(time: Array) -> Array:
            spread = decay(jnp.abs(time), spins["t2_prime"])
            return spread * precession_phase(time, spins["centre"]) if "centre" in spins else spread

        gain = spins["m0"] * decay(te, spins["t2"])
        ahead, behind = gain * weight(te + k * tr), jnp.where(k > 0, gain * weight(te - k * tr), 0.0)
        return lambda state: (ahead * state.plus + behind * state.minus.conj()).sum(axis=0)

    return make_echo


def _steady(values: dict[str, Array]) -> Array:
    """The steady state.

    With θ the turn in one `tr` (off-resonance less phase increment) and E1, E2 the decays over it,
    `M = sin α (1-E1) (1 - E2 exp(-iθ)) / [(1 - E1 cos α)(1 - E2 cos θ) - E2 (E1 - cos α)(E2 - cos θ)]`
    after the pulse. It is summed here as the two geometric series of `Σ_n c_n exp(inθ)`, so that T2', a
    Lorentzian spread of off-resonance, weighs each term by `exp(-|te + n tr| / T2')`.
    """
    e2, tr, te = (values[name] for name in ("e2", "tr", "te"))
    turn = unit_phase(-values["phase_increment"])
    turn = turn * values.get("turn", 1.0)
    if "b0" in values:
        turn = turn * precession_phase(tr, values["b0"])
    ahead, behind, over_tr = jnp.ones((3, 1), te.dtype)
    if "t2_prime" in values:
        ahead, behind, over_tr = (decay(time, values["t2_prime"]) for time in (te, tr - te, tr))

    amplitude, ratio = configurations(values)
    series = (1.0 - e2 * ratio) * ahead / (1.0 - over_tr * ratio * turn)
    series += (ratio - e2) * behind * turn.conj() / (1.0 - over_tr * ratio * turn.conj())
    return values["m0"] * echo_factor(te, values, ("t2", "b0")) * amplitude * series


def configurations(values: dict[str, Array]) -> tuple[Array, Array]:
    """The steady state right after a pulse as orders of its turn θ in one `tr`: the amplitude `a` and the ratio `r`.

    It is `a [(1 - E2 r) Σ_{n>=0} (r exp(iθ))^n + (r - E2) Σ_{n>0} r^(n-1) exp(-inθ)]`.
    """
    mirrored, e2 = values["mirrored"], values["e2"]
    square = (1.0 - e2**2) * (1.0 - (mirrored * e2) ** 2)
    damped = square > 0  # not where T1 and T2 are infinite: without any decay there is no steady state
    root = jnp.sqrt(jnp.where(damped, square, 1.0))
    ratio = jnp.where(damped, e2 * (1.0 + mirrored) / (1.0 + mirrored * e2**2 + root), 0.0)
    return values["ernst"] / root, ratio

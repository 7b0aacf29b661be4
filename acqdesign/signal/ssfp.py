"""Gradient-spoiled SSFP sampled as a free induction decay: FISP, and MR fingerprinting."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Inexact

from acqdesign.base.checks import check_count, check_positive
from acqdesign.base.types import Real
from acqdesign.signal._arguments import (
    check_echo_time,
    check_flips,
    echo_factor,
    in_one_precision,
    inverted,
    unless,
)
from acqdesign.signal.engine import Interval, epg
from acqdesign.signal.sequence import TissueParams, as_real, check_relaxation


def ssfp_fid(
    flips: ArrayLike,
    tr: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    te: ArrayLike = 0.0,
    phases: ArrayLike | None = None,
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
    """Signal of a train of pulses with one order of gradient spoiling after each echo (FISP, MRF).

    The receiver follows the pulses' phases; a first pulse on equilibrium gives `m0 sin(flip) exp(-te/T2*)`.
    The inversion is adiabatic and its transverse magnetisation is spoiled. T2' acts between each pulse and
    its echo, which is exact where `tr` is one value: gradient and off-resonance then refocus together. With
    varied `tr` it is an approximation. One off-resonance, `b0`, is exact for any `tr`.

    Args:
        flips: flip angles `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s].
        t1: longitudinal relaxation time [s]; this and the tissue parameters below broadcast to a batch shape.
        t2: transverse relaxation time [s].
        te: echo times, `()` or `(N,)` [s].
        phases: phases of the pulses `(N,)` [rad], of which only differences matter. Left out, all are equal.
        inversion_time: from the inversion to the first pulse [s]; left out, there is no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        m0: equilibrium magnetisation, real or complex, in the units of the signal.
        b1: transmit field relative to nominal; multiplies every flip.
        b0: off-resonance [Hz]; the transverse magnetisation turns by `exp(2πi b0 t)`.
        t2_prime: reversible transverse decay T2' [s].
        diffusivity: diffusion coefficient [m²/s] along the spoiler; needs `spoiler_moment`.
        spoiler_moment: dephasing by one spoiler, on from echo to next pulse [rad/m].
        n_states: orders kept; left out, all that reach an echo, which is exact.

    Returns:
        Signal `(..., N)`; real where neither `phases` nor `b0` is given and `m0` is real.

    Raises:
        ValueError: for times that are not positive, T2 > 2 T1, TE > TR, or lengths that differ.

    Jiang et al., Magn Reson Med 74:1621, 2015.
    """
    if t2_prime is not None:
        check_positive("t2_prime", t2_prime, allow_inf=True)
    values = in_one_precision(
        flips=flips, tr=tr, te=te, t1=t1, t2=t2, m0=m0, b0=b0, t2_prime=t2_prime,
        inversion_time=inversion_time, inversion_efficiency=inversion_efficiency,
    )  # fmt: skip
    check_relaxation(values["t1"], values["t2"])
    tr, te = values["tr"], values["te"]
    check_echo_time(te, tr, check_flips(values["flips"]))

    z0 = jnp.ones((), tr.dtype)
    if inversion_time is not None:
        z0 = inverted(values["inversion_time"], values["inversion_efficiency"], values["t1"])

    # With one tr, off-resonance only adds to the spoiler's uniform dephasing; the echo alone turns.
    turned = b0 is not None and not tr.ndim
    spread = {"t2_prime": values.get("t2_prime"), "b0": values["b0"] if turned else None}
    if te.ndim:
        spread = {name: None if value is None else value[..., None] for name, value in spread.items()}
    echo = echo_factor(te, **spread)
    signal = epg(
        values["flips"],
        [Interval(te), Interval(tr - te, 1)],
        values["t1"],
        values["t2"],
        read=1,
        phases=phases,
        z0=z0,
        m0=values["m0"] if te.ndim else values["m0"] * echo,
        b1=b1,
        b0=None if turned else values.get("b0"),
        diffusivity=diffusivity,
        order_moment=spoiler_moment,
        n_states=n_states,
    )
    return signal * echo if te.ndim else signal


class SSFPFID(eqx.Module):
    """Gradient-spoiled SSFP with free flips, phases and times, as in MR fingerprinting; called with a tissue.

    The signal is real where `phases` is None and the tissue's `b0` is known to be zero.

    Args:
        flips: flip angles `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s].
        te: echo times, `()` or `(N,)` [s].
        phases: phases of the pulses `(N,)` [rad].
        inversion_time: from the inversion to the first pulse [s]; None for no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
        spoiler_moment: dephasing by one spoiler [rad/m]; diffusion is simulated where it is given.
        n_states: orders kept; None for all that reach an echo, which is exact.
    """

    flips: Real
    tr: Real
    te: Real
    phases: Real | None
    inversion_time: Real | None
    inversion_efficiency: Real
    spoiler_moment: Real | None
    n_states: int | None = eqx.field(static=True)

    def __init__(
        self,
        flips: Any,
        tr: Any,
        te: Any = 0.0,
        *,
        phases: Any = None,
        inversion_time: Any = None,
        inversion_efficiency: Any = 1.0,
        spoiler_moment: Any = None,
        n_states: int | None = None,
    ):
        self.flips = as_real("flips", flips)
        self.tr, self.te = as_real("tr", tr), as_real("te", te)
        check_echo_time(self.te, self.tr, check_flips(self.flips))
        self.phases = None if phases is None else as_real("phases", phases)
        self.inversion_time = None if inversion_time is None else as_real("inversion_time", inversion_time)
        self.inversion_efficiency = as_real("inversion_efficiency", inversion_efficiency)
        self.spoiler_moment = None if spoiler_moment is None else as_real("spoiler_moment", spoiler_moment)
        self.n_states = None if n_states is None else check_count("n_states", n_states)

    def __call__(self, tissue: TissueParams) -> Inexact[Array, "... pulses"]:
        """Signal `(..., N)` of tissues of any batch shape."""
        return ssfp_fid(
            self.flips,
            self.tr,
            tissue.t1,
            tissue.t2,
            te=self.te,
            phases=self.phases,
            inversion_time=self.inversion_time,
            inversion_efficiency=self.inversion_efficiency,
            m0=tissue.m0,
            b1=tissue.b1,
            b0=unless(tissue.b0, 0.0),
            t2_prime=unless(tissue.t2_prime, jnp.inf),
            diffusivity=None if self.spoiler_moment is None else tissue.diffusivity,
            spoiler_moment=self.spoiler_moment,
            n_states=self.n_states,
        )

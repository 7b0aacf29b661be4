"""What flip angles are learned for: Cramér–Rao bounds, as losses `loss(params, key) -> (scalar, terms)`."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec as P

from acqdesign.base.checks import check_choice, check_positive, usage_error
from acqdesign.base.types import Array, Float, Inexact, PRNGKey, PyTree, Real, Scalar
from acqdesign.signal.bssfp import bssfp
from acqdesign.signal.crlb import crlb, ensemble
from acqdesign.signal.fse import fse
from acqdesign.signal.sequence import as_real, check_relaxation
from acqdesign.signal.ssfp import ssfp_fid

SEQUENCES = ("fse", "mrf", "bssfp")
"""Echo trains that a `Schedule` knows."""

TARGETS = {"t2": (1,), "t1": (0,), "t1t2": (0, 1)}
"""What may be bounded, as rows of (T1, T2); the other is taken as known."""

SPLIT = dict.fromkeys(("t1", "t2"), P("tissues"))
"""How an objective's arrays lie on a mesh, for `split_over`."""


class Schedule(eqx.Module):
    """A train of pulses, completed by what is learned of it: a dict of parameters.

    Entries of the parameters: `flips` `(n,)` [rad], or `control` `(c,)` [rad] where there is a `basis`; and if
    learned, `tr` `(n,)` and `ti` `()`, relative to the times given here, so that all entries are of order one.

    Args:
        sequence: `fse`, repeated in its steady state; `mrf`, spoiled with an inversion before it; or `bssfp`,
            balanced with an inversion before it.
        tr: repetition time [s]: of the whole train for `fse`, of each pulse otherwise.
        esp: echo spacing [s], for `fse`.
        te: echo time [s], for `mrf`.
        ti: from the inversion to the first pulse [s], for `mrf` and `bssfp`; None for no inversion.
        excitation: excitation flip [rad], for `fse`.
        basis: `(n, c)` matrix that takes control points to flips, such as `spline_basis`; None for free flips.
    """

    tr: Real
    esp: Real | None
    te: Real
    ti: Real | None
    excitation: Real
    basis: Float[Array, "n c"] | None
    sequence: str = eqx.field(static=True)

    def __init__(
        self,
        sequence: str,
        *,
        tr: Any,
        esp: Any = None,
        te: Any = 0.0,
        ti: Any = None,
        excitation: Any = 0.5 * np.pi,
        basis: Any = None,
    ):
        self.sequence = check_choice("sequence", sequence, SEQUENCES)
        if (esp is None) == (sequence == "fse"):
            raise usage_error("esp", esp, "an echo spacing [s] for fse, and for no other sequence")
        self.tr, self.te, self.excitation = (
            as_real(name, value) for name, value in (("tr", tr), ("te", te), ("excitation", excitation))
        )
        self.esp = None if esp is None else as_real("esp", esp)
        self.ti = None if ti is None else as_real("ti", ti)
        self.basis = None if basis is None else jnp.asarray(basis)

    def flips(self, params: PyTree) -> Float[Array, " n"]:
        """Flip angles [rad]."""
        if self.basis is None:
            return params["flips"]
        control = params["control"]
        return jnp.matmul(self.basis.astype(control.dtype), control, precision="highest")

    def times(self, params: PyTree) -> tuple[Array, Array | None]:
        """Repetition times `()` or `(n,)` and inversion time `()` [s]."""
        tr = self.tr * params["tr"] if "tr" in params else self.tr
        ti = self.ti * params["ti"] if self.ti is not None and "ti" in params else self.ti
        return tr, ti

    def signal(self, params: PyTree, t1: Real, t2: Real, b1: Real) -> Inexact[Array, "... n"]:
        """Echoes in units of M0.

        Args:
            params: what the schedule is completed by.
            t1: longitudinal relaxation time [s]; this and the next two broadcast to a batch shape.
            t2: transverse relaxation time [s].
            b1: transmit field relative to nominal.
        """
        flips, (tr, ti) = self.flips(params), self.times(params)
        if self.esp is not None:
            return fse(flips, self.esp, t1, t2, tr=tr, excitation=self.excitation, b1=b1)
        if self.sequence == "mrf":
            return ssfp_fid(flips, tr, t1, t2, te=self.te, inversion_time=ti, b1=b1)
        return bssfp(flips, tr, t1, t2, inversion_time=ti, b1=b1)


class BoundObjective(eqx.Module):
    """The relative Cramér–Rao bound of relaxation times from a train of echoes, over an ensemble of tissues.

        loss = mean or worst over tissues and B1 of  Σ_θ var(θ) / θ²,    θ in `target`

    for white complex noise of standard deviation M0 in its real and imaginary part; the variance scales with
    the noise's. The complex M0 is unknown and a nuisance, and what is not in `target` is known.

    Args:
        schedule: the train that parameters complete.
        t1: `(tissues,)` [s].
        t2: `(tissues,)` [s].
        b1: `(fields,)` transmit fields relative to nominal, each of which every tissue is seen at.
        target: `t2`, `t1` or `t1t2`.
        over: `mean`, or `worst`: a smooth maximum, no less than the largest.
        names: of the tissues, for the log.
    """

    schedule: Schedule
    t1: Float[Array, " tissues"]
    t2: Float[Array, " tissues"]
    b1: Float[Array, " fields"]
    target: str = eqx.field(static=True)
    over: str = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        schedule: Schedule,
        t1: Any,
        t2: Any,
        *,
        b1: Any = (1.0,),
        target: str = "t2",
        over: str = "mean",
        names: tuple[str, ...] | None = None,
    ):
        self.schedule = schedule
        self.t1, self.t2, self.b1 = (
            jnp.atleast_1d(as_real(name, value)) for name, value in (("t1", t1), ("t2", t2), ("b1", b1))
        )
        if self.t1.ndim != 1 or self.t1.shape != self.t2.shape:
            raise usage_error("t2", self.t2, f"as many values as t1, of shape {self.t1.shape}")
        check_relaxation(self.t1, self.t2)
        check_positive("b1", self.b1)
        self.target = check_choice("target", target, TARGETS)
        self.over = check_choice("over", over, ("mean", "worst"))
        self.names = names or tuple(f"tissue {i + 1}" for i in range(self.t1.size))
        if len(self.names) != self.t1.size:
            raise usage_error("names", self.names, f"a name for each of {self.t1.size} tissues")

    def bounds(self, params: PyTree) -> Float[Array, "fields tissues"]:
        """Relative bound of each tissue at each B1."""
        # One B1 for all stays a scalar: the pulses' sines and cosines are then the same for every tissue.
        b1 = self.b1[0] if self.b1.size == 1 else self.b1[:, None]
        found = relative_bounds(self.schedule, params, self.t1, self.t2, b1, target=self.target)
        return found.reshape(self.b1.size, self.t1.size)

    def __call__(self, params: PyTree, key: PRNGKey) -> tuple[Scalar, dict[str, Scalar]]:
        """The loss, and the mean over B1 of each tissue's bound."""
        found = self.bounds(params)
        loss = ensemble(found.ravel(), self.over)
        terms = dict(zip(self.names, found.mean(axis=0), strict=True)) if len(self.names) > 1 else {}
        return loss, terms


def relative_bounds(
    schedule: Schedule, params: PyTree, t1: Real, t2: Real, b1: Real, *, target: str = "t2"
) -> Float[Array, "..."]:
    """`Σ_θ var(θ) / θ²` for noise of standard deviation M0, by tissue; see `BoundObjective`.

    The derivatives are by the logarithms of T1 and T2, whose bounds are the relative ones.

    Args:
        schedule: the train that parameters complete.
        params: its parameters.
        t1: longitudinal relaxation time [s]; this and the next two broadcast to a batch shape.
        t2: transverse relaxation time [s].
        b1: transmit field relative to nominal.
        target: `t2`, `t1` or `t1t2`.

    Returns:
        One relative bound for each of the batch shape, `(...)` [1].
    """
    rows = TARGETS[check_choice("target", target, TARGETS)]
    t1, t2 = jnp.asarray(t1), jnp.asarray(t2)

    def signal(shift: Array) -> tuple[Array, Array]:
        scale = [jnp.ones((), t1.dtype)] * 2
        for entry, row in enumerate(rows):
            scale[row] = jnp.exp(shift[entry])
        echoes = schedule.signal(params, t1 * scale[0], t2 * scale[1], b1)
        return echoes, echoes

    slopes, echoes = jax.jacfwd(signal, has_aux=True)(jnp.zeros(len(rows), t1.dtype))
    return crlb(slopes, signal=echoes).sum(axis=-1)

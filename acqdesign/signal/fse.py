"""Fast spin echo (CPMG, RARE): echo amplitudes of a train of refocusing pulses by extended phase graphs.

Orders of half a spacing split by parity. At the pulses the excited magnetisation populates odd orders only:
`F+_j, F-_j, Z_j` at order `2j + 1`. One echo spacing is a pulse, relaxation, and the shift

    F+_{j+1} <- F+_j,    F+_0 <- F-_0,    F-_j <- F-_{j+1},

and the echo is `F-_0` half a spacing after the pulse. `N//2 + 1` orders are exact for `N` echoes, and at pulse
`n` only `j <= min(n, N - 1 - n)` can still reach an echo. With the excitation's magnetisation along the axis of
refocusing pulses of one phase everything is real. What recovers towards equilibrium populates even orders: they
never echo, but set the longitudinal magnetisation that a later train starts from.

Off-resonance and T2' accumulate as the dephasing does, and are refocused with it: echoes do not depend on them.

Hennig, J. Magn. Reson. 78 (1988); Weigel, J. Magn. Reson. Imaging 41 (2015).
"""

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Float, Inexact

from acqdesign.base.checks import check_choice, check_count, check_positive, is_concrete, usage_error
from acqdesign.base.types import Array, Real
from acqdesign.signal._arguments import check_flips, check_times, decay, in_one_precision
from acqdesign.signal._fse_steady import spoiled_echoes, steady_echoes, steady_orders
from acqdesign.signal._fse_train import Train, echoes, make_pulses, unit_phase
from acqdesign.signal.engine import Tissue, map_tissues
from acqdesign.signal.sequence import TissueParams, as_real, check_relaxation

SPOILING = ("transverse", "complete")
"""What is lost between trains."""

_TISSUES = 128
"""On a CPU as many tissues go through a train together; of those in which many orders last, fewer."""


def fse(
    flips: ArrayLike,
    esp: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    b1: ArrayLike = 1.0,
    m0: ArrayLike = 1.0,
    excitation: ArrayLike = math.pi / 2,
    excitation_phase: ArrayLike | None = None,
    phases: ArrayLike | None = None,
    t2_prep: ArrayLike | None = None,
    tr: ArrayLike | None = None,
    spoiling: str = "transverse",
    diffusivity: ArrayLike | None = None,
    order_moment: ArrayLike | None = None,
    n_states: int | None = None,
) -> Inexact[Array, "... echoes"]:
    """Echo amplitudes of a train of refocusing pulses.

    Args:
        flips: refocusing flip angles `(N,)` [rad].
        esp: echo spacing [s], a number; the first pulse comes half of it after the excitation.
        t1: longitudinal relaxation time [s]; this and the other tissue parameters broadcast to a batch shape.
        t2: transverse relaxation time [s].
        b1: transmit field relative to nominal; multiplies excitation and refocusing.
        m0: equilibrium magnetisation, real or complex, in the units of the signal.
        excitation: flip angle of the excitation [rad].
        excitation_phase: its phase [rad], π/2 unless given: the refocusing pulses of phase 0 are then about the
            axis along which it leaves the spins (CPMG).
        phases: phases of the refocusing pulses `(N,)` [rad], 0 unless given. The receiver's phase is 0.
        t2_prep: duration of a T2 preparation right before the excitation [s], ideal: it stores `exp(-t2_prep / T2)`
            of the longitudinal magnetisation.
        tr: from preparation to preparation, or excitation to excitation [s]: the signal is that of the steady
            state of repeated trains. Left out, the train starts from equilibrium.
        spoiling: what is lost between trains. `transverse` magnetisation only: all that is stored along z lasts,
            dephased or not, as it does when crushers are the same in every train. `complete`: also what is stored
            dephased, as when motion or changing crushers destroy it; faster, most of all for many tissues, and up
            to 1 % of M0 off where it does last.
        diffusivity: diffusion coefficient [m²/s]; needs `order_moment`.
        order_moment: dephasing by the gradients of half an echo spacing [rad/m].
        n_states: orders of one parity kept; left out, all that reach an echo, which is exact.

    Returns:
        Echoes `(..., N)`; real unless `m0` is complex or a phase is given.

    Raises:
        ValueError: for times that are not positive (T1 and T2 may be infinite), T2 > 2 T1, flips that are not a
            vector, phases of another length, or a train that does not fit into `tr`.
    """
    if (diffusivity is None) != (order_moment is None):
        raise usage_error("diffusivity and order_moment", "one of them", "both or neither")
    check_choice("spoiling", spoiling, SPOILING)
    values = in_one_precision(
        flips=flips, esp=esp, t1=t1, t2=t2, b1=b1, m0=m0, excitation=excitation, excitation_phase=excitation_phase,
        phases=phases, t2_prep=t2_prep, tr=tr, diffusivity=diffusivity, order_moment=order_moment,
    )  # fmt: skip
    n = _check(values)
    lasting = tr is not None and spoiling == "transverse"
    every = steady_orders(n, values["flips"].dtype) if lasting else n // 2 + 1
    orders = every if n_states is None else min(check_count("n_states", n_states), every)
    return _simulate(values, orders, lasting)


@partial(jax.jit, static_argnums=(1, 2))
def _simulate(values: dict[str, Array], orders: int, lasting: bool) -> Array:
    """Echoes `(..., N)` from checked arguments; compiled once for equal shapes, outside of `jit` too."""
    n = len(values["flips"])

    def block(tissue: Tissue) -> Array:
        train = _train(values, tissue)
        if "tr" not in values:
            found = train.prep * train.sin * echoes(train, orders)
        elif lasting:
            found = steady_echoes(train, orders)
        else:
            found = spoiled_echoes(train, orders)
        return jnp.moveaxis(jnp.broadcast_to(found, (n, *train.batch)), 0, -1)

    tissue: Tissue = {name: values[name] for name in ("t1", "t2", "b1", "diffusivity") if name in values}
    bytes_each = 3 * orders * values["flips"].dtype.itemsize
    found = map_tissues(block, tissue, bytes_each, n, at_once=_TISSUES // 8 if lasting else _TISSUES)
    return values["m0"][..., None] * found


def _check(values: dict[str, Array]) -> int:
    """The number of pulses, where all arguments are as they should be."""
    n = check_flips(values["flips"])
    check_relaxation(values["t1"], values["t2"])
    for name in ("esp", "t2_prep", "tr", "excitation", "excitation_phase", "order_moment"):
        if name in values and values[name].ndim:
            raise usage_error(name, values[name], "one number")
    check_positive("esp", values["esp"])
    if "t2_prep" in values:
        check_times("t2_prep", values["t2_prep"], n)
    if "phases" in values and values["phases"].shape != (n,):
        raise usage_error("phases", values["phases"], f"one phase for each of the {n} pulses")
    if "tr" in values:
        check_positive("tr", values["tr"])
        times = [values[name] for name in ("tr", "esp", "t2_prep") if name in values]
        if all(is_concrete(time) for time in times):
            tr, esp, *prep = map(float, times)
            least = sum(prep) + n * esp
            if tr < least * (1 - 1e-6):
                parts = "t2_prep and " if prep else ""
                raise usage_error("tr", f"{tr:g} s", f"at least {parts}the train's {n} x esp = {least:g} s")
    return n


def _train(values: dict[str, Array], tissue: Tissue) -> Train:
    """The train that a block of tissues sees."""
    batch = jnp.broadcast_shapes(*(value.shape for value in tissue.values()))
    esp, b1 = values["esp"], tissue["b1"]
    none = jnp.zeros((), esp.dtype)
    phases = phase = damping = rest_damping = None
    if "phases" in values or "excitation_phase" in values:
        phases = values.get("phases", jnp.zeros_like(values["flips"]))
        phase = unit_phase(values.get("excitation_phase", none + 0.5 * math.pi))
    prep = values.get("t2_prep", none)
    length = (len(values["flips"]) - 0.5) * esp
    if "diffusivity" in tissue:
        rate = tissue["diffusivity"] * values["order_moment"] ** 2
        damping = 0.5 * esp * rate
        rest_damping = (values["tr"] - length) * rate if "tr" in values else None
    excited = values["excitation"] * b1
    return Train(
        batch=batch,
        pulses=make_pulses(values["flips"].reshape(-1, *(1,) * b1.ndim) * b1, phases),
        sin=jnp.sin(excited),
        cos=jnp.cos(excited),
        phase=phase,
        half_e1=decay(0.5 * esp, tissue["t1"]),
        half_e2=decay(0.5 * esp, tissue["t2"]),
        damping=damping,
        prep=decay(prep, tissue["t2"]),
        rest=decay(values["tr"] - prep - length, tissue["t1"]) if "tr" in values else none,
        rest_damping=rest_damping,
    )


class FSE(eqx.Module):
    """A train of refocusing pulses as a pytree of its design variables; see `fse` for their units."""

    flips: Float[Array, " echoes"]
    esp: Real
    excitation: Real
    tr: Real | None
    excitation_phase: Real | None
    phases: Float[Array, " echoes"] | None
    t2_prep: Real | None
    order_moment: Real | None
    spoiling: str = eqx.field(static=True)

    def __init__(
        self,
        flips: Any,
        esp: Any,
        *,
        excitation: Any = math.pi / 2,
        tr: Any = None,
        excitation_phase: Any = None,
        phases: Any = None,
        t2_prep: Any = None,
        order_moment: Any = None,
        spoiling: str = "transverse",
    ):
        def optional(name: str, value: Any) -> Array | None:
            return None if value is None else as_real(name, value)

        self.flips, self.esp = as_real("flips", flips), as_real("esp", esp)
        self.excitation = as_real("excitation", excitation)
        self.tr, self.t2_prep = optional("tr", tr), optional("t2_prep", t2_prep)
        self.excitation_phase = optional("excitation_phase", excitation_phase)
        self.phases, self.order_moment = optional("phases", phases), optional("order_moment", order_moment)
        self.spoiling = check_choice("spoiling", spoiling, SPOILING)

    def __call__(self, tissue: TissueParams) -> Inexact[Array, "... echoes"]:
        """Echoes `(..., N)` of a tissue; diffusion acts where there is an `order_moment`."""
        return fse(
            self.flips,
            self.esp,
            tissue.t1,
            tissue.t2,
            b1=tissue.b1,
            m0=tissue.m0,
            excitation=self.excitation,
            excitation_phase=self.excitation_phase,
            phases=self.phases,
            t2_prep=self.t2_prep,
            tr=self.tr,
            spoiling=self.spoiling,
            diffusivity=None if self.order_moment is None else tissue.diffusivity,
            order_moment=self.order_moment,
        )

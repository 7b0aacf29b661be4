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
from collections.abc import Mapping
from dataclasses import KW_ONLY, InitVar
from functools import partial
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_number, is_concrete, usage_error
from acqdesign.base.types import Array, Inexact, PRNGKey
from acqdesign.base.units import ms_from_s, rad_from_deg
from acqdesign.optim import Limits, held, resolve
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import check_repetition, check_times, decay, unit_phase
from acqdesign.signal._fse import Pulses, Rotations, Train, damped_echoes, echoes, make_pulses, spoiled_echoes
from acqdesign.signal._isochromats import phase_count, steady_echoes
from acqdesign.signal.engine import Spins, map_tissues
from acqdesign.signal.profile import SelectivePulse, products, rotation
from acqdesign.signal.starts import start_flips
from acqdesign.signal.trains import PulseTrain

SPOILING = ("transverse", "complete")
"""What is lost between trains."""

T1_RANGE = 5.0
"""The longest T1 [s] that repeated trains are exact for where tissues are traced, as while learning."""

_TISSUES = 128
"""On a CPU as many tissues go through a train together; of those in which many orders last, fewer."""


class FSE(PulseTrain):
    """A train of refocusing pulses.

    Args:
        flips: refocusing flip angles `(N,)` [rad]; learned where an array.
        esp: echo spacing [s], a number; the first pulse comes half of it after the excitation.
        echoes: in place of `flips`: so many pulses of 180°.
        tr: from preparation to preparation, or excitation to excitation [s]: the signal is that of the steady
            state of repeated trains. None: the train starts from equilibrium.
        te: effective echo time [s], that of the echo which fills the centre of k-space; 80 ms, or the last echo of
            shorter trains, unless given.
        excitation: flip angle of the excitation [rad].
        pulse: the refocusing pulses where they are selective; signals are then summed across the slice.
        excitation_pulse: the excitation likewise.
        excitation_phase: its phase [rad], π/2 unless given: the refocusing pulses of phase 0 are then about the
            axis along which it leaves the spins (CPMG).
        phases: phases of the refocusing pulses `(N,)` [rad], 0 unless given. The receiver's phase is 0.
        t2_prep: duration of a T2 preparation right before the excitation [s], ideal: it stores `exp(-t2_prep / T2)`
            of the longitudinal magnetisation.
        order_moment: dephasing by the gradients of half an echo spacing [rad/m]; diffusion is simulated where it is
            given.
        spoiling: what is lost between trains. `transverse` magnetisation only: all that is stored along z lasts,
            dephased or not, as it does when crushers are the same in every train. `complete`: also what is stored
            dephased, as when motion or changing crushers destroy it; faster, most of all for many tissues. Where it
            does last, that is up to 1 % of M0 off in brain tissue and up to 5 % in fluids.
        n_states: orders of one parity kept. Unless given, as many as reach an echo, which is exact; for repeated
            trains as many as give echoes to 1e-6 of M0, from the tissues' T1 or, where they are traced, for T1 up to
            5 s. Echoes of a steady state that is not resolved so well are NaN.

    Raises:
        UsageError: for times that are not positive, flips that are not a vector, phases of another length, or a train
            that does not fit into `tr`.
    """

    measures: ClassVar[tuple[str, ...]] = ("t2",)

    flips: Any = None
    esp: Any = 10e-3
    _: KW_ONLY
    echoes: InitVar[int | None] = None
    tr: Any = None
    te: float | None = eqx.field(static=True, default=None)
    excitation: Any = math.pi / 2
    excitation_pulse: SelectivePulse | None = held(default=None)
    excitation_phase: Any = None
    phases: Any = held(default=None)
    t2_prep: Any = None
    order_moment: Any = held(default=None)
    spoiling: str = eqx.field(static=True, default="transverse")
    n_states: int | None = eqx.field(static=True, default=None)

    def __post_init__(self, echoes: int | None) -> None:  # type: ignore[override]
        if (self.flips is None) == (echoes is None):
            raise usage_error("flips", f"flips and echoes = {echoes}", "one of the two")
        if echoes is not None:
            self.flips = jnp.full(check_count("echoes", echoes), math.pi)
        check_choice("spoiling", self.spoiling, SPOILING)
        if self.n_states is not None:
            check_count("n_states", self.n_states)
        if self.te is not None:
            check_number("te", self.te, positive=True)
            self.te = float(self.te)
        super().__post_init__()

    def values(self, tissue: Tissue | None = None) -> dict[str, Array]:
        values = super().values(tissue)
        for name in ("esp", "t2_prep", "tr", "excitation", "excitation_phase", "order_moment"):
            if name in values:
                check_number(name, values[name], positive=name in ("esp", "tr"))
        if "t2_prep" in values:
            check_times("t2_prep", values["t2_prep"], 1)
        check_repetition(values, "t2_prep")
        return values

    @property
    def te_echo(self) -> int:
        """The echo, from 0, that defines contrast: that nearest to `te`; echo `n` is at `(n + 1) esp`.

        Raises:
            UsageError: if `te` lies outside the train.
        """
        esp, echoes = float(self.esp), self.readouts()
        te = min(0.080, echoes * esp) if self.te is None else self.te
        echo = round(te / esp) - 1 if math.isfinite(te) else -1
        if not 0 <= echo < echoes:
            span = f"{ms_from_s(esp):g} to {ms_from_s(echoes * esp):g} ms"
            raise usage_error("te", f"{ms_from_s(te):g} ms", f"a time inside the train, {span}")
        return echo

    def contrast(self, tissue: Tissue) -> Array:
        """Ideal spin-echo signal at the effective echo time, `m0 exp(-te/T2)`."""
        return tissue.m0 * jnp.exp(-(self.te_echo + 1) * self.esp / tissue.t2)

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... echoes"]:
        """Echoes `(..., N)`; real unless `m0` is complex, a phase is given, or a pulse is selective."""
        n = self.readouts()
        lasting = self.tr is not None and self.spoiling == "transverse"
        if self.order_moment is None:
            values.pop("diffusivity", None)
        orders = min(self.n_states or n, n // 2 + 1)
        if lasting:
            orders = self.n_states or phase_count(n, _tr_over_t1(self.tr, n * self.esp, tissue.t1)) // 4
        return _simulate(values, orders, lasting)

    @classmethod
    def usual_limits(cls) -> Limits:
        """A root mean square of 60°."""
        return Limits(0.0, math.pi, rms=rad_from_deg(60.0))

    def design(self) -> Mapping[str, Any]:
        this = resolve(self)
        n, esp = this.readouts(), float(this.esp)
        return {
            "tr_s": None if this.tr is None else np.atleast_1d(this.tr),
            "flips_rad": this.flips,
            "phases_rad": np.zeros(n) if this.phases is None else this.phases,
            "te_s": esp * np.arange(1, n + 1),
            "esp_s": esp,
            "excitation_rad": this.excitation,
        }

    def duration(self) -> Any:
        """How long a train and the recovery after it take [s]."""
        this = resolve(self)
        return this.readouts() * this.esp if this.tr is None else this.tr

    @classmethod
    def start(
        cls, tissue: Tissue, key: PRNGKey, *, echoes: int = 32, esp: float = 10e-3, tr: float | None = 1.0,
        te: float | None = None, excitation: float = math.pi / 2,
        start: str | None = None, rms: float | None = None, upper: float = math.pi,
    ) -> "FSE":  # fmt: skip
        """A train to start learning from; see `FSE`.

        Its flips are those of `start_flips`: for the `start` named, `constant` unless given, a root mean square of
        `rms`, `upper` unless given, and at most `upper` [rad]. An `exponential` start is solved for the first tissue.
        """
        train = {"esp": esp, "t1": float(np.ravel(tissue.t1)[0]), "t2": float(np.ravel(tissue.t2)[0])}
        flips = start_flips(start or "constant", echoes, level=rms, upper=upper, key=key, **train)
        return cls(jnp.asarray(flips, tissue.t1.dtype), esp, tr=tr, te=te, excitation=excitation)


@partial(jax.jit, static_argnums=(1, 2))
def _simulate(values: dict[str, Any], orders: int, lasting: bool) -> Array:
    """Echoes `(..., N)` from checked arguments; compiled once for equal shapes, outside of `jit` too."""
    n = len(values["flips"])

    def block(spins: Spins) -> Array:
        train = _train(values, spins)
        if "tr" not in values:
            found = train.prep * echoes(train, orders)
        elif lasting and train.damping is None:
            found = steady_echoes(train, 4 * orders)
        elif lasting:
            found = damped_echoes(train, orders)
        else:
            found = spoiled_echoes(train, orders)
        return jnp.moveaxis(jnp.broadcast_to(found, (n, *train.batch)), 0, -1)

    spins: Spins = {name: values[name] for name in ("t1", "t2", "b1", "diffusivity", "place") if name in values}
    bytes_each = 3 * orders * values["flips"].dtype.itemsize
    found = map_tissues(block, spins, bytes_each, n, at_once=_TISSUES // 8 if lasting else _TISSUES)
    return values["m0"][..., None] * found


def _tr_over_t1(tr: Any, length: Any, t1: Any) -> float:
    """The least that TR over T1 can be, from what is known before the program runs and `T1_RANGE`."""
    least = next((float(time) for time in (tr, length) if is_concrete(time)), 0.0)
    return least / (float(np.asarray(t1).max(initial=0.1)) if is_concrete(t1) else T1_RANGE)


def _train(values: dict[str, Any], spins: Spins) -> Train:
    """The train that a block of tissues sees."""
    batch = jnp.broadcast_shapes(*(value.shape for value in spins.values()))
    esp, b1, place = values["esp"], spins["b1"], spins.get("place")
    none = jnp.zeros((), esp.dtype)
    damping = rest_damping = None
    flips = values["flips"].reshape(-1, *(1,) * b1.ndim) * b1
    excited = values["excitation"] * b1
    if place is None and "phases" not in values and "excitation_phase" not in values:
        pulses: Pulses | Rotations = make_pulses(flips)
        tipped, cos = jnp.sin(excited), jnp.cos(excited)
    else:
        phases = unit_phase(values.get("phases", jnp.zeros_like(values["flips"])))
        a, b = rotation(values.get("pulse"), flips, place)
        pulses = Rotations(*products(a, b * phases.reshape(-1, *(1,) * b1.ndim)))
        a, b = rotation(values.get("excitation_pulse"), excited, place)
        # Pulses of phase 0 are about x: `b` of phase -90°.
        by_phase = unit_phase(values.get("excitation_phase", none + 0.5 * math.pi) - 0.5 * math.pi)
        tipped, cos = 2 * a * b * by_phase, products(a, b)[-1]
    prep = values.get("t2_prep", none)
    length = (len(values["flips"]) - 0.5) * esp
    if "diffusivity" in spins:
        rate = spins["diffusivity"] * values["order_moment"] ** 2
        damping = 0.5 * esp * rate
        rest_damping = (values["tr"] - length) * rate if "tr" in values else None
    return Train(
        batch=batch,
        pulses=pulses,
        tipped=tipped,
        cos=cos,
        half_e1=decay(0.5 * esp, spins["t1"]),
        half_e2=decay(0.5 * esp, spins["t2"]),
        damping=damping,
        prep=decay(prep, spins["t2"]),
        rest=decay(values["tr"] - prep - length, spins["t1"]) if "tr" in values else none,
        rest_damping=rest_damping,
    )

"""What the built-in sequences share: pulses whose flips are learned, and trains of gradient echoes."""

import dataclasses
import math
from collections.abc import Iterable, Mapping
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_angles, check_number, usage_error
from acqdesign.base.types import Array, Inexact
from acqdesign.base.units import rad_from_deg
from acqdesign.optim import Constraint, Limits, held, resolve
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import (  # fmt: skip
    check_echo_time,
    check_flips,
    check_phases,
    decay,
    in_one_precision,
    take_numbers,
)
from acqdesign.signal.events import Event, Invert, Pulse, Readout, Wait
from acqdesign.signal.profile import SelectivePulse, across_slice, rotation
from acqdesign.signal.sequence import Sequence

MAX_FLIP = rad_from_deg(90.0)
"""Largest flip of starts of gradient echoes [rad]."""

PULSES = ("pulse", "excitation_pulse")
"""Fields that hold selective pulses."""


class PulseTrain(Sequence):
    """Pulses of given flips `(N,)` [rad], a readout after each; base of the built-in sequences.

    Where a `pulse` is given, all of them are selective and their signals are summed across the slice.

    Fields that are not static are design variables: given as anything numeric, held as real arrays, which are learned,
    or as Python numbers, which are not.
    """

    flips: Any
    _: KW_ONLY
    pulse: SelectivePulse | None = held(default=None)

    def __post_init__(self) -> None:
        take_numbers(self, self._variables())
        self.values()

    def _variables(self) -> list[str]:
        names = [field.name for field in dataclasses.fields(self) if not field.metadata.get("static")]
        return [name for name in names if name not in PULSES]

    def signal(self, tissue: Tissue) -> Inexact[Array, "... readouts"]:
        """Signal `(..., N)`, summed across the slice where pulses are selective."""

        def played(tissue: Tissue, more: dict[str, Any]) -> Array:
            return self.played(tissue, self.values(tissue) | more)

        return across_slice(played, tissue, {name: getattr(self, name, None) for name in PULSES})

    def played(self, tissue: Tissue, values: dict[str, Any]) -> Inexact[Array, "... readouts"]:
        """Signal `(..., N)` from checked `values`, with selective pulses and positions as `across_slice` gives them."""
        raise NotImplementedError

    def values(self, tissue: Tissue | None = None) -> dict[str, Array]:
        """Checked numbers of the sequence, and what acts of a tissue, in one precision; what is None is left out."""
        if self.flips is None:
            raise usage_error("flips", None, "a vector of at least one flip angle [rad]")
        for field in dataclasses.fields(self):
            if field.default is not None and getattr(self, field.name, None) is None:
                raise usage_error(field.name, None, "a number, or one for each pulse")
        this, effects = resolve(self), {} if tissue is None else tissue.effects()
        values = in_one_precision(**{name: getattr(this, name) for name in self._variables()}, **effects)
        n = check_flips(values["flips"])
        if "excitation" in values:
            check_angles("excitation", values["excitation"])
        if "phases" in values:
            check_phases(values["phases"], n)
        return values

    def readouts(self) -> int:
        return resolve(self).flips.shape[0]

    def limits(self) -> tuple[Constraint, ...]:
        """Flips between 0 and 180°."""
        return (Limits(0.0, math.pi, where="flips"),)


def by_pulse(values: dict[str, Any], flips: Array) -> dict[str, Array]:
    """What pulses do where so much of a flip is seen.

    `cos` of Mz stays and `tipped` of it becomes transverse; selective pulses besides `turn` the spins about z.
    """
    if "place" not in values:
        return {"cos": jnp.cos(flips), "tipped": jnp.sin(flips)}
    a, b = rotation(values["pulse"], flips, values["place"])
    kept, lost = (part.real**2 + part.imag**2 for part in (a, b))
    return {
        "cos": kept - lost,
        "tipped": 2 * a * b,
        "turn": jnp.where(kept > 0, a**2 / jnp.where(kept > 0, kept, 1), 1),
    }


class GradientEchoes(PulseTrain):
    """Pulses, each followed by a gradient echo, from equilibrium or an inversion; arguments as of `SSFPFID`."""

    tr: Any
    te: Any = 0.0
    _: KW_ONLY
    phases: Any = held(default=None)
    inversion_time: Any = None
    inversion_efficiency: Any = held(default=1.0)

    def values(self, tissue: Tissue | None = None) -> dict[str, Array]:
        values = super().values(tissue)
        values.setdefault("te", 0.5 * values["tr"])
        check_echo_time(values["te"], values["tr"], self.readouts())
        if "inversion_time" in values:
            check_number("inversion_time", values["inversion_time"], positive=True)
        return values

    def prepared(self, values: dict[str, Array]) -> Array:
        """Longitudinal magnetisation before the first pulse, relative to M0."""
        if "inversion_time" not in values:
            return jnp.ones((), values["tr"].dtype)
        return 1.0 - (1.0 + values["inversion_efficiency"]) * decay(values["inversion_time"], values["t1"])

    def steady_values(self, tissue: Tissue, values: dict[str, Any]) -> dict[str, Any]:
        """`values` with the pulses as a last axis of the tissues' batch.

        Adds `e1` and `e2`, the decay over `tr`; what `by_pulse` gives; `ernst`, the signal of ideal spoiling right
        after a pulse, `sin α (1-E1) / (1-E1 cos α)`; and `mirrored`, its `(cos α - E1)` for the numerator.
        """
        values = values | {name: values[name][..., None] for name in (*tissue.effects(), "place") if name in values}
        values |= by_pulse(values, values["b1"] * values["flips"])
        e1, e2 = (decay(values["tr"], values[name]) for name in ("t1", "t2"))
        recovered = 1.0 - values["cos"] * e1
        recovered = jnp.where(recovered == 0, 1.0, recovered)
        derived = {"ernst": values["tipped"] * (1.0 - e1) / recovered, "mirrored": (values["cos"] - e1) / recovered}
        return values | derived | {"e1": e1, "e2": e2}

    orders: ClassVar[int] = 1
    """Dephasing from each echo to the next pulse."""

    def angles(self) -> Array:
        """Phases of the pulses, and of the receiver after each, `(N,)` [rad]."""
        return jnp.zeros(self.readouts()) if self.phases is None else self.phases

    def events(self) -> Iterable[Event]:
        this, n = resolve(self), self.readouts()
        tr, te = jnp.broadcast_to(this.tr, n), jnp.broadcast_to(0.5 * this.tr if this.te is None else this.te, n)
        if this.inversion_time is not None:
            yield Invert(this.inversion_efficiency)
            yield Wait(this.inversion_time)
        for flip, phase, until, length in zip(this.flips, this.angles(), te, tr, strict=True):
            yield Pulse(flip, phase)
            yield Readout(until, phase, dephased=until)
            yield Wait(length - until, orders=self.orders)

    def duration(self) -> Any:
        """How long all pulses and the inversion before them take [s]."""
        this = resolve(self)
        before = 0.0 if this.inversion_time is None else this.inversion_time
        return jnp.sum(jnp.broadcast_to(this.tr, this.flips.shape)) + before

    @classmethod
    def usual_limits(cls) -> Limits:
        """At most 90°, and steps of at most 1°."""
        return Limits(0.0, MAX_FLIP, step=rad_from_deg(1.0))

    def design(self) -> Mapping[str, Any]:
        this, n = resolve(self), self.readouts()
        tr = np.broadcast_to(np.asarray(this.tr, float), (n,))
        te = 0.5 * tr if this.te is None else np.broadcast_to(np.asarray(this.te, float), (n,))
        times = {"ti_s": this.inversion_time, "tr_s": tr, "te_s": te}
        return {"flips_rad": this.flips, "phases_rad": this.angles(), **times, **this.played_as()}

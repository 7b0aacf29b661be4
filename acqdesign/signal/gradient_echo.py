"""What trains of gradient echoes share: their design variables, preparation by an inversion, and starts."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import as_real, check_count
from acqdesign.base.types import Array, PRNGKey, Real
from acqdesign.base.units import rad_from_deg
from acqdesign.optim import Constraint, Limits, held, resolve
from acqdesign.optim.parts import is_parametrised
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import check_echo_time, check_flips, in_one_precision, inverted
from acqdesign.signal.sequence import Sequence, number
from acqdesign.signal.starts import start_flips


class GradientEchoes(Sequence):
    """Pulses, each followed by a gradient echo, from equilibrium or from an adiabatic inversion; base of several.

    Args:
        flips: flip angles `(N,)` [rad].
        tr: repetition times, `()` or `(N,)` [s].
        te: echo times, `()` or `(N,)` [s].
        phases: phases of the pulses `(N,)` [rad], of which only differences matter.
        inversion_time: from the inversion to the first pulse [s]; None for no inversion.
        inversion_efficiency: `-Mz` after over `Mz` before the inversion [1].
    """

    flips: Real
    tr: Real | float
    te: Real | float | None
    phases: Real | None = held()
    inversion_time: Real | float | None
    inversion_efficiency: Real | float = held()

    def __init__(
        self,
        flips: Any,
        tr: Any,
        te: Any = 0.0,
        *,
        phases: Any = None,
        inversion_time: Any = None,
        inversion_efficiency: Any = 1.0,
    ):
        def kept(name: str, value: Any) -> Any:
            return value if value is None or is_parametrised(value) else number(name, value)

        self.flips = flips if is_parametrised(flips) else as_real("flips", flips)
        self.tr, self.te = kept("tr", tr), kept("te", te)
        self.phases = None if phases is None else as_real("phases", phases)
        self.inversion_time = kept("inversion_time", inversion_time)
        self.inversion_efficiency = number("inversion_efficiency", inversion_efficiency)
        self.values()

    def values(self, tissue: Tissue | None = None) -> dict[str, Array]:
        """Checked numbers of the sequence, and of a tissue, in one precision; `te` is that of every echo."""
        this = resolve(self)
        given = {name: getattr(this, name) for name in ("flips", "tr", "te", "phases", "inversion_time")}
        effects = {} if tissue is None else tissue.effects()
        efficiency = this.inversion_efficiency
        values = in_one_precision(**given, inversion_efficiency=efficiency, **effects)
        values.setdefault("te", 0.5 * values["tr"])
        check_echo_time(values["te"], values["tr"], check_flips(values["flips"]))
        return values

    def prepared(self, values: dict[str, Array]) -> Array:
        """Longitudinal magnetisation before the first pulse, relative to M0."""
        if "inversion_time" not in values:
            return jnp.ones((), values["tr"].dtype)
        return inverted(values["inversion_time"], values["inversion_efficiency"], values["t1"])

    def readouts(self) -> int:
        """The number of pulses."""
        return resolve(self).flips.shape[0]

    def duration(self) -> float:
        """How long all pulses and the inversion before them take [s]."""
        this = resolve(self)
        return float(np.sum(np.broadcast_to(this.tr, (self.readouts(),)))) + float(this.inversion_time or 0.0)

    def limits(self) -> tuple[Constraint, ...]:
        """Flips between 0 and 180°."""
        return (Limits(0.0, math.pi, where="flips"),)

    @classmethod
    def usual_limits(cls) -> Limits:
        """At most 90°, and steps of at most 1°."""
        return Limits(0.0, MAX_FLIP, step=rad_from_deg(1.0))

    def design(self) -> Mapping[str, Any]:
        """Entries of `design.npz`."""
        this, n = resolve(self), self.readouts()
        spacing = np.broadcast_to(np.asarray(this.tr, float), (n,))
        te = 0.5 * spacing if this.te is None else np.broadcast_to(np.asarray(this.te, float), (n,))
        phases = np.zeros(n) if this.phases is None else this.phases
        return {
            "flips_rad": this.flips, "phases_rad": phases, "ti_s": this.inversion_time, "tr_s": spacing, "te_s": te,
        }  # fmt: skip

    @classmethod
    def start_of(
        cls, tissue: Tissue, key: PRNGKey, pulses: int, start: str | None, upper: float, rms: float | None, **times: Any
    ) -> Any:
        """A sequence of the flips that `start_flips` gives, `sinusoid` unless asked otherwise."""
        check_count("echoes", pulses)
        level = upper if rms is None else min(rms, upper)
        flips = start_flips(start or "sinusoid", pulses, level=level, upper=upper, key=key)
        return cls(jnp.asarray(flips, tissue.t1.dtype), **times)


MAX_FLIP = rad_from_deg(90.0)
"""Largest flip of starts [rad]."""

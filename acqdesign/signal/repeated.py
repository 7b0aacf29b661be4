"""Sequences as the events of one repetition, in the steady state: what prepared sequences and single echoes share."""

import dataclasses
from collections.abc import Iterable
from dataclasses import KW_ONLY
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_angles, check_finite, is_concrete, usage_error
from acqdesign.base.types import Array, Inexact
from acqdesign.optim import Constraint, Limits, resolve
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import take_numbers
from acqdesign.signal.events import Event, Pulse, Readout, Spoil, play
from acqdesign.signal.sequence import Sequence
from acqdesign.signal.waits import lasting


class Repeated(Sequence):
    """Acquisitions, each in the steady state of its own repetitions; subclass it with `events`.

    `events` are those of one repetition of one acquisition. Fields named in `each` are numbers in it; outside they are
    a number for all acquisitions or an array `(N,)` of one for each. Fields named in `rows` are arrays along one
    repetition. All others are numbers. Angles are named in `angles`; what else is not static is a time or an amount,
    and not negative.

    From one repetition to the next longitudinal magnetisation alone lasts; everything else is spoiled. Where `tr` is
    None it has recovered completely. Learned times keep all waits positive.

    Args:
        flips: flip angles [rad], of acquisitions or of pulses.
        tr: from one repetition to the next [s], or None.
    """

    each: ClassVar[tuple[str, ...]] = ()
    rows: ClassVar[tuple[str, ...]] = ()
    angles: ClassVar[tuple[str, ...]] = ("flips", "phases", "refocusing", "excitation")

    flips: Any
    _: KW_ONLY
    tr: Any = None

    def __post_init__(self) -> None:
        take_numbers(self, self._variables())
        self._check()

    def _variables(self) -> list[str]:
        fields = [field for field in dataclasses.fields(self) if not field.metadata.get("static")]
        missing = [field.name for field in fields if field.default is not None and getattr(self, field.name) is None]
        if missing:
            raise usage_error(missing[0], None, "a number, or an array of them")
        return [field.name for field in fields]

    def _check(self) -> None:
        this, sizes = resolve(self), {}
        for name in self._variables():
            value, several = getattr(this, name), name in (*self.each, *self.rows)
            if value is None:
                continue
            if np.ndim(value) > several or 0 in np.shape(value) or (name in self.rows and not np.ndim(value)):
                of_rows = "a vector" if name in self.rows else "one number"
                expected = "a number, or one for each acquisition" if name in self.each else of_rows
                raise usage_error(name, value, expected)
            (check_angles if name in self.angles and name != "phases" else check_finite)(name, value)
            if name not in self.angles and is_concrete(value) and (np.asarray(value) < 0).any():
                raise usage_error(name, repr(float(np.min(value))), "at least 0")
            if name in self.each and np.ndim(value):
                sizes[name] = len(value)
        if len(set(sizes.values())) > 1:
            name = list(sizes)[-1]
            raise usage_error(name, getattr(this, name), f"one number, or as many as {next(iter(sizes))} has")
        shortest = [d.min() for d in self._durations() if is_concrete(d)]
        if shortest and min(shortest) < -1e-9:
            name = next(name for name in ("tr", *self.each, *self.rows) if getattr(this, name, None) is not None)
            expected = f"times that leave {-float(min(shortest)):.4g} s more for what is played between them"
            raise usage_error(name, "a wait of less than nothing", expected)

    def _durations(self) -> list[Any]:
        """How long each event of a repetition lasts, `()` or one for each acquisition [s]."""
        return lasting(resolve(self).events())

    def acquisitions(self) -> int:
        """The number of acquisitions."""
        return max([1, *(np.size(getattr(resolve(self), name)) for name in self.each)])

    def readouts(self) -> int:
        return self.acquisitions() * sum(isinstance(event, Readout) for event in resolve(self).events())

    def duration(self) -> Any:
        """How long one repetition of every acquisition takes [s]; traced where its times are."""
        durations, count = self._durations(), self.acquisitions()
        return sum(count * time if not time.ndim else time.sum() for time in durations)

    def signal(self, tissue: Tissue) -> Inexact[Array, "... readouts"]:
        """The signal `(..., readouts)`, those of one acquisition after those of another."""
        this, values = resolve(self), self._of_each()

        def one(values: dict[str, Array]) -> Array:
            single = this._with(values)
            moment = getattr(single, "order_moment", None)
            return play(list(single.events()), tissue, order_moment=moment, steady=this.tr is not None)

        if not values:
            return one(values)
        found = jax.vmap(one)(values)
        return jnp.moveaxis(found, 0, -2).reshape(*tissue.shape, -1)

    def repetitions(self) -> Iterable[Iterable[Event]]:
        # Another unit of dephasing than an export's, as of diffusion, is not played.
        if getattr(self, "order_moment", None) is not None:
            return []
        return [self.acquisition(n).events() for n in range(self.acquisitions())]

    def recovers(self) -> bool:
        return self.tr is None

    def acquisition(self, number: int) -> "Repeated":
        """One acquisition by its number: the sequence with the values that its events have there."""
        return resolve(self)._with({name: value[number] for name, value in self._of_each().items()})

    def _of_each(self) -> dict[str, Array]:
        """The values of every acquisition, `(N,)` each, by name."""
        this, size = resolve(self), (self.acquisitions(),)
        given = {name: getattr(this, name) for name in self.each if getattr(this, name) is not None}
        return {name: jnp.broadcast_to(jnp.asarray(value), size) for name, value in given.items()}

    def _with(self, values: dict[str, Array]) -> "Repeated":
        if not values:
            return self
        return eqx.tree_at(lambda s: [getattr(s, name) for name in values], self, [*values.values()])

    def limits(self) -> tuple[Constraint, ...]:
        """Flips between 0 and 180°, and waits that last."""
        flips = (Limits(0.0, np.pi, where="flips"),) if np.ndim(resolve(self).flips) else ()
        return *flips, *super().limits()


def gradient_echo(flip: Any, te: Any) -> Iterable[Event]:
    """A pulse, its echo, and ideal spoiling."""
    yield Pulse(flip)
    yield Readout(te, dephased=te)
    yield Spoil()


def as_many(name: str, values: Any, count: int) -> Any:
    """`values` if there are so many."""
    if len(values) != count:
        raise usage_error(name, values, f"{count} numbers")
    return values

"""Waits of sequences of events: how long events last, and learned times that leave no wait negative."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import is_concrete, usage_error
from acqdesign.base.trees import leaf_names, with_node
from acqdesign.base.types import Array
from acqdesign.optim import Constraint, resolve
from acqdesign.signal.events import Event

SHORTEST = 1e-6
"""Of waits made of learned times [s]."""


def lasting(events: Iterable[Event]) -> list[Any]:
    """How long each event that takes time lasts [s]."""
    times = (getattr(event, "duration", getattr(event, "te", None)) for event in events)
    return [jnp.asarray(time) if not is_concrete(time) else np.asarray(time) for time in times if time is not None]


def waits(sequence: Any) -> tuple[Constraint, ...]:
    """The constraint that learned times of a sequence of events, of which waits are sums, leave no wait negative."""
    learned = leaf_names(eqx.filter(sequence, sequence.learned()))
    angles = getattr(sequence, "angles", ("flips", "phases"))  # which no wait is made of
    arrays = {name: value for name, value in learned.items() if "." not in name and name not in angles}

    def durations(arrays: dict[str, Array]) -> Array:
        moved = sequence
        for name, value in arrays.items():
            moved = with_node(moved, name, value)
        return jnp.concatenate([jnp.ravel(time) for time in lasting(resolve(moved).events())])

    if not arrays:
        return ()
    slopes, at = jax.jacfwd(durations)(arrays), np.asarray(durations(arrays))
    arrays = {name: value for name, value in arrays.items() if np.any(slopes[name])}
    if not arrays:
        return ()
    rows = np.concatenate([np.asarray(slopes[name]).reshape(len(at), -1) for name in arrays], axis=1)
    rest = at - rows @ np.concatenate([np.ravel(value) for value in arrays.values()])
    kept = np.unique(np.column_stack([rows, SHORTEST - rest])[np.abs(rows).max(axis=1) > 0], axis=0)
    return (Waits(tuple(arrays), kept[:, :-1], kept[:, -1]),)


@dataclasses.dataclass(frozen=True, eq=False)
class Waits(Constraint):
    """Learned times whose sums, the waits of a sequence, are not negative: `rows @ times >= least`.

    The nearest such times by Hildreth's algorithm: from one half space to the next, each giving back what it moved.

    Args:
        where: names of the arrays.
        rows: `(waits, times)`, of the arrays one after another [1].
        least: `(waits,)` [s].
    """

    where: tuple[str, ...]
    rows: np.ndarray
    least: np.ndarray

    def check(self, *values: Array) -> None:
        nearest = np.concatenate([np.ravel(x) for x in np.atleast_1d(self._projected(values))])
        if (self.rows @ nearest < self.least - SHORTEST / 2).any():
            raise usage_error(" and ".join(self.where), "times that no change makes fit", "a longer tr")

    def project(self, *values: Array) -> Any:
        found, parts = self._projected(values), []
        for value in values:
            parts.append(found[: value.size].reshape(value.shape))
            found = found[value.size :]
        return tuple(parts) if len(parts) > 1 else parts[0]

    def _projected(self, values: tuple[Array, ...]) -> Array:
        x = jnp.concatenate([jnp.ravel(value) for value in values])
        rows, least = jnp.asarray(self.rows, x.dtype), jnp.asarray(self.least, x.dtype)

        def onto(carry: Any, wait: Any) -> Any:
            x, (row, least, moved) = carry, wait
            step = jnp.maximum((least - row @ x) / (row @ row), -moved)
            return x + step * row, moved + step

        def sweep(carry: Any) -> Any:
            x, moved, _, count = carry
            new, after = jax.lax.scan(onto, x, (rows, least, moved))
            return new, after, jnp.max(jnp.abs(new - x)), count + 1

        start = (x, jnp.zeros_like(least), jnp.asarray(jnp.inf, x.dtype), 0)
        going = lambda carry: (carry[2] > 1e-9) & (carry[3] < 1000)  # noqa: E731
        return jax.lax.while_loop(going, sweep, start)[0]

"""The recursion behind `fse`: refocusing pulses on half-spacing orders of one parity, tissues side by side.

State: `plus[j] = F_k`, `minus[j] = conj(F_-k)` and `w[j] = -2i Z_k`, arrays `(orders, *tissues)`, at the odd orders
`k = 2j + 1` or the even ones `k = 2j`. In the frame of a pulse `plus + minus` stays and `plus - minus` turns into
`w`, so all of it is real (or, at even orders, imaginary) while every pulse has the same phase.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from acqdesign.base.types import Array

SEGMENTS = 3
"""Scans of different width that a train is cut into; more would save little and compile longer."""

ODD, EVEN = 1, 0


class State(NamedTuple):
    """Orders of one parity, each `(orders, *tissues)`."""

    plus: Array
    minus: Array
    w: Array


class Pulses(NamedTuple):
    """Refocusing pulses, each `(N, *tissues)`; `phase` is `exp(iφ)`, or None where all pulses have phase zero."""

    angle: Array
    cos: Array
    sin: Array
    phase: Array | None


class Decay(NamedTuple):
    """Factors of a state's entries from one pulse to the next, `(*tissues,)` or `(orders, *tissues)`."""

    half_plus: Array
    half_minus: Array
    w: Array


class Train(NamedTuple):
    """One train, for tissues of the shape `batch`, to which its arrays broadcast.

    Args:
        batch: shape of the tissues.
        pulses: the refocusing pulses.
        sin: of the excitation's angle.
        cos: likewise.
        phase: the excitation's, `exp(iφ)`; not used where pulses have none.
        half_e1: longitudinal decay over half an echo spacing.
        half_e2: transverse decay likewise.
        damping: `D q² esp / 2` for the dephasing `q` of half an echo spacing; None without diffusion.
        prep: what a preparation before the excitation leaves of the longitudinal magnetisation.
        rest: longitudinal decay from the last pulse to the next train's preparation.
        rest_damping: `D q²` times that duration.
    """

    batch: tuple[int, ...]
    pulses: Pulses
    sin: Array
    cos: Array
    phase: Array | None
    half_e1: Array
    half_e2: Array
    damping: Array | None
    prep: Array
    rest: Array
    rest_damping: Array | None

    @property
    def dtype(self) -> Any:
        """Of states: real unless pulses have phases."""
        return self.pulses.angle.dtype if self.pulses.phase is None else self.pulses.phase.dtype

    def none(self, orders: int) -> Array:
        """Zeros `(orders, *batch)`."""
        return jnp.zeros((orders, *self.batch), self.dtype)

    def decay(self, orders: int, parity: int) -> Decay:
        """Relaxation, and diffusion between two pulses: F goes by two orders, up or down (Weigel 2010)."""
        half_e2, e1 = 0.5 * self.half_e2**2, self.half_e1**2
        if self.damping is None:
            return Decay(half_e2, half_e2, e1)
        k = self.order(orders, parity)
        plus, minus = (half_e2 * jnp.exp(-self.damping * (2 * k * (k + s) + 8 / 3)) for s in (2, -2))
        return Decay(plus, minus, e1 * jnp.exp(-self.damping * 2 * k**2))

    def order(self, orders: int, parity: int) -> Array:
        """`k` of each row, shaped to go with states."""
        k = 2.0 * jnp.arange(orders, dtype=self.pulses.angle.dtype) + parity
        return k.reshape(-1, *(1,) * len(self.batch))

    @property
    def to_echo(self) -> Array:
        """Decay of F from order 0 to 1 in half a spacing, and back again."""
        return self.half_e2 if self.damping is None else self.half_e2 * jnp.exp(-self.damping / 3)


def make_pulses(angles: Array, phases: Array | None) -> Pulses:
    """Pulses of angles `(N, *tissues)` and phases `(N,)`, with sines and cosines taken once."""
    phase = None if phases is None else unit_phase(phases).reshape((-1,) + (1,) * (angles.ndim - 1))
    return Pulses(angles, jnp.cos(angles), jnp.sin(angles), phase)


def unit_phase(angle: Array) -> Array:
    """`exp(i angle)`."""
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


@jax.custom_jvp
def turn(angle: Array, cos: Array, sin: Array, q: Array, w: Array) -> tuple[Array, Array]:
    """Rotates `(q, w)` by `angle`, of which `cos` and `sin` are given and known to depend on it."""
    return cos * q + sin * w, cos * w - sin * q


@turn.defjvp
def _turn_jvp(primals: tuple, tangents: tuple) -> tuple:
    # One product with the angle's tangent instead of two by cosine and sine: one sum over orders in reverse mode.
    # Where JAX drops this rule, having transposed it, what follows differentiates by cosine and sine instead.
    angle, cos, sin, q, w = primals
    by_angle, _, _, by_q, by_w = tangents
    q, w = turn(angle, cos, sin, q, w)
    turned_q, turned_w = turn(angle, cos, sin, by_q, by_w)
    return (q, w), (turned_q + by_angle * w, turned_w - by_angle * q)


def refocus(
    state: State, pulse: Pulses, decay: Decay, wrap: Callable[[Array], Array], *, cut: bool = False
) -> tuple[State, Array, Array]:
    """A pulse, relaxation and the dephasing of one echo spacing.

    Args:
        state: before the pulse; its last row must not matter.
        pulse: one pulse.
        decay: what follows it, for at least as many rows.
        wrap: the lowest `plus` after the shift, from `minus` before it.
        cut: whether orders that would still matter are lost off the last row.

    Returns:
        The state before the next pulse; and of right after the pulse, twice `F_-k` and `w`, both of the lowest
        order.
    """
    plus, minus, w = state
    half_plus, half_minus, keep = (x[: len(w)] if x.ndim == w.ndim else x for x in decay)
    if pulse.phase is not None:
        plus, minus = pulse.phase.conj() * plus, pulse.phase * minus
    q, w = turn(pulse.angle, pulse.cos, pulse.sin, plus - minus, w)
    p = plus + minus
    echo, lowest = (p[0] - q[0]).conj(), w[0]
    plus, minus, w = half_plus * (p + q), half_minus * (p - q), keep * w
    if pulse.phase is not None:
        plus, minus, echo = pulse.phase * plus, pulse.phase.conj() * minus, pulse.phase * echo
    # Each result ends in writing a row: on the CPU XLA then keeps two pulses in a row apart, and need not copy
    # the state between them. It writes a zero where nothing matters or a zero stands already.
    last, none = len(w) - 1, jnp.zeros_like(p[0])
    raised = set_row(shift(plus, 1), wrap(minus), 0)
    if cut:
        raised = set_row(raised, none, last)
    return State(raised, set_row(shift(minus, -1), none, last), set_row(w, none, last)), echo, lowest


def wrap_odd(minus: Array) -> Array:
    """`F_1 <- F_-1`."""
    return minus[0].conj()


def set_row(rows: Array, row: Array, index: int) -> Array:
    """`rows` with one row replaced."""
    return lax.dynamic_update_slice(rows, row[None].astype(rows.dtype), (index,) + (0,) * (rows.ndim - 1))


def shift(rows: Array, by: int) -> Array:
    """`rows` moved up by so many, with zeros where none come from."""
    return lax.pad(rows, jnp.zeros((), rows.dtype), [(by, -by, 0)] + [(0, 0, 0)] * (rows.ndim - 1))


def _resize(rows: Array, orders: int) -> Array:
    """The first `orders` rows, with zeros where there are fewer."""
    more = orders - len(rows)
    return lax.pad(rows, jnp.zeros((), rows.dtype), [(0, more, 0)] + [(0, 0, 0)] * (rows.ndim - 1))


def sweep(
    step: Callable[[State, Any], tuple[State, Array]],
    state: State,
    train: Any,
    width: Callable[[int, int], int],
    segments: int = SEGMENTS,
) -> Array:
    """What `step` gives for each pulse, `(N, *tissues)`, by a few scans that are as wide as their pulses need.

    Args:
        step: one pulse.
        state: before the first.
        train: the pulses, or a tree of arrays one row of which is for each.
        width: rows that the pulses from one to another need.
        segments: how many scans.
    """
    n = jax.tree.leaves(train)[0].shape[0]
    # Pulses go in twos; where there is one too many, its result is cut off.
    train = jax.tree.map(lambda x: jnp.pad(x, ((0, n % 2),) + ((0, 0),) * (x.ndim - 1)), train)
    # With a single tissue time goes into starting kernels, not into orders.
    segments = segments if state.plus.ndim > 1 else 1
    size = 2 * max(-(-n // (2 * segments)), 4)

    @partial(jax.checkpoint, prevent_cse=False)
    def pair(state: State, two: Any) -> tuple[State, Array]:
        state, first = step(state, jax.tree.map(lambda x: x[0], two))
        state, second = step(state, jax.tree.map(lambda x: x[1], two))
        return state, jnp.stack([first, second])

    parts = []
    for start in range(0, n, size):
        stop = min(start + size, n + n % 2)
        state = State(*(_resize(rows, width(start, stop)) for rows in state))
        part = jax.tree.map(lambda x: x[start:stop].reshape(-1, 2, *x.shape[1:]), train)  # noqa: B023
        state, out = lax.scan(pair, state, part)
        parts.append(out.reshape(stop - start, *out.shape[2:]))
    return jnp.concatenate(parts)[:n]


def echoes(train: Train, orders: int) -> Array:
    """Echoes `(N, *batch)` of unit magnetisation, fully excited: the odd orders."""
    n = len(train.pulses.angle)
    every = n // 2 + 1
    decay = train.decay(orders + 1, ODD)

    def step(state: State, pulse: Pulses) -> tuple[State, Array]:
        state, echo, _ = refocus(state, pulse, decay, wrap_odd, cut=orders < every)
        return state, echo

    def width(first: int, stop: int) -> int:
        return min(stop, n - first, orders) + 1

    none = train.none(1)
    start = none + (1 if train.phase is None else -1j * train.phase)
    return 0.5 * train.to_echo**2 * sweep(step, State(start, none, none), train.pulses, width)

"""The recursion behind `fse`: one train, and what trains repeated at a TR carry from one to the next.

Refocusing pulses act on half-spacing orders of one parity, tissues side by side.

State: `plus[j] = F_k`, `minus[j] = conj(F_-k)` and `w[j] = -2i Z_k`, arrays `(orders, *tissues)`, at the odd orders
`k = 2j + 1` or the even ones `k = 2j`. In the frame of a pulse `plus + minus` stays and `plus - minus` turns into
`w`, so all of it is real (or, at even orders, imaginary) while every pulse has the same phase. Pulses of other phases,
and selective ones, are rotations `a, b` as in `profile`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.sparse.linalg import bicgstab

from acqdesign.base.types import Array
from acqdesign.signal.engine import moved, resized, turn

SEGMENTS = 3
"""Scans of different width that a train is cut into; more would save little and compile longer."""

ODD, EVEN = 1, 0


class State(NamedTuple):
    """Orders of one parity, each `(orders, *tissues)`."""

    plus: Array
    minus: Array
    w: Array


class Pulses(NamedTuple):
    """Refocusing pulses about the axis along which the spins were excited, each `(N, *tissues)`."""

    angle: Array
    cos: Array
    sin: Array


class Rotations(NamedTuple):
    """Refocusing pulses of any kind, as the `products` of `profile`, each `(N, *tissues)`."""

    a2: Array
    b2: Array
    ab: Array
    down: Array
    cos: Array


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
        tipped: transverse magnetisation that the excitation leaves of unit Mz; complex where pulses are `Rotations`.
        cos: longitudinal magnetisation that it leaves.
        half_e1: longitudinal decay over half an echo spacing.
        half_e2: transverse decay likewise.
        damping: `D q² esp / 2` for the dephasing `q` of half an echo spacing; None without diffusion.
        prep: what a preparation before the excitation leaves of the longitudinal magnetisation.
        rest: longitudinal decay from the last pulse to the next train's preparation.
        rest_damping: `D q²` times that duration.
    """

    batch: tuple[int, ...]
    pulses: Pulses | Rotations
    tipped: Array
    cos: Array
    half_e1: Array
    half_e2: Array
    damping: Array | None
    prep: Array
    rest: Array
    rest_damping: Array | None

    @property
    def real(self) -> bool:
        """Whether all pulses are about one axis, so that states are real."""
        return isinstance(self.pulses, Pulses)

    def none(self, orders: int) -> Array:
        """Zeros `(orders, *batch)`."""
        return jnp.zeros((orders, *self.batch), self.tipped.dtype)

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
        k = 2.0 * jnp.arange(orders, dtype=self.half_e1.dtype) + parity
        return k.reshape(-1, *(1,) * len(self.batch))

    @property
    def to_echo(self) -> Array:
        """Decay of F from order 0 to 1 in half a spacing, and back again."""
        return self.half_e2 if self.damping is None else self.half_e2 * jnp.exp(-self.damping / 3)


def make_pulses(angles: Array) -> Pulses:
    """Pulses of angles `(N, *tissues)`, with sines and cosines taken once."""
    return Pulses(angles, jnp.cos(angles), jnp.sin(angles))


def turned(pulse: Pulses | Rotations, plus: Array, minus: Array, w: Array) -> State:
    """The state right after a pulse, with `plus` and `minus` twice what they are."""
    if isinstance(pulse, Pulses):
        q, w = turn(pulse.angle, pulse.cos, pulse.sin, plus - minus, w)
        p = plus + minus
        return State(p + q, p - q, w)
    a2, b2, ab, down, cos = pulse
    return State(
        2 * (a2 * plus + b2 * minus + ab * w),
        2 * (b2.conj() * plus + a2.conj() * minus - ab.conj() * w),
        cos * w - 2 * (down * plus - down.conj() * minus),
    )


def refocus(
    state: State, pulse: Pulses | Rotations, decay: Decay, wrap: Callable[[Array], Array], *, cut: bool = False
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
    half_plus, half_minus, keep = (x[: len(state.w)] if x.ndim == state.w.ndim else x for x in decay)
    plus, minus, w = turned(pulse, *state)
    echo, lowest = minus[0].conj(), w[0]
    plus, minus, w = half_plus * plus, half_minus * minus, keep * w
    # Each result ends in writing a row: on the CPU XLA then keeps two pulses in a row apart, and need not copy
    # the state between them. It writes a zero where nothing matters or a zero stands already.
    last, none = len(w) - 1, jnp.zeros_like(w[0])
    raised = set_row(moved(plus, 1), wrap(minus), 0)
    if cut:
        raised = set_row(raised, none, last)
    return State(raised, set_row(moved(minus, -1), none, last), set_row(w, none, last)), echo, lowest


def wrap_odd(minus: Array) -> Array:
    """`F_1 <- F_-1`."""
    return minus[0].conj()


def set_row(rows: Array, row: Array, index: int) -> Array:
    """`rows` with one row replaced."""
    return lax.dynamic_update_slice(rows, row[None].astype(rows.dtype), (index,) + (0,) * (rows.ndim - 1))


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
        state = State(*(resized(rows, width(start, stop)) for rows in state))
        part = jax.tree.map(lambda x: x[start:stop].reshape(-1, 2, *x.shape[1:]), train)  # noqa: B023
        state, out = lax.scan(pair, state, part)
        parts.append(out.reshape(stop - start, *out.shape[2:]))
    return jnp.concatenate(parts)[:n]


def echoes(train: Train, orders: int) -> Array:
    """Echoes `(N, *batch)` of unit magnetisation before the excitation: the odd orders."""
    n = len(train.pulses.cos)
    every = n // 2 + 1
    decay = train.decay(orders + 1, ODD)

    def step(state: State, pulse: Pulses | Rotations) -> tuple[State, Array]:
        state, echo, _ = refocus(state, pulse, decay, wrap_odd, cut=orders < every)
        return state, echo

    def width(first: int, stop: int) -> int:
        return min(stop, n - first, orders) + 1

    none = train.none(1)
    return 0.5 * train.to_echo**2 * sweep(step, State(none + train.tipped, none, none), train.pulses, width)


def spoiled_echoes(train: Train, orders: int) -> Array:
    """Echoes `(N, *batch)` where only the mean longitudinal magnetisation lasts until the next train."""
    fed, kept = _longitudinal(train)
    start = train.prep * (1 - train.rest + train.rest * fed) / (1 - train.prep * train.rest * kept)
    return start * echoes(train, orders)


def _longitudinal(train: Train) -> tuple[Array, Array]:
    """Mean longitudinal magnetisation right after the last pulse, as `fed + kept M` of `M` before the excitation.

    `M cos(excitation)` is what the excitation leaves along z. It and all that recovers pass through even orders
    only, by a linear map onto the one number wanted: its transpose, one train, answers for all of them.
    """
    n, real, none = len(train.pulses.cos), train.real, train.none(1)
    unit = -2.0 if real else -2.0j  # w of unit magnetisation
    decay = train.decay(n // 2 + 2, EVEN)

    def wrap(minus: Array) -> Array:  # `F_0 <- F_-2`, whose arrays hold imaginary parts where everything is real
        return -minus[1] if real else minus[1].conj()

    def width(first: int, stop: int) -> int:
        return min(stop, n - first, n // 2) + 2

    def after(start: Array, recovered: Array) -> Array:
        def step(state: State, pulse_and_recovered: Any) -> tuple[State, Array]:
            pulse, more = pulse_and_recovered
            (plus, minus, w), _, lowest = refocus(state, pulse, decay, wrap)
            return State(plus, minus, set_row(w, w[0] + unit * more, 0)), lowest

        out = sweep(step, State(none, none, none + unit * start), (train.pulses, recovered), width, 1)[n - 1]
        return jnp.real(out / unit)

    dtype = train.half_e1.dtype
    # At zero, as anywhere: JAX before 0.10 cannot take `linear_transpose` of a scan.
    _, transposed = jax.vjp(after, jnp.zeros(train.batch, dtype), jnp.zeros((n, *train.batch), dtype))
    by_start, by_recovered = transposed(jnp.ones(train.batch, dtype))
    fed = (1 - train.half_e1) * by_start + (1 - train.half_e1**2) * by_recovered.sum(axis=0)
    return fed, train.cos * train.half_e1 * by_start


def damped_echoes(train: Train, orders: int) -> Array:
    """Echoes `(N, *batch)` of the steady state under diffusion, where a train keeps all that others left along z.

    The map from the orders `Z` before one excitation to those before the next is affine, `Z' = A Z + b`. The steady
    state solves `(I - A) Z = b`, in a few iterations also where `A` is nearly the identity, for T1 far above TR. Of
    either parity `orders` are kept.
    """
    none = train.none(orders + 1)  # `refocus` has no use for the last row
    repeat = partial(_repeat, train, _Factors.of(train, orders + 1))
    fed = repeat(jnp.stack([none, none]), 1.0)[1]

    def solve(matvec: Callable, b: Array) -> Array:
        return bicgstab(matvec, b, tol=4 * float(jnp.finfo(none.dtype).eps), maxiter=100)[0]

    z = lax.custom_linear_solve(lambda z: z - repeat(z, 0.0)[1], fed, solve, transpose_solve=solve)
    return repeat(z, 1.0)[0]


class _Factors(NamedTuple):
    """A train's decays at every order; those with parity as a first axis are stacked, even orders first.

    `first`: in the half spacing before the first pulse, at even and at odd orders; `spacing` and `rest`: as `Train`
    has them, with a first axis where diffusion makes orders differ.
    """

    first: tuple[Decay, Decay]
    spacing: Decay
    rest: Array

    @classmethod
    def of(cls, train: Train, rows: int) -> "_Factors":
        if train.damping is None or train.rest_damping is None:
            half = Decay(train.half_e2, train.half_e2, train.half_e1)
            return cls((half, half), train.decay(rows, EVEN), train.rest)
        first, spacing, rest = [], [], []
        for parity in (EVEN, ODD):
            k = train.order(rows, parity)
            plus, minus = (train.half_e2 * jnp.exp(-train.damping * (k * (k + s) + 1 / 3)) for s in (1, -1))
            first.append(Decay(plus, minus, train.half_e1 * jnp.exp(-train.damping * k**2)))
            spacing.append(train.decay(rows, parity))
            rest.append(train.rest * jnp.exp(-train.rest_damping * k**2))
        return cls((first[0], first[1]), jax.tree.map(lambda *both: jnp.stack(both), *spacing), jnp.stack(rest))


def _repeat(train: Train, factors: _Factors, z: Array, source: float) -> tuple[Array, Array]:
    """One train: its echoes, and what is stored before the next excitation, from that before its own.

    What is stored is `w` at even and at odd orders, `(2, orders, *batch)`; `source` is the equilibrium
    magnetisation towards which it recovers.
    """
    real = train.real
    unit = (-2.0 if real else -2.0j) * source

    # The excitation turns `Z_k` into `F_k` and `conj(F_-k)`; real arrays of even orders hold imaginary parts.
    signs: Any = ((-0.5, -0.5), (0.5, 0.5)) if real else ((0.5j, 0.5j),) * 2
    tipped = train.tipped
    even, odd = (
        State(by.half_plus * plus * tipped * w, by.half_minus * minus * tipped.conj() * w, by.w * train.cos * w)
        for by, (plus, minus), w in zip(factors.first, signs, z, strict=True)
    )
    # Half a spacing takes even orders to odd ones and the reverse.
    lowest = -odd.minus[0] if real else odd.minus[0].conj()
    states = State(
        jnp.stack([set_row(moved(odd.plus, 1), lowest, 0), even.plus]),
        jnp.stack([odd.minus, moved(even.minus, -1)]),
        jnp.stack([_raise(even.w, unit * (1 - train.half_e1)), odd.w]),
    )

    @partial(jax.checkpoint, prevent_cse=False)
    def step(states: State, pulse: Pulses | Rotations) -> tuple[State, Array]:
        def one(state: State, decay: Decay, odd: Array) -> tuple[State, Array]:
            def wrap(minus: Array) -> Array:
                if real:
                    return odd * minus[0] - (1 - odd) * minus[1]
                return (odd * minus[0] + (1 - odd) * minus[1]).conj()

            (plus, minus, w), echo, _ = refocus(state, pulse, decay, wrap, cut=True)
            return State(plus, minus, _raise(w, (1 - odd) * unit * (1 - train.half_e1**2))), echo

        both = jax.vmap(one, in_axes=(0, None if train.damping is None else 0, 0))
        states, echo = both(states, factors.spacing, jnp.arange(2, dtype=train.half_e1.dtype))
        return states, echo[ODD]

    states, seen = lax.scan(step, states, jax.tree.map(lambda x: x[:-1], train.pulses))

    # The last pulse, after which only z and the echo matter.
    last = jax.tree.map(lambda x: x[-1], train.pulses)
    _, minus, w = turned(last, *states)
    echo = minus[ODD, 0] if real else minus[ODD, 0].conj()
    rested = factors.rest * w
    stored = jnp.stack([_raise(rested[EVEN], unit * (1 - train.rest)), rested[ODD]])
    return 0.5 * train.to_echo * jnp.concatenate([seen, echo[None]]), train.prep * stored


def _raise(w: Array, more: Array) -> Array:
    """`w` with the lowest order raised."""
    return set_row(w, w[0] + more, 0)

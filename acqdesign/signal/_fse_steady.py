"""Trains repeated at a TR: what `fse` carries from one to the next."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from acqdesign.base.types import Array
from acqdesign.signal._fse_train import (
    EVEN,
    ODD,
    Decay,
    Pulses,
    State,
    Train,
    echoes,
    refocus,
    set_row,
    shift,
    sweep,
    turn,
)

MOST_TRAINS = 1000
"""Trains after which the search for a steady state ends, come what may."""


def steady_orders(n: int, dtype: Any) -> int:
    """Longitudinal orders of either parity that matter to a train of `n` pulses, in the precision given.

    What is stored above order `2n` reaches an echo only by way of two trains or more, and relaxes and is turned
    away at every pulse meanwhile. Where that is least, with flips of 60° in CSF after excitations of 75°, what is
    above `4n` changes no echo by 1e-8 of M0, and what is above `6n` none by 1e-10.
    """
    return (2 if jnp.finfo(dtype).bits == 32 else 3) * (n + 4)


def spoiled_echoes(train: Train, orders: int) -> Array:
    """Echoes `(N, *batch)` where only the mean longitudinal magnetisation lasts until the next train."""
    fed, kept = _longitudinal(train)
    start = train.prep * (1 - train.rest + train.rest * fed) / (1 - train.prep * train.rest * kept)
    return start * train.sin * echoes(train, orders)


def _wrap_even(real: bool) -> Callable[[Array], Array]:
    """`F_0 <- F_-2`, whose arrays hold imaginary parts where everything is real."""
    return (lambda minus: -minus[1]) if real else (lambda minus: minus[1].conj())


def _longitudinal(train: Train) -> tuple[Array, Array]:
    """Mean longitudinal magnetisation right after the last pulse, as `fed + kept M` of `M` before the excitation.

    `M cos(excitation)` is what the excitation leaves along z. It and all that recovers pass through even orders
    only, by a linear map onto the one number wanted: its transpose, one train, answers for all of them.
    """
    n, real, none = len(train.pulses.angle), train.phase is None, train.none(1)
    unit = -2.0 if real else -2.0j  # w of unit magnetisation
    decay = train.decay(n // 2 + 2, EVEN)
    wrap = _wrap_even(real)

    def width(first: int, stop: int) -> int:
        return min(stop, n - first, n // 2) + 2

    def after(start: Array, recovered: Array) -> Array:
        def step(state: State, pulse_and_recovered: Any) -> tuple[State, Array]:
            pulse, more = pulse_and_recovered
            (plus, minus, w), _, lowest = refocus(state, pulse, decay, wrap)
            return State(plus, minus, set_row(w, w[0] + unit * more, 0)), lowest

        out = sweep(step, State(none, none, none + unit * start), (train.pulses, recovered), width, 1)[n - 1]
        return jnp.real(out / unit)

    dtype = train.pulses.angle.dtype
    # At zero, as anywhere: JAX before 0.10 cannot take `linear_transpose` of a scan.
    _, transposed = jax.vjp(after, jnp.zeros(train.batch, dtype), jnp.zeros((n, *train.batch), dtype))
    by_start, by_recovered = transposed(jnp.ones(train.batch, dtype))
    fed = (1 - train.half_e1) * by_start + (1 - train.half_e1**2) * by_recovered.sum(axis=0)
    return fed, train.cos * train.half_e1 * by_start


def steady_echoes(train: Train, orders: int) -> Array:
    """Echoes `(N, *batch)` of the steady state in which a train keeps all that its predecessors left along z.

    The map from `Z` before one excitation to `Z` before the next is affine, `Z' = A Z + b`; the steady state
    solves `(I - A) Z = b`, summed as `b + A b + A² b + …`: `A` contracts at least by the recovery in a TR, and for
    excitations of about 90° by far more.
    """
    none = train.none(orders + 1)  # `refocus` has no use for the last row
    repeat = partial(_repeat, train, _Factors.of(train, orders + 1))
    fed = repeat(jnp.stack([none, none]), 1.0)[1]
    eps = jnp.finfo(none.dtype).eps

    def solve(matvec: Callable, b: Array) -> Array:
        goal = eps * jnp.max(jnp.abs(b))

        def more(carry: tuple) -> Array:
            return (carry[2] < MOST_TRAINS) & (jnp.max(jnp.abs(carry[1])) > goal)

        def add(carry: tuple) -> tuple:
            total, term, count = carry
            return total + term, term - matvec(term), count + 1

        return lax.while_loop(more, add, (jnp.zeros_like(b), b, 0))[0]

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
    real = train.phase is None
    unit = (-2.0 if real else -2.0j) * source

    # The excitation turns `Z_k` into `F_k` and `conj(F_-k)`; real arrays of even orders hold imaginary parts.
    if train.phase is None:
        signs: Any = ((-0.5, -0.5), (0.5, 0.5))
    else:
        signs = ((0.5 * train.phase, -0.5 * train.phase.conj()),) * 2
    even, odd = (
        State(
            *(a * b for a, b in zip(decay, (plus * train.sin * w, minus * train.sin * w, train.cos * w), strict=True))
        )
        for decay, (plus, minus), w in zip(factors.first, signs, z, strict=True)
    )
    # Half a spacing takes even orders to odd ones and the reverse.
    lowest = -odd.minus[0] if real else odd.minus[0].conj()
    states = State(
        jnp.stack([set_row(shift(odd.plus, 1), lowest, 0), even.plus]),
        jnp.stack([odd.minus, shift(even.minus, -1)]),
        jnp.stack([_raise(even.w, unit * (1 - train.half_e1)), odd.w]),
    )

    @partial(jax.checkpoint, prevent_cse=False)
    def step(states: State, pulse: Pulses) -> tuple[State, Array]:
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
    plus, minus, w = states
    if last.phase is not None:
        plus, minus = last.phase.conj() * plus, last.phase * minus
    q, w = turn(last.angle, last.cos, last.sin, plus - minus, w)
    echo = plus[ODD, 0] + minus[ODD, 0] - q[ODD, 0]
    echo = echo if last.phase is None else last.phase * echo.conj()
    rested = factors.rest * w
    stored = jnp.stack([_raise(rested[EVEN], unit * (1 - train.rest)), rested[ODD]])
    return 0.5 * train.to_echo * jnp.concatenate([seen, echo[None]]), train.prep * stored


def _raise(w: Array, more: Array) -> Array:
    """`w` with the lowest order raised."""
    return set_row(w, w[0] + more, 0)

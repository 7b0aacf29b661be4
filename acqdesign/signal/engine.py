"""The general extended phase graph (EPG): any flips, phases, delays and gradients, by one scan over pulses.

A state holds the Fourier coefficients of the magnetisation over the dephasing of a voxel, one row an order
(Weigel, J Magn Reson Imaging 41:266, 2015): `plus[k] = F_k`, `minus[k] = conj(F_-k)`, `z[k] = Z_k`. One
order is the dephasing of one unit of gradient moment; what it is in rad/m matters only to diffusion.

Everything is computed in the frame of the pulse being played, whose axis is y. There a pulse is a real
rotation between `(plus + minus) / 2` and `z`, whatever its phase: the phase only turns the frame between
pulses. A train of one phase and no off-resonance is therefore real throughout.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array

from acqdesign.signal._arguments import decay, echo_factor, precession_phase, unit_phase  # fmt: skip
from acqdesign.signal.profile import SelectivePulse, products

WINDOWS = 8
"""Scans of different width that an exact train is cut into; more would save little and compile longer."""

CACHE_BYTES = 1 << 17
"""On a CPU as many tissues go through the train together as keep the states of all orders within this."""

STORED_BYTES = 1 << 28
"""Where reverse mode on a CPU would store more than this for all tissues, blocks of tissues are replayed."""

DEVICE_BYTES = 1 << 33
"""On other devices all tissues go together while reverse mode stores less than this for them; else blocks that do go
one after another and are replayed."""

GPU_UNROLL = 4
"""Periods in one pass of a scan over few orders on a GPU, where kernels take as long to start as to run. Trains of many
orders, in windows, would compile for long and gain less."""


class Interval(eqx.Module):
    """Free precession between two pulses, under a constant gradient.

    Args:
        duration: one time for all periods, `()`, or one for each, `(N,)` [s].
        orders: dephasing by the gradient, in whole orders of either sign.
    """

    duration: Any
    orders: int = eqx.field(static=True, default=0)


class State(NamedTuple):
    """EPG coefficients relative to M0, each `(orders, tissues)`."""

    plus: Array
    minus: Array
    z: Array


Spins = dict[str, Array]
"""What a simulation needs of tissues, arrays `()` or `(tissues,)`: t1, t2 and b1; b0, damping and z0 where they act;
and what the echo needs."""

Echo = Callable[[State], Array]


def rotate(state: State, angle: Array, cos: Array, sin: Array) -> State:
    """A pulse about y: `(F+ + F-)/2` and `Z` turn into each other; `(F+ - F-)/2`, along the axis, stays."""
    across, along = 0.5 * (state.plus + state.minus), 0.5 * (state.plus - state.minus)
    across, z = turn(angle, cos, sin, across, state.z)
    return State(across + along, across - along, z)


@jax.custom_jvp
def turn(angle: Array, cos: Array, sin: Array, q: Array, w: Array) -> tuple[Array, Array]:
    """Rotates `(q, w)` by `angle`, of which `cos` and `sin` are given, and known to depend on it."""
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


def spun(state: State, a2: Array, b2: Array, ab: Array, down: Array, cos: Array) -> State:
    """A pulse as a rotation, of which the `products` of `profile` are given."""
    plus, minus, z = state
    return State(
        a2 * plus - b2 * minus + 2 * ab * z,
        a2.conj() * minus - b2.conj() * plus + 2 * ab.conj() * z,
        cos * z - down * plus - down.conj() * minus,
    )


def in_frame(state: State, turn: Array) -> State:
    """The state in a frame in which F+ is `turn` times what it was."""
    return State(turn * state.plus, turn.conj() * state.minus, state.z)


def shift(state: State, orders: int) -> State:
    """Dephasing by a whole number of orders; what leaves the highest order is dropped."""
    plus, minus, z = state
    for _ in range(abs(orders)):
        if orders > 0:
            minus = moved(minus, -1)
            plus = _at_zero(minus.conj(), moved(plus, 1))
        else:
            plus = moved(plus, -1)
            minus = _at_zero(plus.conj(), moved(minus, 1))
    return State(plus, minus, z)


def moved(rows: Array, by: int) -> Array:
    """`rows` moved up by so many, with zeros where none come from."""
    up, down = max(by, 0), max(-by, 0)
    return jnp.pad(rows[down : rows.shape[0] - up], ((up, down), *[(0, 0)] * (rows.ndim - 1)))


def resized(rows: Array, orders: int) -> Array:
    """The first `orders` rows, with zeros where there are fewer."""
    return jnp.pad(rows[:orders], ((0, max(orders - len(rows), 0)), *[(0, 0)] * (rows.ndim - 1)))


def _at_zero(value: Array, rows: Array) -> Array:
    # A select fuses into one vectorised loop on the CPU; a concatenation doubles the time of the whole step.
    return jnp.where(lax.broadcasted_iota(jnp.int32, (rows.shape[0], 1), 0) == 0, value, rows)


def precession(duration: Array, orders: int, spins: Spins, n_orders: int) -> Callable[[State], State]:
    """Relaxation, off-resonance and diffusion over an interval, as a function of the state."""
    e1, e2 = decay(duration, spins["t1"]), decay(duration, spins["t2"])
    plus, minus, z, recovery = e2, e2, e1, 1.0 - e1
    if "damping" in spins:
        # Weigel, J Magn Reson 205:276, 2010: b-values of a gradient that takes order k to k + orders.
        k = jnp.arange(n_orders, dtype=e1.dtype)[:, None]
        b = duration * spins["damping"]
        plus = plus * jnp.exp(-b * ((k + 0.5 * orders) ** 2 + orders**2 / 12.0))
        minus = minus * jnp.exp(-b * ((k - 0.5 * orders) ** 2 + orders**2 / 12.0))
        z = z * jnp.exp(-b * k**2)
    if "b0" in spins:
        turn = precession_phase(duration, spins["b0"])
        plus, minus = plus * turn, minus * turn.conj()

    def precess(state: State) -> State:
        relaxed = z * state.z
        return State(plus * state.plus, minus * state.minus, _at_zero(relaxed + recovery, relaxed))

    return precess


def _windows(n: int, segment: int, reach: int, lead: int, n_states: int | None) -> list[tuple[int, int]]:
    """`(segments, orders)`: orders that are populated by then and can still come back by the last echo."""

    def orders(pulse: int) -> int:
        found = 1 + min(reach * (pulse + 1), reach * max(n - 1 - pulse, 0) + lead)
        return found if n_states is None else min(found, n_states)

    segments = -(-n // segment)
    size = -(-segments // max(1, min(WINDOWS, reach * n // 32)))
    windows: list[tuple[int, int]] = []
    for start in range(0, segments, size):
        stop = min(start + size, segments)
        widest = max(orders(pulse) for pulse in range(start * segment, stop * segment))
        if windows and windows[-1][1] == widest:
            windows[-1] = (windows[-1][0] + stop - start, widest)
        else:
            windows.append((stop - start, widest))
    return windows


def _centre(spins: Spins, orders: int) -> Echo:
    return lambda state: spins["m0"] * state.plus[0]


def train(
    flips: Array,
    intervals: Sequence[Interval],
    spins: Spins,
    *,
    read: int,
    make_echo: Callable[[Spins, int], Echo] = _centre,
    turns: Array | None = None,
    lead: int | None = None,
    n_states: int | None = None,
    pulse: SelectivePulse | None = None,
) -> Array:
    """Echoes `(..., N)` from checked arrays of one precision: what the sequences share.

    Args:
        flips: flip angles `(N,)`.
        intervals: what follows each pulse, with durations as arrays.
        spins: arrays that broadcast against each other.
        read: the echo is read after so many intervals.
        make_echo: from a block of tissues and a number of orders, the function of the state that is the echo; that of a
            spoiled voxel unless given.
        turns: factor `(N,)`, real or complex, that brings F+ into the frame of the pulse that follows.
        lead: the highest order that can still reach an echo read right after the same pulse.
        n_states: orders kept, or None for all that reach an echo.
        pulse: where given, what all pulses do at the positions `place` of `spins`.
    """
    n = flips.shape[0]
    segment = max(math.isqrt(n), min(n, 8))
    weights = [abs(each.orders) for each in intervals]
    windows = _windows(n, segment, sum(weights), sum(weights[:read]) if lead is None else lead, n_states)
    is_complex = pulse is not None or "b0" in spins or (turns is not None and jnp.iscomplexobj(turns))
    dtype = jnp.result_type(flips, 1j) if is_complex else flips.dtype
    unroll = 1 if jax.default_backend() == "cpu" or len(windows) > 1 else GPU_UNROLL

    xs = {"flip": flips} if turns is None else {"flip": flips, "turn": turns}
    xs |= {f"duration{i}": each.duration for i, each in enumerate(intervals) if each.duration.ndim}
    # Whole segments: what is played past the last pulse is cut off from the echoes.
    xs = {name: jnp.pad(x, (0, -n % segment)).reshape(-1, segment) for name, x in xs.items()}

    def make_period(spins: Spins, orders: int) -> Callable[[State, dict[str, Any]], tuple[State, Array]]:
        echo = make_echo(spins, orders)
        fixed = [
            None if each.duration.ndim else precession(each.duration, each.orders, spins, orders) for each in intervals
        ]

        def period(state: State, x: dict[str, Any]) -> tuple[State, Array]:
            if "turn" in x:
                state = in_frame(state, x["turn"])
            states = [rotate(state, *x["pulse"]) if pulse is None else spun(state, *x["pulse"])]
            for i, each in enumerate(intervals):
                precess = fixed[i] or precession(x[f"duration{i}"], each.orders, spins, orders)
                states.append(shift(precess(states[-1]), each.orders))
            return states[-1], echo(states[read])

        return period

    def block(spins: Spins) -> Array:
        tissues = math.prod(jnp.broadcast_shapes(*(value.shape for value in spins.values())))
        none = jnp.zeros((1, tissues), dtype)
        state = State(none, none, none + spins["z0"])
        parts, first = [], 0
        for segments, orders in windows:
            period = make_period(spins, orders)

            def play(state: State, x: dict[str, Any], period: Callable = period) -> tuple[State, Array]:
                # Trigonometry is done here: in the scan it would be fused into, and repeated for, every order.
                angle = x["flip"][:, None] * spins["b1"]
                if pulse is None:
                    # One angle a tissue: reverse mode then sums over orders in the scan and over tissues after it.
                    each: tuple[Array, ...] = (
                        jnp.broadcast_to(angle, (segment, tissues)),
                        jnp.cos(angle),
                        jnp.sin(angle),
                    )
                else:
                    each = products(*pulse.rotation(angle, spins["place"]))
                return lax.scan(period, state, x | {"pulse": each}, unroll=unroll)

            state = State(*(resized(rows, orders) for rows in state))
            part = {name: x[first : first + segments] for name, x in xs.items()}
            # Reverse mode keeps the states between segments and replays what is inside.
            state, echoes = lax.scan(jax.checkpoint(play, prevent_cse=False), state, part)
            parts.append(echoes.reshape(segments * segment, -1))
            first += segments
        return jnp.concatenate(parts)[:n].T

    widest = max(orders for _, orders in windows)
    return map_tissues(block, spins, 3 * widest * jnp.dtype(dtype).itemsize, n // segment)


def map_tissues(
    block: Callable[[Spins], Array], spins: Spins, bytes_each: int, stored: int, *, at_once: int | None = None
) -> Array:
    """`block` over tissues, a cacheful (on a GPU, what memory holds) at a time: `(*batch, N)`.

    Args:
        block: maps arrays `()` or `(tissues,)` to `(tissues, N)`.
        spins: arrays that broadcast against each other to the batch shape; scalars are passed as they are.
        bytes_each: size of what is carried along for each tissue.
        stored: how many times that reverse mode keeps.
        at_once: how many tissues on a CPU, where not as many as fit.
    """
    shape = jnp.broadcast_shapes(*(value.shape for value in spins.values()))
    shared = {name: value for name, value in spins.items() if not value.ndim}
    own = {name: jnp.broadcast_to(v, shape).reshape(-1) for name, v in spins.items() if v.ndim}
    tissues = math.prod(shape)
    if isinstance(tissues, int) and not tissues:
        one = jax.eval_shape(block, shared | {name: jax.ShapeDtypeStruct((1,), v.dtype) for name, v in own.items()})
        return jnp.zeros((*shape, one.shape[-1]), one.dtype)
    if not isinstance(tissues, int):  # symbolic, of `jax.export`
        return block(shared | own).reshape(*shape, -1)
    if jax.default_backend() == "cpu":
        fit, most = at_once or max(64, CACHE_BYTES // bytes_each), STORED_BYTES
    else:
        fit, most = DEVICE_BYTES // (stored * bytes_each), DEVICE_BYTES
    blocks = max(1, -(-tissues // max(fit, 1)))
    if blocks == 1:
        return block(shared | own).reshape(*shape, -1)
    # Blocks of whole vector registers.
    size = 16 * -(-tissues // (16 * blocks))
    own = {
        name: jnp.pad(value, (0, blocks * size - tissues), mode="edge").reshape(blocks, size)
        for name, value in own.items()
    }
    if stored * bytes_each * tissues > most:
        block = jax.checkpoint(block, prevent_cse=False)
    echoes = lax.map(lambda part: block(shared | part), own)
    return echoes.reshape(blocks * size, -1)[:tissues].reshape(*shape, -1)


def turns_of(phases: Array) -> Array:
    """The factors that bring F+ from the frame of each pulse to that of the next."""
    return unit_phase(-jnp.diff(phases, prepend=phases[:1]))


@partial(jax.jit, static_argnums=(1, 2, 3))
def play_epg(values: dict[str, Any], orders: tuple[int, ...], read: int, n_states: int | None) -> Array:
    """Echoes `(..., N)` of pulses, each followed by the same intervals; compiled once for equal shapes.

    The receiver follows the pulses: an echo is given in the frame in which the pulse before it has its axis along y, so
    that a 90° pulse on equilibrium gives `+m0` whatever its phase.

    Args:
        values: checked numbers of one precision: `flips`, and `phases` unless all are equal; `duration0` and so on of
            the intervals; `z0` before the first pulse; what acts of the tissue, with `order_moment` for its
            diffusivity; and `pulse` and `place` where pulses are selective.
        orders: dephasing in each interval.
        read: the echo is read after so many intervals.
        n_states: orders kept, or None for all that reach an echo.
    """
    spins: Spins = {name: values[name] for name in ("t1", "t2", "m0", "z0", "b1", "b0", "place") if name in values}
    diffuses = "diffusivity" in values and "order_moment" in values
    if diffuses:
        spins["damping"] = values["diffusivity"] * values["order_moment"] ** 2
    turns = turns_of(values["phases"]) if "phases" in values else None
    periods = [Interval(values[f"duration{i}"], each) for i, each in enumerate(orders)]

    # A first wait without gradient does the same to the echo before and after it: one interval fewer.
    if read == 1 and len(periods) > 1 and orders[0] == 0 and not (diffuses or periods[0].duration.ndim):
        wait, after, *rest = periods
        spins["m0"] = spins["m0"] * echo_factor(wait.duration, spins, ("t2", "b0"))
        periods, read = [Interval(wait.duration + after.duration, after.orders), *rest], 0
    return train(values["flips"], periods, spins, read=read, turns=turns, n_states=n_states, pulse=values.get("pulse"))

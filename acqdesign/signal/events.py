"""Sequences as lists of events, played by extended phase graphs: any pulses, waits, spoilers and readouts.

The list is cut into repeats of one pattern, each of which is scanned: compiling takes as long as the pattern, not as
the list. Every order that can still reach a readout is kept, so that the signal is exact.

Conventions: a frame that turns with the nominal frequency; a pulse of phase φ is a right-handed rotation that takes
equilibrium towards `exp(iφ)`, so that 90° with phase 0 give `+m0`; off-resonance turns the transverse magnetisation by
`exp(2πi b0 t)`. Orders are those of `engine`.
"""

import math
from collections.abc import Iterable
from collections.abc import Sequence as Several
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from acqdesign.base.checks import as_real, check_angles, check_kind, check_number, usage_error
from acqdesign.base.types import Array, Inexact
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import check_times, decay, in_one_precision, unit_phase
from acqdesign.signal.engine import Spins, State, in_frame, map_tissues, precession, rotate, shift, spun
from acqdesign.signal.profile import SelectivePulse, across_slice, products

_LONGEST_PATTERN = 128


class Event(eqx.Module):
    """One event of a sequence."""


class Pulse(Event):
    """An RF pulse, as a rotation without duration; `b1` of the tissue multiplies its angle.

    Args:
        angle: flip angle [rad].
        phase: [rad], or None for 0: trains without phases are real and faster.
        selective: what it does across the slice, over which signals are then summed; None: the same everywhere.
    """

    angle: Any
    phase: Any = None
    selective: SelectivePulse | None = None


class Wait(Event):
    """Free precession, perhaps under a gradient.

    Args:
        duration: [s].
        orders: dephasing by the gradient, in whole orders of either sign.
    """

    duration: Any
    orders: int = eqx.field(static=True, default=0)


class Spoil(Event):
    """Ideal spoiling: all transverse magnetisation is lost."""


class Invert(Event):
    """An adiabatic inversion, which `b1` does not change; what is transverse is lost.

    Args:
        efficiency: `-Mz` after over `Mz` before it [1].
    """

    efficiency: Any = 1.0


class Lock(Event):
    """A spin lock: what lies along its axis decays with `t1_rho`, everything else is lost.

    Args:
        duration: [s].
        phase: of the axis [rad], or None for 0, along which a 90° pulse of phase 0 leaves the spins.
    """

    duration: Any
    phase: Any = None


class Readout(Event):
    """A sample of the transverse magnetisation, after a wait.

    Args:
        te: time until it [s]; it passes.
        phase: of the receiver [rad], or None for 0.
        dephased: for how long the spins that are read have dephased under a static field, net of what was refocused
            [s]: T2' acts as `exp(-|dephased| / T2')`. It must be given where the tissue has a T2'.
    """

    te: Any = 0.0
    phase: Any = None
    dephased: Any = None


KINDS = (Pulse, Wait, Spoil, Invert, Lock, Readout)
"""All kinds of events."""


class _Kind(NamedTuple):
    """What of an event is static."""

    event: type
    orders: int
    phased: bool
    selective: int | None
    dephased: bool


def _kind(number: int, event: Event, pulses: list[SelectivePulse]) -> _Kind:
    kind = next((each for each in KINDS if isinstance(event, each)), None)
    if kind is None:
        raise usage_error("events", repr(event), ", ".join(each.__name__ for each in KINDS))
    orders = getattr(event, "orders", 0)
    if not isinstance(orders, int | np.integer):
        raise usage_error(f"events: orders of event {number}", orders, "a whole number")
    selective = next((n for n, pulse in enumerate(pulses) if pulse is getattr(event, "selective", None)), None)
    phased, dephased = (getattr(event, name, None) is not None for name in ("phase", "dephased"))
    return _Kind(kind, int(orders), phased, selective, dephased)


def _values(number: int, event: Event) -> dict[str, Array]:
    """The numbers of an event as scalars."""
    found = {}
    for field in ("angle", "duration", "te", "phase", "efficiency", "dephased"):
        if (value := getattr(event, field, None)) is not None:
            name = f"events: {field} of event {number}"
            found[field] = as_real(name, value)
            check_number(name, found[field])
            if field == "angle":
                check_angles(name, found[field])
            if field in ("duration", "te"):
                check_times(name, found[field], 1)
    return found


def _repeats(kinds: Several[_Kind]) -> list[tuple[int, int, int]]:
    """`(first, length, times)` of patterns that cover the list."""
    found, at = [], 0
    while at < len(kinds):
        best = (1, 1)
        for length in range(1, min(_LONGEST_PATTERN, (len(kinds) - at) // 2) + 1):
            times = 1
            pattern = kinds[at : at + length]
            while kinds[at + times * length : at + (times + 1) * length] == pattern:
                times += 1
            if times > 1 and length * times > best[0] * best[1]:
                best = (length, times)
        found.append((at, *best))
        at += best[0] * best[1]
    return found


def _pattern(kinds: Several[_Kind]) -> tuple:
    """The list as kinds of events and `(times, pattern)` of what is repeated, which may hold repeats itself."""
    found: list = []
    for first, length, times in _repeats(kinds):
        part = kinds[first : first + length]
        found += part if times == 1 else [(times, _pattern(part))]
    return tuple(found)


def _length(pattern: tuple) -> int:
    """How many events a pattern is."""
    return sum(1 if isinstance(item, _Kind) else item[0] * _length(item[1]) for item in pattern)


def _orders(kinds: Several[_Kind], steady: bool) -> int:
    """The highest order that is populated and can still come back by the last readout; if `steady`, by the end."""
    steps = [abs(kind.orders) for kind in kinds]
    last = len(kinds) - 1 if steady else max(i for i, kind in enumerate(kinds) if kind.event is Readout)
    ahead, reached, highest = sum(steps[: last + 1]), 0, 0
    for step in steps[: last + 1]:
        reached, ahead = reached + step, ahead - step
        highest = max(highest, min(reached, ahead))
    return highest


def play(
    events: Several[Event], tissue: Tissue, *, order_moment: Any = None, steady: bool = False
) -> Inexact[Array, "... readouts"]:
    """The signal of a list of events in a tissue.

    Args:
        events: in the order of playing; their numbers may be traced, their kinds and orders not.
        tissue: of any batch shape.
        order_moment: the dephasing that is one order [rad/m], where diffusion is to act.
        steady: whether the list is repeated until it begins as it ends; otherwise it begins at equilibrium. From one
            repetition to the next only longitudinal magnetisation that is not dephased lasts: Mz after a repetition is
            then `a Mz + b`, and `b / (1 - a)` in the steady state.

    Returns:
        `(..., readouts)`; real where no event has a phase, the tissue no `b0` and a real `m0`.
    """
    check_kind("events", events, Several, "a list of events")
    check_kind("tissue", tissue, Tissue, "a Tissue")
    pulses = list({id(pulse): pulse for event in events if (pulse := getattr(event, "selective", None))}.values())
    selective = {f"pulse {n}": pulse for n, pulse in enumerate(pulses)}
    return across_slice(partial(_played, events, order_moment, steady), tissue, selective)


def event_table(repetitions: Iterable[Iterable[Event]]) -> np.ndarray:
    """Events as numbers, for `design.npz`: a row each, `(events, 6)`.

    Columns: number of the acquisition, place in `KINDS`, flip [rad], phase [rad], seconds, and orders of dephasing.

    Args:
        repetitions: the events of one repetition of each acquisition.
    """

    def row(number: int, event: Event) -> list:
        kind = next(n for n, each in enumerate(KINDS) if isinstance(event, each))
        angle, phase, orders = (getattr(event, name, None) or 0.0 for name in ("angle", "phase", "orders"))
        seconds = getattr(event, "duration", getattr(event, "te", 0.0))
        return [number, kind, *(float(np.asarray(x)) for x in (angle, phase, seconds)), orders]

    return np.array([row(n, event) for n, events in enumerate(repetitions) for event in events], float).reshape(-1, 6)


def timing(events: Several[Event]) -> dict[str, np.ndarray]:
    """When a list of events has what, in seconds from its start, for figures.

    Returns:
        `pulses`, `inversions`, `spoilers` and `readouts` `(n,)`; `flips` `(n,)` [rad], of the pulses; `locks` and
        `gradients` `(n, 2)`, from when to when; and `orders` `(n,)`, of the gradients.
    """
    names = {Pulse: "pulses", Invert: "inversions", Spoil: "spoilers", Readout: "readouts", Lock: "locks"}
    found: dict[str, list] = {name: [] for name in (*names.values(), "flips", "gradients", "orders")}
    now = 0.0
    for event in events:
        before, kind = now, next(kind for kind in KINDS if isinstance(event, kind))
        now += float(getattr(event, "duration", getattr(event, "te", 0.0)))
        if kind is not Wait:
            found[names[kind]].append((before, now) if kind is Lock else now)
        if kind is Pulse:
            found["flips"].append(float(event.angle))  # type: ignore[attr-defined]
        if getattr(event, "orders", 0):
            found["gradients"].append((before, now))
            found["orders"].append(event.orders)  # type: ignore[attr-defined]
    pairs = ("locks", "gradients")
    return {name: np.reshape(times, (-1, 2) if name in pairs else -1).astype(float) for name, times in found.items()}


def _played(
    events: Several[Event], order_moment: Any, steady: bool, tissue: Tissue, selective: dict[str, Any]
) -> Array:
    pulses = [pulse for name, pulse in selective.items() if name != "place"]
    kinds = [_kind(n, event, pulses) for n, event in enumerate(events)]
    if not any(kind.event is Readout for kind in kinds):
        raise usage_error("events", f"{len(kinds)} events without a readout", "at least one Readout")
    if tissue.t2_prime is not None and any(kind.event is Readout and not kind.dephased for kind in kinds):
        remedy = "Readout(dephased=...) says how long it has acted."
        raise usage_error("tissue: t2_prime", "a value", "None, where a readout does not say", remedy)
    if tissue.t1_rho is None and any(kind.event is Lock for kind in kinds):
        raise usage_error("tissue: t1_rho", None, "T1ρ [s], of which the signal depends under a spin lock")
    if order_moment is None and tissue.diffusivity is not None:
        raise usage_error("order_moment", None, "the dephasing of an order [rad/m], for the tissue's diffusivity")
    numbers = [_values(n, event) for n, event in enumerate(events)]
    flat = {f"{n}.{name}": value for n, given in enumerate(numbers) for name, value in given.items()}
    values = in_one_precision(**flat, **tissue.effects(), order_moment=order_moment)
    pattern = _pattern(kinds)

    def stacked(pattern: tuple, at: np.ndarray) -> list:
        """The numbers of a pattern's events, over the repeats that begin at the events `at`."""
        found: list = []
        for item in pattern:
            if isinstance(item, _Kind):
                names = numbers[at.flat[0]]
                found.append({n: jnp.stack([values[f"{i}.{n}"] for i in at.flat]).reshape(at.shape) for n in names})
                at = at + 1
            else:
                times, inner = item
                found.append(stacked(inner, at[..., None] + _length(inner) * np.arange(times)))
                at = at + times * _length(inner)
        return found

    spins: Spins = {name: values[name] for name in ("t1", "t2", "b1", "b0", "t2_prime", "t1_rho") if name in values}
    if "diffusivity" in values:
        spins["damping"] = values["diffusivity"] * values["order_moment"] ** 2
    spins |= {name: place for name, place in selective.items() if name == "place"}
    is_complex = "b0" in spins or "place" in spins or any(kind.phased for kind in kinds)
    given = stacked(pattern, np.array(0)), spins, pulses
    found = _play(pattern, _orders(kinds, steady) + 1, steady, is_complex, *given)
    return values["m0"][..., None] * found


@partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _play(
    pattern: tuple, orders: int, steady: bool, is_complex: bool, numbers: list, spins: Spins,
    pulses: list[SelectivePulse],
) -> Array:  # fmt: skip
    """Signals of unit M0; compiled once for equal kinds of events and shapes, outside of `jit` too."""
    real = spins["t1"].dtype
    dtype = jnp.result_type(real, 1j) if is_complex else real

    def step(kind: _Kind, x: dict[str, Array], state: State, spins: Spins) -> tuple[State, Array | None]:
        if kind.event is Spoil:
            return State(jnp.zeros_like(state.plus), jnp.zeros_like(state.minus), state.z), None
        if kind.event is Invert:
            return State(jnp.zeros_like(state.plus), jnp.zeros_like(state.minus), -x["efficiency"] * state.z), None
        turn = unit_phase(x["phase"]) if kind.phased else None
        if kind.event is Pulse:
            angle = jnp.broadcast_to(x["angle"] * spins["b1"], state.z.shape[1:])
            if turn is not None:
                state = in_frame(state, turn.conj())
            if kind.selective is None:
                state = rotate(state, angle, jnp.cos(angle), jnp.sin(angle))
            else:
                state = spun(state, *products(*pulses[kind.selective].rotation(angle, spins["place"])))
            return (state if turn is None else in_frame(state, turn)), None
        if kind.event is Lock:
            state = state if turn is None else in_frame(state, turn.conj())
            along = 0.5 * decay(x["duration"], spins["t1_rho"]) * (state.plus + state.minus)
            state = State(along, along, jnp.zeros_like(state.z))
            return (state if turn is None else in_frame(state, turn)), None
        state = shift(
            precession(x["te" if kind.event is Readout else "duration"], kind.orders, spins, orders)(state), kind.orders
        )
        if kind.event is Wait:
            return state, None
        sample = state.plus[0] if turn is None else turn.conj() * state.plus[0]
        return state, sample * decay(jnp.abs(x["dephased"]), spins["t2_prime"]) if "t2_prime" in spins else sample

    def block(spins: Spins) -> Array:
        tissues = math.prod(jnp.broadcast_shapes(*(value.shape for value in spins.values())))
        none = jnp.zeros((orders, tissues), dtype)
        if not steady:
            return run(spins, tissues, none.at[0].set(1))[0]
        samples, last = jax.vmap(partial(run, spins, tissues))(jnp.stack([none, none.at[0].set(1)]))
        recovered, left = last[0].real, 1 - (last[1] - last[0]).real
        before = recovered / jnp.where(left == 0, 1, left)
        return samples[0] + before[:, None] * (samples[1] - samples[0])

    def run(spins: Spins, tissues: int, z: Array) -> tuple[Array, Array]:
        def through(pattern: tuple, state: State, xs: list) -> tuple[State, Array]:
            seen = [jnp.zeros((0, tissues), dtype)]
            for item, x in zip(pattern, xs, strict=True):
                if isinstance(item, _Kind):
                    state, sample = step(item, x, state, spins)
                    seen += [] if sample is None else [jnp.broadcast_to(sample, (1, tissues))]
                else:
                    times, inner = item
                    state, samples = _scan(partial(through, inner), state, x, times)
                    seen.append(samples.reshape(-1, tissues))
            return state, jnp.concatenate(seen)

        state, samples = through(pattern, State(jnp.zeros_like(z), jnp.zeros_like(z), z), numbers)
        return samples.T, state.z[0]

    stored = sum(1 if isinstance(item, _Kind) else math.isqrt(item[0]) for item in pattern)
    return map_tissues(block, spins, 3 * orders * jnp.dtype(dtype).itemsize, stored)


def _scan(once: Any, state: State, xs: Any, times: int) -> tuple[State, Array]:
    """`once` over the leading axis; reverse mode keeps states between segments and replays what is inside."""
    segment = max(1, math.isqrt(times))
    whole = times - times % segment

    @partial(jax.checkpoint, prevent_cse=False)
    def several(state: State, xs: Any) -> tuple[State, Array]:
        return lax.scan(once, state, xs, length=segment)

    head = jax.tree.map(lambda x: x[:whole].reshape(-1, segment, *x.shape[1:]), xs)
    state, samples = lax.scan(several, state, head, length=whole // segment)
    samples = samples.reshape(whole, *samples.shape[2:])
    if whole == times:
        return state, samples
    state, rest = lax.scan(once, state, jax.tree.map(lambda x: x[whole:], xs), length=times - whole)
    return state, jnp.concatenate([samples, rest])

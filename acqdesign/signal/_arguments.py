"""What the sequences' functions do to their arguments, and the two factors all of them need."""

import math
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from acqdesign.base.checks import as_real, check_angles, check_positive, is_concrete, usage_error
from acqdesign.optim.parts import is_parametrised


def take_numbers(part: Any, names: Iterable[str]) -> None:
    """Fields of a sequence that is being made as floats and arrays; those made of other numbers, and None, stay."""
    for name in names:
        value = getattr(part, name)
        if isinstance(value, int | float) and not isinstance(value, bool):
            setattr(part, name, float(value))
        elif value is not None and not is_parametrised(value):
            setattr(part, name, as_real(name, value))


def decay(time: Array, constant: Array) -> Array:
    """`exp(-time / constant)`; gradients are zero, not NaN, where it underflows or `constant` is infinite."""
    x_max = -math.log(jnp.finfo(jnp.result_type(time, constant)).tiny)
    alive = time < x_max * constant
    # Without time the constant has no effect, and its derivative no power of it that could overflow.
    constant = jnp.where(time == 0, lax.stop_gradient(constant), constant)
    return jnp.where(alive, jnp.exp(-time / jnp.where(alive, constant, 1.0)), 0.0)


def unit_phase(angle: Array) -> Array:
    """`exp(i angle)`."""
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


def precession_phase(time: Array, b0: Array) -> Array:
    """`exp(2πi b0 t)`: the sense of off-resonance throughout."""
    return unit_phase(2.0 * math.pi * b0 * time)


def echo_factor(te: Array, values: dict[str, Array], effects: tuple[str, ...] = ("t2", "t2_prime", "b0")) -> Array:
    """What the effects that act do to a free induction decay in the echo time: `exp(-te/T2 - te/T2' + 2πi b0 te)`."""
    factor = jnp.ones((), te.dtype)
    for name in effects:
        if name in values:
            factor = factor * (precession_phase if name == "b0" else decay)(te, values[name])
    return factor


def in_one_precision(**values: Any) -> dict[str, Array]:
    """The given values (None left out) as arrays of one precision; Python numbers follow the arrays.

    All must be real but `m0`, which may be complex.
    """
    arrays = {
        name: jnp.asarray(value) if name == "m0" and jnp.iscomplexobj(value) else as_real(name, value)
        for name, value in values.items()
        if value is not None
    }
    real = jnp.result_type(*(jnp.real(array) for array in arrays.values()))
    kind = jnp.result_type(real, 1j)
    return {name: array.astype(kind if jnp.iscomplexobj(array) else real) for name, array in arrays.items()}


def check_flips(flips: Array) -> int:
    """The number of pulses of a vector of flip angles."""
    if flips.ndim != 1 or not isinstance(flips.shape[0], int) or flips.shape[0] < 1:
        raise usage_error("flips", flips, "a vector of at least one flip angle [rad], of known length")
    check_angles("flips", flips)
    return flips.shape[0]


def check_lengths(name: str, value: Array, n: int) -> Array:
    """`value` if it is one number, or one for each of `n` pulses."""
    if value.shape not in ((), (n,)):
        raise usage_error(name, value, f"one value, or one for each of the {n} pulses")
    return value


def check_phases(phases: Array, n: int) -> None:
    """Raises unless there is one phase for each of `n` pulses."""
    if phases.shape != (n,):
        raise usage_error("phases", phases, f"one phase for each of the {n} pulses")


def check_times(name: str, value: Array, n: int) -> Array:
    """`value` if it is one time or one for each of `n` pulses, and where concrete, finite and >= 0."""
    if is_concrete(check_lengths(name, value, n)):
        array = np.asarray(value)
        wrong = ~((array >= 0) & np.isfinite(array))
        if wrong.any():
            raise usage_error(name, repr(array[wrong].flat[0].item()), "finite times >= 0 s")
    return value


def check_echo_time(te: Array, tr: Array, n: int, period: str = "tr") -> None:
    """Raises unless the repetition times (named `period`) are positive and echo times lie within them."""
    check_times(period, tr, n)
    check_times("te", te, n)
    check_positive(period, tr)
    if is_concrete(te) and is_concrete(tr):
        late, limit = (np.broadcast_to(np.asarray(time), (n,)) for time in (te, tr))
        wrong = late > limit
        if wrong.any():
            got = f"{late[wrong][0]:g} s with {period} = {limit[wrong][0]:g} s"
            raise usage_error("te", got, f"an echo time within {period}", f"Use te <= {limit[wrong][0]:g} s.")


def check_repetition(values: dict[str, Array], before: str) -> None:
    """Raises unless `tr` holds a train of pulses `esp` apart and, where it is given, the time named `before` it."""
    times = [values[name] for name in ("tr", "esp", before) if name in values]
    if "tr" in values and all(map(is_concrete, times)):
        n, (tr, esp, *more) = len(values["flips"]), map(float, times)
        least = sum(more) + n * esp
        if tr < least * (1 - 1e-6):
            parts = f"{before} and " if more else ""
            raise usage_error("tr", f"{tr:g} s", f"at least {parts}the train's {n} x esp = {least:g} s")

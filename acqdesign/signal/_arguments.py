"""What the sequences' functions do to their arguments, and the two factors all of them need."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array

from acqdesign.base.checks import as_real, check_finite, check_positive, is_concrete, usage_error
from acqdesign.scene.tissue import Tissue, check_relaxation


def decay(time: Array, constant: Array) -> Array:
    """`exp(-time / constant)`; gradients are zero, not NaN, where it underflows or `constant` is infinite."""
    x_max = -math.log(jnp.finfo(jnp.result_type(time, constant)).tiny)
    alive = time < x_max * constant
    # Without time the constant has no effect, and its derivative no power of it that could overflow.
    constant = jnp.where(time == 0, lax.stop_gradient(constant), constant)
    return jnp.where(alive, jnp.exp(-time / jnp.where(alive, constant, 1.0)), 0.0)


def precession_phase(time: Array, b0: Array) -> Array:
    """`exp(2πi b0 t)`: the sense of off-resonance throughout."""
    angle = 2.0 * math.pi * b0 * time
    return lax.complex(jnp.cos(angle), jnp.sin(angle))


def in_one_precision(**values: Any) -> dict[str, Array]:
    """The given values (None left out) as arrays of one precision; Python numbers follow the arrays.

    All must be real but `m0` and `gain`, which may be complex.
    """
    arrays = {
        name: jnp.asarray(value) if name in ("m0", "gain") and jnp.iscomplexobj(value) else as_real(name, value)
        for name, value in values.items()
        if value is not None
    }
    real = jnp.result_type(*(jnp.real(array) for array in arrays.values()))
    return {
        name: array.astype(jnp.result_type(real, 1j) if jnp.iscomplexobj(array) else real)
        for name, array in arrays.items()
    }


def check_flips(flips: Array) -> int:
    """The number of pulses of a vector of flip angles."""
    if flips.ndim != 1 or flips.shape[0] < 1:
        raise usage_error("flips", flips, "a vector of at least one flip angle [rad]")
    check_finite("flips", flips)
    return flips.shape[0]


def check_lengths(name: str, value: Array, n: int) -> Array:
    """`value` if it is one number, or one for each of `n` pulses."""
    if value.shape not in ((), (n,)):
        raise usage_error(name, value, f"one value, or one for each of the {n} pulses")
    return value


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


def echo_factor(te: Array, *, t2: Array | None = None, t2_prime: Array | None = None, b0: Array | None = None) -> Array:
    """What happens to a free induction decay in the echo time: `exp(-te/T2 - te/T2' + 2πi b0 te)`."""
    factor = jnp.ones((), te.dtype)
    for constant in (t2, t2_prime):
        if constant is not None:
            factor = factor * decay(te, constant)
    return factor if b0 is None else factor * precession_phase(te, b0)


def inverted(inversion_time: Array, efficiency: Array, t1: Array) -> Array:
    """Longitudinal magnetisation, relative to M0, a time after the inversion of equilibrium."""
    if inversion_time.ndim:
        raise usage_error("inversion_time", inversion_time, "one time [s]")
    check_positive("inversion_time", inversion_time)
    return 1.0 - (1.0 + efficiency) * decay(inversion_time, t1)


def check_phases(phases: Array, n: int) -> None:
    """Raises unless there is one phase for each of `n` pulses."""
    if phases.shape != (n,):
        raise usage_error("phases", phases, f"one phase for each of the {n} pulses")


def steady_arguments(flips: Any, tr: Any, te: Any, tissue: Tissue) -> dict[str, Array]:
    """Checked arguments of a steady state, with the pulses as a last axis of the tissues' batch.

    Adds `e1` and `e2`, the decay over `tr`, and `cos` and `sin` of the flips that the tissue sees.
    """
    values = in_one_precision(flips=flips, tr=tr, te=te, **tissue.effects())
    check_relaxation(values["t1"], values["t2"])
    check_echo_time(values["te"], values["tr"], check_flips(values["flips"]))
    for name in tissue.effects():
        values[name] = values[name][..., None]
    seen = values["b1"] * values["flips"]
    return values | {
        "cos": jnp.cos(seen),
        "sin": jnp.sin(seen),
        "e1": decay(values["tr"], values["t1"]),
        "e2": decay(values["tr"], values["t2"]),
    }

"""Flip angles that make an echo train follow a prescribed shape: starts for learning, and a design of their own."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from acqdesign.base.checks import (
    as_real,
    check_count,
    check_finite,
    check_number,
    check_positive,
    is_concrete,
    usage_error,
)  # fmt: skip
from acqdesign.base.types import Array, ArrayLike, Float
from acqdesign.scene.tissue import check_relaxation
from acqdesign.signal._arguments import decay, in_one_precision
from acqdesign.signal._fse import Decay, State, make_pulses, refocus, wrap_odd


def pseudo_steady_state(echoes: int, level: ArrayLike) -> Float[Array, " echoes"]:
    """Echo amplitudes that settle at a level: each halves the distance to it, from one.

    `S_n = level + (1 - level) / 2ⁿ`. Solved without relaxation, the first flip is 90° + α/2 for
    `level = sin(α/2)`, and the flips fall smoothly to all but a constant.

    Args:
        echoes: length of the train.
        level: amplitude that the train settles at, a number in units of M0, in (0, 1].

    Returns:
        `(echoes,)` amplitudes in units of M0, for `flips_for_echoes`.

    Alsop, Magn Reson Med 37:176, 1997.
    """
    level = _level(level)
    count = jnp.arange(1, check_count("echoes", echoes) + 1, dtype=jnp.result_type(level))
    return level + (1.0 - level) * 0.5**count


def exponential_decay(
    echoes: int, esp: ArrayLike, time: ArrayLike, *, level: ArrayLike = 1.0
) -> Float[Array, " echoes"]:
    """Echo amplitudes that decay with a prescribed time: `S_n = level exp(-n esp / time)`.

    A `time` longer than T2 makes the train decay more slowly than spin echoes would, down to where flips run
    out; `level` says what the first echoes give up for it.

    Args:
        echoes: length of the train.
        esp: echo spacing [s]; this and the next two are each a number.
        time: decay time [s], a number; infinity asks for a constant signal.
        level: amplitude at time zero, a number in units of M0, in (0, 1].

    Returns:
        `(echoes,)` amplitudes in units of M0, for `flips_for_echoes`.

    Mugler, J Magn Reson Imaging 39:745, 2014.
    """
    check_number("esp", esp, positive=True)
    check_number("time", time)
    check_positive("time", time, allow_inf=True)
    values = in_one_precision(esp=esp, time=time, level=_level(level))
    count = jnp.arange(1, check_count("echoes", echoes) + 1, dtype=values["esp"].dtype)
    return values["level"] * decay(count * values["esp"], values["time"])


def flips_for_echoes(
    target: ArrayLike,
    esp: ArrayLike,
    t1: ArrayLike = np.inf,
    t2: ArrayLike = np.inf,
    *,
    excitation: ArrayLike = 0.5 * np.pi,
    upper: ArrayLike = np.pi,
) -> Float[Array, " echoes"]:
    """Refocusing flips of a CPMG train whose echoes are as prescribed, one after the other.

    With `F+`, `F-` and `z` of the first order before a pulse, the echo after it is
    `exp(-esp/(2 T2)) [(F+ + F-)/2 + r cos(α - φ)]`, `r² = (F+ - F-)²/4 + z²`. Each flip is the smaller of the
    two that solve this for the target; where none does, the one whose echo is nearest to it.

    Args:
        target: `(N,)` echo amplitudes in units of M0; see `pseudo_steady_state` and `exponential_decay`.
        esp: echo spacing [s], a number, as are all that follow.
        t1: longitudinal relaxation time [s] of the one tissue that is prescribed for.
        t2: transverse relaxation time [s].
        excitation: flip of the excitation [rad].
        upper: largest refocusing flip [rad].

    Returns:
        `(N,)` flips in `[0, upper]` [rad]. They depend on the target through an arc cosine, whose slope is
        infinite at the largest echo that is possible: use them as a start, not as a parametrisation.

    Hennig & Scheffler, Magn Reson Med 49:527, 2003; Busse et al., Magn Reson Med 55:1030, 2006.
    """
    check_relaxation(t1, t2)
    for name, value in {"esp": esp, "t1": t1, "t2": t2, "excitation": excitation, "upper": upper}.items():
        check_number(name, value, positive=name == "esp")
    target = as_real("target", target)
    values = in_one_precision(target=target, esp=esp, t1=t1, t2=t2, excitation=excitation, upper=upper)
    wanted = values["target"]
    if wanted.ndim != 1 or not wanted.size:
        raise usage_error("target", wanted, "a vector of at least one echo amplitude")
    check_finite("target", wanted)
    if is_concrete(wanted) and bool((np.asarray(wanted) < 0).any()):
        raise usage_error("target", f"{np.asarray(wanted).min():g}", "amplitudes >= 0")
    return _solve(**values)


@jax.jit
def _solve(target: Array, esp: Array, t1: Array, t2: Array, excitation: Array, upper: Array) -> Array:
    """The flips from checked arguments; compiled once for equal shapes, outside of `jit` too."""
    half, e2 = decay(0.5 * esp, t2), decay(esp, t2)
    passed = Decay(0.5 * e2, 0.5 * e2, decay(esp, t1))
    # No order is asked for more than can give an echo by the last; one row more does not matter.
    none = jnp.zeros(target.size // 2 + 2, target.dtype)

    def pulse(state: State, amplitude: Array) -> tuple[State, Array]:
        plus, minus, z = state.plus[0], state.minus[0], 0.5 * state.w[0]
        mean, difference = 0.5 * (plus + minus), 0.5 * (minus - plus)
        reach = jnp.hypot(difference, z)
        cosine = (amplitude / half - mean) / jnp.where(reach > 0, reach, 1.0)
        peak, off = jnp.arctan2(-z, difference), jnp.arccos(jnp.clip(cosine, -1.0, 1.0))
        solution = jnp.mod(jnp.stack([peak - off, peak + off]), 2.0 * np.pi).min()
        # Where no solution lies below `upper`, the nearest echo is at an end.
        ends = jnp.stack([jnp.zeros_like(upper), upper])
        missed = jnp.abs(jnp.cos(ends - peak) - cosine)
        flip = jnp.where(solution <= upper, solution, ends[jnp.argmin(missed)])
        return refocus(state, make_pulses(flip), passed, wrap_odd)[0], flip

    excited = State(none.at[0].set(jnp.sin(excitation) * half), none, none)
    return lax.scan(pulse, excited, target)[1]


def _level(level: ArrayLike) -> Array:
    value = as_real("level", level)
    if value.ndim or (is_concrete(value) and not 0 < float(value) <= 1):
        raise usage_error("level", value if value.ndim else float(value), "one amplitude in (0, 1]")
    return value

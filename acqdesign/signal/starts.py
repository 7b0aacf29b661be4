"""Flip angles to start learning from."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_key, check_number
from acqdesign.base.types import Array, PRNGKey
from acqdesign.base.units import rad_from_deg
from acqdesign.optim import spline_basis
from acqdesign.signal.target import exponential_decay, flips_for_echoes, pseudo_steady_state

STARTS = ("constant", "sinusoid", "random", "comb", "pss", "exponential")
"""Names that `start_flips` knows."""

HUMP, SWING_DEG = 250, (10.0, 50.0)
"""Pulses of one hump of a sinusoidal start, its least flip and its height, every second one half as high: the
schedule of Ma et al., Nature 495:187, 2013, without its noise."""
LEVELS = 1000
"""Echo amplitudes that prescribed starts are tried at."""
COMB = (2, 7)
"""From one strong pulse of a comb to the next: at least the first, less than the second."""


def start_flips(
    name: str, pulses: int, *, level: float | None, upper: float, key: PRNGKey, lower: float = 0.0, **train: Any
) -> np.ndarray:
    """Flips `(pulses,)` [rad] to start from, before they are projected onto limits.

        constant     at the level
        sinusoid     humps of 10 to 60°, every second one half as high
        random       smooth, within the range
        comb         a strong pulse every few, of the level's power
        pss          CPMG trains whose echoes settle at a level
        exponential  CPMG trains whose echoes decay with twice the T2

    Args:
        name: one of `STARTS`.
        pulses: how many.
        level: root mean square [rad], at most `upper`; None for that.
        upper: largest flip [rad].
        key: for `comb` and `random`.
        lower: smallest flip [rad].
        train: `esp`, `t1` and `t2` [s], which only `pss` and `exponential` have a use for.
    """
    check_choice("start", name, STARTS if train else STARTS[:4])
    check_count("echoes", pulses)
    check_key("key", key)
    for what, value in (("upper", upper), ("level", upper if level is None else level)):
        check_number(what, value)
    level = upper if level is None else min(level, upper)
    if name == "constant":
        return np.full(pulses, level)
    if name == "sinusoid":
        base, height = (rad_from_deg(degrees) for degrees in SWING_DEG)
        hump, within = np.divmod(np.arange(pulses), min(HUMP, pulses))
        swing = base + height * np.sin(math.pi * within / min(HUMP, pulses))
        return np.where(hump % 2, 0.5 * swing, swing)
    if name == "random":
        control = np.asarray(jax.random.uniform(key, (min(8, pulses),), minval=lower, maxval=upper))
        return spline_basis(pulses, control.size) @ control
    if name == "comb":
        every, first, weak = jax.random.split(key, 3)
        period = int(jax.random.randint(every, (), *COMB))
        teeth = np.arange(pulses) % period == int(jax.random.randint(first, (), 0, period))
        # Strong and weak pulses whose power together is that of the level.
        share = float(jax.random.uniform(weak, minval=0.4, maxval=0.8))
        strong = math.sqrt(period - (period - 1) * share**2)
        return level * np.where(teeth, strong, share)
    esp, t1, t2 = (train[name] for name in ("esp", "t1", "t2"))

    def solve(amplitude: Array) -> Array:
        if name == "pss":
            return flips_for_echoes(pseudo_steady_state(pulses, amplitude), esp, upper=upper)
        return flips_for_echoes(exponential_decay(pulses, esp, 2 * t2, level=amplitude), esp, t1, t2, upper=upper)

    # At the amplitude whose flips have nearest to the power that is allowed.
    flips = np.asarray(jax.jit(jax.vmap(solve))(jnp.linspace(1e-3, 1.0, LEVELS)))
    return flips[np.argmin(np.abs(np.sqrt(np.mean(flips**2, axis=1)) - level))]

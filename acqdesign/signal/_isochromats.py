"""The steady state of trains repeated at a TR, without diffusion: isochromats, each with its own dephasing.

While z alone lasts from train to train, spins that gradients dephase by one angle `φ` in half an echo spacing never mix
with others. For each `φ` a train takes the longitudinal magnetisation before it to that before the next by

    Z' = a(φ) Z + b(φ),    so that in the steady state    Z = b / (1 − a),

and an echo is the mean of the transverse magnetisation over `φ`. Nothing is iterated, however long T1 is.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from acqdesign.base.sharding import alike
from acqdesign.base.types import Array
from acqdesign.signal._fse import Pulses, Rotations, Train

ERROR = 1e-6
"""Of M0, beyond which echoes are NaN."""


def phase_count(pulses: int, tr_over_t1: float) -> int:
    """How many dephasing angles resolve the steady state of trains of so many pulses.

    Harmonics of `Z(φ)` fall as `exp(-rate order / pulses)`. The rate was fitted to be too small for trains of 1 to 32
    pulses with flips of 5° to 180°, constant, rising and random, after excitations of 10° to 120°. The ratio counts as
    the next lower power of two, so that other times seldom take another program.
    """
    lower = 2.0 ** math.floor(math.log2(tr_over_t1)) if tr_over_t1 > 0 else 0.0
    rate = 0.1 + 1.4 * math.sqrt(lower)
    return 4 * math.ceil(max(4, pulses * 6 / rate))


def steady_echoes(train: Train, count: int) -> Array:
    """Echoes `(N, *batch)` of the steady state in which a train keeps all that its predecessors left along z.

    Args:
        train: without diffusion.
        count: dephasing angles, a multiple of 4. Half as many give second, worse values: of echoes of the size s these
            are off by √(s error) where the better ones are off by `error`. Above `ERROR` echoes are NaN.
    """
    dtype, real = train.half_e1.dtype, train.real
    # Where all pulses are about the axis along which the spins were excited, π − φ echoes the conjugate of φ.
    number = count // 2 + 1 if real else count
    angle = 2 * math.pi / count * jnp.arange(number, dtype=dtype) - 0.5 * math.pi
    shares = jnp.full(number, 2 / count if real else 1 / count, dtype)
    if real:
        shares = shares.at[jnp.array([0, -1])].mul(0.5)
    shares = jnp.stack([shares, jnp.where(jnp.arange(number) % 2 == 0, 2 * shares, 0)])
    cos, sin = jnp.cos(angle), jnp.sin(angle)
    cos2, sin2 = cos**2 - sin**2, 2 * sin * cos
    pulses = jax.tree.map(lambda x: x[..., None], train.pulses)
    tipped, cos_x, half_e1, half_e2, prep, rest = (
        x[..., None] for x in (train.tipped, train.cos, train.half_e1, train.half_e2, train.prep, train.rest)
    )

    def by_gradient(x: Array, y: Array, c: Array, s: Array) -> tuple[Array, Array]:
        return c * x - s * y, s * x + c * y

    # Two magnetisations side by side, of unit Z without recovery and of recovery from none; phases on the last axis.
    recovers = jnp.array([0, 1], dtype).reshape(2, *(1,) * len(train.batch), 1)
    one = jnp.broadcast_to(1 - recovers, (2, *train.batch, number))
    x, y = by_gradient(half_e2 * tipped.real * one, half_e2 * tipped.imag * one, cos, sin)
    z = half_e1 * cos_x * one + (1 - half_e1) * recovers
    x, y, z = alike(x, y, z)  # though T1 alone, or T2 alone, may be split over devices

    @partial(jax.checkpoint, prevent_cse=False)
    def step(spins: tuple, pulse: Pulses | Rotations) -> tuple[tuple, Array]:
        x, y, z, _ = spins
        if isinstance(pulse, Pulses):
            y, z = pulse.cos * y - pulse.sin * z, pulse.sin * y + pulse.cos * z
        else:
            spin = lax.complex(x, y)
            z_next = pulse.cos * z + 2 * (pulse.down * spin).imag
            spin = pulse.a2 * spin + pulse.b2 * spin.conj() - 2j * pulse.ab * z
            x, y, z = spin.real, spin.imag, z_next
        echo = by_gradient(x[0], y[0], cos, sin)
        x, y = (half_e2**2 * part for part in by_gradient(x, y, cos2, sin2))
        return (x, y, half_e1**2 * z + (1 - half_e1**2) * recovers, z), echo[0] if real else lax.complex(*echo)

    (*_, (from_one, recovered)), seen = lax.scan(step, (x, y, z, z), pulses)
    kept = prep * rest
    # 1 − a, without the loss of digits where nearly all lasts.
    stored = (prep - kept + kept * recovered) / (1 - kept + kept * (1 - from_one))
    fine, coarse = (train.half_e2 * jnp.sum(stored * share * seen, axis=-1) for share in shares)
    size, change = (jnp.max(jnp.abs(part), axis=0) for part in (fine, fine - coarse))
    return jnp.where(change <= jnp.maximum(ERROR, jnp.sqrt(ERROR * size)), fine, jnp.nan)

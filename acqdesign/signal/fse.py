"""Fast spin echo (CPMG, RARE): echo amplitudes of a train of refocusing pulses by extended phase graphs.

With the excitation's magnetisation along the refocusing pulses' axis everything is real, and orders split by
parity. At the pulses the excited magnetisation populates odd half-spacing orders only: `F+_j, F-_j, z_j` at order
`2j + 1`, with `Z = i z`. One echo spacing is a pulse, relaxation, and the shift

    F+_{j+1} <- F+_j,    F+_0 <- F-_0,    F-_j <- F-_{j+1},

and the echo is `F-_0` half a spacing after the pulse. `N//2 + 1` orders are exact for `N` echoes, and at pulse
`n` only `j <= min(n, N - 1 - n)` can still reach an echo. What recovers towards equilibrium populates even orders:
they never echo, but set the longitudinal magnetisation that a later train starts from.

Hennig, J. Magn. Reson. 78 (1988); Weigel, J. Magn. Reson. Imaging 41 (2015).
"""

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Float, Inexact

from acqdesign._checks import bad, check_count, check_positive, is_concrete
from acqdesign._types import Array, Real
from acqdesign.signal._arguments import check_flips, decay, in_one_precision
from acqdesign.signal.engine import Tissue, map_tissues
from acqdesign.signal.sequence import TissueParams, as_real, check_relaxation

# Scans of different width that a train is cut into: more would save work, but each is compiled again.
_WINDOWS = 2


def fse(
    flips: ArrayLike,
    esp: ArrayLike,
    t1: ArrayLike,
    t2: ArrayLike,
    *,
    b1: ArrayLike = 1.0,
    m0: ArrayLike = 1.0,
    excitation: ArrayLike = math.pi / 2,
    tr: ArrayLike | None = None,
    n_states: int | None = None,
) -> Inexact[Array, "... echoes"]:
    """Echo amplitudes of a CPMG train.

    Args:
        flips: refocusing flip angles `(N,)` [rad], about the axis along which the excitation leaves the spins.
        esp: echo spacing [s]; the first pulse comes half of it after the excitation.
        t1: longitudinal relaxation time [s]; this and the next three broadcast to a batch shape.
        t2: transverse relaxation time [s].
        b1: transmit field relative to nominal; multiplies excitation and refocusing.
        m0: equilibrium magnetisation, real or complex.
        excitation: flip angle of the excitation [rad].
        tr: from excitation to excitation [s]: the signal is that of the steady state of repeated trains, with what
            recovers during and after a train carried into the next, and the transverse magnetisation spoiled
            between them. Left out, the train starts from equilibrium.
        n_states: odd orders kept; left out, all that reach an echo, which is exact.

    Returns:
        Echoes `(..., N)`, real unless `m0` is complex.

    Raises:
        ValueError: for times that are not positive (T1 and T2 may be infinite), T2 > 2 T1, flips that are not a
            vector, or a train that does not fit into `tr`.
    """
    values = in_one_precision(flips=flips, esp=esp, t1=t1, t2=t2, b1=b1, m0=m0, excitation=excitation, tr=tr)
    flips, esp = values["flips"], values["esp"]
    n = check_flips(flips)
    check_relaxation(values["t1"], values["t2"])
    for name in ("esp", "tr"):
        if name in values:
            if values[name].ndim:
                raise bad(name, values[name], "one time [s]")
            check_positive(name, values[name])
    if (
        tr is not None
        and is_concrete(values["tr"])
        and is_concrete(esp)
        and float(values["tr"]) < n * float(esp)
    ):
        least = n * float(esp)
        raise bad("tr", f"{float(values['tr']):g} s", f"at least the train's {n} x esp = {least:g} s")
    if n_states is not None:
        check_count("n_states", n_states)
    orders = n // 2 + 1 if n_states is None else min(n_states, n // 2 + 1)

    def block(tissue: Tissue) -> Array:
        b1 = tissue["b1"]
        angles = flips[:, None] * b1.reshape(1, -1)
        cos, sin = jnp.cos(angles), jnp.sin(angles)
        excited = values["excitation"] * b1
        half = decay(0.5 * esp, tissue["t2"])
        e2, e1 = half**2, decay(esp, tissue["t1"])
        start = jnp.sin(excited) * half
        echoes = half * _odd_orders(cos, sin, e1, e2, start, orders)
        if tr is not None:
            left, gain = _even_orders(cos, sin, e1, e2, tissue["t1"], esp, jnp.cos(excited))
            rest = decay(values["tr"] - (n + 0.5) * esp, tissue["t1"])
            # Longitudinal magnetisation before each excitation: M = 1 - E + E (left + gain M).
            echoes = echoes * (1 - rest + rest * left) / (1 - rest * gain)
        tissues = max(v.size for v in tissue.values())
        return jnp.broadcast_to(echoes, (n, tissues)).T

    tissue = {name: values[name] for name in ("t1", "t2", "b1")}
    echoes = map_tissues(block, tissue, 3 * orders * flips.dtype.itemsize, math.isqrt(n) + 1)
    return values["m0"][..., None] * echoes


def _turn(plus: Array, minus: Array, z: Array, cos: Array, sin: Array) -> tuple[Array, Array, Array]:
    """A refocusing pulse: `F+ + F-` stays; `F+ - F-` and `2 z` turn into each other."""
    kept, across, w = plus + minus, plus - minus, 2 * z
    turned = cos * across + sin * w
    return 0.5 * (kept + turned), 0.5 * (kept - turned), 0.5 * (cos * w - sin * across)


def _resize(rows: Array, orders: int) -> Array:
    return jnp.pad(rows[:orders], ((0, max(orders - rows.shape[0], 0)), (0, 0)))


def _up(rows: Array, first: Array) -> Array:
    return jnp.concatenate([first[None], rows[:-1]])


def _down(rows: Array) -> Array:
    return jnp.concatenate([rows[1:], jnp.zeros_like(rows[:1])])


def _segments(
    step: Callable, state: tuple[Array, ...], cos: Array, sin: Array, width: Callable[[int, int], int]
) -> tuple[tuple[Array, ...], Array]:
    """A scan over pulses in windows of their own width, each replayed rather than kept in reverse mode."""
    n = len(cos)
    size = max(4, -(-n // _WINDOWS))
    parts = []
    for start in range(0, n, size):
        stop = min(start + size, n)
        state = tuple(_resize(rows, width(start, stop)) for rows in state)
        run = jax.checkpoint(lambda state, xs: lax.scan(step, state, xs), prevent_cse=False)
        state, out = run(state, (cos[start:stop], sin[start:stop]))
        parts.append(out)
    return state, jnp.concatenate(parts)


def _odd_orders(cos: Array, sin: Array, e1: Array, e2: Array, start: Array, orders: int) -> Array:
    """`F-_0` after every pulse, `(N, tissues)`: the excited magnetisation."""
    n = len(cos)

    def width(first: int, stop: int) -> int:
        return max(1, min(orders, stop + 1, n - first))

    def step(state: tuple, x: tuple) -> tuple[tuple, Array]:
        plus, minus, z = _turn(*state, *x)
        return (e2 * _up(plus, minus[0]), e2 * _down(minus), e1 * z), minus[0]

    start = jnp.broadcast_to(start, jnp.broadcast_shapes(start.shape, e1.shape, cos.shape[1:]))
    none = jnp.zeros((1, start.size), cos.dtype)
    return _segments(step, (start.reshape(1, -1), none, none), cos, sin, width)[1]


def _even_orders(
    cos: Array, sin: Array, e1: Array, e2: Array, t1: Array, esp: Array, kept: Array
) -> tuple[Array, Array]:
    """Longitudinal magnetisation half a spacing after the last echo, as `left + gain · M` of that at the start.

    `M cos(excitation)` is what the excitation leaves. Two columns: recovery alone, and that remainder alone.
    """
    n = len(cos)
    size = max(jnp.size(e1), cos.shape[1], jnp.size(e2), jnp.size(kept))
    columns = lambda x: jnp.tile(jnp.broadcast_to(jnp.atleast_1d(x), (size,)), 2)  # noqa: E731
    first = decay(0.5 * esp, t1)
    z = jnp.concatenate(
        [jnp.broadcast_to(jnp.atleast_1d(1 - first), (size,)), jnp.broadcast_to(kept * first, (size,))]
    )
    e1s, e2s = columns(e1), columns(e2)
    feed = jnp.concatenate([jnp.broadcast_to(jnp.atleast_1d(1 - e1), (size,)), jnp.zeros(size, cos.dtype)])
    cos, sin = (jnp.tile(jnp.broadcast_to(a, (n, size)), 2) for a in (cos, sin))

    def width(first: int, stop: int) -> int:
        return max(1, min(stop + 1, n - first + 1, n // 2 + 2))

    def step(state: tuple, x: tuple) -> tuple[tuple, Array]:
        # F = i f and Z = z here: the turn of the odd orders with z of the other sign, and f-_0 = -f+_0.
        plus, minus, z = state
        plus, minus, z = _turn(plus, minus, -z, *x)
        plus, minus, z = e2s * plus, e2s * minus, -e1s * z
        down = _down(minus)
        return (_up(plus, -down[0]), down, z.at[0].add(feed)), jnp.zeros((), z.dtype)

    none = jnp.zeros((1, 2 * size), cos.dtype)
    (_, _, z), _ = _segments(step, (none, none, z[None]), cos, sin, width)
    # Half of the last spacing lies beyond the train's end; the rest of TR is counted from there.
    return z[0, :size], z[0, size:]


class FSE(eqx.Module):
    """A CPMG train as a pytree of its design variables; see `fse` for their units."""

    flips: Float[Array, " echoes"]
    esp: Real
    excitation: Real
    tr: Real | None

    def __init__(self, flips: Any, esp: Any, *, excitation: Any = math.pi / 2, tr: Any = None):
        self.flips, self.esp = as_real("flips", flips), as_real("esp", esp)
        self.excitation = as_real("excitation", excitation)
        self.tr = None if tr is None else as_real("tr", tr)

    def __call__(self, tissue: TissueParams) -> Inexact[Array, "... echoes"]:
        """Echoes `(..., N)` of a tissue; off-resonance and T2' are refocused, diffusion is not modelled."""
        return fse(
            self.flips,
            self.esp,
            tissue.t1,
            tissue.t2,
            b1=tissue.b1,
            m0=tissue.m0,
            excitation=self.excitation,
            tr=self.tr,
        )

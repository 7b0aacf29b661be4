"""Selective pulses: RF under a constant gradient, as the rotation that they are at every position across the slice.

A rotation is a pair of complex numbers (Cayley–Klein), `|a|² + |b|² = 1`. It takes the transverse magnetisation and
the longitudinal one to

    M' = a² M − b² M* + 2ab Mz,    Mz' = (|a|² − |b|²) Mz − 2 Re(a b* M),

and an ideal pulse of flip α, which takes equilibrium towards `exp(iφ)`, is `a = cos(α/2)`, `b = sin(α/2) exp(iφ)`.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from acqdesign.base.checks import as_array, check_count, check_finite, check_number, is_concrete, usage_error
from acqdesign.base.types import Array, Float
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import in_one_precision, unit_phase

MAX_FLIP = 2.0 * math.pi
"""Largest flip that the middle of a slice may see, B1 included [rad]; beyond it signals are NaN."""

TERMS = 12
"""Chebyshev polynomials of the flip's square that `a` and `b` are expanded in."""


class SelectivePulse(eqx.Module):
    """An RF pulse under a constant gradient, played at any flip: what it does at every position across the slice.

    Without relaxation during the pulse. The gradient before and after it refocuses what it dephases about the
    centre of mass of the envelope, which is the middle of a symmetric pulse.

    Args:
        envelope: samples of B1 at equal steps, real or complex, `(T,)`, in any units; scaled by their sum to the flip.
        time_bandwidth: duration times the frequency across the nominal thickness [1], a number.
        thickness: nominal thickness of the slice that this pulse selects, in units that a sequence's pulses share.
        extent: width of the region that signals are summed over, in the same units.
        positions: number of positions across it, the middles of equal parts. 48 across 3 thicknesses leave echo trains
            1e-7 off for time-bandwidth products up to 4; more need as many times more.

    Raises:
        UsageError: an envelope that is no vector, sums to zero, or whose lobes cancel so far that flips up to 360° do
            not follow from the table.

    Pauly et al., IEEE Trans Med Imaging 10:53, 1991.
    """

    a: Array
    b: Array
    extent: float = eqx.field(static=True)

    def __init__(
        self, envelope: Any, time_bandwidth: Any, *, thickness: Any = 1.0, extent: float = 3.0, positions: int = 48
    ):
        check_count("positions", positions)
        for name, value in (("extent", extent), ("time_bandwidth", time_bandwidth), ("thickness", thickness)):
            check_number(name, value, positive=True)
        envelope = as_array("envelope", envelope)
        if envelope.ndim != 1 or not envelope.size:
            raise usage_error("envelope", envelope, "a vector of samples")
        check_finite("envelope", envelope)
        area = envelope.sum()
        if is_concrete(area) and abs(complex(area)) <= 1e-6 * float(jnp.abs(envelope).sum()):
            raise usage_error("envelope", "samples that sum to zero", "a pulse that turns the middle of the slice")
        real = in_one_precision(time_bandwidth=time_bandwidth, thickness=thickness, real=envelope.real)
        shape = (envelope / area).astype(jnp.result_type(real["real"], 1j))
        place = extent * ((np.arange(positions) + 0.5) / positions - 0.5)
        turn = 2.0 * math.pi * real["time_bandwidth"] / real["thickness"] * place / envelope.size
        self.a, self.b = _series(shape, turn)
        self.extent = float(extent)
        rest = jnp.abs(self.a[-1]).max() + MAX_FLIP * jnp.abs(self.b[-1]).max()
        if is_concrete(rest) and rest > 1e-5:
            expected = "an amplitude-modulated pulse, whose lobes add up to a good part of what they are"
            raise usage_error("envelope", f"a pulse known to {float(rest):.1g} at 360°", expected)

    def rotation(self, flip: Array, place: Array) -> tuple[Array, Array]:
        """`a` and `b` at the positions of the given numbers, where the middle of the slice sees the flip [rad]."""
        flip = jnp.where(jnp.abs(flip) <= MAX_FLIP, flip, jnp.nan)
        flip = flip.reshape((1,) * (place.ndim - flip.ndim) + flip.shape)
        y = 2 * (flip / MAX_FLIP) ** 2 - 1
        terms = [jnp.ones_like(y), y]
        while len(terms) < TERMS:
            terms.append(2 * y * terms[-1] - terms[-2])
        basis = jnp.stack(terms)
        shape = (TERMS, *(1,) * (flip.ndim - place.ndim), *place.shape)  # of one pulse, for as many as flips are of

        def summed(series: Array) -> Array:
            return jnp.sum(basis * series.astype(y.dtype)[:, place].reshape(shape), axis=0)

        a, b = (lax.complex(summed(series.real), summed(series.imag)) for series in (self.a, self.b))
        return a, flip * b


def rotation(pulse: SelectivePulse | None, flip: Array, place: Array | None) -> tuple[Array, Array]:
    """`a` and `b` of a pulse that is selective at the places given, or else the same everywhere."""
    if pulse is None or place is None:
        return (1 + 0j) * jnp.cos(0.5 * flip), (1 + 0j) * jnp.sin(0.5 * flip)
    return pulse.rotation(flip, place)


def products(a: Array, b: Array) -> tuple[Array, ...]:
    """What a rotation multiplies with: `a²`, `b²`, `ab`, `ab*` and `|a|² − |b|²`."""
    return a * a, b * b, a * b, a * b.conj(), a.real**2 + a.imag**2 - b.real**2 - b.imag**2


def across_slice(
    signal: Callable[[Tissue, dict[str, Any]], Array], tissue: Tissue, pulses: Mapping[str, SelectivePulse | None]
) -> Array:
    """A signal `(..., N)` summed across the slice that selective pulses make; itself where none is selective.

    Args:
        signal: of tissues, given the pulses that are selective, by name, and `place`, the positions' numbers, which
            broadcast against the tissues.
        tissue: of any batch shape.
        pulses: of the sequence.
    """
    selective = {name: pulse for name, pulse in pulses.items() if pulse is not None}
    if not selective:
        return signal(tissue, {})
    extents = {(pulse.a.shape[1], pulse.extent) for pulse in selective.values()}
    if len(extents) > 1:
        raise usage_error(
            " and ".join(selective), f"(positions, extent) = {sorted(extents)}", "the same for all pulses"
        )
    (positions, extent) = extents.pop()
    spread = jax.tree.map(lambda field: field[..., None], tissue)
    found = signal(spread, selective | {"place": jnp.arange(positions)})
    return extent * jnp.mean(found, axis=-2)


def sinc_pulse(samples: int, time_bandwidth: float) -> Float[Array, " samples"]:
    """A Hamming-windowed sinc, the usual slice-selective pulse, with a peak of one.

    Args:
        samples: number of samples.
        time_bandwidth: duration times bandwidth; the number of zero crossings.

    Returns:
        Envelope `(samples,)` [1].
    """
    check_count("samples", samples, minimum=2)
    check_number("time_bandwidth", time_bandwidth, positive=True)
    t = (np.arange(samples) + 0.5) / samples - 0.5
    return jnp.asarray(np.sinc(time_bandwidth * t) * (0.54 + 0.46 * np.cos(2.0 * np.pi * t)))


@jax.jit
def _series(shape: Array, turn: Array) -> tuple[Array, Array]:
    """Chebyshev series `(TERMS, P)` of `a` and of `b` over the flip, in the flip's square, in which they are even."""
    angle = math.pi * (np.arange(TERMS) + 0.5) / TERMS
    flips = jnp.asarray(MAX_FLIP * np.sqrt((np.cos(angle) + 1) / 2), turn.dtype)
    a, b = jax.vmap(lambda flip: _played(flip * shape, turn))(flips)
    transform = np.cos(np.arange(TERMS)[:, None] * angle) * 2 / TERMS
    transform[0] /= 2
    a, b = (
        jnp.einsum("kn,np->kp", transform.astype(turn.dtype), x, precision="highest") for x in (a, b / flips[:, None])
    )
    return a, b


def _played(angles: Array, step: Array) -> tuple[Array, Array]:
    """`a` and `b` `(P,)` of complex rotations `(T,)`, each with a turn `step` about z, between the gradients around."""

    def sample(spin: tuple[Array, Array], angle: Array) -> tuple[tuple[Array, Array], None]:
        alpha, beta = spin
        square = angle.real**2 + angle.imag**2 + step**2
        turn = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        sinc = 0.5 * jnp.sinc(turn / (2.0 * math.pi))  # sin(turn/2) / turn
        a = lax.complex(jnp.cos(0.5 * turn), -step * sinc)
        b = -1j * angle * sinc
        return (a * alpha - b.conj() * beta, b * alpha + a.conj() * beta), None

    start = (jnp.ones(step.shape, angles.dtype), jnp.zeros(step.shape, angles.dtype))
    alpha, beta = lax.scan(sample, start, angles)[0]
    samples, weight = len(angles), angles / angles.sum()
    centre = (weight * (jnp.arange(samples, dtype=step.dtype) + 0.5)).sum().real
    return alpha.conj() * unit_phase(-0.5 * samples * step), 1j * beta * unit_phase((centre - 0.5 * samples) * step)

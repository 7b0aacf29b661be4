"""Slice profiles of RF pulses, as shares of the flip angle across the slice."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Inexact

from acqdesign.base.checks import (
    as_real,
    check_choice,
    check_count,
    check_finite,
    check_positive,
    is_concrete,
    usage_error,
)  # fmt: skip
from acqdesign.scene.tissue import Tissue
from acqdesign.signal._arguments import in_one_precision, unit_phase
from acqdesign.signal.sequence import Sequence, checked_signal


class SliceProfile(eqx.Module):
    """A slice profile as positions across the slice, each seeing its own share of the flip angle.

    Args:
        b1: flip relative to nominal at each position, `(P,)`.
        weights: quadrature weights, `(P,)`; the signal is `Σ_p weights_p · signal(b1 · b1_p)`.
    """

    b1: Float[Array, " positions"]
    weights: Float[Array, " positions"]

    def __init__(self, b1: Any, weights: Any):
        self.b1 = as_real("b1", b1)
        self.weights = as_real("weights", weights)
        if self.b1.ndim != 1 or self.b1.shape != self.weights.shape:
            got = f"shapes {self.b1.shape} and {self.weights.shape}"
            expected = "one weight for each of the slice positions in b1, both of shape (P,)"
            raise usage_error("weights", got, expected)


def simulate(
    sequence: Sequence, tissue: Tissue, *, slice_profile: SliceProfile | None = None
) -> Inexact[Array, "... echoes"]:
    """The signal of a sequence in a tissue, across a slice where a profile is given.

    Args:
        sequence: an object such as `FSE`.
        tissue: parameters of any batch shape.
        slice_profile: where given, the signal is summed over the slice, `Σ_p w_p S(B1 · b1_p)`.

    Returns:
        Signal `(..., n_echo)` in the units of the tissue's `m0`, the leading axes being the tissue's batch shape.
    """
    if slice_profile is None:
        return checked_signal(sequence, tissue)
    weights = slice_profile.weights
    spread = jax.tree.map(lambda field: field[..., None], tissue)
    spread = eqx.tree_at(lambda t: t.b1, spread, spread.b1 * slice_profile.b1)
    return jnp.einsum("...pn,p->...n", checked_signal(sequence, spread), weights, precision="highest")


def sinc_pulse(samples: int, time_bandwidth: float) -> Float[Array, " samples"]:
    """A Hamming-windowed sinc, the usual slice-selective pulse, with a peak of one.

    Args:
        samples: number of samples.
        time_bandwidth: duration times bandwidth; the number of zero crossings.

    Returns:
        Envelope `(samples,)` [1].
    """
    check_count("samples", samples, minimum=2)
    check_positive("time_bandwidth", time_bandwidth)
    t = (np.arange(samples) + 0.5) / samples - 0.5
    return jnp.asarray(np.sinc(time_bandwidth * t) * (0.54 + 0.46 * np.cos(2.0 * np.pi * t)))


def slice_profile(
    pulse: ArrayLike,
    time_bandwidth: ArrayLike,
    flip: ArrayLike,
    *,
    method: str = "bloch",
    extent: float = 2.0,
    positions: int = 64,
) -> SliceProfile:
    """What a pulse under a constant gradient leaves of its flip angle across the slice.

    `small_tip` is the Fourier transform of the envelope; `bloch` plays the pulse as a product of rotations
    and reads the flip from the longitudinal magnetisation it leaves. The envelope is scaled to reach `flip`
    in the middle of the slice by its integral. What the rewinder leaves of the phase across the slice is
    rounded to a sign, which is all there is for a symmetric pulse of small flip.

    Args:
        pulse: samples of the envelope at equal steps, real or complex, `(T,)`, in any units of B1.
        time_bandwidth: duration times the frequency across the nominal slice thickness [1], a number.
        flip: flip angle in the middle of the slice [rad], a number.
        method: `bloch` or `small_tip`.
        extent: width of the region summed over, in slice thicknesses.
        positions: number of positions across it.

    Returns:
        Flips relative to `flip` at the middles of equal parts of the extent, and these parts' widths in slice
        thicknesses as weights: a rectangular profile gives the signal without a profile.

    Pauly, Nishimura & Macovski, J Magn Reson 81:43, 1989; Pauly et al., IEEE Trans Med Imaging 10:53, 1991.
    """
    check_choice("method", method, ("bloch", "small_tip"))
    check_count("positions", positions)
    for name, value in (("extent", extent), ("time_bandwidth", time_bandwidth), ("flip", flip)):
        check_positive(name, value)
    envelope = jnp.asarray(pulse)
    if envelope.ndim != 1 or not envelope.size:
        raise usage_error("pulse", envelope, "a vector of samples")
    check_finite("pulse", envelope)
    area = envelope.sum()
    if is_concrete(area) and abs(complex(area)) <= 1e-6 * float(jnp.abs(envelope).sum()):
        raise usage_error("pulse", "samples that sum to zero", "a pulse that turns the middle of the slice")

    values = in_one_precision(time_bandwidth=time_bandwidth, flip=flip, real=envelope.real)
    flip, dtype = values["flip"], values["real"].dtype
    samples = envelope.size
    edges = np.linspace(-0.5 * extent, 0.5 * extent, positions + 1)
    place = jnp.asarray(0.5 * (edges[1:] + edges[:-1]), dtype)
    step = 2.0 * math.pi * values["time_bandwidth"] * place / samples  # turn by the gradient in a sample
    angles = (envelope * (flip / area)).astype(jnp.result_type(dtype, 1j))

    if method == "small_tip":
        time = jnp.arange(samples, dtype=dtype) - 0.5 * (samples - 1)
        turned = step[:, None] * time
        # About the middle of the pulse, where the gradient's rewinder refocuses it; samples are held, not dots.
        transform = (unit_phase(-turned) * angles).sum(axis=1)
        transverse = transform * jnp.sinc(step / (2.0 * math.pi))
        flips = _modulus(transverse)
    else:
        alpha, beta = _play(angles, step)
        transverse = 1j * unit_phase(-0.5 * samples * step) * alpha.conj() * beta
        flips = 2.0 * jnp.arctan2(_modulus(beta), _modulus(alpha))
    shares = jnp.where(transverse.real < 0, -flips, flips) / flip
    return SliceProfile(shares, jnp.full(positions, extent / positions, dtype))


def _modulus(value: Array) -> Array:
    square = value.real**2 + value.imag**2
    nonzero = square > 0
    return jnp.where(nonzero, jnp.sqrt(jnp.where(nonzero, square, 1.0)), 0.0)


def _play(angles: Array, step: Array) -> tuple[Array, Array]:
    """Cayley-Klein parameters `(P,)` of complex rotations `(T,)`, each with a turn `step` about z."""

    def sample(spin: tuple[Array, Array], angle: Array) -> tuple[tuple[Array, Array], None]:
        alpha, beta = spin
        turn = _modulus(lax.complex(_modulus(angle) * jnp.ones_like(step), step))
        sinc = 0.5 * jnp.sinc(turn / (2.0 * math.pi))  # sin(turn/2) / turn
        a = lax.complex(jnp.cos(0.5 * turn), -step * sinc)
        b = -1j * angle * sinc
        return (a * alpha - b.conj() * beta, b * alpha + a.conj() * beta), None

    start = (jnp.ones(step.shape, angles.dtype), jnp.zeros(step.shape, angles.dtype))
    return lax.scan(sample, start, angles)[0]

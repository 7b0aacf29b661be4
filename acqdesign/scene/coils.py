"""Simulated fields of coils: sensitivities of a birdcage array of receivers, and a transmit field."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, check_finite, check_positive, check_shape, usage_error
from acqdesign.base.types import Array, ArrayLike, Complex, Float

_RADIUS = 1.5  # of the coils' cylinder, in half fields of view: more than sqrt(2), outside of the field of view


def _half_fields(shape: Sequence[int]) -> list[np.ndarray]:
    """Coordinates of voxels in half fields of view, one array an axis, which broadcast to the grid."""
    return list(np.ix_(*((np.arange(n) - n // 2) / max(n / 2, 1.0) for n in shape)))


def birdcage_maps(
    n_coils: int, shape: Sequence[int], *, dtype: Any = jnp.complex64
) -> Complex[Array, "coils nx ny nz"]:
    """Sensitivities of coils on a cylinder around the x axis, with unit sum of squares in every voxel.

        s_c(r) ∝ exp(i θ_c(r)) / |r − r_c|,   Σ_c |s_c|² = 1

    with `θ_c` the direction, in the (y, z) plane, from coil to voxel: the receive field of a wire along x. Coordinates
    count half fields of view, so that the array fits any shape: the cylinder's radius is 1.5 of them, and the coils lie
    where x is zero; voxel `n` of `N` sits at `n − N//2`.

    Args:
        n_coils: number of coils.
        shape: `(nx, ny, nz)`; `nx = 1` for one plane.
        dtype: complex64 or complex128.
    """
    check_count("n_coils", n_coils)
    x, y, z = _half_fields(check_shape("shape", shape, dims=(3,)))

    def seen_from(angle: float) -> np.ndarray:
        dy, dz = y - _RADIUS * np.cos(angle), z - _RADIUS * np.sin(angle)
        return np.exp(1j * np.arctan2(dz, dy)) / np.sqrt(x**2 + dy**2 + dz**2)

    maps = np.stack([seen_from(2 * np.pi * c / n_coils) for c in range(n_coils)])
    return jnp.asarray(maps / np.sqrt(np.sum(np.abs(maps) ** 2, axis=0)), dtype)


def noise_covariance(samples: ArrayLike) -> Complex[np.ndarray, "coils coils"]:
    """The covariance `E[n nᴴ]` of coils, from `(coils, samples)` of their noise alone."""
    given = np.asarray(samples)
    if given.ndim != 2 or given.dtype.kind != "c" or given.shape[0] >= given.shape[1]:
        expected = "complex numbers of shape (coils, samples), more samples than coils"
        raise usage_error("noise", given, expected, "The coil axis comes first.")
    check_finite("noise", given)
    wide = given.astype(np.complex128)
    wide = wide - wide.mean(axis=1, keepdims=True)
    return wide @ wide.conj().T / (wide.shape[1] - 1)


def prewhitened(
    smaps: Complex[Array | np.ndarray, "coils nx ny nz"], covariance: ArrayLike
) -> Complex[Array, "coils nx ny nz"]:
    """Sensitivities of as many virtual coils whose noise is white, of one variance.

    With the covariance `Ψ = L Lᴴ` of the coils' noise, scaled to a mean variance of one, they are `L⁻¹ S`: what coils
    tell of an image stays, `Sᴴ Ψ⁻¹ S`, and the noise's standard deviation is the root mean square of the coils'.

    Args:
        smaps: of the coils.
        covariance: `(coils, coils)` Hermitian and positive definite, in any unit.

    K. P. Pruessmann et al., Magn. Reson. Med. 46:638, 2001.
    """
    given = check_covariance("covariance", covariance)
    if len(given) != len(smaps):
        raise usage_error("covariance", f"of {len(given)} coils", f"of {len(smaps)}, as many as there are maps")
    lower = np.linalg.cholesky(given * (len(given) / np.trace(given).real))
    wide = np.asarray(smaps, np.complex128)
    white = np.linalg.solve(lower, wide.reshape(len(wide), -1)).reshape(wide.shape)
    return jnp.asarray(white, jnp.asarray(smaps).dtype)


def check_covariance(name: str, covariance: ArrayLike) -> np.ndarray:
    """A covariance of noise as complex128; raises unless it is finite, Hermitian and positive definite."""
    given = np.asarray(covariance)
    if given.ndim != 2 or given.shape[0] != given.shape[1] or not given.size or given.dtype.kind not in "iufc":
        raise usage_error(name, given, "numbers of shape (coils, coils)")
    check_finite(name, given)
    given = given.astype(np.complex128)
    if not np.allclose(given, given.conj().T, atol=1e-5 * np.abs(given).max()):
        raise usage_error(name, "a matrix that is not Hermitian", "a covariance of noise")
    values = np.linalg.eigvalsh(given)
    if values[0] <= 1e-7 * values[-1]:
        what = f"one with eigenvalues from {values[0]:.3g} to {values[-1]:.3g}"
        raise usage_error(name, what, "a positive definite one", "Is a coil broken, or the same as another?")
    return given


def b1_map(
    shape: Sequence[int], *, centre: float = 1.2, edge: float = 0.8, dtype: Any = jnp.float32
) -> Float[Array, "nx ny nz"]:
    """A smooth transmit field, actual over nominal flip, as in a head at 3 T: strong in the middle, weak at the rim.

        B1(r) = edge + (centre − edge) (1 + cos(π min(|r|, 1))) / 2

    with `r` in half fields of view. The defaults span the ±20 % usual in the brain at 3 T (J. T. Vaughan et
    al., Magn. Reson. Med. 46:24, 2001); `centre = edge = 1` is a perfect field.

    Args:
        shape: `(nx, ny, nz)`; voxel `n` of `N` sits at `n − N//2`.
        centre: actual over nominal flip in the middle.
        edge: the same on and beyond the ellipsoid that fills the field of view.
        dtype: float32 or float64.
    """
    grid = check_shape("shape", shape, dims=(3,))
    check_positive("centre", centre)
    check_positive("edge", edge)
    radius = np.minimum(np.sqrt(sum(a**2 for a in _half_fields(grid))), 1.0)
    return jnp.asarray(edge + (centre - edge) * (1 + np.cos(np.pi * radius)) / 2, dtype)

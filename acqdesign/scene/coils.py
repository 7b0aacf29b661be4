"""Simulated fields of coils: sensitivities of a birdcage array of receivers, and a transmit field."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, check_positive, check_shape
from acqdesign.base.types import Array, Complex, Float

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

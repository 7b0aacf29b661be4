"""Simulated fields of coils: sensitivities of a birdcage array of receivers, and a transmit field."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, check_positive, check_shape, usage_error
from acqdesign.base.types import Array, Complex, Float


def _half_fields(shape: Sequence[int]) -> list[np.ndarray]:
    """Coordinates of voxels in half fields of view, one array an axis, which broadcast to the grid."""
    return list(np.ix_(*((np.arange(n) - n // 2) / max(n / 2, 1.0) for n in shape)))


def birdcage_maps(
    n_coils: int, shape: Sequence[int], *, radius: float = 1.5, rings: int = 1, dtype: Any = jnp.complex64
) -> Complex[Array, "coils nx ny nz"]:
    """Sensitivities of coils on a cylinder around the x axis, with unit sum of squares in every voxel.

        s_c(r) ∝ exp(i θ_c(r)) / |r − r_c|,   Σ_c |s_c|² = 1

    with `θ_c` the direction, in the (y, z) plane, from coil to voxel: the receive field of a wire along x. Coordinates
    count half fields of view, so that the array fits any shape; voxel `n` of `N` sits at `n − N//2`.

    Args:
        n_coils: number of coils, shared out evenly over the rings.
        shape: `(nx, ny, nz)`; `nx = 1` for one plane.
        radius: of the cylinder, in half fields of view.
        rings: number of rings along x.
        dtype: complex64 or complex128.
    """
    check_count("n_coils", n_coils)
    check_count("rings", rings)
    grid = check_shape("shape", shape, dims=(3,))
    if n_coils % rings:
        raise usage_error("rings", rings, f"a divisor of n_coils = {n_coils}")
    if not radius > math.sqrt(2):
        raise usage_error("radius", radius, "more than sqrt(2), so that coils lie outside the field of view")
    x, y, z = _half_fields(grid)
    per_ring = n_coils // rings
    maps = np.empty((n_coils, *grid), np.complex128)
    for c in range(n_coils):
        ring, place = divmod(c, per_ring)
        # Rings are turned against each other so that no two coils face the same way.
        angle = 2 * np.pi * (place + ring / rings) / per_ring
        along = 0.0 if rings == 1 else -1.0 + 2.0 * ring / (rings - 1)
        dy, dz = y - radius * np.cos(angle), z - radius * np.sin(angle)
        distance = np.sqrt((x - along) ** 2 + dy**2 + dz**2)
        maps[c] = np.exp(1j * np.arctan2(dz, dy)) / distance
    maps /= np.sqrt(np.sum(np.abs(maps) ** 2, axis=0))
    return jnp.asarray(maps, dtype)


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

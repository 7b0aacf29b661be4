"""Coil sensitivities: a simulated birdcage array, and the check of measured ones."""

import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, check_shape, usage_error
from acqdesign.base.types import Array, Complex


def birdcage_maps(
    n_coils: int, shape: Sequence[int], *, radius: float = 1.5, rings: int = 1, dtype: Any = jnp.complex64
) -> Complex[Array, "coils nx ny nz"]:
    """Sensitivities of coils on a cylinder around the x axis, with unit sum of squares in every voxel.

        s_c(r) ∝ exp(i θ_c(r)) / |r − r_c|,   Σ_c |s_c|² = 1

    with `θ_c` the direction, in the (y, z) plane, from coil to voxel: the receive field of a wire along x.
    Coordinates count half fields of view, so that the array fits any shape; voxel `n` of `N` sits at
    `n − N//2`.

    Args:
        n_coils: number of coils, shared out evenly over the rings.
        shape: `(nx, ny, nz)`; `nx = 1` for one plane.
        radius: of the cylinder, in half fields of view.
        rings: number of rings along x.
        dtype: complex64 or complex128.

    Returns:
        Maps `(n_coils, nx, ny, nz)`.

    Raises:
        ValueError: a count or shape that is not positive, coils that do not divide into the rings, or a
            cylinder inside the corners of the field of view.
    """
    check_count("n_coils", n_coils)
    check_count("rings", rings)
    grid = check_shape("shape", shape, dims=(3,))
    if n_coils % rings:
        raise usage_error("rings", rings, f"a divisor of n_coils = {n_coils}")
    if not radius > math.sqrt(2):
        raise usage_error("radius", radius, "more than sqrt(2), so that coils lie outside the field of view")
    x, y, z = np.meshgrid(*((np.arange(n) - n // 2) / max(n / 2, 1.0) for n in grid), indexing="ij")
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

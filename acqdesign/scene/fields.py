"""Field maps: a simulated transmit field, and the check of measured maps."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_positive, check_shape
from acqdesign.base.types import Array, Float


def b1_map(
    shape: Sequence[int], *, centre: float = 1.2, edge: float = 0.8, dtype: Any = jnp.float32
) -> Float[Array, "nx ny nz"]:
    """A smooth relative transmit field as in a head at 3 T: too strong in the middle, too weak at the rim.

        B1(r) = edge + (centre − edge) (1 + cos(π min(|r|, 1))) / 2

    with `r` in half fields of view. The defaults span the ±20 % usual in the brain at 3 T (J. T. Vaughan et
    al., Magn. Reson. Med. 46:24, 2001); `centre = edge = 1` is a perfect field.

    Args:
        shape: `(nx, ny, nz)`; voxel `n` of `N` sits at `n − N//2`.
        centre: actual over nominal flip in the middle.
        edge: the same on and beyond the ellipsoid that fills the field of view.
        dtype: float32 or float64.

    Returns:
        The map, actual over nominal flip angle.

    Raises:
        ValueError: a shape that is not three positive integers, or a field that is not positive.
    """
    grid = check_shape("shape", shape, dims=(3,))
    check_positive("centre", centre)
    check_positive("edge", edge)
    axes = np.meshgrid(*((np.arange(n) - n // 2) / max(n / 2, 1.0) for n in grid), indexing="ij", sparse=True)
    radius = np.minimum(np.sqrt(sum(a**2 for a in axes)), 1.0)
    return jnp.asarray(edge + (centre - edge) * (1 + np.cos(np.pi * radius)) / 2, dtype)

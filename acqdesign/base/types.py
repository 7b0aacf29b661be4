"""Named array shapes used on public signatures (read by jaxtyping and checked in the tests)."""

from typing import Any

import jax.typing
from jaxtyping import Array, Complex, Float, Inexact, Key  # noqa: F401  (imported from here by all rooms)
from typing_extensions import TypeAliasType

ArrayLike = TypeAliasType("ArrayLike", jax.typing.ArrayLike)
"""What becomes an array: an array of JAX or NumPy, or a number; `help()` shows it by this name."""

Real = Float[Array, "..."]
"""A real array of any shape."""

Scalar = Float[Array, ""]
"""A real scalar."""

Points = Float[Array, "*batch points dims"]
"""k-space points in cycles per voxel, `(..., M, D)`, k-space being periodic with period one."""

LinePoints = Float[Array, "lines 2"]
"""Phase-encode positions `(ky, kz)` of straight readout lines, in cycles per voxel."""

Image = Inexact[Array, "..."]
"""An image `(..., nx[, ny[, nz]])`, real or complex."""

Samples = Inexact[Array, "..."]
"""k-space samples `(..., M)`, real or complex."""

PRNGKey = Key[Array, ""]
"""A typed key from `jax.random.key`."""

PyTree = Any
"""Any JAX pytree."""

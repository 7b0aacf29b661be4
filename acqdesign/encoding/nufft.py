"""Non-uniform Fourier transforms, exact adjoints of each other, differentiable in every argument.

`nufft_forward` computes `y_j = Σ_r f_r exp(-2πi k_j·r)` and `nufft_adjoint` its conjugate transpose, without
scale. Voxel `n` of an axis of length `N` sits at `n - N//2`; points are in cycles per voxel.

`jit`, `vmap`, `jvp`, `grad` and their compositions, second derivatives included, are those of the function as
computed: see `_primitives`.
"""

import math

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_finite, check_number, check_shape, is_concrete, usage_error
from acqdesign.base.types import Array, Image, Points, Samples
from acqdesign.encoding import _backends
from acqdesign.encoding._primitives import Plan, adjoint, forward


def _transform(
    name: str, array: Array, points: Array, shape: tuple[int, ...], eps: float | None, backend: str
) -> Array:
    """`nufft_forward` or, of samples, `nufft_adjoint`, once shapes go together."""
    is_image = name == "image"
    own, batch = len(shape) if is_image else 1, points.shape[:-2]
    lead = array.shape[: array.ndim - own]
    if lead[: len(batch)] != batch:
        remedy = "Points with leading axes give one set for each; broadcast the array to them, or use jax.vmap."
        raise usage_error(name, array, f"the leading axes {tuple(batch)} of points", remedy)
    t, k = math.prod(batch), math.prod(lead[len(batch) :])
    if t * k == 0:
        raise usage_error(name, array, f"at least one {'image' if is_image else 'set of samples'}")
    dtype = _backends.complex_dtype(array, points)
    flat = array.astype(dtype).reshape(t, k, *array.shape[array.ndim - own :])
    points = points.astype(jnp.finfo(dtype).dtype).reshape(t, *points.shape[-2:])
    picked = _backends.resolve_backend(backend, n_points=points.shape[1], shape=shape, n_transforms=k)
    plan = Plan(picked, check_eps(eps, dtype), shape)
    out = (forward if is_image else adjoint)(plan, flat, points)
    return out.reshape(*lead, *out.shape[2:])


_FARTHEST = 1.0  # half a period beyond the end: limits may still bring such lines back


def check_points(points: Array, dims: int | None = None) -> None:
    """Raises unless `points` is a finite real array `(..., M, D)`, `D` being `dims` or else 1 to 3."""
    wanted = "(..., M, D) with D = " + (str(dims) if dims else "1, 2 or 3")
    if not hasattr(points, "dtype") or points.ndim < 2 or not jnp.issubdtype(points.dtype, jnp.floating):
        raise usage_error("points", points, f"a real floating-point array of shape {wanted}")
    if points.shape[-1] not in ((dims,) if dims else (1, 2, 3)) or points.shape[-2] < 1:
        raise usage_error("points", points, f"shape {wanted}, in cycles per voxel")
    if jnp.finfo(points.dtype).bits < 32:
        raise usage_error("points", points, "float32 or float64", "Half precision is too coarse here: astype(float32).")
    check_finite("points", points)


def check_cycles(name: str, points: Array) -> None:
    """Raises where concrete positions of a design lie so far beyond ±0.5 cycles/voxel that they are in another unit."""
    if is_concrete(points):
        most = float(np.abs(np.asarray(points)).max(initial=0.0))
        if most > _FARTHEST:
            remedy = "Radians? Divide by 2π. Cycles per field of view? Divide by the matrix size."
            raise usage_error(name, f"positions up to {most:.4g}", "cycles/voxel, -0.5 to 0.5", remedy)


def check_eps(eps: float | None, dtype: jnp.dtype) -> float:
    """`eps` if it is between 0 and 1; its default for the dtype if it is None."""
    if eps is None:
        return 1e-6 if jnp.finfo(dtype).bits == 32 else 1e-12
    check_number("eps", eps)
    if not 0 < eps < 1:
        raise usage_error("eps", eps, "a relative accuracy between 0 and 1, such as 1e-6")
    return float(eps)


def check_options(eps: float | None, backend: str, dtype: jnp.dtype) -> None:
    """Raises on an accuracy or a backend that no transform could use here."""
    check_eps(eps, dtype)
    _backends.resolve_backend(backend, n_points=1, shape=(1,), n_transforms=1)


def nufft_forward(image: Image, points: Points, *, eps: float | None = None, backend: str = "auto") -> Samples:
    """Non-uniform DFT of an image: `y_j = Σ_r f_r exp(-2πi k_j·r)`.

    Args:
        image: `(..., nx[, ny[, nz]])`, real or complex, in any units, as many trailing axes as points have coordinates.
        points: `(*batch, M, D)` in cycles per voxel; periodic with period one. Leading axes, if any, must be
            the first leading axes of `image`: each entry then has its own points.
        eps: relative accuracy asked of `finufft`; 1e-6 in single and 1e-12 in double precision by default.
        backend: `finufft`, `dft` (exact and dense) or `auto`.

    Returns:
        Samples `(..., M)`, complex64 or complex128.
    """
    check_points(points)
    dims = points.shape[-1]
    if not hasattr(image, "ndim") or image.ndim < dims:
        raise usage_error("image", image, f"at least {dims} axes, one for each coordinate of points")
    shape = check_shape("image.shape", image.shape[image.ndim - dims :])
    return _transform("image", image, points, shape, eps, backend)


def nufft_adjoint(
    samples: Samples, points: Points, shape: tuple[int, ...], *, eps: float | None = None, backend: str = "auto"
) -> Image:
    """Conjugate transpose of `nufft_forward`: `f_r = Σ_j y_j exp(+2πi k_j·r)`.

    From samples `(..., M)`, real or complex, to images `(..., *shape)`, complex64 or complex128, `shape` having as many
    axes as points have coordinates. Other arguments and errors are those of `nufft_forward`.
    """
    shape = check_shape("shape", shape)
    check_points(points, len(shape))
    if not hasattr(samples, "ndim") or samples.ndim < 1 or samples.shape[-1] != points.shape[-2]:
        raise usage_error("samples", samples, f"shape (..., {points.shape[-2]}), one sample for each of points")
    return _transform("samples", samples, points, shape, eps, backend)

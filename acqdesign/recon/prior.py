"""Reconstruction with a stationary image prior: the power spectrum of images falls off away from its centre.

    x = M S u,    u = argmin ‖A M S u - y‖² / σ² + ‖u‖²,    S = Fᴴ diag(s) F

with `M` one where there is something to see and zero elsewhere. Conjugate gradients over the white `u` take directions
that images are likely to have first, and a few iterations go far.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import PartitionSpec

from acqdesign.base.checks import (
    as_array,
    as_real,
    check_at_least_zero,
    check_kind,
    check_number,
    check_shape,
    usage_error,
)  # fmt: skip
from acqdesign.base.sharding import across
from acqdesign.base.types import Array, ArrayLike, Float, Image
from acqdesign.encoding import Gram
from acqdesign.recon.cg import cg


def spectral_prior(plane: tuple[int, int], exponent: float, *, dtype: Any = jnp.float32) -> Float[Array, "ny nz"]:
    """Real relative amplitudes `s(k) ∝ (1 + |k|²)^(-exponent/4)` over a plane, their mean square one, zero first.

    `|k|` counts steps of the longer side's grid. The power spectrum of natural images falls with an exponent of 2, that
    of a head a little faster or slower, by contrast; 0 is white, which is plain Tikhonov regularisation. Field,
    "Relations between the statistics of natural images and the response properties of cortical cells", J. Opt. Soc. Am.
    A 4 (1987).
    """
    ny, nz = check_shape("plane", plane, dims=(2,))
    check_at_least_zero("exponent", exponent)
    ky, kz = (max(ny, nz) * np.fft.fftfreq(n) for n in (ny, nz))
    power = (1 + ky[:, None] ** 2 + kz[None] ** 2) ** (-exponent / 2)
    return jnp.asarray(np.sqrt(power / power.mean()), dtype)


def apply_prior(image: Image, spectrum: Float[Array, "ny nz"] | None) -> Image:
    """`S` of images `(..., ny, nz)`, planes across the readout filtered one by one; None is the identity."""
    if spectrum is None:
        return image
    # Its axes are those of the phase encodes: along a fully sampled readout nothing is missing.
    # On a mesh by local pieces: left to itself XLA gathers the planes, in a layout that its FFT on CPUs refuses.
    pieces = PartitionSpec(*[None] * (image.ndim - 3), *["planes"] * (image.ndim > 2))
    filtered = across(lambda x, s: jnp.fft.ifft2(s * jnp.fft.fft2(x)), (pieces, PartitionSpec()), pieces)
    return filtered(image, spectrum)


def posterior_mean(
    gram: Callable[[Image], Image],
    rhs: Image,
    spectrum: Float[Array, "ny nz"] | None,
    *,
    ridge: ArrayLike,
    iterations: int,
    dims: int = 3,
    planes_apart: bool | None = None,
    support: Float[Array, "..."] | None = None,
) -> Image:
    """The image `M S u` with `(S M gram M S + ridge) u = S M rhs`, by conjugate gradients from zero.

    Args:
        gram: `Aᴴ A`.
        rhs: the image `Aᴴ y`, `(..., nx, ny, nz)`.
        spectrum: relative amplitudes `(ny, nz)` from `spectral_prior`, or None.
        ridge: noise variance of a sample over the prior's variance of a voxel [1], a number.
        iterations: of conjugate gradients.
        dims: how many trailing axes are solved for together.
        planes_apart: as of `cg`.
        support: `M` [1], of a shape that multiplies `rhs`; None is one everywhere.
    """
    rhs, spectrum = as_array("rhs", rhs), None if spectrum is None else as_real("spectrum", spectrum)
    check_number("ridge", ridge)
    check_kind("gram", gram, Callable, "a map of images")  # type: ignore[arg-type]
    if spectrum is not None and rhs.shape[-2:] != spectrum.shape:
        raise usage_error("spectrum", spectrum, f"the plane of the images, {rhs.shape[-2:]}")

    def seen(image: Image) -> Image:
        return image if support is None else support * image

    def matrix(u: Image) -> Image:
        return apply_prior(seen(gram(seen(apply_prior(u, spectrum)))), spectrum) + ridge * u

    start = apply_prior(seen(rhs), spectrum)
    apart = isinstance(gram, Gram) and gram.planes_apart if planes_apart is None else planes_apart
    found = cg(matrix, start, iterations=iterations, dims=dims, planes_apart=apart)
    return seen(apply_prior(found, spectrum))

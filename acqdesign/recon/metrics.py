"""How far an image is from the truth."""

import dm_pix
import jax.numpy as jnp

from acqdesign.base.checks import usage_error
from acqdesign.base.types import Array, Float, Image


def safe_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root whose gradient at zero is zero rather than infinite."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def magnitude(x: Image) -> Float[Array, "..."]:
    """Magnitude whose gradient at zero is zero rather than NaN."""
    return safe_sqrt(_power(x)) if jnp.iscomplexobj(x) else jnp.abs(x)


def _power(x: Image) -> Float[Array, "..."]:
    """Squared magnitude, smooth everywhere."""
    return x.real**2 + x.imag**2 if jnp.iscomplexobj(x) else x**2


def _check(image: Image, truth: Image, dims: int) -> tuple[int, ...]:
    """The axes of one image, once truth and image go together."""
    if truth.ndim < dims:
        raise usage_error("truth", truth, f"at least the {dims} axes of an image")
    if image.shape[-truth.ndim :] != truth.shape:
        raise usage_error("image", image, f"the trailing axes of the truth's shape {tuple(truth.shape)}")
    return tuple(range(-dims, 0))


def nrmse(image: Image, truth: Image, dims: int = 3) -> Float[Array, "..."]:
    """Normalised root-mean-square error of complex images, `‖x - t‖ / ‖t‖`.

    Args:
        image: `(..., nx, ny, nz)`, real or complex, in any units.
        truth: of the same shape, or of its trailing axes, in the units of `image`; not all zero.
        dims: how many trailing axes are one image.

    Returns:
        One number an image, `(...)`.

    Raises:
        ValueError: on shapes that do not go together.
    """
    axes = _check(image, truth, dims)
    return safe_sqrt(jnp.sum(_power(image - truth), axis=axes) / jnp.sum(_power(truth), axis=axes))


def psnr(image: Image, truth: Image, dims: int = 3) -> Float[Array, "..."]:
    """Peak signal-to-noise ratio of magnitudes, `20 log10(max|t| / rms(|x| - |t|))` [dB].

    Args:
        image: `(..., nx, ny, nz)`, real or complex, in any units.
        truth: of the same shape, or of its trailing axes, in the units of `image`; not all zero.
        dims: how many trailing axes are one image.

    Returns:
        One number an image, `(...)` [dB], infinite where it is the truth.

    Raises:
        ValueError: on shapes that do not go together.
    """
    axes = _check(image, truth, dims)
    found, wanted = magnitude(image), magnitude(truth)
    error = jnp.mean((found - wanted) ** 2, axis=axes)
    return 10 * jnp.log10(jnp.max(wanted, axis=axes) ** 2 / error)


def ssim(image: Image, truth: Image) -> Float[Array, "..."]:
    """Structural similarity of magnitudes, the mean over planes across the readout.

    Gaussian windows of 11 voxels (fewer where the plane is smaller) wholly inside the plane, range that of the
    truth, by dm-pix.

    Args:
        image: `(..., nx, ny, nz)`, real or complex, in any units.
        truth: of the same shape, or of its trailing axes, in the units of `image`; not all zero.

    Returns:
        One number an image, `(...)`, at most one.

    Raises:
        ValueError: on shapes that do not go together.

    References:
        Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Trans.
        Image Process. 13 (2004).
    """
    axes = _check(image, truth, 3)
    found, wanted = jnp.broadcast_arrays(magnitude(image), magnitude(truth))
    top = jnp.max(wanted, axis=axes, keepdims=True)
    shape = found.shape
    size = min(11, *shape[-2:])
    planes = [(a / top).reshape(-1, *shape[-2:], 1) for a in (found, wanted)]
    # dm-pix makes its window in JAX's default precision, whatever that of the images.
    values = dm_pix.ssim(*planes, filter_size=size).astype(found.dtype)
    return jnp.mean(values.reshape(shape[:-2]), axis=-1)

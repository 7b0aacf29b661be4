"""How far an image is from the truth, on magnitudes."""

import dm_pix
import jax.numpy as jnp

from acqdesign._checks import bad
from acqdesign._types import Array, Float, Image


def safe_sqrt(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Square root whose gradient at zero is zero rather than infinite."""
    zero = x == 0
    return jnp.where(zero, 0, jnp.sqrt(jnp.where(zero, 1, x)))


def magnitude(x: Image) -> Float[Array, "..."]:
    """Magnitude whose gradient at zero is zero rather than NaN."""
    return safe_sqrt(x.real**2 + x.imag**2) if jnp.iscomplexobj(x) else jnp.abs(x)


def _pair(image: Image, truth: Image) -> tuple[Array, Array]:
    if image.shape[image.ndim - truth.ndim :] != truth.shape and truth.shape != image.shape:
        raise bad("image", image, f"the shape of the truth {tuple(truth.shape)}")
    return magnitude(image), magnitude(truth)


def nrmse(image: Image, truth: Image, dims: int = 3) -> Float[Array, "..."]:
    """Normalised root-mean-square error of complex images, `‖x - t‖ / ‖t‖`.

    Args:
        image: `(..., nx, ny, nz)`.
        truth: of the same shape, or of its trailing axes.
        dims: how many trailing axes are one image.

    Returns:
        One number an image.
    """
    axes = tuple(range(-dims, 0))
    error, power = (jnp.sum(jnp.abs(a) ** 2, axis=axes) for a in (image - truth, truth))
    return safe_sqrt(error / power)


def psnr(image: Image, truth: Image, dims: int = 3) -> Float[Array, "..."]:
    """Peak signal-to-noise ratio of magnitudes, `20 log10(max|t| / rms(|x| - |t|))` [dB]."""
    found, wanted = _pair(image, truth)
    axes = tuple(range(-dims, 0))
    error = jnp.mean((found - wanted) ** 2, axis=axes)
    return 10 * jnp.log10(jnp.max(wanted, axis=axes) ** 2 / error)


def ssim(image: Image, truth: Image) -> Float[Array, "..."]:
    """Structural similarity of magnitudes, the mean over planes across the readout.

    Gaussian windows of 11 voxels (fewer where the plane is smaller), range that of the truth, by dm-pix.

    Args:
        image: `(..., nx, ny, nz)`.
        truth: of the same shape, or of its trailing axes.

    Returns:
        One number an image, at most one.

    References:
        Wang et al., "Image quality assessment: from error visibility to structural similarity", IEEE Trans.
        Image Process. 13 (2004).
    """
    found, wanted = jnp.broadcast_arrays(*_pair(image, truth))
    top = jnp.max(wanted, axis=(-3, -2, -1), keepdims=True)
    shape = found.shape
    size = min(11, *shape[-2:])
    planes = [(a / top).reshape(-1, *shape[-2:], 1) for a in (found, wanted)]
    values = dm_pix.ssim(*planes, filter_size=size)
    return jnp.mean(values.reshape(shape[:-2]), axis=-1)

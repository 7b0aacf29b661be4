"""How far an image is from the truth."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import as_array, check_count, usage_error
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


def _checked(image: Any, truth: Any, dims: int) -> tuple[Array, Array, tuple[int, ...]]:
    """Image and truth, and the axes of one image, once they go together."""
    image, truth = as_array("image", image), as_array("truth", truth)
    check_count("dims", dims)
    if truth.ndim < dims:
        remedy = f"Say dims={truth.ndim} where that is one image." if truth.ndim else ""
        raise usage_error("truth", truth, f"at least the {dims} axes of an image", remedy)
    if image.shape[-truth.ndim :] != truth.shape:
        raise usage_error("image", image, f"the trailing axes of the truth's shape {tuple(truth.shape)}")
    return image, truth, tuple(range(-dims, 0))


def nrmse(image: Image, truth: Image, dims: int = 3) -> Float[Array, "..."]:
    """Normalised root-mean-square error of complex images, `‖x - t‖ / ‖t‖`.

    Args:
        image: `(..., nx, ny, nz)`, real or complex, in any units.
        truth: of the same shape, or of its trailing axes, in the units of `image`; not all zero.
        dims: how many trailing axes are one image.

    Returns:
        One number an image, `(...)`.
    """
    image, truth, axes = _checked(image, truth, dims)
    return safe_sqrt(jnp.sum(_power(image - truth), axis=axes) / jnp.sum(_power(truth), axis=axes))


def psnr(image: Image, truth: Image, dims: int = 3) -> Float[Array, "..."]:
    """Peak signal-to-noise ratio of magnitudes, `20 log10(max|t| / rms(|x| - |t|))` [dB]; arguments as of `nrmse`.

    Infinite where the image is the truth.
    """
    image, truth, axes = _checked(image, truth, dims)
    found, wanted = magnitude(image), magnitude(truth)
    error = jnp.mean((found - wanted) ** 2, axis=axes)
    return 10 * jnp.log10(jnp.max(wanted, axis=axes) ** 2 / error)


def ssim(image: Image, truth: Image) -> Float[Array, "..."]:
    """Structural similarity of magnitudes, the mean over planes across the readout.

    Gaussian windows of 11 voxels (fewer where the plane is smaller) wholly inside the plane, range that of the truth;
    arguments as of `nrmse`. Wang et al., "Image quality assessment: from error visibility to structural similarity",
    IEEE Trans. Image Process. 13 (2004).
    """
    image, truth, axes = _checked(image, truth, 3)
    found, wanted = jnp.broadcast_arrays(magnitude(image), magnitude(truth))
    top = jnp.max(wanted, axis=axes, keepdims=True)
    a, b = ((image / top).reshape(-1, *found.shape[-2:]) for image in (found, wanted))
    return jnp.mean(_ssim_of_planes(a, b, min(11, *found.shape[-2:])).reshape(found.shape[:-2]), axis=-1)


def _ssim_of_planes(a: Array, b: Array, size: int, sigma: float = 1.5) -> Array:
    """Mean similarity `(n,)` of planes `(n, ny, nz)` in [0, 1], by windows of `size` voxels."""
    window = np.exp(-0.5 * ((np.arange(size) - (size - 1) / 2) / sigma) ** 2)
    window /= window.sum()

    def blurred(planes: Array) -> Array:
        for axis, n in enumerate(planes.shape[1:], start=1):
            rows = np.stack([np.pad(window, (row, n - size - row)) for row in range(n - size + 1)])
            moved = jnp.tensordot(jnp.asarray(rows, planes.dtype), planes, axes=(1, axis), precision="highest")
            planes = jnp.moveaxis(moved, 0, axis)
        return planes

    mean_a, mean_b = blurred(a), blurred(b)
    least = jnp.finfo(jnp.float32).eps ** 2
    var_a, var_b = (jnp.maximum(blurred(x**2) - m**2, least) for x, m in ((a, mean_a), (b, mean_b)))
    both = blurred(a * b) - mean_a * mean_b
    both = jnp.sign(both) * jnp.minimum(jnp.sqrt(var_a * var_b), jnp.abs(both))
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_a * mean_b + c1) * (2 * both + c2)
    return jnp.mean(top / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2)), axis=(1, 2))

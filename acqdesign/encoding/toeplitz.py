"""The Gram of a non-uniform DFT as a convolution: `Bᴴ w B` needs only FFTs once its kernel is known.

    (Bᴴ w B f)(r) = Σ_r' T(r - r') f(r'),    T(ρ) = Σ_s w_s exp(2πi k_s·ρ)

On a grid padded to `P ≥ 2N - 1` the kernel's spectrum is real and separable in each point,

    λ(q) = Σ_s w_s Π_d D(k_sd - q_d / P_d),    D(x) = sin((2N_d - 1)πx) / sin(πx)

so it is one type-1 transform on the doubled grid or, in a plane, one real matrix product (`dft`), and
gradients reach points and weights through it alone. Fessler et al., "Toeplitz-based iterative image
reconstruction for MRI with correction for magnetic field inhomogeneity", IEEE Trans. Signal Process. 53 (2005).
"""

import itertools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Complex

from acqdesign.base.types import Array, Float, Image, Inexact
from acqdesign.encoding import _backends
from acqdesign.encoding.nufft import nufft_adjoint, nufft_forward

# Below this many multiply-adds the dense spectrum is the faster one on two CPU cores.
_DENSE_WORK = 2**24
# Images transformed together: on a CPU what a core's cache holds, elsewhere what fills the device.
_CPU_BLOCK_BYTES, _DEVICE_BLOCK_BYTES = 2**19, 2**30


def dirichlet(x: Float[Array, "..."], n: int) -> Float[Array, "..."]:
    """Dirichlet kernel `sin(nπx) / sin(πx)`, `n` odd, `x` in cycles: right at 0 too, as are its derivatives."""
    angle = math.pi * _backends.wrap(x)
    # The quotient's derivative cancels near zero; there its series is exact to rounding.
    small = jnp.abs(n * angle) < (0.3 if x.dtype == jnp.float32 else 0.02)
    series = n * (1 - (n**2 - 1) / 6 * angle**2 * (1 - (3 * n**2 - 7) / 60 * angle**2))
    away = jnp.where(small, math.pi / 2, angle)
    return jnp.where(small, series, jnp.sin(n * away) / jnp.sin(away))


def padded_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The smallest fast FFT sizes that hold every difference of two voxels."""
    return tuple(scipy.fft.next_fast_len(2 * n - 1) for n in shape)


def _shifts(shape: tuple[int, ...]) -> np.ndarray:
    """From the voxels of an image to the differences in each piece of a kernel, `(2^(D-1), D)`."""
    return np.array(list(itertools.product(*([n // 2, n // 2 - n] for n in shape[:-1]), [shape[-1] // 2])))


def _phases(points: Array, shape: tuple[int, ...]) -> Complex[Array, "pieces points"]:
    """`exp(2πi k·shift)`, for which a transform of an image's size is one of a piece."""
    shifts = jnp.asarray(_shifts(shape), points.dtype)
    cycles = jnp.sum(_backends.wrap(shifts[:, None] * points[None]), axis=-1)
    return jax.lax.complex(jnp.cos(2 * math.pi * cycles), jnp.sin(2 * math.pi * cycles))


def kernel_pieces(
    points: Array, weights: Array, shape: tuple[int, ...], *, eps: float | None = None, backend: str = "auto"
) -> Complex[Array, "..."]:
    """`T(ρ)` of real weights `(..., M)` on half of the differences, `(..., 2^(D-1), *shape)`.

    Along the last axis from zero on, since `T(-ρ)` is the conjugate of `T(ρ)`; along each other from zero on in one
    piece and `-N` to `-1` in the next. Their transforms of an image's size stay in a cache that one of the doubled
    grid leaves: a quarter of its time at 64³.
    """
    weights, phases = _backends.promote(weights[..., None, :], _phases(points, shape))
    phased = weights * jnp.broadcast_to(phases, (*weights.shape[:-2], *phases.shape))
    return nufft_adjoint(phased, points, shape, eps=eps, backend=backend)


def transform_pieces(kernel: Array, points: Array, *, backend: str = "auto") -> Float[Array, "... points"]:
    """`Σ_ρ T(ρ) exp(-2πi k·ρ)` of the pieces of a kernel `(..., 2^(D-1), *shape)` at points `(M, D)`: real."""
    shape = kernel.shape[-points.shape[-1] :]
    # What lies on the other side of zero has the same real part.
    twice = jnp.where(jnp.arange(shape[-1]) > 0, 2, 1).astype(kernel.dtype)
    samples = nufft_forward(kernel * jnp.broadcast_to(twice, kernel.shape), points, backend=backend)
    phases = jnp.conj(_phases(points, shape))
    return jnp.sum((samples * jnp.broadcast_to(phases, samples.shape)).real, axis=-2)


def differences(shape: tuple[int, ...]) -> list[np.ndarray]:
    """The differences along each axis in the pieces of a kernel, to go with its last axes and the pieces' one."""
    shifts = _shifts(shape)
    return [
        (np.arange(n) - n // 2 + shifts[:, d, None]).reshape(-1, *[n if e == d else 1 for e in range(len(shape))])
        for d, n in enumerate(shape)
    ]


def gram_spectrum(
    points: Float[Array, "points dims"],
    weights: Float[Array, "*batch points"],
    shape: tuple[int, ...],
    *,
    eps: float | None = None,
    backend: str = "auto",
) -> Float[Array, "..."]:
    """Spectrum `(..., *padded_shape(shape))` of the convolution `Bᴴ w B`, without scale, zero frequency first.

    Of real weights `(..., M)` for points `(M, D)` several sets share one transform. `eps` and `backend` are as in
    `nufft_forward`; `dft` is a real matrix product in a plane.
    """
    padded, doubled = padded_shape(shape), tuple(2 * n - 1 for n in shape)
    planar = len(shape) == 2
    if planar and backend == "auto" and points.shape[0] * math.prod(padded) <= _DENSE_WORK:
        backend = "dft"
    backend = _backends.resolve_backend(backend, n_points=points.shape[0], shape=doubled, n_transforms=1)
    if planar and backend == "dft":
        ky, kz = (
            dirichlet(points[:, d, None] - jnp.arange(p, dtype=points.dtype)[None] / p, n)
            for d, (n, p) in enumerate(zip(doubled, padded, strict=True))
        )
        weighted = weights[..., None] * jnp.broadcast_to(ky, (*weights.shape, padded[0]))
        return jnp.einsum("...sy,sz->...yz", weighted, kz, precision="highest")
    kernel = kernel_pieces(points, weights, shape, eps=eps, backend=backend)
    lead, dims = weights.shape[:-1], len(shape)
    kernel = kernel.reshape(*lead, *[2] * (dims - 1), *shape)
    for axis, (n, p) in enumerate(zip(shape[:-1], padded[:-1], strict=True), start=-dims):
        # Difference zero goes first and negative ones wrap around.
        from_zero, below = jnp.moveaxis(kernel, len(lead), 0)
        gap = [(0, p - 2 * n + 1 if a == axis else 0) for a in range(-from_zero.ndim, 0)]
        kernel = jnp.concatenate([jnp.pad(from_zero, gap), jax.lax.slice_in_dim(below, 1, n, axis=axis)], axis)
    return jnp.fft.hfft(jnp.fft.fftn(kernel, axes=tuple(range(-dims, -1))), n=padded[-1])


def map_images(function: Callable[[Array], Array], images: Array, padded: tuple[int, ...]) -> Array:
    """`function` over blocks of the leading axis, each small enough for the memory nearest the cores."""
    limit = _CPU_BLOCK_BYTES if jax.default_backend() == "cpu" else _DEVICE_BLOCK_BYTES
    size = max(1, limit // (math.prod(padded) * images.dtype.itemsize))
    if size >= images.shape[0]:
        return function(images)
    return jax.lax.map(function, images, batch_size=size)


def to_spectrum(images: Inexact[Array, "..."], padded: tuple[int, ...]) -> Complex[Array, "..."]:
    """Zero-padded spectrum of the last axes, the first of them last.

    Axes turn between the transforms, so that each FFT runs along memory and over as few rows as needed.
    """
    images = jnp.fft.fft(images, n=padded[-1])
    for size in reversed(padded[:-1]):
        images = jnp.fft.fft(jnp.moveaxis(images, -1, -len(padded)), n=size)
    return images


def from_spectrum(spectrum: Complex[Array, "..."], shape: tuple[int, ...]) -> Complex[Array, "..."]:
    """Inverse of `to_spectrum`, cropped to the image."""
    images = jnp.fft.ifft(spectrum)[..., : shape[0]]
    for size in shape[1:]:
        images = jnp.fft.ifft(jnp.moveaxis(images, -len(shape), -1))[..., :size]
    return images


def convolve(images: Image, spectrum: Float[Array, "..."]) -> Image:
    """Every image `(n, *shape)` convolved with the kernel of a spectrum from `gram_spectrum`.

    Differentiable in both; a block's spectrum is made again in the backward pass rather than kept.
    """
    padded, shape = spectrum.shape, images.shape[1:]
    images, turned = _backends.promote(images, jnp.moveaxis(spectrum, 0, -1))

    @jax.checkpoint
    def block(images: Array, turned: Array) -> Array:
        spectra = to_spectrum(images, padded)
        return from_spectrum(jnp.broadcast_to(turned, spectra.shape) * spectra, shape)

    return map_images(lambda images: block(images, turned), images, padded)

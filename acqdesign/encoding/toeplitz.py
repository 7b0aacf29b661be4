"""The Gram of a non-uniform DFT as a convolution: `Bᴴ w B` needs only FFTs once its kernel is known.

    (Bᴴ w B f)(r) = Σ_r' T(r - r') f(r'),    T(ρ) = Σ_s w_s exp(2πi k_s·ρ)

On a grid padded to `P ≥ 2N - 1` the kernel's spectrum is real and separable in each point,

    λ(q) = Σ_s w_s Π_d D(k_sd - q_d / P_d),    D(x) = sin((2N_d - 1)πx) / sin(πx)

so it is one real matrix product (`dft`) or one type-1 transform on the doubled grid (`finufft`), and
gradients reach points and weights through it alone. Fessler et al., "Toeplitz-based iterative image
reconstruction for MRI with correction for magnetic field inhomogeneity", IEEE Trans. Signal Process. 53 (2005).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import scipy
from jaxtyping import Complex

from acqdesign.base.types import Array, Float, Image, Inexact, LinePoints
from acqdesign.encoding import _backends
from acqdesign.encoding.nufft import nufft_adjoint

# Below this many multiply-adds the dense spectrum is the faster one on two CPU cores.
_DENSE_WORK = 2**24
# Planes transformed together: on a CPU what a core's cache holds, elsewhere what fills the device.
_CPU_BLOCK_BYTES, _DEVICE_BLOCK_BYTES = 2**19, 2**30


def dirichlet(x: Float[Array, "..."], n: int) -> Float[Array, "..."]:
    """Dirichlet kernel `sin(nπx) / sin(πx)`, `n` odd, `x` in cycles: right at 0 too, as are its derivatives."""
    angle = math.pi * _backends.wrap(x)
    # The quotient's derivative cancels near zero; there its series is exact to rounding.
    small = jnp.abs(n * angle) < (0.3 if x.dtype == jnp.float32 else 0.02)
    series = n * (1 - (n**2 - 1) / 6 * angle**2 * (1 - (3 * n**2 - 7) / 60 * angle**2))
    away = jnp.where(small, math.pi / 2, angle)
    return jnp.where(small, series, jnp.sin(n * away) / jnp.sin(away))


def padded_shape(shape: tuple[int, int]) -> tuple[int, int]:
    """The smallest fast FFT sizes that hold every difference of two voxels."""
    ny, nz = (scipy.fft.next_fast_len(2 * n - 1) for n in shape)
    return ny, nz


def gram_spectrum(
    points: LinePoints,
    weights: Float[Array, "*batch lines"],
    shape: tuple[int, int],
    *,
    eps: float | None = None,
    backend: str = "auto",
) -> Float[Array, "*batch py pz"]:
    """Spectrum of the convolution `Bᴴ w B` over a plane `(ny, nz)`, without scale, zero frequency first.

    Of real weights `(..., S)` several sets share one transform. `(py, pz)` is `padded_shape(shape)`; `eps` and
    `backend` are as in `nufft_forward`, `dft` being a real matrix product here.
    """
    padded, doubled = padded_shape(shape), tuple(2 * n - 1 for n in shape)
    if backend == "auto" and points.shape[0] * math.prod(padded) <= _DENSE_WORK:
        backend = "dft"
    backend = _backends.resolve_backend(backend, n_points=points.shape[0], shape=doubled, n_transforms=1)
    if backend == "dft":
        ky, kz = (
            dirichlet(points[:, d, None] - jnp.arange(p, dtype=points.dtype)[None] / p, n)
            for d, (n, p) in enumerate(zip(doubled, padded, strict=True))
        )
        weighted = weights[..., None] * jnp.broadcast_to(ky, (*weights.shape, padded[0]))
        return jnp.einsum("...sy,sz->...yz", weighted, kz, precision="highest")
    kernel = nufft_adjoint(weights, points, doubled, eps=eps, backend=backend)
    # Difference zero goes first and negative differences wrap around.
    lead = [(0, 0)] * (weights.ndim - 1)
    kernel = jnp.pad(kernel, lead + [(0, p - n) for p, n in zip(padded, doubled, strict=True)])
    kernel = jnp.roll(kernel, [1 - n for n in shape], axis=(-2, -1))
    return jnp.fft.fft2(kernel).real


def map_planes(function: Callable[[Array], Array], planes: Array, padded: tuple[int, int]) -> Array:
    """`function` over blocks of the leading axis, each small enough for the memory nearest the cores."""
    limit = _CPU_BLOCK_BYTES if jax.default_backend() == "cpu" else _DEVICE_BLOCK_BYTES
    size = max(1, limit // (math.prod(padded) * planes.dtype.itemsize))
    if size >= planes.shape[0]:
        return function(planes)
    return jax.lax.map(function, planes, batch_size=size)


def to_spectrum(planes: Inexact[Array, "... ny nz"], padded: tuple[int, int]) -> Complex[Array, "... pz py"]:
    """Zero-padded 2D spectrum, axes swapped: each FFT runs along memory and over as few rows as needed."""
    return jnp.fft.fft(jnp.swapaxes(jnp.fft.fft(planes, n=padded[1]), -1, -2), n=padded[0])


def from_spectrum(spectrum: Complex[Array, "... pz py"], shape: tuple[int, int]) -> Complex[Array, "... ny nz"]:
    """Inverse of `to_spectrum`, cropped to the plane."""
    rows = jnp.swapaxes(jnp.fft.ifft(spectrum)[..., : shape[0]], -1, -2)
    return jnp.fft.ifft(rows)[..., : shape[1]]


def convolve_planes(planes: Image, spectrum: Float[Array, "py pz"]) -> Image:
    """Every plane `(n, ny, nz)` convolved with the kernel of a spectrum from `gram_spectrum`.

    Differentiable in both; a block's spectrum is made again in the backward pass rather than kept.
    """
    (py, pz), (ny, nz) = spectrum.shape, planes.shape[-2:]
    planes, swapped = _backends.promote(planes, spectrum.T)

    @jax.checkpoint
    def block(plane: Array, swapped: Array) -> Array:
        planes = to_spectrum(plane, (py, pz))
        return from_spectrum(jnp.broadcast_to(swapped, planes.shape) * planes, (ny, nz))

    return map_planes(lambda p: block(p, swapped), planes, (py, pz))

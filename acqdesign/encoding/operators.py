"""Encoding operators for general samples and for the Cartesian grid, and the dot test every operator passes.

All of them have `forward`, `adjoint` and `gram`, take images `(..., nx[, ny[, nz]])` and scale by
`1/sqrt(∏N)`.
"""

import math
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Bool, Complex

from acqdesign.base.checks import check_shape, usage_error
from acqdesign.base.sharding import none_of, total
from acqdesign.base.types import Array, Float, Image, PRNGKey, Samples
from acqdesign.encoding._backends import promote
from acqdesign.encoding.nufft import check_options, check_points, nufft_adjoint, nufft_forward


@runtime_checkable
class Encoding(Protocol):
    """What reconstructions ask of an operator."""

    shape: tuple[int, ...]

    def forward(self, image: Any) -> Any:
        """`A f`."""

    def adjoint(self, kspace: Any) -> Any:
        """`Aᴴ y`."""

    def gram(self, image: Any) -> Any:
        """`Aᴴ A f`: image `(..., *shape)` to image."""


def check_smaps(smaps: Any, shape: tuple[int, ...]) -> None:
    """Raises unless `smaps` is None or `(coils, *shape)`."""
    if smaps is None:
        return
    if not hasattr(smaps, "shape") or smaps.ndim < 1 or smaps.shape[1:] != shape or not smaps.shape[0]:
        raise usage_error("smaps", smaps, f"shape (coils, {', '.join(map(str, shape))}) with a coil or more")


def check_trailing(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raises unless the last axes of an image or of samples are those of `shape`."""
    if not hasattr(array, "shape") or array.shape[max(0, array.ndim - len(shape)) :] != shape:
        raise usage_error(name, array, f"shape (..., {', '.join(map(str, shape))})")


def check_weights(name: str, weights: Any, length: int) -> None:
    """Raises unless `weights` is None or `length` real numbers."""
    if weights is None:
        return
    if not hasattr(weights, "dtype") or weights.shape != (length,) or not jnp.isrealobj(weights):
        raise usage_error(name, weights, f"a real array of shape ({length},)")


def sample_shape(smaps: Array | None, *samples: int) -> tuple[int, ...]:
    """The shape of one image's samples: a leading axis of coils where there are maps."""
    return samples if smaps is None else (smaps.shape[0], *samples)


def spread(image: Array, smaps: Array | None, dims: int) -> Array:
    """An image of `dims` axes seen by every coil: `(..., coils, *shape)`; unchanged without maps."""
    if smaps is None:
        return image
    image, smaps = promote(jnp.expand_dims(image, image.ndim - dims), smaps)
    return image * jnp.expand_dims(smaps, tuple(range(image.ndim - smaps.ndim)))


def combine(coils: Array, smaps: Array | None, dims: int) -> Array:
    """The adjoint of `spread`; over the devices of a mesh too, where coils or the lines behind them are split."""
    return total(combine_local(coils, smaps, dims), "coils", "lines")


def combine_local(coils: Array, smaps: Array | None, dims: int) -> Array:
    """The share of one device in `combine`."""
    if smaps is None:
        return coils
    coils, smaps = promote(coils, smaps)
    conjugate = jnp.expand_dims(jnp.conj(smaps), tuple(range(coils.ndim - smaps.ndim)))
    return jnp.sum(conjugate * coils, axis=-dims - 1)


_COILS_BYTES = 2**29
"""Coils go together while what is held for all of them stays below this."""


def sum_over_coils(
    function: Callable[..., Array], smaps: Array | None, *parts: Array, bytes_each: int
) -> Array:
    """`Σ_c function(smaps_c, *parts_c)`, as many coils at a time as memory allows.

    Args:
        function: linear over coils; from `(coils, *shape)` maps, or None, and parts to their share of the sum.
        smaps: `(coils, *shape)`, or None.
        parts: arrays `(coils, ...)`.
        bytes_each: what is held for one coil.
    """
    if smaps is None:
        return function(None, *parts)
    coils, most = smaps.shape[0], max(1, _COILS_BYTES // bytes_each)
    groups = next(n for n in range(1, coils + 1) if coils % n == 0 and coils // n <= most)
    if groups == 1:
        return function(smaps, *parts)
    split = tuple(x.reshape(groups, coils // groups, *x.shape[1:]) for x in (smaps, *parts))
    # What was held for a group is made again in the backward pass.
    again = jax.checkpoint(function)

    def add(image: Array, group: tuple[Array, ...]) -> tuple[Array, None]:
        return image + again(*group), None

    return jax.lax.scan(add, none_of(again, *(x[0] for x in split)), split)[0]


def weigh(samples: Array, weights: Array) -> Array:
    """Samples times real weights of their last axes."""
    samples, weights = promote(samples, weights)
    return samples * jnp.broadcast_to(weights, samples.shape)


class NUFFTEncoding(eqx.Module):
    """Encoding at arbitrary samples in one to three dimensions.

    Args:
        points: `(M, D)` in cycles per voxel; periodic with period one.
        shape: `(nx[, ny[, nz]])` of the image.
        smaps: `(coils, *shape)` complex coil sensitivities, or None for one uniform coil.
        eps: relative accuracy of `finufft`, as in `nufft_forward`.
        backend: `finufft`, `dft` or `auto`, as in `nufft_forward`.

    Raises:
        ValueError: on wrong shapes or dtypes, or non-finite points.
    """

    points: Float[Array, "points dims"]
    smaps: Complex[Array, "coils ..."] | None
    shape: tuple[int, ...] = eqx.field(static=True)
    eps: float | None = eqx.field(static=True)
    backend: str = eqx.field(static=True)

    def __init__(
        self,
        points: Float[Array, "points dims"],
        shape: tuple[int, ...],
        *,
        smaps: Complex[Array, "coils ..."] | None = None,
        eps: float | None = None,
        backend: str = "auto",
    ):
        self.shape = check_shape("shape", shape)
        check_points(points, len(self.shape))
        if points.ndim != 2:
            raise usage_error(
                "points", points, f"shape (M, {len(self.shape)})", "Use jax.vmap for several sets of points."
            )
        check_smaps(smaps, self.shape)
        check_options(eps, backend, points.dtype)
        self.points, self.smaps, self.eps, self.backend = points, smaps, eps, backend

    def forward(self, image: Image) -> Samples:
        """`A f`: image `(..., *shape)` to samples `(..., [coils,] M)`."""
        check_trailing("image", image, self.shape)
        coils = spread(image, self.smaps, len(self.shape))
        samples = nufft_forward(coils, self.points, eps=self.eps, backend=self.backend)
        return samples / math.sqrt(math.prod(self.shape))

    def adjoint(self, kspace: Samples, weights: Float[Array, " points"] | None = None) -> Image:
        """`Aᴴ w y`: samples to an image `(..., *shape)`.

        Args:
            kspace: samples `(..., [coils,] M)` of k-space.
            weights: `(M,)` real weights of the samples, such as a density; ones by default.
        """
        check_trailing("kspace", kspace, sample_shape(self.smaps, self.points.shape[0]))
        check_weights("weights", weights, self.points.shape[0])
        if weights is not None:
            kspace = weigh(kspace, weights)
        coils = nufft_adjoint(kspace, self.points, self.shape, eps=self.eps, backend=self.backend)
        return combine(coils / math.sqrt(math.prod(self.shape)), self.smaps, len(self.shape))

    def gram(self, image: Image, weights: Float[Array, " points"] | None = None) -> Image:
        """`Aᴴ w A f`, an image `(..., *shape)`.

        Args:
            image: `f`, an image `(..., *shape)`.
            weights: `(M,)` real weights of the samples, such as a density; ones by default.
        """
        return self.adjoint(self.forward(image), weights)


class CartesianEncoding(eqx.Module):
    """Unitary FFT with a sampling mask: the oracle for every other operator on the grid.

    Entry `n` of a k-space axis of length `N` is the frequency `(n - N//2) / N` cycles per voxel.

    Args:
        shape: `(nx[, ny[, nz]])` of the image.
        mask: boolean `shape`, True where sampled; everything by default.
        smaps: `(coils, *shape)` complex coil sensitivities, or None for one uniform coil.

    Raises:
        ValueError: on wrong shapes.
    """

    mask: Bool[Array, "..."] | None
    smaps: Complex[Array, "coils ..."] | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        mask: Bool[Array, "..."] | None = None,
        *,
        smaps: Complex[Array, "coils ..."] | None = None,
    ):
        self.shape = check_shape("shape", shape)
        if mask is not None and (mask.shape != self.shape or mask.dtype != bool):
            raise usage_error("mask", mask, f"a boolean array of shape {self.shape}")
        check_smaps(smaps, self.shape)
        self.mask, self.smaps = mask, smaps

    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.shape), 0))

    def _masked(self, kspace: Array) -> Array:
        return kspace if self.mask is None else jnp.where(self.mask, kspace, 0)

    def forward(self, image: Image) -> Samples:
        """`A f`: image `(..., *shape)` to k-space `(..., [coils,] *shape)`, zero where not sampled."""
        check_trailing("image", image, self.shape)
        axes = self._axes()
        coils = jnp.fft.ifftshift(spread(image, self.smaps, len(self.shape)), axes)
        return self._masked(jnp.fft.fftshift(jnp.fft.fftn(coils, axes=axes, norm="ortho"), axes))

    def adjoint(self, kspace: Samples) -> Image:
        """`Aᴴ y`: `kspace` `(..., [coils,] *shape)` to an image `(..., *shape)`."""
        check_trailing("kspace", kspace, sample_shape(self.smaps, *self.shape))
        axes = self._axes()
        coils = jnp.fft.ifftn(jnp.fft.ifftshift(self._masked(kspace), axes), axes=axes, norm="ortho")
        return combine(jnp.fft.fftshift(coils, axes), self.smaps, len(self.shape))

    def gram(self, image: Image) -> Image:
        """`Aᴴ A f`: image `(..., *shape)` to image."""
        return self.adjoint(self.forward(image))


def dot_test(operator: Encoding, key: PRNGKey, dtype: Any = jnp.complex64) -> float:
    """How far `adjoint` is from the adjoint of `forward`: `|⟨A f, y⟩ - ⟨f, Aᴴ y⟩| / (‖A f‖ ‖y‖)`.

    Args:
        operator: any object with `shape`, `forward` and `adjoint`.
        key: for the random image and samples.
        dtype: complex dtype of both.

    Returns:
        A few times the rounding error for a true adjoint.
    """
    image_key, kspace_key = jax.random.split(key)
    image = jax.random.normal(image_key, operator.shape, dtype)
    through = operator.forward(image)
    kspace = jax.random.normal(kspace_key, through.shape, through.dtype)
    gap = jnp.vdot(kspace, through) - jnp.vdot(operator.adjoint(kspace), image)
    return float(jnp.abs(gap) / (jnp.linalg.norm(through) * jnp.linalg.norm(kspace)))

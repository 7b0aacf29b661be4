"""Encodings: linear maps from an image to k-space samples, which compose.

    NUFFTEncoding(points, shape) @ Coils(smaps) @ Mask(head)

The innermost map comes last, as in a product of matrices. All encodings scale by `1/sqrt(∏N)`, so that full Cartesian
sampling is unitary, and take images `(..., *shape)`. `encoding.normal(weights)` is `Aᴴ W A` as an object to apply many
times, `encoding.normal() + 1e-3` a regularised one.
"""

import abc
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Complex

from acqdesign.base.checks import as_real, check_count, check_shape, usage_error
from acqdesign.base.sharding import alike, none_of, split, total, vary, varying
from acqdesign.base.types import Array, ArrayLike, Float, Image, Samples
from acqdesign.encoding import toeplitz
from acqdesign.encoding._backends import promote
from acqdesign.encoding.density import density_weights
from acqdesign.encoding.nufft import check_options, check_points, nufft_adjoint, nufft_forward


class Gram(eqx.Module):
    """A Hermitian map of images, such as `Aᴴ W A`."""

    shape: eqx.AbstractVar[tuple[int, ...]]

    @property
    def planes_apart(self) -> bool:
        """Whether planes across the first of three axes are problems of their own."""
        return False

    @abc.abstractmethod
    def __call__(self, image: Image) -> Image:
        """Image `(..., *shape)` to an image of the same shape, complex."""

    def local(self, image: Image) -> Image:
        """The share of the coils that this device holds, where a mesh splits them."""
        return self(image)

    def __add__(self, ridge: ArrayLike) -> "Gram":
        return _Shifted(self, ridge)


class _Shifted(Gram):
    gram: Gram
    ridge: Any
    shape = property(lambda self: self.gram.shape)  # type: ignore[assignment]
    planes_apart = property(lambda self: self.gram.planes_apart)  # type: ignore[assignment]

    def __call__(self, image: Image) -> Image:
        (image,) = promote(image)
        return self.gram(image) + jnp.asarray(self.ridge, image.dtype) * image


class Encoding(eqx.Module):
    """A linear map from an image to samples of k-space; subclass it for your own."""

    shape: eqx.AbstractVar[tuple[int, ...]]
    """Axes of an image."""
    samples: eqx.AbstractVar[tuple[int, ...]]
    """Axes of one image's samples, the readouts first."""

    @abc.abstractmethod
    def forward(self, image: Image) -> Samples:
        """`A f`: image `(..., *shape)` to samples `(..., [coils,] *samples)`."""

    @abc.abstractmethod
    def adjoint(self, kspace: Any, weights: Any = None) -> Image:
        """`Aᴴ W y`: samples to an image.

        Args:
            kspace: `(..., [coils,] *samples)`, as `forward` returns them.
            weights: real, `(readouts,)` or what `density` returns; ones unless given.
        """

    def normal(self, weights: Any = None) -> Gram:
        """`Aᴴ W A`, to apply repeatedly; `weights` as in `adjoint`."""
        return _ByAdjoint(self, weights)

    def normals(self, weights: Any) -> Gram:
        """One Gram a set of weights: every array has the sets along its first axis."""
        return eqx.filter_vmap(self.normal)(weights)

    def scaled(self, weights: Any, factors: Float[Array, "*sets readouts"]) -> Any:
        """`weights`, as `adjoint` takes them, times a factor for each readout, or for each set and readout."""
        if weights is None:
            return factors
        return factors.reshape(*factors.shape, *[1] * (weights.ndim - 1)) * weights

    def sum_of_normals(self, weights: Any, images: Image, *inside: "ImageMap") -> Image:
        """`Σ_c Aᴴ w_c A f_c`, an image `(..., *shape)`.

        Args:
            weights: a set for each image: `(C, readouts)` real, or what `scaled` gives.
            images: `(C, ..., *shape)`.
            inside: maps that the encoding is composed with for this, the outermost first.
        """
        grams = functools.reduce(lambda tree, one: one.shared(tree), inside, self.normals(weights))
        arrays, static = eqx.partition(grams, eqx.is_array)
        sets = len(jax.tree.leaves(arrays)[0])
        if not images.ndim or len(images) != sets:
            raise usage_error("images", images, f"{sets} along the first axis, one for each set of weights")

        # One image at a time: their spectra need not fit in memory together.
        @jax.checkpoint
        def add(image: Image, part: Any) -> tuple[Image, None]:
            gram = functools.reduce(lambda gram, inner: _Around(inner, gram), inside, eqx.combine(part[0], static))
            return image + gram.local(part[1]), None

        zero = jnp.zeros(images.shape[1:], jnp.result_type(jnp.complex64, images, *jax.tree.leaves(arrays)))
        zero = alike(zero, *jax.tree.leaves(arrays), images)[0]
        return total(jax.lax.scan(add, zero, (arrays, images))[0], "coils")

    def density(self, name: str = "pipe", iterations: int = 10) -> Any:
        """Weights with which `Aᴴ W A` is close to the identity, differentiable; see `density_weights`."""
        raise usage_error("density", type(self).__name__, "an encoding whose density is known")

    def prepare(self, image: Image) -> Any:
        """What `adjoint_of` needs of an image `(..., *shape)` and can be computed once, whatever is learned."""
        return image

    def adjoint_of(self, prepared: Any, weights: Any) -> Image:
        """`Aᴴ W A f` of a prepared image, for the weights that `density` returns."""
        return self.normal(weights)(prepared)

    @property
    def oversampling(self) -> float:
        """Eigenvalue of `Aᴴ A` for a fully sampled scan with as many samples a readout."""
        return 1.0

    def __matmul__(self, inner: "ImageMap") -> "Encoding":
        if not isinstance(inner, ImageMap):
            return NotImplemented
        wanted = self.shape if inner.coils is None else (inner.coils, *self.shape)
        found = jax.eval_shape(inner.forward, jax.ShapeDtypeStruct(inner.shape, jnp.float32)).shape
        if found[max(0, len(found) - len(wanted)) :] != wanted:
            what, expected = f"images of shape {found}", f"shape (..., {', '.join(map(str, wanted))})"
            raise usage_error(type(inner).__name__, what, expected, "The encoding's own.")
        return _Composed(outer=self, inner=inner)


class _ByAdjoint(Gram):
    encoding: Encoding
    weights: Any
    shape = property(lambda self: self.encoding.shape)  # type: ignore[assignment]

    def __call__(self, image: Image) -> Image:
        return self.encoding.adjoint(self.encoding.forward(image), self.weights)


class ImageMap(eqx.Module):
    """A linear map from images to images that an encoding is composed with."""

    shape: eqx.AbstractVar[tuple[int, ...]]
    pointwise: ClassVar[bool] = False
    """Whether each voxel is mapped by itself."""

    @abc.abstractmethod
    def forward(self, image: Image) -> Image:
        """`S f`, of an image `(..., *shape)`."""

    @abc.abstractmethod
    def adjoint(self, image: Image) -> Image:
        """`Sᴴ g`."""

    @property
    def coils(self) -> int | None:
        """How many images come of one; None for one without an axis of its own."""
        return None

    def around(self, gram: Gram, image: Image) -> Image:
        """`Sᴴ G S f`, the share of this device."""
        return self.adjoint(gram.local(self.forward(image)))

    def back(self, adjoint: Callable[[Samples], Image], kspace: Samples, axes: int) -> Image:
        """`Sᴴ Aᴴ y`, the share of this device; samples have so many trailing `axes`."""
        return self.adjoint(adjoint(kspace))

    def shared(self, tree: Any) -> Any:
        """Arrays as all parts of this map use them."""
        return tree


class Coils(ImageMap):
    """Receive coils: an image `(..., *shape)` as each of them sees it, `(..., coils, *shape)`.

    Args:
        smaps: `(coils, *shape)` complex sensitivities.
    """

    pointwise = True
    smaps: Complex[Array, "coils ..."] = eqx.field(metadata=split("coils", "planes"))

    def __init__(self, smaps: Complex[Array, "coils ..."]):
        if not hasattr(smaps, "shape") or smaps.ndim < 2 or not smaps.shape[0]:
            raise usage_error("smaps", smaps, "shape (coils, nx[, ny[, nz]]) with a coil or more")
        self.smaps = smaps

    shape = property(lambda self: self.smaps.shape[1:])  # type: ignore[assignment]
    coils = property(lambda self: self.smaps.shape[0])  # type: ignore[assignment]

    def forward(self, image: Image) -> Image:
        check_trailing("image", image, self.shape)
        return self._spread(image, self.smaps)

    def _spread(self, image: Image, smaps: Array) -> Image:
        image, smaps = promote(jnp.expand_dims(image, image.ndim - len(self.shape)), smaps)
        return image * jnp.expand_dims(smaps, tuple(range(image.ndim - smaps.ndim)))

    def adjoint(self, image: Image) -> Image:
        return total(self._combine(image, self.smaps), "coils")

    def _combine(self, coils: Image, smaps: Array) -> Image:
        coils, smaps = promote(coils, smaps)
        conjugate = jnp.expand_dims(jnp.conj(smaps), tuple(range(coils.ndim - smaps.ndim)))
        return jnp.sum(conjugate * coils, axis=-len(self.shape) - 1)

    def around(self, gram: Gram, image: Image) -> Image:
        """`Σ_c S_cᴴ G S_c f`, as many coils at a time as memory allows."""

        # Iterations that are kept for a gradient keep their image, not what every coil sees of it.
        @jax.checkpoint
        def seen_by(smaps: Array) -> Array:
            return self._combine(gram.local(self._spread(image, smaps)), smaps)

        return self._sum(seen_by, bytes_each=image.size * jnp.result_type(image, jnp.complex64).itemsize)

    def back(self, adjoint: Callable[[Samples], Image], kspace: Samples, axes: int) -> Image:
        """`Σ_c S_cᴴ Aᴴ y_c`, as many coils at a time as memory allows."""

        def seen_by(smaps: Array, kspace: Array) -> Array:
            return self._combine(adjoint(jnp.moveaxis(kspace, 0, -axes - 1)), smaps)

        batch = kspace.shape[: -axes - 1]
        # The gradient transforms as many images again for each of the coordinates.
        each = 3 * math.prod((*batch, *self.shape)) * kspace.dtype.itemsize
        return self._sum(seen_by, jnp.moveaxis(kspace, -axes - 1, 0), bytes_each=each)

    def shared(self, tree: Any) -> Any:
        # Marked as used by all coils, so that their gradients are summed over devices once.
        return jax.tree.map(lambda x: vary(x, varying(self.smaps)) if eqx.is_array(x) else x, tree)

    def _sum(self, function: Callable[..., Array], *parts: Array, bytes_each: int) -> Array:
        """`Σ_c function(smaps_c, *parts_c)`; `bytes_each` is what is held for one coil."""
        coils, most = self.coils, max(1, _COILS_BYTES // bytes_each)
        groups = next(n for n in range(1, coils + 1) if coils % n == 0 and coils // n <= most)
        if groups == 1:
            return function(self.smaps, *parts)
        pieces = tuple(x.reshape(groups, coils // groups, *x.shape[1:]) for x in (self.smaps, *parts))
        # What was held for a group is made again in the backward pass.
        again = jax.checkpoint(function)

        def add(image: Array, group: tuple[Array, ...]) -> tuple[Array, None]:
            return image + again(*group), None

        return jax.lax.scan(add, none_of(again, *(x[0] for x in pieces)), pieces)[0]


_COILS_BYTES = 2**29  # coils go together while what is held for all of them stays below this


class Mask(ImageMap):
    """Images times a real map: one where there is something to see, say.

    Args:
        weights: `(..., *shape)` real.
        dims: how many trailing axes are an image.
    """

    pointwise = True
    weights: Float[Array, "..."]
    dims: int = eqx.field(static=True, default=3)
    shape = property(lambda self: self.weights.shape[-self.dims :])  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.weights = as_real("weights", self.weights)
        if self.weights.ndim < check_count("dims", self.dims):
            raise usage_error("weights", self.weights, f"at least the {self.dims} axes of an image")

    def forward(self, image: Image) -> Image:
        check_trailing("image", image, self.shape)
        image, weights = jnp.broadcast_arrays(*promote(image, self.weights))
        return weights * image

    adjoint = forward


class Plane(ImageMap):
    """Images of one plane, `(1, ny, nz)` say, without the axis of length one, or of a line without both.

    Args:
        shape: of the images, with one axis of length one, or two.
    """

    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(axis - len(self.shape) for axis, n in enumerate(self.shape) if n == 1)

    def forward(self, image: Image) -> Image:
        check_trailing("image", image, self.shape)
        return jnp.squeeze(image, self._axes)

    def adjoint(self, image: Image) -> Image:
        return jnp.expand_dims(image, self._axes)


class _Around(Gram):
    """`Sᴴ G S`."""

    inner: ImageMap
    gram: Gram
    shape = property(lambda self: self.inner.shape)  # type: ignore[assignment]
    planes_apart = property(lambda self: self.inner.pointwise and self.gram.planes_apart)  # type: ignore[assignment]

    def local(self, image: Image) -> Image:
        check_trailing("image", image, self.shape)
        return self.inner.around(self.gram, image)

    def __call__(self, image: Image) -> Image:
        return total(self.local(image), "coils")


class _Composed(Encoding):
    """`A S`."""

    outer: Encoding
    inner: ImageMap
    shape = property(lambda self: self.inner.shape)  # type: ignore[assignment]
    oversampling = property(lambda self: self.outer.oversampling)  # type: ignore[assignment]

    @property
    def samples(self) -> tuple[int, ...]:  # type: ignore[override]
        coils = self.inner.coils
        return self.outer.samples if coils is None else (coils, *self.outer.samples)

    def forward(self, image: Image) -> Samples:
        return self.outer.forward(self.inner.forward(image))

    def adjoint(self, kspace: Samples, weights: Any = None) -> Image:
        check_trailing("kspace", kspace, self.samples)
        outer = self.inner.shared(self.outer)
        found = self.inner.back(lambda y: outer.adjoint(y, weights), kspace, len(self.outer.samples))
        return total(found, "coils")

    def normal(self, weights: Any = None) -> Gram:
        return _Around(self.inner, self.inner.shared(self.outer.normal(weights)))

    def scaled(self, weights: Any, factors: Float[Array, "*sets readouts"]) -> Any:
        return self.outer.scaled(weights, factors)

    def sum_of_normals(self, weights: Any, images: Image, *inside: ImageMap) -> Image:
        return self.outer.sum_of_normals(weights, images, self.inner, *inside)

    def density(self, name: str = "pipe", iterations: int = 10) -> Any:
        return self.outer.density(name, iterations)

    def prepare(self, image: Image) -> Any:
        return self.outer.prepare(self.inner.forward(image))

    def adjoint_of(self, prepared: Any, weights: Any) -> Image:
        return self.inner.adjoint(self.inner.shared(self.outer).adjoint_of(prepared, weights))


def check_trailing(name: str, array: Any, shape: tuple[int, ...]) -> None:
    """Raises unless the last axes of an image or of samples are those of `shape`."""
    if not hasattr(array, "shape") or array.shape[max(0, array.ndim - len(shape)) :] != shape:
        raise usage_error(name, array, f"shape (..., {', '.join(map(str, shape))})")


def check_weights(name: str, weights: Any, *shapes: tuple[int, ...]) -> None:
    """Raises unless `weights` is None or real numbers of one of these shapes."""
    if weights is None:
        return
    if not hasattr(weights, "dtype") or weights.shape not in shapes or not jnp.isrealobj(weights):
        raise usage_error(name, weights, "a real array of shape " + " or ".join(map(str, shapes)))


def weigh(samples: Array, weights: Array) -> Array:
    """Samples times real weights of their last axes."""
    samples, weights = promote(samples, weights)
    return samples * jnp.broadcast_to(weights, samples.shape)


class ToeplitzGram(Gram):
    """`Aᴴ W A` of arbitrary samples as a convolution: made by `NUFFTEncoding.normal`.

    Attributes:
        spectrum: of the kernel on the padded grid [1], from `toeplitz.gram_spectrum`.
        shape: of the image.
    """

    spectrum: Float[Array, "..."]
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, image: Image) -> Image:
        """Image `(..., *shape)` to `Aᴴ W A` of it, the same shape and complex."""
        check_trailing("image", image, self.shape)
        return toeplitz.convolve(image.reshape(-1, *self.shape), self.spectrum).reshape(image.shape)


class NUFFTEncoding(Encoding):
    """Encoding at arbitrary samples in one to three dimensions; weights are `(readouts,)`, or one for each sample.

    Args:
        points: `(M, D)`, or `(readouts, samples, D)`, in cycles per voxel; periodic with period one.
        shape: `(nx[, ny[, nz]])` of the image.
        eps: relative accuracy of `finufft`, as in `nufft_forward`.
        backend: `finufft`, `dft` or `auto`, as in `nufft_forward`.
    """

    points: Float[Array, "... dims"]
    shape: tuple[int, ...] = eqx.field(static=True)
    eps: float | None = eqx.field(static=True)
    backend: str = eqx.field(static=True)

    def __init__(
        self,
        points: Float[Array, "... dims"],
        shape: tuple[int, ...],
        *,
        eps: float | None = None,
        backend: str = "auto",
    ):
        self.shape = check_shape("shape", shape)
        dims = len(self.shape)
        check_points(points, dims)
        if points.ndim not in (2, 3):
            expected = f"shape (M, {dims}) or (readouts, samples, {dims})"
            raise usage_error("points", points, expected, "Use jax.vmap for several sets of points.")
        check_options(eps, backend, points.dtype)
        self.points, self.eps, self.backend = points, eps, backend

    samples = property(lambda self: self.points.shape[:-1])  # type: ignore[assignment]

    @property
    def _flat(self) -> Array:
        return self.points.reshape(-1, self.points.shape[-1])

    def forward(self, image: Image) -> Samples:
        check_trailing("image", image, self.shape)
        samples = nufft_forward(image, self._flat, eps=self.eps, backend=self.backend)
        return samples.reshape(*samples.shape[:-1], *self.samples) / math.sqrt(math.prod(self.shape))

    def adjoint(self, kspace: Samples, weights: Any = None) -> Image:
        check_trailing("kspace", kspace, self.samples)
        check_weights("weights", weights, self.samples, self.samples[:1])
        if weights is not None:
            kspace = weigh(kspace, weights.reshape(*weights.shape, *[1] * (len(self.samples) - weights.ndim)))
        flat = kspace.reshape(*kspace.shape[: kspace.ndim - len(self.samples)], -1)
        image = nufft_adjoint(flat, self._flat, self.shape, eps=self.eps, backend=self.backend)
        return image / math.sqrt(math.prod(self.shape))

    def normal(self, weights: Any = None) -> ToeplitzGram:
        check_weights("weights", weights, self.samples, self.samples[:1])
        each = jnp.ones(self.samples, self.points.dtype)
        if weights is not None:
            each = each.astype(weights.dtype) * weights.reshape(*weights.shape, *[1] * (each.ndim - weights.ndim))
        spectrum = toeplitz.gram_spectrum(self._flat, each.ravel(), self.shape, eps=self.eps, backend=self.backend)
        return ToeplitzGram(spectrum=spectrum / math.prod(self.shape), shape=self.shape)

    def density(self, name: str = "pipe", iterations: int = 10) -> Float[Array, "..."]:
        return density_weights(name, self._flat, self.shape, iterations, backend=self.backend).reshape(self.samples)

    @property
    def oversampling(self) -> float:
        """Samples over voxels, once there are more."""
        return max(1.0, math.prod(self.samples) / math.prod(self.shape))


class CartesianEncoding(Encoding):
    """Unitary FFT with a sampling mask: the oracle for every other encoding on the grid.

    Entry `n` of a k-space axis of length `N` is the frequency `(n - N//2) / N` cycles per voxel. Samples and weights
    are of the grid's shape, samples zero where not sampled.

    Args:
        shape: `(nx[, ny[, nz]])` of the image.
        mask: boolean `shape`, True where sampled; everything by default.
    """

    mask: Bool[Array, "..."] | None
    shape: tuple[int, ...] = eqx.field(static=True)

    def __init__(self, shape: tuple[int, ...], mask: Bool[Array, "..."] | None = None):
        self.shape = check_shape("shape", shape)
        if mask is not None and (np.shape(mask) != self.shape or np.asarray(mask).dtype != bool):
            raise usage_error("mask", mask, f"a boolean array of shape {self.shape}")
        self.mask = mask

    samples = property(lambda self: self.shape)  # type: ignore[assignment]

    def _masked(self, kspace: Array) -> Array:
        return kspace if self.mask is None else jnp.where(self.mask, kspace, 0)

    def forward(self, image: Image) -> Samples:
        check_trailing("image", image, self.shape)
        axes = tuple(range(-len(self.shape), 0))
        kspace = jnp.fft.fftn(jnp.fft.ifftshift(image, axes), axes=axes, norm="ortho")
        return self._masked(jnp.fft.fftshift(kspace, axes))

    def adjoint(self, kspace: Samples, weights: Any = None) -> Image:
        check_trailing("kspace", kspace, self.shape)
        check_weights("weights", weights, self.shape)
        kspace = self._masked(kspace if weights is None else weigh(kspace, weights))
        axes = tuple(range(-len(self.shape), 0))
        return jnp.fft.fftshift(jnp.fft.ifftn(jnp.fft.ifftshift(kspace, axes), axes=axes, norm="ortho"), axes)

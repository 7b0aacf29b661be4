"""Straight readout lines: a 3D non-uniform DFT that factors into a small dense one and a planar NUFFT.

A line along x at `(ky, kz)_s` visits the same `kx` for every `s`, so with `F` the DFT along the readout and
`B` the planar NUFFT at only `S` points, `A = F ⊗ B` and, for readout weights `D` and line weights `w`,

    Aᴴ W A = (Fᴴ D F) ⊗ (Bᴴ w B)

which has no readout axis: a small matrix along x and a convolution in each plane (`toeplitz`).
"""

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Complex, Integer

from acqdesign.base.checks import check_count, check_finite, check_shape, usage_error
from acqdesign.base.sharding import local_part, vary, varying
from acqdesign.base.types import Array, Float, Image, LinePoints, Samples
from acqdesign.encoding import toeplitz
from acqdesign.encoding._backends import promote, voxel_coordinates, wrap
from acqdesign.encoding.density import density_weights, pipe_density
from acqdesign.encoding.encoding import Encoding, Gram, check_trailing, check_weights, weigh
from acqdesign.encoding.nufft import check_options, check_points, nufft_adjoint, nufft_forward


class LineWeights(NamedTuple):
    """Weights `W = D ⊗ w` of the samples of straight lines.

    Attributes:
        lines: `(S,)` real weights `w` of the lines.
        samples: `(R,)` real weights `D` of the samples of each line.
    """

    lines: Float[Array, "... lines"]
    samples: Float[Array, " samples"]


def uniform_readout(samples: int, dtype: Any = jnp.float32) -> Float[Array, " samples"]:
    """Half-open readout positions `(n - R//2) / R` in cycles per voxel, whose Gram is diagonal."""
    return voxel_coordinates(check_count("samples", samples), dtype) / samples


class LineGram(Gram):
    """`Aᴴ W A` of straight lines: made by `StraightLineEncoding.normal`.

    Attributes:
        spectrum: `([sets,] py, pz)` of the kernel over the phase encodes on the padded grid [1].
        readout: `([sets])` or `([sets,] nx, nx)` Gram matrix along the readout [1].
        shape: `(nx, ny, nz)` of the image.
    """

    spectrum: Float[Array, "*sets py pz"]
    readout: Float[Array, "*sets"] | Complex[Array, "*sets nx nx"]
    shape: tuple[int, int, int] = eqx.field(static=True)

    @property
    def planes_apart(self) -> bool:
        return self.readout.ndim == self.spectrum.ndim - 2

    def __call__(self, image: Image) -> Image:
        """Image `(..., nx, ny, nz)` to `Aᴴ W A` of it, the same shape and complex."""
        check_trailing("image", image, self.shape)
        image, readout = promote(image, self.readout)
        if readout.ndim:
            image = jnp.einsum("xu,...uyz->...xyz", readout, image, precision="highest")
        else:
            image = readout * image
        planes = image.reshape(-1, *self.shape[1:])
        return toeplitz.convolve(planes, self.spectrum).reshape(image.shape)


class StraightLineEncoding(Encoding):
    """Encoding of a 3D image by straight readout lines along x; weights are `(lines,)` real, or `LineWeights`.

    Args:
        points: `(S, 2)` phase encodes `(ky, kz)` in cycles per voxel; periodic with period one.
        shape: `(nx, ny, nz)` of the image, x along the readout; `nx = 1` is one plane.
        samples_per_line: number of readout samples `R`, placed by `uniform_readout`.
        readout: `(R,)` explicit kx positions in cycles per voxel, instead of `samples_per_line`.
        eps: relative accuracy of `finufft`, as in `nufft_forward`.
        backend: `finufft`, `dft` or `auto`, likewise.
        planes: `(nx,)` which planes across the readout the image holds, of so many in all; all unless given.
    """

    points: LinePoints
    positions: Float[Array, " samples"] | None  # along the readout; None where uniform
    planes: Integer[Array, " nx"] | None
    of_planes: int = eqx.field(static=True)
    shape: tuple[int, int, int] = eqx.field(static=True)
    samples_per_line: int = eqx.field(static=True)
    eps: float | None = eqx.field(static=True)
    backend: str = eqx.field(static=True)

    def __init__(
        self,
        points: LinePoints,
        shape: tuple[int, int, int],
        samples_per_line: int | None = None,
        *,
        readout: Float[Array, " samples"] | None = None,
        eps: float | None = None,
        backend: str = "auto",
        planes: tuple[Integer[Array, " nx"], int] | None = None,
    ):
        check_points(points, 2)
        if points.ndim != 2:
            raise usage_error("points", points, "shape (lines, 2)", "Use jax.vmap for several sets of lines.")
        nx, ny, nz = check_shape("shape", shape, dims=(3,))
        self.shape = (nx, ny, nz)
        self.planes, self.of_planes = planes or (None, nx)
        self.samples_per_line = check_readout(samples_per_line, readout)
        check_options(eps, backend, points.dtype)
        self.points, self.positions = points, readout
        self.eps, self.backend = eps, backend

    @property
    def samples(self) -> tuple[int, ...]:  # type: ignore[override]
        return self.points.shape[0], self.samples_per_line

    @property
    def readout(self) -> Float[Array, " samples"]:
        """Positions of the samples of every line, in cycles per voxel."""
        if self.positions is None:
            return uniform_readout(self.samples_per_line, self.points.dtype)
        return self.positions

    @property
    def oversampling(self) -> float:
        return self.samples_per_line / self.of_planes

    @property
    def _here(self) -> tuple[int, int, int]:
        """The shape of this device's piece of an image: some planes, where the points are marked to vary with them."""
        nx, ny, nz = self.shape
        return local_part(nx, "planes", self.points)[0], ny, nz

    def _scale(self) -> float:
        return 1 / math.sqrt(self.of_planes * math.prod(self.shape[1:]))

    def _along_readout(self) -> Complex[Array, "samples nx"]:
        readout = self.readout
        voxels = voxel_coordinates(self.of_planes, readout.dtype)
        if self.planes is not None:
            voxels = voxels[self.planes]
        planes, first = local_part(self.shape[0], "planes", self.points)
        voxels = jax.lax.dynamic_slice_in_dim(voxels, first, planes)
        angle = -2 * math.pi * wrap(readout[:, None] * voxels[None])
        return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))

    def _split(self, weights: Any, *sets: int) -> tuple[Array | None, Array | None]:
        """Weights of the lines, in so many sets, and of the samples of a line, once they are of the right shapes."""
        lines, along = weights if isinstance(weights, LineWeights) else (weights, None)
        check_weights("weights", lines, (*sets, self.points.shape[0]))
        check_weights("weights of samples", along, (self.samples_per_line,))
        return lines, along

    def forward(self, image: Image) -> Samples:
        check_trailing("image", image, self._here)
        planes = nufft_forward(image, self.points, eps=self.eps, backend=self.backend)
        along, planes = promote(self._along_readout(), planes)
        return jnp.einsum("kx,...xs->...sk", along, planes, precision="highest") * self._scale()

    def adjoint(self, kspace: Samples, weights: Any = None) -> Image:
        check_trailing("kspace", kspace, self.samples)
        lines, along_weights = self._split(weights)
        if lines is not None:
            kspace = weigh(kspace, lines[:, None])
        if along_weights is not None:
            kspace = weigh(kspace, along_weights)
        along, kspace = promote(self._along_readout(), kspace)
        planes = jnp.einsum("kx,...sk->...xs", jnp.conj(along), kspace, precision="highest")
        out = nufft_adjoint(planes, self.points, self.shape[1:], eps=self.eps, backend=self.backend)
        return out * self._scale()

    def readout_gram(self, weights: Array | None = None) -> Float[Array, ""] | Complex[Array, "nx nx"]:
        """`Fᴴ D F / nx`, `D` ones unless given: a number where the readout is uniform, at Nyquist or finer."""
        nx = self.of_planes
        if self.positions is None and weights is None and self.samples_per_line >= nx:
            return jnp.asarray(self.samples_per_line / nx, self.points.dtype)
        if self._here != self.shape:
            got = f"planes split with {self.samples_per_line} samples of a line"
            raise usage_error("mesh", got, f"a uniform readout of {nx} or more", "Planes are apart only in that.")
        along = self._along_readout()
        weighted = along if weights is None else weigh(along, weights[:, None])
        return jnp.einsum("kx,ku->xu", jnp.conj(along), weighted, precision="highest") / nx

    def normal(self, weights: Any = None) -> LineGram:
        lines, along = self._split(weights)
        return LineGram(spectrum=self._spectra(lines), readout=self.readout_gram(along), shape=self._here)

    def normals(self, weights: Any) -> LineGram:
        # Of (sets, lines), or of LineWeights with such lines, by one transform.
        sets = len(weights.lines if isinstance(weights, LineWeights) else weights)
        lines, along = self._split(weights, sets)
        readout = self.readout_gram(along)
        repeated = jnp.broadcast_to(readout, (sets, *readout.shape))
        return LineGram(spectrum=self._spectra(lines), readout=repeated, shape=self._here)

    def scaled(self, weights: Any, factors: Float[Array, "*sets lines"]) -> Any:
        if isinstance(weights, LineWeights):
            return LineWeights(factors * weights.lines, weights.samples)
        return factors if weights is None else factors * weights

    def _spectra(self, weights: Array | None) -> Array:
        plane, weights = self.shape[1:], jnp.ones_like(self.points[:, 0]) if weights is None else weights
        spectra = toeplitz.gram_spectrum(self.points, weights, plane, eps=self.eps, backend=self.backend)
        return spectra / math.prod(plane)

    def density(self, name: str = "pipe", iterations: int = 10) -> LineWeights:
        lines = density_weights(name, self.points, self.shape[1:], iterations, backend=self.backend)
        return LineWeights(lines, self._readout_density())

    def _readout_density(self) -> Float[Array, " samples"]:
        # Along the readout nothing is learned: the usual number of iterations is enough, whatever the plane's.
        return pipe_density(self.readout[:, None], (self.of_planes,), 10)

    def prepare(self, image: Image) -> Complex[Array, "... nx pz py"]:
        """Padded spectra of `(Fᴴ D F ⊗ 1) f`, plane by plane, with the density `D` of the readout."""
        along, image = promote(self.readout_gram(self._readout_density()), image)
        filtered = jnp.einsum("xu,...uyz->...xyz", along, image, precision="highest")
        planes, padded = filtered.reshape(-1, *self.shape[1:]), toeplitz.padded_shape(self.shape[1:])
        spectra = toeplitz.map_images(lambda p: toeplitz.to_spectrum(p, padded), planes, padded)
        return spectra.reshape(*image.shape[:-2], *spectra.shape[-2:])

    def adjoint_of(self, prepared: Complex[Array, "... nx pz py"], weights: Any) -> Image:
        # One inverse transform; the weights of the samples are in `prepared`.
        lines, _ = self._split(weights)
        plane, flat = self.shape[1:], prepared.reshape(-1, *prepared.shape[-2:])
        kernel = vary(self._spectra(lines).T, varying(flat))
        back = lambda spectra: toeplitz.from_spectrum(kernel * spectra, plane)  # noqa: E731
        planes = toeplitz.map_images(back, flat, toeplitz.padded_shape(plane))
        return planes.reshape(*prepared.shape[:-2], *plane)


def check_readout(samples: int | None, readout: Any) -> int:
    """The number of samples of a line, from either way to say where they are."""
    if readout is None:
        if samples is None:
            raise usage_error("samples_per_line", None, "the number of samples of a line, or readout positions")
        return check_count("samples_per_line", samples)
    is_real = hasattr(readout, "dtype") and jnp.issubdtype(readout.dtype, jnp.floating)
    if not is_real or readout.ndim != 1:
        raise usage_error("readout", readout, "a real floating-point array of shape (samples,)")
    check_finite("readout", readout)
    if samples not in (None, readout.shape[0]):
        raise usage_error("samples_per_line", samples, f"{readout.shape[0]}, the length of readout")
    return check_count("samples_per_line", readout.shape[0])

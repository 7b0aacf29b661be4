"""Straight readout lines: a 3D non-uniform DFT that factors into a small dense one and a planar NUFFT.

A line along x at `(ky, kz)_s` visits the same `kx` for every `s`, so with `F` the DFT along the readout and
`B` the planar NUFFT at only `S` points, `A = F ⊗ B` and, for readout weights `D` and line weights `w`,

    Aᴴ W A = (Fᴴ D F) ⊗ (Bᴴ w B)

which has no readout axis: a small matrix along x and a convolution in each plane (`toeplitz`).
"""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Complex

from acqdesign.base.checks import check_count, check_finite, check_shape, usage_error
from acqdesign.base.sharding import piece, total, vary, varying
from acqdesign.base.types import Array, Float, Image, LinePoints, Samples
from acqdesign.encoding import toeplitz
from acqdesign.encoding._backends import complex_dtype, promote, voxel_coordinates, wrap
from acqdesign.encoding.nufft import check_options, check_points, nufft_adjoint, nufft_forward
from acqdesign.encoding.operators import (
    check_smaps,
    check_trailing,
    check_weights,
    combine_local,
    sample_shape,
    spread,
    sum_over_coils,
    weigh,
)


def uniform_readout(samples: int, dtype: Any = jnp.float32) -> Float[Array, " samples"]:
    """Half-open readout positions `(n - R//2) / R` in cycles per voxel, whose Gram is diagonal."""
    return voxel_coordinates(check_count("samples", samples), dtype) / samples


class LineGram(eqx.Module):
    """`Aᴴ W A` of straight lines, ready to apply many times: made by `StraightLineEncoding.normal`.

    Attributes:
        spectrum: `(py, pz)` of the kernel over the phase encodes on the padded grid [1].
        readout: `()` or `(nx, nx)` Gram matrix along the readout [1].
        smaps: `(coils, nx, ny, nz)` complex coil sensitivities, or None.
        shape: `(nx, ny, nz)` of the image.
    """

    spectrum: Float[Array, "py pz"]
    readout: Float[Array, ""] | Complex[Array, "nx nx"]
    smaps: Complex[Array, "coils nx ny nz"] | None
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __call__(self, image: Image) -> Image:
        """Image `(..., nx, ny, nz)` to `Aᴴ W A` of it, the same shape and complex."""
        return total(self.local(image), "coils")

    def local(self, image: Image) -> Image:
        """Of an image `(..., nx, ny, nz)`, the share of the coils that this device holds, where a mesh splits them."""
        check_trailing("image", image, self.shape)

        # Iterations that are kept for a gradient keep their image, not what every coil sees of it.
        @jax.checkpoint
        def seen_by(smaps: Array | None) -> Array:
            coils, readout = promote(spread(image, smaps, 3), self.readout)
            if readout.ndim:
                coils = jnp.einsum("xu,...uyz->...xyz", readout, coils, precision="highest")
            else:
                coils = readout * coils
            planes = coils.reshape(-1, *self.shape[1:])
            out = toeplitz.convolve_planes(planes, self.spectrum).reshape(coils.shape)
            return combine_local(out, smaps, 3)

        each = image.size * complex_dtype(image).itemsize
        return sum_over_coils(seen_by, self.smaps, bytes_each=each)


class StraightLineEncoding(eqx.Module):
    """Encoding of a 3D image by straight readout lines along x, scaled by `1/sqrt(∏N)`.

    Full Cartesian sampling is unitary. Differentiable in points, maps and images, in every mode.

    Args:
        points: `(S, 2)` phase encodes `(ky, kz)` in cycles per voxel; periodic with period one.
        shape: `(nx, ny, nz)` of the image, x along the readout; `nx = 1` is one plane.
        samples_per_line: number of readout samples `R`, placed by `uniform_readout`.
        readout: `(R,)` explicit kx positions in cycles per voxel, instead of `samples_per_line`.
        smaps: `(coils, nx, ny, nz)` complex coil sensitivities, or None for one uniform coil.
        eps: relative accuracy of `finufft`; 1e-6 in single and 1e-12 in double precision by default.
        backend: `finufft`, `dft` or `auto`, as in `nufft_forward`.

    Raises:
        ValueError: on wrong shapes, dtypes or counts, or non-finite points.
    """

    points: LinePoints
    positions: Float[Array, " samples"] | None  # along the readout; None where uniform
    smaps: Complex[Array, "coils nx ny nz"] | None
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
        smaps: Complex[Array, "coils nx ny nz"] | None = None,
        eps: float | None = None,
        backend: str = "auto",
    ):
        check_points(points, 2)
        if points.ndim != 2:
            raise usage_error("points", points, "shape (lines, 2)", "Use jax.vmap for several sets of lines.")
        nx, ny, nz = check_shape("shape", shape, dims=(3,))
        self.shape = (nx, ny, nz)
        if readout is not None:
            if (
                not hasattr(readout, "dtype")
                or readout.ndim != 1
                or not jnp.issubdtype(readout.dtype, jnp.floating)
            ):
                raise usage_error("readout", readout, "a real floating-point array of shape (samples,)")
            check_finite("readout", readout)
            if samples_per_line not in (None, readout.shape[0]):
                raise usage_error(
                    "samples_per_line", samples_per_line, f"{readout.shape[0]}, the length of readout"
                )
            samples_per_line = readout.shape[0]
        elif samples_per_line is None:
            raise usage_error(
                "samples_per_line", None, "the number of samples of a line, or readout positions"
            )
        self.samples_per_line = check_count("samples_per_line", samples_per_line)
        check_smaps(smaps, self.shape)
        check_options(eps, backend, points.dtype)
        self.points, self.positions, self.smaps = points, readout, smaps
        self.eps, self.backend = eps, backend

    @property
    def readout(self) -> Float[Array, " samples"]:
        """Positions of the samples of every line, in cycles per voxel."""
        if self.positions is None:
            return uniform_readout(self.samples_per_line, self.points.dtype)
        return self.positions

    @property
    def here(self) -> tuple[int, int, int]:
        """The shape of this device's piece of an image: some planes, where the points are marked to vary with them."""
        nx, ny, nz = self.shape
        return piece(nx, "planes", self.points)[0], ny, nz

    def _scale(self) -> float:
        return 1 / math.sqrt(math.prod(self.shape))

    def _along_readout(self) -> Complex[Array, "samples nx"]:
        readout = self.readout
        planes, first = piece(self.shape[0], "planes", self.points)
        voxels = jax.lax.dynamic_slice_in_dim(voxel_coordinates(self.shape[0], readout.dtype), first, planes)
        cycles = readout[:, None] * voxels[None]
        angle = -2 * math.pi * wrap(cycles)
        return jax.lax.complex(jnp.cos(angle), jnp.sin(angle))

    def forward(self, image: Image) -> Samples:
        """`A f`: image `(..., nx, ny, nz)` to samples `(..., [coils,] lines, samples)`."""
        check_trailing("image", image, self.here)
        coils = spread(image, self.smaps, 3)
        planes = nufft_forward(coils, self.points, eps=self.eps, backend=self.backend)
        along, planes = promote(self._along_readout(), planes)
        return jnp.einsum("kx,...xs->...sk", along, planes, precision="highest") * self._scale()

    def adjoint(
        self,
        kspace: Samples,
        weights: Float[Array, " lines"] | None = None,
        readout_weights: Float[Array, " samples"] | None = None,
    ) -> Image:
        """`Aᴴ W y`: samples `(..., [coils,] lines, samples)` to an image `(..., nx, ny, nz)`.

        Args:
            kspace: samples `(..., [coils,] lines, samples)` of k-space, as `forward` returns them.
            weights: `(lines,)` real weights of the lines, such as a density; ones by default.
            readout_weights: `(samples,)` real weights of the samples of each line; ones by default.
        """
        lines, samples = self.points.shape[0], self.samples_per_line
        check_trailing("kspace", kspace, sample_shape(self.smaps, lines, samples))
        check_weights("weights", weights, lines)
        check_weights("readout_weights", readout_weights, samples)
        if weights is not None:
            kspace = weigh(kspace, weights[:, None])
        if readout_weights is not None:
            kspace = weigh(kspace, readout_weights)
        along, kspace = promote(self._along_readout(), kspace)

        def seen_by(smaps: Array | None, kspace: Array) -> Array:
            kspace = kspace if smaps is None else jnp.moveaxis(kspace, 0, -3)
            planes = jnp.einsum("kx,...sk->...xs", jnp.conj(along), kspace, precision="highest")
            out = nufft_adjoint(planes, self.points, self.shape[1:], eps=self.eps, backend=self.backend)
            return combine_local(out * self._scale(), smaps, 3)

        batch, by_coil = kspace.shape[:-2], kspace
        if self.smaps is not None:
            batch, by_coil = kspace.shape[:-3], jnp.moveaxis(kspace, -3, 0)
        # The gradient transforms as many images again for each of the two coordinates.
        each = 3 * math.prod((*batch, *self.here)) * kspace.dtype.itemsize
        return total(sum_over_coils(seen_by, self.smaps, by_coil, bytes_each=each), "coils", "lines")

    def readout_gram(
        self, readout_weights: Float[Array, " samples"] | None = None
    ) -> Float[Array, ""] | Complex[Array, "nx nx"]:
        """`Fᴴ D F / nx`: a number where the readout is uniform and no coarser than Nyquist, else a matrix.

        Args:
            readout_weights: `(samples,)` real weights `D` of the samples of each line; ones by default.

        Returns:
            `()` or `(nx, nx)` [1].
        """
        check_weights("readout_weights", readout_weights, self.samples_per_line)
        nx = self.shape[0]
        if self.positions is None and readout_weights is None and self.samples_per_line >= nx:
            return jnp.asarray(self.samples_per_line / nx, self.points.dtype)
        if self.here != self.shape:
            got = f"planes split with {self.samples_per_line} samples of a line"
            raise usage_error(
                "mesh", got, f"a uniform readout of {nx} or more", "Planes are apart only in that."
            )
        along = self._along_readout()
        weighted = along if readout_weights is None else weigh(along, readout_weights[:, None])
        return jnp.einsum("kx,ku->xu", jnp.conj(along), weighted, precision="highest") / nx

    def normal(
        self,
        weights: Float[Array, " lines"] | None = None,
        readout_weights: Float[Array, " samples"] | None = None,
    ) -> LineGram:
        """`Aᴴ W A` as an object to apply repeatedly, in conjugate gradients say.

        Args:
            weights: `(lines,)` real weights of the lines, such as a density; ones by default.
            readout_weights: `(samples,)` real weights of the samples of each line; ones by default.
        """
        check_weights("weights", weights, self.points.shape[0])
        ones = jnp.ones(self.points.shape[0], self.points.dtype) if weights is None else weights
        spectrum = toeplitz.gram_spectrum(
            self.points, ones, self.shape[1:], eps=self.eps, backend=self.backend
        )
        scale = 1 / (self.shape[1] * self.shape[2])
        return LineGram(
            self.seen(scale * spectrum), self.readout_gram(readout_weights), self.smaps, self.here
        )

    def seen(self, array: Array) -> Array:
        """An array, of any shape and in any units, that every coil is to use, as it is.

        Its gradient is summed over a mesh once, not at every use.
        """
        return array if self.smaps is None else vary(array, varying(self.smaps))

    def gram(
        self,
        image: Image,
        weights: Float[Array, " lines"] | None = None,
        readout_weights: Float[Array, " samples"] | None = None,
    ) -> Image:
        """`Aᴴ W A f`, an image `(..., nx, ny, nz)`, equal to `adjoint(forward(f))` and cheaper.

        Args:
            image: `f`, an image `(..., nx, ny, nz)`.
            weights: `(lines,)` real weights of the lines, such as a density; ones by default.
            readout_weights: `(samples,)` real weights of the samples of each line; ones by default.
        """
        check_trailing("image", image, self.here)
        return self.normal(weights, readout_weights)(image)

"""Straight readout lines: a 3D non-uniform DFT that factors into a small dense one and a planar NUFFT.

A line along x at `(ky, kz)_s` visits the same `kx` for every `s`, so with `F` the DFT along the readout and `B` the
planar NUFFT at only `S` points, `A = F ⊗ B` and, for readout weights `D` and line weights `w`,

    Aᴴ W A = (Fᴴ D F) ⊗ (Bᴴ w B)

which has no readout axis: a small matrix along x and a convolution in each plane (`toeplitz`).
"""

import math

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Complex

from acqdesign._checks import bad, check_count, check_finite, check_shape
from acqdesign._types import Array, Float, Image, LinePoints, Samples
from acqdesign.encoding import toeplitz
from acqdesign.encoding._backends import voxel_coordinates
from acqdesign.encoding.nufft import nufft_adjoint, nufft_forward


def uniform_readout(samples: int, dtype: jnp.dtype = jnp.float32) -> Float[Array, " samples"]:
    """Half-open readout positions `(n - R//2) / R` in cycles per voxel, whose Gram is diagonal."""
    return (voxel_coordinates(samples, dtype) / samples).astype(dtype)


class LineGram(eqx.Module):
    """`Aᴴ W A` of straight lines, ready to apply many times: made by `StraightLineEncoding.normal`."""

    spectrum: Float[Array, "py pz"]
    readout: Float[Array, ""] | Complex[Array, "nx nx"]
    smaps: Complex[Array, "coils nx ny nz"] | None
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __call__(self, image: Image) -> Image:
        """Image `(..., nx, ny, nz)` to `Aᴴ W A` of it, the same shape and complex."""
        coils = image if self.smaps is None else self.smaps * image[..., None, :, :, :]
        if self.readout.ndim:
            coils = jnp.einsum("xu,...uyz->...xyz", self.readout, coils, precision="highest")
        else:
            coils = self.readout * coils
        planes = coils.reshape(-1, *self.shape[1:])
        out = toeplitz.convolve_planes(planes, self.spectrum).reshape(coils.shape)
        return out if self.smaps is None else jnp.sum(jnp.conj(self.smaps) * out, axis=-4)


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
    readout: Float[Array, " samples"]
    smaps: Complex[Array, "coils nx ny nz"] | None
    shape: tuple[int, int, int] = eqx.field(static=True)
    uniform: bool = eqx.field(static=True)
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
        if points.ndim != 2 or points.shape[-1] != 2 or not jnp.issubdtype(points.dtype, jnp.floating):
            raise bad("points", points, "a real floating-point array of shape (lines, 2)")
        if points.shape[0] == 0:
            raise bad("points", points, "at least one line")
        check_finite("points", points)
        nx, ny, nz = check_shape("shape", shape, dims=(3,))
        self.shape = (nx, ny, nz)
        self.uniform = readout is None
        if readout is None:
            if samples_per_line is None:
                raise bad("samples_per_line", None, "the number of samples of a line, or readout positions")
            readout = uniform_readout(check_count("samples_per_line", samples_per_line), points.dtype)
        elif samples_per_line is not None and samples_per_line != readout.shape[0]:
            raise bad("samples_per_line", samples_per_line, f"{readout.shape[0]}, the length of readout")
        check_finite("readout", readout)
        if smaps is not None and (smaps.ndim != 4 or smaps.shape[1:] != self.shape):
            raise bad("smaps", smaps, f"shape (coils, {nx}, {ny}, {nz})")
        self.points, self.readout, self.smaps = points, readout, smaps
        self.eps, self.backend = eps, backend

    @property
    def samples_per_line(self) -> int:
        """Readout samples `R` of each line."""
        return self.readout.shape[0]

    def _scale(self) -> float:
        return 1 / math.sqrt(math.prod(self.shape))

    def _along_readout(self) -> Complex[Array, "samples nx"]:
        x = voxel_coordinates(self.shape[0], self.readout.dtype)
        cycles = self.readout[:, None] * x
        return jnp.exp(-2j * math.pi * (cycles - jnp.round(cycles)))

    def _check_image(self, image: Image) -> None:
        if image.ndim < 3 or image.shape[-3:] != self.shape:
            raise bad("image", image, f"shape (..., {', '.join(map(str, self.shape))})")

    def forward(self, image: Image) -> Samples:
        """`A f`: image `(..., nx, ny, nz)` to samples `(..., [coils,] lines, samples)`."""
        self._check_image(image)
        coils = image if self.smaps is None else self.smaps * image[..., None, :, :, :]
        planes = nufft_forward(coils, self.points, eps=self.eps, backend=self.backend)
        lines = jnp.einsum("kx,...xs->...sk", self._along_readout(), planes, precision="highest")
        return lines * self._scale()

    def adjoint(
        self,
        kspace: Samples,
        weights: Float[Array, " lines"] | None = None,
        readout_weights: Float[Array, " samples"] | None = None,
    ) -> Image:
        """`Aᴴ W y`: samples `(..., [coils,] lines, samples)` to an image `(..., nx, ny, nz)`.

        Args:
            kspace: samples, as `forward` returns them.
            weights: `(lines,)` real, such as a density; ones by default.
            readout_weights: `(samples,)` real; ones by default.
        """
        lead = () if self.smaps is None else (self.smaps.shape[0],)
        expected = (*lead, self.points.shape[0], self.samples_per_line)
        if kspace.shape[kspace.ndim - len(expected) :] != expected:
            raise bad("kspace", kspace, f"shape (..., {', '.join(map(str, expected))})")
        if weights is not None:
            kspace = kspace * weights[:, None]
        if readout_weights is not None:
            kspace = kspace * readout_weights
        planes = jnp.einsum("kx,...sk->...xs", jnp.conj(self._along_readout()), kspace, precision="highest")
        out = nufft_adjoint(planes, self.points, self.shape[1:], eps=self.eps, backend=self.backend)
        out = out * self._scale()
        return out if self.smaps is None else jnp.sum(jnp.conj(self.smaps) * out, axis=-4)

    def readout_gram(
        self, readout_weights: Float[Array, " samples"] | None = None
    ) -> Float[Array, ""] | Complex[Array, "nx nx"]:
        """`Fᴴ D F / nx`: a number where the readout is uniform and no coarser than Nyquist, else a matrix."""
        nx = self.shape[0]
        if self.uniform and readout_weights is None and self.samples_per_line >= nx:
            return jnp.asarray(self.samples_per_line / nx, self.readout.dtype)
        along = self._along_readout()
        weighted = along if readout_weights is None else along * readout_weights[:, None]
        return jnp.einsum("kx,ku->xu", jnp.conj(along), weighted, precision="highest") / nx

    def normal(
        self,
        weights: Float[Array, " lines"] | None = None,
        readout_weights: Float[Array, " samples"] | None = None,
    ) -> LineGram:
        """`Aᴴ W A` as an object to apply repeatedly, in conjugate gradients say."""
        ones = jnp.ones(self.points.shape[0], self.points.dtype) if weights is None else weights
        spectrum = toeplitz.gram_spectrum(
            self.points, ones, self.shape[1:], eps=self.eps, backend=self.backend
        )
        scale = 1 / (self.shape[1] * self.shape[2])
        return LineGram(scale * spectrum, self.readout_gram(readout_weights), self.smaps, self.shape)

    def gram(
        self,
        image: Image,
        weights: Float[Array, " lines"] | None = None,
        readout_weights: Float[Array, " samples"] | None = None,
    ) -> Image:
        """`Aᴴ W A f`, equal to `adjoint(forward(f))` and cheaper."""
        self._check_image(image)
        return self.normal(weights, readout_weights)(image)

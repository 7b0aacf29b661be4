"""Echo trains: every line is acquired at an echo, whose amplitude in each tissue weights it.

    y_s = Σ_c m_c[e(s)] · (A_s ρ_c)

With real amplitudes every product of the encoding with itself is a sum of convolutions, one kernel a pair of
classes: `Aᴴ m_c m_c' A`.
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp

from acqdesign.base.checks import usage_error
from acqdesign.base.sharding import alike, total
from acqdesign.base.types import Array, Float, Image, Int, Real, Samples
from acqdesign.encoding import toeplitz
from acqdesign.encoding.lines import LineGram, StraightLineEncoding


class EchoTrainEncoding(eqx.Module):
    """Encoding of tissue classes by straight lines that are acquired at the echoes of trains.

    Differentiable in the lines' points, the amplitudes (and through them in flips and relaxation times) and the
    maps. With amplitudes of one it is `lines.forward` of the sum of the maps.

    Args:
        lines: where k-space is sampled.
        echo: `(S,)` int32, the echo at which each line is acquired, from 0.
        amplitudes: `(C, E)` real, signal of each class at each echo, in units of M0.

    Raises:
        ValueError: on wrong shapes or dtypes.
    """

    lines: StraightLineEncoding
    echo: Int[Array, " lines"]
    amplitudes: Float[Array, "classes echoes"]

    def __init__(
        self,
        lines: StraightLineEncoding,
        echo: Int[Array, " lines"],
        amplitudes: Float[Array, "classes echoes"],
    ):
        if echo.shape != lines.points.shape[:1] or not jnp.issubdtype(echo.dtype, jnp.integer):
            raise usage_error(
                "echo", echo, f"integers of shape ({lines.points.shape[0]},), one for each line"
            )
        if amplitudes.ndim != 2 or jnp.iscomplexobj(amplitudes):
            raise usage_error("amplitudes", amplitudes, "a real array of shape (classes, echoes)")
        self.lines, self.echo, self.amplitudes = lines, jnp.asarray(echo), amplitudes

    @property
    def shape(self) -> tuple[int, ...]:
        """`(C, nx, ny, nz)`: the maps that `forward` takes."""
        return (self.amplitudes.shape[0], *self.lines.shape)

    def at_lines(self, amplitudes: Float[Array, "*batch echoes"]) -> Float[Array, "*batch lines"]:
        """Values by echo, `amplitudes` in any units, as values by line, in the same units."""
        return amplitudes[..., self.echo]

    def forward(self, maps: Image) -> Samples:
        """Images of classes, `maps` `(..., C, nx, ny, nz)`, to samples `(..., [coils,] lines, samples)` of k-space."""
        if maps.shape[maps.ndim - 4 :] != self.shape:
            raise usage_error("maps", maps, f"shape (..., {', '.join(map(str, self.shape))})")
        each = self.lines.forward(maps)
        coils = "" if self.lines.smaps is None else "k"
        weights = self.at_lines(self.amplitudes)
        return jnp.einsum(f"...c{coils}sr,cs->...{coils}sr", each, weights, precision="highest")

    def adjoint(self, kspace: Samples) -> Image:
        """Samples `kspace`, `(..., [coils,] lines, samples)`, to images of classes `(..., C, nx, ny, nz)`."""
        weighted = jax.vmap(lambda w: self.lines.adjoint(kspace, w))(self.at_lines(self.amplitudes))
        return jnp.moveaxis(weighted, 0, -4)

    def gram(self, maps: Image) -> Image:
        """`Aᴴ A` of images of classes, `maps` `(..., C, nx, ny, nz)`, by one kernel a pair of classes."""
        return self.normal()(maps)

    def normal(self) -> Callable[[Image], Image]:
        """`Aᴴ A` with its kernels made, to apply repeatedly."""
        weights = self.at_lines(self.amplitudes)
        spectra = self._spectra(weights[:, None] * weights)

        def gram(maps: Image) -> Image:
            return jnp.stack([self._apply(row, jnp.moveaxis(maps, -4, 0)) for row in spectra], axis=-4)

        return gram

    def weighted_sum(self, weights: Float[Array, "classes lines"], maps: Image) -> Image:
        """`Σ_c Aᴴ w_c A ρ_c`, an image `(..., nx, ny, nz)`.

        Args:
            weights: `(C, S)` real weights of the lines, for each class.
            maps: `(C, ..., nx, ny, nz)` images of the classes.
        """
        return self._apply(self._spectra(weights), maps)

    def _spectra(self, weights: Float[Array, "... lines"]) -> Array:
        lines = self.lines
        plane = lines.shape[1:]
        spectra = toeplitz.gram_spectrum(lines.points, weights, plane, eps=lines.eps, backend=lines.backend)
        return lines.seen(spectra / math.prod(plane))

    def _apply(self, spectra: Array, maps: Image) -> Image:
        lines, readout = self.lines, self.lines.readout_gram()

        # One class at a time: their spectra need not fit in memory together.
        @jax.checkpoint
        def add(image: Image, part: tuple[Real, Image]) -> tuple[Image, None]:
            spectrum, rho = part
            return image + LineGram(spectrum, readout, lines.smaps, lines.here).local(rho), None

        zero = jnp.zeros(maps.shape[1:], jnp.result_type(maps.dtype, jnp.complex64))
        zero = alike(zero, spectra, maps)[0]
        return total(jax.lax.scan(add, zero, (spectra, maps))[0], "coils", "tissues")

    def matched(self, reference: Float[Array, " echoes"], maps: Image) -> tuple[LineGram, Image]:
        """Normal equations of one image seen with one train of amplitudes, for noiseless data of the maps.

            Σ_s |r[e(s)] A_s x - y_s|²:    (Aᴴ r² A) x = Σ_c Aᴴ r m_c A ρ_c

        Args:
            reference: `(E,)` amplitudes that the image is assumed to have.
            maps: `(C, ..., nx, ny, nz)` images of the classes.

        Returns:
            The Gram and the right-hand side.
        """
        r = self.at_lines(reference)
        return self.lines.normal(r**2), self.weighted_sum(r * self.at_lines(self.amplitudes), maps)

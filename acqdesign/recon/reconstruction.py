"""What a reconstruction is: `(encoding, kspace, noise) -> image`, a function or a module."""

import abc
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp

from acqdesign.base.checks import check_at_least_zero, check_choice, check_count
from acqdesign.base.sharding import split
from acqdesign.base.types import Image
from acqdesign.encoding import DENSITIES, Encoding
from acqdesign.recon.cg import cg
from acqdesign.recon.prior import posterior_mean, spectral_prior

_LEAST_RIDGE = 1e-6  # of the mean power of the image, where nothing is known of the noise


class Reconstruction(eqx.Module):
    """From k-space to images, in the units of the target; a plain function of the same arguments does as well.

    The encoding, beside `forward`, `adjoint` and `normal`, says what a scanner may know: see `Acquisition`.
    """

    planes_apart: ClassVar[bool] = False
    """Whether the image of a plane across the readout is the same without the others, where those are apart in `A`."""

    @abc.abstractmethod
    def __call__(self, encoding: Any, kspace: Any, noise: Any) -> Image:
        """The images, `(anatomies, nx, ny, nz)`.

        Args:
            encoding: of the acquisition, with the target's expected amplitude at each readout.
            kspace: samples, for `encoding.adjoint`; `kspace.array` where they are needed themselves.
            noise: standard deviation of each part of a sample.
        """

    def prepared(self, encoding: Encoding, images: Image) -> "Reconstruction":
        """The same with what it can compute once for images that stay as they are."""
        return self


class CG(Reconstruction):
    """Regularised least squares `argmin ‖A x - y‖² + ridge ‖x‖²` by conjugate gradients, as iterative SENSE has it.

    Args:
        ridge: Tikhonov weight, relative to a fully sampled scan with as many samples a readout.
        iterations: fixed number of them.
    """

    planes_apart = True

    ridge: float = eqx.field(static=True, default=1e-3)
    iterations: int = eqx.field(static=True, default=10)

    def __check_init__(self) -> None:
        check_at_least_zero("ridge", self.ridge)
        check_count("iterations", self.iterations)

    def __call__(self, encoding: Any, kspace: Any, noise: Any) -> Image:
        gram = encoding.normal() + self.ridge * encoding.oversampling
        return cg(gram, encoding.adjoint(kspace), iterations=self.iterations)


class Prior(Reconstruction):
    """The mean of what images may be, given the noise, a power spectrum that images have, and where the head is.

    See `posterior_mean`.

    Args:
        exponent: of the power spectrum; 0 is white.
        ridge: noise-to-signal power ratio, relative to a fully sampled scan; computed from the scene unless given.
        iterations: of conjugate gradients.
    """

    planes_apart = True

    exponent: float = eqx.field(static=True, default=1.5)
    ridge: float | None = eqx.field(static=True, default=None)
    iterations: int = eqx.field(static=True, default=12)

    def __check_init__(self) -> None:
        check_at_least_zero("prior", self.exponent)
        check_count("iterations", self.iterations)
        if self.ridge is not None:
            check_at_least_zero("ridge", self.ridge)

    def ratio(self, encoding: Any, noise: Any) -> Any:
        """Noise variance of a sample over the image's expected mean power."""
        if self.ridge is not None:
            return self.ridge * encoding.oversampling
        return jnp.maximum(2 * noise**2 / encoding.power, _LEAST_RIDGE)

    def __call__(self, encoding: Any, kspace: Any, noise: Any) -> Image:
        ridge, support = self.ratio(encoding, noise), encoding.support
        return self._found(encoding, encoding, kspace, ridge=ridge, support=support)

    def _found(self, encoding: Any, images: Any, kspace: Any, **more: Any) -> Image:
        """The images of an encoding of them, under the prior for the acquisition's."""
        _, ny, nz = encoding.shape
        spectrum = spectral_prior((ny, nz), self.exponent, dtype=encoding.power.dtype) if self.exponent else None
        return posterior_mean(images.normal(), images.adjoint(kspace), spectrum, iterations=self.iterations, **more)


class Subspace(Prior):
    """`Prior` for the leading images of the echoes' subspace, of which the target is then combined.

    Args:
        exponent: as of `Prior`; so are `ridge` and `iterations`.
        rank: how many images.
    """

    rank: int = eqx.field(static=True, default=2)

    def __check_init__(self) -> None:
        check_count("rank", self.rank)

    def __call__(self, encoding: Any, kspace: Any, noise: Any) -> Image:
        images, mix = encoding.subspace(self.rank)
        # Its images have unit power each.
        ridge = encoding.power * self.ratio(encoding, noise)
        support = None if encoding.support is None else encoding.support[:, None]
        more = {"dims": 4, "planes_apart": encoding.normal().planes_apart}
        found = self._found(encoding, images, kspace, ridge=ridge, support=support, **more)
        return jnp.einsum("k,akxyz->axyz", mix.astype(found.dtype), found, precision="highest")


class DensityAdjoint(Reconstruction):
    """The density-compensated adjoint `Aᴴ W y`.

    Args:
        density: one of `DENSITIES`.
        iterations: of Pipe and Menon's.
    """

    density: str = eqx.field(static=True, default="pipe")
    iterations: int = eqx.field(static=True, default=10)
    images: Any = eqx.field(metadata=split("anatomies", "coils"), default=None)

    def __check_init__(self) -> None:
        check_choice("density", self.density, DENSITIES)
        check_count("density_iterations", self.iterations)

    def prepared(self, encoding: Encoding, images: Image) -> "DensityAdjoint":
        """With the images' spectra made once: a step then needs the density, one kernel and one inverse transform."""
        return DensityAdjoint(self.density, self.iterations, encoding.prepare(images))

    def __call__(self, encoding: Any, kspace: Any, noise: Any) -> Image:
        weights = encoding.density(self.density, self.iterations)
        if self.images is not None:
            return encoding.adjoint_of(self.images, weights)
        return encoding.adjoint(kspace, weights)


RECONSTRUCTIONS = {"cg": CG, "prior": Prior, "subspace": Subspace, "adjoint": DensityAdjoint}
"""Reconstructions by the names that the command lines know them by."""

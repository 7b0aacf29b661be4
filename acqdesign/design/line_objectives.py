"""What straight lines are learned for: losses `loss({"points": (S, 2)}, key) -> (scalar, terms)`.

Every objective is a pytree, so its images are arguments of the compiled step, and can show its reconstruction.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
from jaxtyping import Complex

from acqdesign.base.checks import check_choice, check_count, usage_error
from acqdesign.base.sharding import across, total, vary, varying
from acqdesign.base.types import Array, Float, Image, Inexact, LinePoints, PRNGKey, PyTree, Scalar
from acqdesign.encoding import StraightLineEncoding, least_squares_density, pipe_density, toeplitz
from acqdesign.recon import conjugate_gradients, nrmse, ssim
from acqdesign.recon.metrics import magnitude
from acqdesign.scene import fine_shape, posed

DENSITIES = ("pipe", "pipe-stopped", "least-squares", "none")
METRICS = ("nrmse", "ssim")

SPLIT = {
    **dict.fromkeys(("images", "held_out"), P("anatomies")),
    "smaps": P("coils"),
    **dict.fromkeys(("spectra", "held_spectra"), P("anatomies", "coils")),
}
"""How an objective's arrays lie on a mesh, for `split_over`; lines are split as a step begins."""

Images = Inexact[Array, "_ _ _ _"]  # (n, nx, ny, nz)


def line_density(
    name: str,
    points: LinePoints,
    shape: tuple[int, int, int],
    iterations: int = 10,
    *,
    backend: str = "auto",
) -> Float[Array, " lines"]:
    """Density weights of lines by name.

    Args:
        name: `pipe` (gradients through it), `pipe-stopped` (constant under differentiation), `least-squares`
            or `none` (ones).
        points: `(S, 2)` in cycles per voxel.
        shape: `(nx, ny, nz)` of the image.
        iterations: of Pipe and Menon's.
        backend: as in `pipe_density`.

    Returns:
        `(S,)` weights.

    Raises:
        ValueError: on an unknown name.
    """
    check_choice("density", name, DENSITIES)
    if name == "none":
        return jnp.ones(points.shape[0], points.dtype)
    if name == "least-squares":
        return least_squares_density(points, shape[1:], backend=backend)
    stopped = name == "pipe-stopped"
    return pipe_density(points, shape[1:], iterations, stop_gradient=stopped, backend=backend)


def line_psf(points: LinePoints, weights: Float[Array, " lines"], shape: tuple[int, int, int]) -> Image:
    """Point spread function of weighted lines in their plane.

    Args:
        points: `(S, 2)` in cycles per voxel.
        weights: `(S,)` relative weights of the lines.
        shape: `(nx, ny, nz)` of the image.

    Returns:
        An image `(ny, nz)`, one at its centre voxel.
    """
    psf = toeplitz.nufft_adjoint(weights, points, shape[1:])
    return psf / jnp.sum(weights)


def _check_images(
    images: Array, held_out: Array | None, encoding: StraightLineEncoding, augmented: bool
) -> None:
    grid = fine_shape(encoding.shape) if augmented else encoding.shape
    for name, given, shape in (("images", images, grid), ("held_out", held_out, encoding.shape)):
        if given is not None and (given.ndim != 4 or given.shape[1:] != shape):
            raise usage_error(name, given, f"shape (images, {', '.join(map(str, shape))})")


def _moved(encoding: StraightLineEncoding, points: LinePoints) -> StraightLineEncoding:
    return eqx.tree_at(lambda e: e.points, encoding, points)


def _shown(objective: Any, key: PRNGKey) -> Images:
    """The images to learn on at this step: as they are, or each in a pose of its own."""
    if not objective.augmented:
        return objective.images

    def pose(fine: Array, key: PRNGKey) -> Array:
        return posed(fine, key, objective.encoding.shape, voxel_size=objective.voxel_size)

    return jax.vmap(pose)(objective.images, jax.random.split(key, len(objective.images)))


class AdjointObjective(eqx.Module):
    """Mean-normalised magnitude error of the density-compensated adjoint.

        loss = mean over voxels of (|a| / mean|a| - |f| / mean|f|)²,    a = Aᴴ (D ⊗ w) A f

    The images' spectra are made once; a step then needs the density, one kernel and one inverse transform.

    Args:
        encoding: template whose points are replaced by those learned.
        images: `(n, nx, ny, nz)` real or complex images to learn on.
        held_out: images like them whose loss is reported at every step and never learned on.
        density: one of `DENSITIES`, for the lines; the readout has its own, fixed.
        density_iterations: of Pipe and Menon's.
        augmented: learn on a random rotation, scale and flip of every image at every step; `images` are then
            on the finer grid `fine_shape(shape)` on which they are turned.
        voxel_size: relative lengths of a voxel's edges, for those rotations.
    """

    encoding: StraightLineEncoding
    images: Images
    held_out: Images | None
    spectra: Complex[Array, "images planes pz py"] | None
    held_spectra: Complex[Array, "others planes pz py"] | None
    readout_weights: Float[Array, " samples"]
    density: str = eqx.field(static=True)
    density_iterations: int = eqx.field(static=True)
    augmented: bool = eqx.field(static=True)
    voxel_size: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        encoding: StraightLineEncoding,
        images: Images,
        *,
        held_out: Images | None = None,
        density: str = "pipe",
        density_iterations: int = 10,
        augmented: bool = False,
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    ):
        _check_images(images, held_out, encoding, augmented)
        self.encoding, self.images, self.held_out = encoding, images, held_out
        self.augmented, self.voxel_size = augmented, tuple(voxel_size)
        self.density = check_choice("density", density, DENSITIES)
        self.density_iterations = check_count("density_iterations", density_iterations)
        self.readout_weights = pipe_density(encoding.readout[:, None], encoding.shape[:1], 10)
        self.spectra = None if augmented else self._spectra(images)
        self.held_spectra = None if held_out is None else self._spectra(held_out)

    def _spectra(self, images: Images) -> Array:
        """Padded spectra of `(D ⊗ 1) S f`, plane by plane."""
        along = self.encoding.readout_gram(self.readout_weights)

        def filtered(images: Array, smaps: Array | None, along: Array) -> Array:
            coils = images[:, None] if smaps is None else smaps * images[:, None]
            planes = jnp.einsum("xu,ncuyz->ncxyz", along, coils, precision="highest")
            planes = planes.reshape(-1, *self.encoding.shape[1:])
            padded = toeplitz.padded_shape(self.encoding.shape[1:])
            out = toeplitz.map_planes(lambda p: toeplitz.to_spectrum(p, padded), planes, padded)
            return out.reshape(len(images), -1, *out.shape[-2:])

        specs = (SPLIT["images"], SPLIT["smaps"], P())
        return across(filtered, specs, SPLIT["spectra"])(images, self.encoding.smaps, along)

    def _kernel(self, points: LinePoints) -> Array:
        plane = self.encoding.shape[1:]
        eps, backend = self.encoding.eps, self.encoding.backend
        weights = line_density(
            self.density, points, self.encoding.shape, self.density_iterations, backend=backend
        )

        def spectrum(points: Array, weights: Array) -> Array:
            return toeplitz.gram_spectrum(points, weights, plane, eps=eps, backend=backend)

        return across(spectrum, (P("lines"), P("lines")), P())(points, weights).T / math.prod(plane)

    def _adjoint(self, kernel: Array, spectra: Array) -> Image:
        shape = self.encoding.shape

        def combined(kernel: Array, spectra: Array, smaps: Array | None) -> Array:
            kernel = vary(kernel, varying(spectra))
            out = toeplitz.map_planes(
                lambda s: toeplitz.from_spectrum(kernel * s, shape[1:]),
                spectra.reshape(-1, *spectra.shape[-2:]),
                toeplitz.padded_shape(shape[1:]),
            )
            coils = out.reshape(len(spectra), -1, *shape)
            return coils[:, 0] if smaps is None else total(jnp.sum(jnp.conj(smaps) * coils, axis=1), "coils")

        specs = (P(), SPLIT["spectra"], SPLIT["smaps"])
        return across(combined, specs, SPLIT["images"])(kernel, spectra, self.encoding.smaps)

    def reconstruct(self, points: LinePoints, images: Images, key: PRNGKey) -> Image:
        """Density-compensated adjoints `(n, nx, ny, nz)` of the k-space of images.

        Args:
            points: `(S, 2)` in cycles per voxel.
            images: `(n, nx, ny, nz)` true images.
            key: for noise.
        """
        return self._adjoint(self._kernel(points), self._spectra(images))

    def __call__(self, params: PyTree, key: PRNGKey) -> tuple[Scalar, dict[str, Scalar]]:
        """Loss and its terms."""
        images = _shown(self, key)
        spectra = self._spectra(images) if self.spectra is None else self.spectra
        kernel = self._kernel(params["points"])
        terms = {}
        if self.held_out is not None and self.held_spectra is not None:
            held = self._adjoint(jax.lax.stop_gradient(kernel), self.held_spectra)
            terms["loss_held_out"] = _normalised_error(held, self.held_out)
        return _normalised_error(self._adjoint(kernel, spectra), images), terms


def _normalised_error(found: Image, wanted: Image) -> Scalar:
    """Mean squared difference of magnitudes, each over its own mean."""
    pair = [magnitude(image) for image in (found, wanted)]
    ours, theirs = (image / image.mean((1, 2, 3), keepdims=True) for image in pair)
    return jnp.mean((ours - theirs) ** 2)


class IterativeObjective(eqx.Module):
    """Error of the regularised least-squares image, by conjugate gradients as a reconstruction would run.

        x = CG_n(Aᴴ A + ridge, Aᴴ (A f + noise)),    loss = mean of NRMSE(x, f)  or of  1 - SSIM(x, f)

    Args:
        encoding: template whose points are replaced by those learned.
        images: `(n, nx, ny, nz)` real or complex images to learn on.
        held_out: images like them whose error is reported at every step and never learned on.
        metric: `nrmse` or `ssim`.
        ridge: Tikhonov weight relative to a fully sampled scan with as many samples a line.
        iterations: of conjugate gradients.
        noise: standard deviation of the complex noise on each sample, the k-space of a unitary transform of an
            image whose largest value is one; drawn anew at every step.
        augmented: learn on a random rotation, scale and flip of every image at every step; `images` are then
            on the finer grid `fine_shape(shape)` on which they are turned.
        voxel_size: relative lengths of a voxel's edges, for those rotations.
    """

    encoding: StraightLineEncoding
    images: Images
    held_out: Images | None
    metric: str = eqx.field(static=True)
    ridge: float = eqx.field(static=True)
    iterations: int = eqx.field(static=True)
    noise: float = eqx.field(static=True)
    augmented: bool = eqx.field(static=True)
    voxel_size: tuple[float, ...] = eqx.field(static=True)

    def __init__(
        self,
        encoding: StraightLineEncoding,
        images: Images,
        *,
        held_out: Images | None = None,
        metric: str = "nrmse",
        ridge: float = 1e-3,
        iterations: int = 10,
        noise: float = 0.0,
        augmented: bool = False,
        voxel_size: Sequence[float] = (1.0, 1.0, 1.0),
    ):
        _check_images(images, held_out, encoding, augmented)
        if not (math.isfinite(ridge) and ridge >= 0):
            raise usage_error("ridge", ridge, "a finite number >= 0")
        if not (math.isfinite(noise) and noise >= 0):
            raise usage_error("noise", noise, "a finite number >= 0")
        self.encoding, self.images, self.held_out = encoding, images, held_out
        self.augmented, self.voxel_size = augmented, tuple(voxel_size)
        self.metric = check_choice("metric", metric, METRICS)
        self.iterations = check_count("iterations", iterations)
        self.ridge, self.noise = float(ridge), float(noise)

    def reconstruct(self, points: LinePoints, images: Images, key: PRNGKey) -> Image:
        """Images `(n, nx, ny, nz)` reconstructed from the noisy k-space of images.

        Args:
            points: `(S, 2)` in cycles per voxel.
            images: `(n, nx, ny, nz)` true images.
            key: for noise.
        """
        encoding, noise = _moved(self.encoding, points), None
        lead = () if encoding.smaps is None else encoding.smaps.shape[:1]
        if self.noise > 0:
            size = (len(images), *lead, len(points), encoding.samples_per_line)
            dtype = jnp.result_type(images.dtype, points.dtype, jnp.complex64)
            noise = self.noise * jax.random.normal(key, size, dtype)

        def solve(encoding: StraightLineEncoding, images: Array, noise: Array | None) -> Array:
            # Made to vary with the images here: its gradient is then summed over them once.
            encoding = _moved(encoding, vary(encoding.points, varying(images) & {"anatomies"}))
            normal = encoding.normal()
            rhs = normal(images)
            if noise is not None:
                rhs += encoding.adjoint(noise)
            ridge = self.ridge * encoding.samples_per_line / encoding.shape[0]
            return conjugate_gradients(normal, rhs, ridge=ridge, iterations=self.iterations)

        where = SPLIT | {"points": P("lines")}
        pieces = jax.tree_util.tree_map_with_path(lambda path, _: where.get(path[-1].name, P()), encoding)
        specs = (pieces, SPLIT["images"], P("anatomies", *["coils" for _ in lead], "lines"))
        return across(solve, specs, SPLIT["images"])(encoding, images, noise)

    def __call__(self, params: PyTree, key: PRNGKey) -> tuple[Scalar, dict[str, Scalar]]:
        """Loss and its terms."""
        augment_key, noise_key, held_key = jax.random.split(key, 3)
        images = _shown(self, augment_key)
        found = self.reconstruct(params["points"], images, noise_key)
        terms = {"nrmse": jnp.mean(nrmse(found, images))}
        loss = terms["nrmse"] if self.metric == "nrmse" else 1 - jnp.mean(ssim(found, images))
        if self.held_out is not None:
            points = jax.lax.stop_gradient(params["points"])
            other = self.reconstruct(points, self.held_out, held_key)
            terms["nrmse_held_out"] = jnp.mean(nrmse(other, self.held_out))
        return loss, terms

"""Reconstructions as they are called, `(encoding, kspace, noise) -> image`: the solutions they stand for, densely."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import Coils, Encoding, StraightLineEncoding, initial_lines
from acqdesign.recon import (
    CG,
    RECONSTRUCTIONS,
    DensityAdjoint,
    Prior,
    Reconstruction,
    Subspace,
    cg,
    posterior_mean,
    spectral_prior,
)

SHAPE, LINES = (2, 4, 3), 9
POWER, SIGMA = 1.7, 0.2


def complex_normal(rng, *shape):
    return jnp.asarray(rng.standard_normal(shape) + 1j * rng.standard_normal(shape))


class Images(eqx.Module):
    """`y_s = Σ_k b_ks A_s u_k`, written down as it is."""

    encoding: Encoding
    rows: jax.Array

    def forward(self, images):
        each = self.encoding.forward(jnp.moveaxis(images, -4, 0))
        return jnp.einsum("k...sr,ks->...sr", each, self.rows.astype(each.dtype))

    def adjoint(self, kspace):
        return jnp.stack([self.encoding.adjoint(kspace, row) for row in self.rows], axis=-4)

    def normal(self):
        return lambda images: self.adjoint(self.forward(images))


class Known(eqx.Module):
    """What a reconstruction is told beside the encoding: the power, where the head is, and a subspace."""

    encoding: Encoding
    power: jax.Array
    support: jax.Array | None = None
    rows: jax.Array | None = None
    mix: jax.Array | None = None

    def __getattr__(self, name):
        return getattr(self.encoding, name)

    def subspace(self, rank):
        return Images(self.encoding, self.rows[:rank]), self.mix[:rank]


def scan_of(rng, real=np.float64, points=None, support=False, samples=4):
    """An undersampled scan of two images with two coils."""
    points = jnp.asarray(rng.uniform(-0.5, 0.5, (LINES, 2)) if points is None else points, real)
    dtype = np.result_type(real, np.complex64)
    encoding = StraightLineEncoding(points, SHAPE, samples) @ Coils(complex_normal(rng, 2, *SHAPE).astype(dtype))
    where = jnp.asarray(rng.random((2, *SHAPE)) < 0.7, real) if support else None
    rows, mix = jnp.asarray(rng.normal(size=(3, LINES)), real), jnp.asarray(rng.normal(size=3), real)
    return Known(encoding, jnp.asarray(POWER, real), where, rows, mix)


def kspace_of(rng, encoding, dtype=np.complex128):
    return complex_normal(rng, 2, *encoding.samples).astype(dtype)


def dense(function, shape):
    """A linear map of images of this shape as a matrix."""
    basis = jnp.eye(np.prod(shape), dtype=complex).reshape(-1, *shape)
    return np.asarray(jax.jit(jax.vmap(function))(basis)).reshape(len(basis), -1).T


def prior_covariance(support, exponent):
    """`M S² M` as a matrix."""
    spectrum = np.asarray(spectral_prior(SHAPE[1:], exponent, dtype=jnp.float64))
    squared = dense(lambda x: jnp.fft.ifft2(spectrum**2 * jnp.fft.fft2(x)), SHAPE)
    mask = np.asarray(support).ravel()
    return mask[:, None] * squared * mask


def test_cg_is_regularised_least_squares(rng):
    """`argmin ‖A x - y‖² + ridge ‖x‖²` by a direct solver, the ridge that of as many samples a readout."""
    known = scan_of(rng, samples=4)
    kspace = kspace_of(rng, known)
    found = jax.jit(lambda y: CG(ridge=0.05, iterations=60)(known, y, 0.0))(kspace)
    matrix = dense(known.forward, SHAPE)
    # Four samples a line over two voxels: twice the Gram of a full scan, and twice the ridge.
    normal = matrix.conj().T @ matrix + 2 * 0.05 * np.eye(24)
    for image, y in zip(found, kspace, strict=True):
        want = np.linalg.solve(normal, matrix.conj().T @ np.ravel(y))
        np.testing.assert_allclose(image.ravel(), want, atol=1e-10 * np.abs(want).max())


def test_a_full_scan_is_shrunk_alike_however_many_samples_a_readout(rng):
    points = initial_lines("full", SHAPE, key=jax.random.key(0)).points.astype(jnp.float64)
    lines, image = StraightLineEncoding(points, SHAPE, 6), complex_normal(rng, 1, *SHAPE)
    found = jax.jit(lambda f: CG(ridge=0.25, iterations=5)(lines, lines.forward(f), 0.0))(image)
    np.testing.assert_allclose(found, image / 1.25, atol=1e-6)


def test_prior_is_the_posterior_mean_given_the_noise(rng):
    """`C Aᴴ (A C Aᴴ + 2σ²)⁻¹ y` with `C = power M S² M`, σ being that of each part of a sample; zero outside."""
    known = scan_of(rng, support=True)
    kspace = kspace_of(rng, known)
    found = jax.jit(lambda y: Prior(exponent=1.3, iterations=80)(known, y, SIGMA))(kspace)
    matrix = dense(known.forward, SHAPE)
    for image, y, where in zip(found, kspace, known.support, strict=True):
        gain = POWER * prior_covariance(where, 1.3) @ matrix.conj().T
        want = gain @ np.linalg.solve(matrix @ gain + 2 * SIGMA**2 * np.eye(len(matrix)), np.ravel(y))
        np.testing.assert_allclose(image.ravel(), want, atol=1e-9 * np.abs(want).max())
        assert not np.asarray(image)[np.asarray(where) == 0].any()


def test_prior_with_its_own_ridge_minds_neither_noise_nor_power(rng):
    known = scan_of(rng)
    kspace = kspace_of(rng, known)
    spectrum = spectral_prior(SHAPE[1:], 1.5, dtype=jnp.float64)

    @jax.jit
    def both(known, kspace, noise):
        found = Prior(exponent=1.5, ridge=0.1, iterations=6)(known, kspace, noise)
        rhs = known.adjoint(kspace)
        return found, posterior_mean(known.normal(), rhs, spectrum, ridge=0.2, iterations=6)

    one, want = both(known, kspace, 0.0)
    other, _ = both(eqx.tree_at(lambda k: k.power, known, 3.0 * known.power), kspace, 9.0)
    np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(one, want, rtol=1e-12)


def test_a_white_prior_is_tikhonovs(rng):
    known = scan_of(rng)
    kspace = kspace_of(rng, known)
    each = Prior(exponent=0.0, ridge=0.1, iterations=6), CG(ridge=0.1, iterations=6)
    white, plain = jax.jit(lambda y: [solve(known, y, 0.0) for solve in each])(kspace)
    np.testing.assert_allclose(white, plain, atol=1e-12)


def test_prior_without_noise_keeps_a_least_ridge(rng):
    """A millionth of the image's power: iterations end, and the gradient is finite."""
    known = scan_of(rng)
    assert float(Prior().ratio(known, 0.0)) == pytest.approx(1e-6)
    assert float(Prior().ratio(known, SIGMA)) == pytest.approx(2 * SIGMA**2 / POWER)
    assert float(Prior(ridge=0.3).ratio(known, SIGMA)) == pytest.approx(0.6)
    quiet = jax.jit(jax.grad(lambda s: jnp.sum(jnp.abs(Prior()(known, kspace_of(rng, known), s)) ** 2)))(0.0)
    assert np.isfinite(quiet)


@pytest.mark.parametrize("rank", [1, 3])
def test_subspace_is_the_posterior_mean_of_its_images_combined(rng, rank):
    """`x = Σ_k g_k u_k` with the `u_k` of unit power, independent, given `y = Σ_k b_k A u_k` and its noise."""
    known = scan_of(rng, support=True)
    kspace = kspace_of(rng, known)
    found = jax.jit(lambda y: Subspace(exponent=1.3, iterations=120, rank=rank)(known, y, SIGMA))(kspace)
    images, mix = known.subspace(rank)
    matrix = dense(images.forward, (rank, *SHAPE))
    for image, y, where in zip(found, kspace, known.support, strict=True):
        gain = np.kron(np.eye(rank), prior_covariance(where, 1.3)) @ matrix.conj().T
        each = gain @ np.linalg.solve(matrix @ gain + 2 * SIGMA**2 * np.eye(len(matrix)), np.ravel(y))
        want = np.asarray(mix) @ each.reshape(rank, -1)
        np.testing.assert_allclose(image.ravel(), want, atol=1e-8 * np.abs(want).max())


@pytest.mark.parametrize("name", ["pipe", "none"])
def test_density_adjoint_is_the_weighted_adjoint(rng, name):
    """`Aᴴ W y`; and of prepared images, whose samples it need not see, the same without them."""
    known, images = scan_of(rng), complex_normal(rng, 2, *SHAPE)
    plain = DensityAdjoint(name, 4)

    @jax.jit
    def everything(images):
        kspace, prepared = known.encoding.forward(images), plain.prepared(known.encoding, images)
        assert (prepared.density, prepared.iterations) == (name, 4)
        want = known.adjoint(kspace, known.density(name, 4))
        return plain(known, kspace, 0.0), want, prepared(known, None, 0.0)

    found, want, prepared = everything(images)
    np.testing.assert_allclose(found, want, rtol=1e-12)
    np.testing.assert_allclose(prepared, found, atol=1e-12 * np.abs(found).max())


EACH = {
    "cg": CG(ridge=0.05, iterations=4),
    "prior": Prior(exponent=1.3, iterations=4),
    "subspace": Subspace(exponent=1.3, iterations=4, rank=2),
    "adjoint": DensityAdjoint("pipe", 3),
}


@pytest.mark.parametrize("name", EACH)
def test_precision_stays(rng, name):
    known = scan_of(rng, np.float32, support=True)
    kspace = kspace_of(rng, known, np.complex64)
    found = jax.eval_shape(lambda y: EACH[name](known, y, jnp.float32(SIGMA)), kspace)
    assert (found.shape, found.dtype) == ((2, *SHAPE), jnp.complex64)


@pytest.mark.parametrize("name", EACH)
def test_gradient_in_the_points_is_that_of_differences(rng, name):
    """Of few iterations, as computed, along random directions."""
    seed, target = 3, complex_normal(rng, 2, *SHAPE)
    points = rng.uniform(-0.5, 0.5, (LINES, 2))
    kspace = kspace_of(rng, scan_of(np.random.default_rng(seed), points=points))

    def loss(points):
        known = scan_of(np.random.default_rng(seed), points=points, support=True)
        return jnp.sum(jnp.abs(EACH[name](known, kspace, SIGMA) - target) ** 2)

    directions = jnp.asarray(rng.standard_normal((3, LINES, 2)) / np.sqrt(2 * LINES))

    @jax.jit
    def everything(points):
        moves = 1e-5 * directions
        values = jax.vmap(loss)(jnp.concatenate([points + moves, points - moves]))
        return jax.grad(loss)(points), (values[:3] - values[3:]) / 2e-5

    gradient, want = everything(jnp.asarray(points))
    np.testing.assert_allclose(np.einsum("dsk,sk->d", directions, gradient), want, rtol=1e-6)


def test_a_function_of_the_same_arguments_does_as_well(rng):
    """A reconstruction in one's own words is the built-in one."""
    known = scan_of(rng)
    kspace = kspace_of(rng, known)

    def tikhonov(encoding, kspace, noise):
        return cg(encoding.normal() + 2e-3, encoding.adjoint(kspace), iterations=10)

    mine, own = jax.jit(lambda y: [solve(known, y, 0.0) for solve in (tikhonov, CG())])(kspace)
    np.testing.assert_allclose(mine, own, rtol=1e-12)


def test_reconstructions_are_modules_of_settings_alone():
    """Nothing in them is learned, equal settings are equal, and names are those of the command lines."""
    assert {"cg": CG, "prior": Prior, "subspace": Subspace, "adjoint": DensityAdjoint} == RECONSTRUCTIONS
    for kind in RECONSTRUCTIONS.values():
        assert isinstance(kind(), Reconstruction)
        assert jax.tree.leaves(kind()) == []
        assert kind() == kind()
    assert CG(ridge=0.1) != CG()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: CG(ridge=-1.0), "^ridge: got -1.0, expected a finite number >= 0"),
        (lambda: CG(iterations=0), "^iterations: got 0, expected an integer >= 1"),
        (lambda: Prior(exponent=-1.0), "^prior: got -1.0"),
        (lambda: Prior(ridge=float("nan")), "^ridge: got nan"),
        (lambda: Prior(iterations=0), "^iterations: got 0"),
        (lambda: Subspace(rank=0), "^rank: got 0"),
        (lambda: Subspace(iterations=0), "^iterations: got 0"),
        (lambda: DensityAdjoint("pip"), "^density: got 'pip', .*Did you mean 'pipe'"),
        (lambda: DensityAdjoint(iterations=0), "^density_iterations: got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(make, says):
    with pytest.raises(UsageError, match=says):
        make()

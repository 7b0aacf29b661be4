"""Laws of the Gram as a convolution: kernel, spectrum and images against dense sums, with derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import NUFFTEncoding, density, toeplitz
from acqdesign.optim import PathLimits

from . import _exact


def exact_dirichlet(x, n, order=0):
    """`Σ_r cos(2π r x)` and its derivatives, the sum being real for odd `n`."""
    angle = 2 * np.pi * _exact.coordinates(n)
    return np.sum(angle**order * np.cos(np.multiply.outer(x, angle) + order * np.pi / 2), axis=-1)


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float64, 1e-8), (jnp.float32, 2e-4)])
@pytest.mark.parametrize("n", [1, 3, 55])
def test_dirichlet_kernel_and_two_derivatives(n, dtype, tolerance):
    """At zero, where the series takes over, where it ends, at the edges and a period away."""
    near = [0.0, 1e-12, 1e-8, 1e-5, 1e-3 / n, 0.0199 / np.pi / n, 0.0201 / np.pi / n, 0.299 / np.pi / n]
    x = np.array([*near, 0.301 / np.pi / n, 0.1, 0.37, 0.5, 0.75, 1.0, 1.0 + 1 / 128, -2.0])
    x = jnp.asarray(np.concatenate([x, -x]), dtype)

    def kernel(x):
        return toeplitz.dirichlet(x, n)

    got = jax.jit(jax.vmap(lambda x: (kernel(x), jax.grad(kernel)(x), jax.grad(jax.grad(kernel))(x))))(x)
    for order in range(3):
        want = exact_dirichlet(np.asarray(x, np.float64), n, order)
        size = max(np.abs(exact_dirichlet(np.linspace(0, 0.5, 999), n, order)).max(), 1.0)
        assert np.abs(got[order] - want).max() <= tolerance * size, order


def some_points(rng, count=17, dtype=np.float64, dims=2):
    points = rng.uniform(-0.9, 0.9, (count, dims))
    points[:3] = np.array([[0.5, -0.5, 0.25], [0.0, 0.0, 0.0], [2.25, -1.0, 0.5]])[:, :dims]
    return jnp.asarray(points, dtype), jnp.asarray(rng.uniform(0.2, 2, count), dtype)


spectrum = jax.jit(toeplitz.gram_spectrum, static_argnames=("shape", "backend"))


def exact_spectrum(points, weights, shape):
    """The kernel `T(ρ) = Σ_s w_s exp(2πi k_s·ρ)` on all differences, wrapped around, transformed."""
    padded = toeplitz.padded_shape(shape)
    doubled = tuple(2 * n - 1 for n in shape)
    kernel = np.zeros(padded, complex)
    at = np.ix_(*(_exact.coordinates(n) for n in doubled))
    kernel[at] = _exact.adjoint(weights, np.asarray(points), doubled)
    return np.fft.fftn(kernel)


@pytest.mark.parametrize("backend", ["dft", "finufft"])
@pytest.mark.parametrize("shape", [(8, 7), (1, 6), (9,), (5, 4, 7), (3, 1, 6)])
def test_spectrum_is_the_kernels(rng, shape, backend):
    points, weights = some_points(rng, dims=len(shape))
    want = exact_spectrum(points, weights, shape)
    np.testing.assert_allclose(want.imag, 0, atol=1e-11)
    got = spectrum(points, weights, shape, backend=backend)
    assert got.dtype == jnp.float64
    assert _exact.error(got, want.real) <= 1e-11
    single = spectrum(*(a.astype(jnp.float32) for a in (points, weights)), shape, backend=backend)
    assert single.dtype == jnp.float32
    assert _exact.error(single, want.real) <= 1e-5


@pytest.mark.parametrize("backend", ["dft", "finufft"])
def test_several_sets_of_weights_share_a_transform(rng, backend):
    points, weights = some_points(rng)
    stack = jnp.stack([weights, weights**2, -weights])
    with jax.numpy_rank_promotion("raise"):
        got = spectrum(points, stack, (5, 6), backend=backend)
    for mine, one in zip(got, stack, strict=True):
        assert _exact.error(mine, exact_spectrum(points, one, (5, 6)).real) <= 1e-11


@pytest.mark.parametrize("shape", [(8, 7), (5, 12), (1, 6), (23, 28)])
def test_padding_holds_every_difference(shape):
    for n, p in zip(shape, toeplitz.padded_shape(shape), strict=True):
        assert p >= 2 * n - 1


@pytest.mark.parametrize(("shape", "blocks"), [((6, 5), False), ((6, 5), True), ((4, 3, 5), True)])
def test_convolution_is_the_dense_gram(rng, monkeypatch, shape, blocks):
    """`Bᴴ w B` by FFTs, in one piece or image by image with a ragged last block."""
    points, weights = some_points(rng, dims=len(shape))
    if blocks:
        monkeypatch.setattr(toeplitz, "_CPU_BLOCK_BYTES", 2 * 16 * np.prod(toeplitz.padded_shape(shape)))
    planes = jnp.asarray(rng.normal(size=(5, *shape)) + 1j * rng.normal(size=(5, *shape)))
    kernel = spectrum(points, weights, shape)
    assert ("scan" in str(jax.make_jaxpr(lambda *a: toeplitz.convolve(*a))(planes, kernel))) == blocks
    samples = _exact.forward(planes, np.asarray(points))
    want = _exact.adjoint(samples * np.asarray(weights), np.asarray(points), shape)
    assert _exact.error(toeplitz.convolve(planes, kernel), want) <= 1e-13


@pytest.mark.parametrize("backend", ["dft", pytest.param("finufft", marks=pytest.mark.slow)])
def test_derivatives_are_the_dense_grams(rng, backend):
    """Gradient, jvp and Hessian-vector products through spectrum and blocks, in points, weights and planes."""
    shape = (4, 5)
    points, weights = some_points(rng, 7)
    planes = jnp.asarray(rng.normal(size=(2, *shape)) + 1j * rng.normal(size=(2, *shape)))
    along = (jnp.asarray(rng.normal(size=(7, 2))), jnp.asarray(rng.normal(size=7)), planes[::-1] * 1j)

    def mine(points, weights, planes):
        return toeplitz.convolve(planes, toeplitz.gram_spectrum(points, weights, shape, backend=backend))

    def exact(points, weights, planes):
        return _exact.adjoint(weights * _exact.forward(planes, points, jnp), points, shape, jnp)

    def derivatives(function):
        gradient = jax.grad(lambda *a: jnp.sum(jnp.abs(function(*a)) ** 3), (0, 1, 2))

        def everything(*at):
            return jax.jvp(function, at, along)[1], jax.jvp(gradient, at, along)

        return jax.tree.leaves(jax.jit(everything)(points, weights, planes))

    for got, want in zip(derivatives(mine), derivatives(exact), strict=True):
        assert _exact.error(got, want) <= 1e-9


@pytest.mark.parametrize(("shape", "backend"), [((7, 5), "dft"), ((5, 3, 7), "finufft")])
def test_gradients_through_projection_density_and_gram_are_differences(rng, monkeypatch, shape, backend):
    """Of what a wished waveform images, along a random direction, to 1e-6; the density by transforms."""
    monkeypatch.setattr(density, "_DENSE_POINTS", 0)
    limits = PathLimits("points", 0.06, 0.02, held=((12, 0.0),))
    wish = rng.normal(size=(3, 24, len(shape))) / 8
    image = jnp.asarray(rng.normal(size=shape) + 1j * rng.normal(size=shape))
    way = jnp.asarray(rng.normal(size=wish.shape))

    @jax.jit
    def value(h):
        encoding = NUFFTEncoding(limits.project(jnp.asarray(wish) + h * way), shape, backend=backend)
        gram = encoding.normal(encoding.density("pipe", 3))
        return jnp.sum(jnp.abs(gram(gram(image)) - image) ** 2)

    want = _exact.directional(value, 0.0, 1.0, 1e-4)
    finer = _exact.directional(value, 0.0, 1.0, 5e-5)
    assert abs(jax.jit(jax.grad(value))(0.0) / ((4 * finer - want) / 3) - 1) <= 1e-6

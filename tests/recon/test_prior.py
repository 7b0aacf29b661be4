"""Reconstruction with a spectral prior: its closed form, its statistics, and the regularised solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import CartesianEncoding, StraightLineEncoding
from acqdesign.recon import cg, posterior_mean, spectral_prior
from acqdesign.recon.prior import apply_prior


def test_full_sampling_gives_the_wiener_filter(rng):
    """On the full Cartesian grid every frequency is scaled by s²/(s² + ridge)."""
    shape, ridge = (2, 8, 6), 0.3
    spectrum = spectral_prior(shape[1:], 1.7, dtype=jnp.float64)
    image = jnp.asarray(rng.normal(size=shape))
    gram = CartesianEncoding(shape).normal()
    found = jax.jit(lambda f: posterior_mean(gram, gram(f), spectrum, ridge=ridge, iterations=60))(image)
    wanted = jnp.fft.ifft2(spectrum**2 / (spectrum**2 + ridge) * jnp.fft.fft2(image))
    np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_converged_solution_minimises_the_regularised_error(rng):
    """(AᴴA + ridge S⁻²) x = Aᴴ y, solved densely."""
    shape, ridge = (1, 6, 5), 0.2
    lines = StraightLineEncoding(jnp.asarray(rng.uniform(-0.5, 0.5, (13, 2))), shape, 1)
    spectrum = spectral_prior(shape[1:], 2.0, dtype=jnp.float64)
    y = jnp.asarray(rng.normal(size=(13, 1)) + 1j * rng.normal(size=(13, 1)))
    eye = np.eye(30).reshape(30, *shape)

    @jax.jit
    def everything(y, eye):
        rhs = lines.adjoint(y)
        found = posterior_mean(lines.normal(), rhs, spectrum, ridge=ridge, iterations=120)
        return found, rhs, lines.normal()(eye)

    found, rhs, gram = map(np.asarray, everything(y, eye))
    inverse = np.fft.ifft2(np.asarray(spectrum) ** -2 * np.fft.fft2(eye)).reshape(30, 30).T
    wanted = np.linalg.solve(gram.reshape(30, 30).T + ridge * inverse, rhs.ravel())
    np.testing.assert_allclose(np.asarray(found).ravel(), wanted, atol=1e-9)


def test_inside_a_support_it_is_the_gaussian_posterior_mean(rng):
    """x = C Aᴴ (A C Aᴴ + ridge)⁻¹ y with the covariance C = M S² M, solved densely; zero outside."""
    shape, ridge = (1, 6, 5), 0.2
    lines = StraightLineEncoding(jnp.asarray(rng.uniform(-0.5, 0.5, (13, 2))), shape, 1)
    spectrum = spectral_prior(shape[1:], 2.0, dtype=jnp.float64)
    y = jnp.asarray(rng.normal(size=(13, 1)) + 1j * rng.normal(size=(13, 1)))
    where = jnp.asarray(rng.random(shape) < 0.6, jnp.float64)
    eye = np.eye(30).reshape(30, *shape)

    @jax.jit
    def everything(y, eye):
        rhs, gram = lines.adjoint(y), lines.normal()
        found = posterior_mean(gram, rhs, spectrum, ridge=ridge, iterations=120, support=where)
        return found, lines.forward(eye)

    found, forward = everything(y, eye)
    forward = np.asarray(forward).reshape(30, 13).T
    squared = np.fft.ifft2(np.asarray(spectrum) ** 2 * np.fft.fft2(eye)).reshape(30, 30).T
    mask = np.asarray(where).ravel()
    covariance = mask[:, None] * squared * mask
    gain = covariance @ forward.conj().T
    wanted = gain @ np.linalg.solve(forward @ gain + ridge * np.eye(13), np.asarray(y).ravel())
    np.testing.assert_allclose(np.asarray(found).ravel(), wanted, atol=1e-9)
    assert not np.asarray(found)[np.asarray(where) == 0].any()


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_white_noise_gets_the_priors_spectrum(dtype):
    """Unit power in all, and power (1 + |k|²)^(-p/2) by frequency."""
    exponent = 1.5
    spectrum = spectral_prior((16, 12), exponent, dtype=dtype)
    assert spectrum.dtype == dtype
    noise = jax.random.normal(jax.random.key(0), (1500, 16, 12), jnp.result_type(dtype, jnp.complex64))
    image = apply_prior(noise, spectrum)
    assert float(jnp.mean(jnp.abs(image) ** 2)) == pytest.approx(1, rel=0.02)
    power = jnp.mean(jnp.abs(jnp.fft.fft2(image)) ** 2, axis=0)
    # Along z a grid step of the shorter side counts 16/12.
    assert float(power[4, 3] / power[0, 0]) == pytest.approx(33 ** (-exponent / 2), rel=0.1)


def test_white_prior_is_tikhonov(rng):
    shape = (1, 6, 5)
    lines = StraightLineEncoding(jnp.asarray(rng.uniform(-0.5, 0.5, (13, 2))), shape, 1)
    spectrum = spectral_prior((6, 5), 0.0, dtype=jnp.float64)

    @jax.jit
    def everything(y):
        gram, rhs = lines.normal(), lines.adjoint(y)
        white, none = (posterior_mean(gram, rhs, s, ridge=0.1, iterations=5) for s in (spectrum, None))
        return cg(gram + 0.1, rhs, iterations=5), white, none

    plain, white, none = everything(jnp.asarray(rng.normal(size=(13, 1)) + 0j))
    np.testing.assert_allclose(white, plain, atol=1e-12)
    np.testing.assert_array_equal(none, plain)


def test_errors():
    with pytest.raises(ValueError, match=r"exponent: got -1"):
        spectral_prior((4, 4), -1.0)
    with pytest.raises(ValueError, match=r"plane: "):
        spectral_prior((4, 0), 1.0)

"""Reconstruction with a spectral prior: its closed form, its statistics, and the regularised solution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import CartesianEncoding
from acqdesign.recon import posterior_mean, spectral_prior
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


def test_white_noise_gets_the_priors_spectrum(rng):
    """Unit power in all, and power (1 + |k|²)^(-p/2) by frequency."""
    exponent = 1.5
    spectrum = spectral_prior((16, 12), exponent)
    assert spectrum.dtype == jnp.float32
    noise = rng.normal(size=(1500, 16, 12)) + 1j * rng.normal(size=(1500, 16, 12))
    image = np.asarray(jax.jit(apply_prior)(jnp.asarray(noise / np.sqrt(2), jnp.complex64), spectrum))
    assert np.mean(np.abs(image) ** 2) == pytest.approx(1, rel=0.02)
    power = np.mean(np.abs(np.fft.fft2(image)) ** 2, axis=0)
    # Along z a grid step of the shorter side counts 16/12.
    assert float(power[4, 3] / power[0, 0]) == pytest.approx(33 ** (-exponent / 2), rel=0.1)


def test_errors():
    with pytest.raises(ValueError, match=r"exponent: got -1"):
        spectral_prior((4, 4), -1.0)
    with pytest.raises(ValueError, match=r"plane: "):
        spectral_prior((4, 0), 1.0)

"""Cramér–Rao bounds against closed forms, a Monte-Carlo fit and central differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from acqdesign.signal import (
    FSE,
    TissueParams,
    crlb,
    efficiency,
    ensemble,
    fisher_information,
    fse,
    tissue_crlb,
    weighted_trace,
)

TE = jnp.linspace(5.0, 160.0, 16)


def decay(t2, te=TE):
    return jnp.exp(-te / t2)


def test_fisher_is_the_weighted_gram(rng):
    jacobian = rng.normal(size=(7, 3)) + 1j * rng.normal(size=(7, 3))
    weights = rng.uniform(0.5, 2, 7)
    wanted = np.real(jacobian.conj().T @ np.diag(weights) @ jacobian) / 0.3**2
    found = fisher_information(jnp.asarray(jacobian), noise=0.3, weights=jnp.asarray(weights))
    np.testing.assert_allclose(found, wanted, rtol=1e-12)


def test_bound_is_the_inverse_fisher_matrix(rng):
    jacobian = jnp.asarray(rng.normal(size=(4, 9, 3)))
    wanted = np.linalg.inv(np.asarray(fisher_information(jacobian, noise=2.0)))
    np.testing.assert_allclose(crlb(jacobian, noise=2.0), np.diagonal(wanted, axis1=1, axis2=2), rtol=1e-11)


def test_complex_scale_is_a_nuisance_of_two(rng):
    """Equal to two explicit columns for the real and the imaginary part of M0."""
    jacobian = jnp.asarray(rng.normal(size=(9, 2)) + 1j * rng.normal(size=(9, 2)))
    signal = jnp.asarray(rng.normal(size=9) + 1j * rng.normal(size=9))
    columns = jnp.concatenate([jacobian, signal[:, None], 1j * signal[:, None]], axis=1)
    np.testing.assert_allclose(crlb(jacobian, signal=signal), crlb(columns)[:2], rtol=1e-10)
    # For a real signal the imaginary part tells nothing of real derivatives.
    real = crlb(jacobian.real, signal=signal.real)
    projected = jacobian.real - jnp.outer(signal.real, signal.real @ jacobian.real) / (
        signal.real @ signal.real
    )
    np.testing.assert_allclose(real, crlb(projected), rtol=1e-10)


def test_other_unknowns_are_nuisances(rng):
    """Columns of no interest raise the bounds as columns of interest do; a known parameter does not."""
    jacobian = jnp.asarray(rng.normal(size=(2, 9, 3)))
    signal, others = jnp.asarray(rng.normal(size=(2, 9))), jnp.asarray(rng.normal(size=(2, 9, 2)))
    found = crlb(jacobian, signal=signal, nuisance=others, noise=0.2)
    columns = jnp.concatenate([jacobian, signal[..., None], others], axis=-1)
    np.testing.assert_allclose(found, crlb(columns, noise=0.2)[..., :3], rtol=1e-10)
    assert (found > crlb(jacobian, noise=0.2)).all()


def test_bounds_of_a_sequence():
    """Those of its derivatives: M0 as a nuisance, known, or itself in question; relative; over a slice."""
    sequence = FSE(jnp.linspace(1.0, 2.5, 8), 0.01, phases=jnp.linspace(0, 1, 8))
    tissue = TissueParams(t1=jnp.array([1.0, 2.0]), t2=jnp.array([0.1, 0.2]), m0=1.5)

    @jax.jit
    def by_hand(t1, t2):
        signal = lambda t, m0=1.5: fse(sequence.flips, 0.01, t[0], t[1], m0=m0, phases=sequence.phases)  # noqa: E731
        t = jnp.stack([t1, t2])
        slopes = jax.jacfwd(lambda t: (lambda x: jnp.concatenate([x.real, x.imag]))(signal(t)))(t)
        unit = signal(t, 1.0)
        scale = jnp.stack([jnp.concatenate([(p * unit).real, (p * unit).imag]) for p in (1, 1j)], axis=-1)
        both = jnp.concatenate([slopes, scale], axis=-1)
        return jnp.diagonal(jnp.linalg.inv(both.T @ both)), jnp.diagonal(jnp.linalg.inv(slopes.T @ slopes))

    for i, (t1, t2) in enumerate([(1.0, 0.1), (2.0, 0.2)]):
        free, known = by_hand(t1, t2)
        np.testing.assert_allclose(tissue_crlb(sequence, tissue)[i], free[:2], rtol=1e-9)
        np.testing.assert_allclose(tissue_crlb(sequence, tissue, known_m0=True)[i], known, rtol=1e-9)
        relative = tissue_crlb(sequence, tissue, ("t2", "t1", "m0"), relative=True)[i]
        wanted = free[jnp.array([1, 0, 2])] / jnp.array([t2, t1, 1.5]) ** 2
        np.testing.assert_allclose(relative, wanted, rtol=1e-9)
    with pytest.raises(ValueError, match="params: got 't3'"):
        tissue_crlb(sequence, tissue, ("t3",))


def test_relative_bounds_and_reference_cost():
    jacobian = jax.jacfwd(lambda t: fse(jnp.full(12, 1.3), 0.01, t[0], t[1]))(jnp.array([1.0, 0.1]))
    theta = jnp.array([1.0, 0.1])
    relative = crlb(jacobian, noise=0.01, values=theta)
    np.testing.assert_allclose(relative, crlb(jacobian, noise=0.01) / theta**2, rtol=1e-12)
    fisher = fisher_information(jacobian, noise=0.01)
    wanted = np.sum(np.asarray(jnp.linalg.inv(fisher)) * np.diag(1 / theta**2)) * 3.0
    assert float(weighted_trace(fisher, jnp.diag(1 / theta**2), 3.0)) == pytest.approx(wanted, rel=1e-9)


def test_monte_carlo_fit_reaches_the_bound(rng):
    """The variance of maximum-likelihood fits of T2 and M0 is the bound, within the error of 400 fits."""
    noise, truth, te = 0.005, np.array([80.0, 1.0]), np.asarray(TE)
    jacobian = jax.jacfwd(lambda p: p[1] * decay(p[0]))(jnp.asarray(truth))
    bound = np.asarray(crlb(jacobian, noise=noise))
    fits = []
    for _ in range(400):
        data = np.exp(-te / 80.0) + noise * rng.normal(size=te.size)
        fits.append(scipy.optimize.least_squares(lambda p, d=data: p[1] * np.exp(-te / p[0]) - d, truth).x)
    np.testing.assert_allclose(np.var(fits, axis=0), bound, rtol=4 * np.sqrt(2 / 400))


def test_what_cannot_be_told_is_infinite_and_gradients_stay_finite():
    """Equal columns and zero columns give `inf`, not NaN; the gradient elsewhere is finite."""
    column = jnp.arange(1.0, 6.0)
    assert np.isinf(crlb(jnp.stack([column, 2 * column], axis=1))).all()
    found = crlb(jnp.stack([column, jnp.zeros(5)], axis=1))
    assert np.isfinite(found[0])
    assert np.isinf(found[1])

    def loss(scale):
        bounds = crlb(jnp.stack([column * scale, jnp.zeros(5)], axis=1))
        return bounds[0]

    assert float(jax.grad(loss)(2.0)) == pytest.approx(-2 * float(loss(2.0)) / 2.0)


def test_gradient_of_a_bound(rng):
    flips = jnp.asarray(rng.uniform(0.5, 2.5, 10))

    @jax.jit
    def bound(flips):
        signal = lambda t: fse(flips, 0.01, t[0], t[1])  # noqa: E731
        theta = jnp.array([1.0, 0.1])
        return jnp.sum(crlb(jax.jacfwd(signal)(theta), signal=signal(theta), values=theta))

    step = 1e-6
    wanted = [(bound(flips + step * e) - bound(flips - step * e)) / (2 * step) for e in np.eye(10)]
    np.testing.assert_allclose(jax.grad(bound)(flips), wanted, rtol=1e-5, atol=1e-7 * np.abs(wanted).max())


def test_monotone_in_noise_and_samples():
    jacobian = jax.jacfwd(lambda p: p[1] * decay(p[0]))(jnp.array([80.0, 1.0]))
    assert (crlb(jacobian, noise=2.0) > crlb(jacobian, noise=1.0)).all()
    assert (crlb(jacobian[:8]) > crlb(jacobian)).all()


def test_ensembles():
    bounds = jnp.array([1.0, 2.0, 4.0])
    assert float(ensemble(bounds)) == pytest.approx(7 / 3)
    assert float(ensemble(bounds, weights=jnp.array([2.0, 1.0, 1.0]))) == pytest.approx(2.0)
    worst = float(ensemble(bounds, "worst"))
    assert 4.0 <= worst <= 3**0.125 * 4.0
    assert np.isinf(ensemble(jnp.array([1.0, jnp.inf]), "worst"))
    assert float(efficiency(jnp.array(4.0), 100.0, 25.0)) == pytest.approx(10.0)


def test_errors():
    with pytest.raises(ValueError, match=r"noise: got 0.0"):
        crlb(jnp.ones((3, 1)), noise=0.0)
    with pytest.raises(ValueError, match=r"weights: .*one for each sample"):
        crlb(jnp.ones((3, 1)), weights=jnp.ones(2))
    with pytest.raises(ValueError, match="one of mean, worst"):
        ensemble(jnp.ones(2), "median")

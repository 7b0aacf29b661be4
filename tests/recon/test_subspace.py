"""The basis of a subspace reconstruction, and its derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.recon import signal_basis

T2 = jnp.array([0.05, 0.08, 0.15, 0.3, 1.0])


def signals(decay=1.0):
    return jnp.exp(-jnp.arange(1, 13) * 5e-3 * decay / T2[:, None])


def test_basis_spans_the_leading_singular_vectors():
    basis = signal_basis(signals(), 3)
    np.testing.assert_allclose(basis @ basis.T, np.eye(3), atol=1e-12)
    leading = np.linalg.svd(np.asarray(signals()))[2][:3]
    np.testing.assert_allclose(basis.T @ basis, leading.T @ leading, atol=1e-10)


def test_gradient_through_the_projector(rng):
    """A function of the span alone has the gradient of central differences, forward and reverse."""
    weights = jnp.asarray(rng.normal(size=(12, 12)))

    def f(flat):
        basis = signal_basis(flat.reshape(5, 12), 2)
        return jnp.sum(weights * (basis.T @ basis)) ** 2

    @jax.jit
    def everything(flat):
        moves = 1e-6 * jnp.eye(60)
        values = jax.vmap(f)(jnp.concatenate([flat + moves, flat - moves]))
        return (values[:60] - values[60:]) / 2e-6, jax.grad(f)(flat), jax.jacfwd(f)(flat)

    wanted, gradient, forward = everything(signals().ravel())
    np.testing.assert_allclose(gradient, wanted, rtol=1e-6, atol=1e-7 * np.abs(wanted).max())
    np.testing.assert_allclose(forward, gradient, rtol=1e-9, atol=1e-12)


def test_gradient_is_finite_where_kept_singular_values_meet():
    f = lambda s: jnp.sum(jnp.arange(4.0) * jnp.sum(signal_basis(s, 2) ** 2, axis=0))  # noqa: E731
    gradient = jax.jit(jax.grad(f))(jnp.eye(3, 4) * jnp.array([2.0, 2.0, 1.0])[:, None])
    assert np.isfinite(gradient).all()


def test_second_derivatives_are_refused():
    f = lambda s: jnp.sum(signal_basis(s, 2)[:, 0] ** 2)  # noqa: E731
    with pytest.raises(NotImplementedError, match="stop_gradient"):
        jax.hessian(f)(signals())


def test_rank_error():
    with pytest.raises(ValueError, match="rank: got 6"):
        signal_basis(signals(), 6)

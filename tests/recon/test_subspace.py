"""Subspace reconstruction: the basis, its derivative, and what comes back from k-space."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import StraightLineEncoding, initial_lines
from acqdesign.recon import cg, signal_basis

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

    flat = signals().ravel()
    step = 1e-6
    wanted = np.array([(f(flat + step * e) - f(flat - step * e)) / (2 * step) for e in np.eye(60)])
    np.testing.assert_allclose(jax.grad(f)(flat), wanted, rtol=1e-6, atol=1e-7 * np.abs(wanted).max())
    np.testing.assert_allclose(jax.jacfwd(f)(flat), jax.grad(f)(flat), rtol=1e-9, atol=1e-12)


def test_gradient_is_finite_where_kept_singular_values_meet():
    f = lambda s: jnp.sum(jnp.arange(4.0) * jnp.sum(signal_basis(s, 2) ** 2, axis=0))  # noqa: E731
    gradient = jax.grad(f)(jnp.eye(3, 4) * jnp.array([2.0, 2.0, 1.0])[:, None])
    assert np.isfinite(gradient).all()


def test_second_derivatives_are_refused():
    f = lambda s: jnp.sum(signal_basis(s, 2)[:, 0] ** 2)  # noqa: E731
    with pytest.raises(NotImplementedError, match="stop_gradient"):
        jax.hessian(f)(signals())


def test_full_sampling_gives_back_the_signals(rng):
    """Every line at every echo: coefficient images times the basis are the signal."""
    shape, echoes, basis = (1, 6, 5), 12, signal_basis(signals(), 4)
    full = initial_lines("full", shape, key=jax.random.key(0)).points.astype(jnp.float64)
    lines = StraightLineEncoding(jnp.tile(full, (echoes, 1)), shape, 1)
    echo = np.repeat(np.arange(echoes), len(full))
    which = rng.integers(0, 5, shape)
    maps = jnp.asarray((which[None] == np.arange(5)[:, None, None, None]) * rng.uniform(0.5, 1, shape))

    @jax.jit
    def scanned(maps):
        kspace = jnp.einsum("csr,cs->sr", lines.forward(maps), signals()[:, echo])
        rows = basis[:, echo]
        adjoint = jnp.stack([lines.adjoint(kspace, row) for row in rows])

        def gram(images):
            return jnp.stack([lines.sum_of_normals(row * rows, images) for row in rows]) + 1e-9 * images

        return cg(gram, adjoint, iterations=30, dims=4)

    wanted = jnp.einsum("ce,cxyz->exyz", signals(), maps)
    got = jnp.einsum("ke,kxyz->exyz", basis, scanned(maps))
    assert float(jnp.linalg.norm(got - wanted) / jnp.linalg.norm(wanted)) < 1e-4


def test_rank_error():
    with pytest.raises(ValueError, match="rank: got 6"):
        signal_basis(signals(), 6)

"""Laws of conjugate gradients: the dense solution, the gradient of what is computed, and little memory."""

import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.encoding import CartesianEncoding, Coils, Mask, NUFFTEncoding, StraightLineEncoding
from acqdesign.recon import cg, cg_sense
from acqdesign.scene import birdcage_maps

SHAPE = (2, 4, 3)
SAMPLES = 3
RIDGE = 0.1


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def lines(points, coils, dtype=np.complex128):
    encoding = StraightLineEncoding(jnp.asarray(points, np.finfo(dtype).dtype), SHAPE, SAMPLES)
    return encoding if coils == 1 else encoding @ Coils(birdcage_maps(coils, SHAPE, dtype=dtype))


def operator(kind, rng):
    if kind == "nufft":
        return NUFFTEncoding(jnp.asarray(rng.uniform(-0.5, 0.5, (9, 1))), (7,))
    if kind == "cartesian":
        return CartesianEncoding((4, 5), jnp.asarray(rng.random((4, 5)) < 0.6))
    found = lines(rng.uniform(-0.5, 0.5, (14, 2)), 3)
    return found @ Mask(jnp.asarray(rng.random(SHAPE))) if kind == "mask" else found


def least_squares(encoding, kspace):
    """argmin ‖A x - y‖² + ridge ‖x‖² by a direct solver."""
    basis = jnp.eye(np.prod(encoding.shape), dtype=jnp.complex128).reshape(-1, *encoding.shape)
    matrix = np.asarray(jax.jit(lambda image: encoding.forward(image))(basis)).reshape(len(basis), -1).T
    normal = matrix.conj().T @ matrix + RIDGE * np.eye(len(basis))
    return np.linalg.solve(normal, matrix.conj().T @ kspace.ravel())


@pytest.mark.parametrize("kind", ["coils", "mask", "nufft", "cartesian"])
def test_encodings_converge_to_the_dense_solution(rng, kind):
    """From k-space that no image explains, with and without coils, masks or a precomputed Gram, in 1D to 3D."""
    encoding = operator(kind, rng)
    kspace = complex_normal(rng, *jax.eval_shape(encoding.forward, jnp.ones(encoding.shape)).shape)
    found = jax.jit(lambda y: cg_sense(encoding, y, ridge=RIDGE, iterations=60))(kspace)
    want = least_squares(encoding, kspace)
    np.testing.assert_allclose(found.ravel(), want, rtol=0, atol=1e-10 * np.abs(want).max())


def test_single_precision_stays_and_converges_as_far(rng):
    points = rng.uniform(-0.5, 0.5, (14, 2)).astype(np.float32)
    kspace = complex_normal(rng, 3, 14, SAMPLES).astype(np.complex64)
    encoding = lines(points, 3, np.complex64)
    found = jax.jit(lambda y: cg_sense(encoding, y, ridge=RIDGE, iterations=60))(kspace)
    assert found.dtype == np.complex64
    want = least_squares(lines(points, 3), kspace)
    assert np.linalg.norm(found.ravel() - want) < 1e-5 * np.linalg.norm(want)


def dense_gram(rng, size, rank):
    root = complex_normal(rng, size, rank)
    return jnp.asarray(root @ root.conj().T / size)


@pytest.mark.parametrize("iterations", [1, 3, 5])
def test_every_iteration_counts(rng, iterations):
    """The k-th iterate minimises the quadratic over its Krylov space, however iterations are grouped."""
    gram, rhs = dense_gram(rng, 8, 8), jnp.asarray(complex_normal(rng, 8))
    found = cg(lambda x: gram @ x + RIDGE * x, rhs, iterations=iterations, dims=1)
    matrix = np.asarray(gram + RIDGE * np.eye(8))
    powers = [np.linalg.matrix_power(matrix, k) @ rhs for k in range(iterations)]
    krylov, _ = np.linalg.qr(np.stack(powers, axis=1))
    want = krylov @ np.linalg.solve(krylov.conj().T @ matrix @ krylov, krylov.conj().T @ rhs)
    np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-10)


def test_each_image_is_solved_by_itself(rng):
    """A batch, one of whose images is zero, equals its images one by one; zero stays zero."""
    matrix = dense_gram(rng, 8, 8)
    rhs = jnp.asarray(complex_normal(rng, 3, 8) * np.array([[1e-12], [0.0], [1e12]]))

    @jax.jit
    def solve(b):
        return cg(lambda x: x @ matrix.T + RIDGE * x, b, iterations=4, dims=1)

    together = solve(rhs)
    for one, alone in zip(together, rhs, strict=True):
        np.testing.assert_allclose(one, solve(alone), rtol=1e-9)
    np.testing.assert_array_equal(together[1], 0)


@pytest.mark.parametrize(("dtype", "scale"), [(np.complex64, 1e-9), (np.complex64, 1e9), (np.complex128, 1.0)])
def test_iterations_beyond_convergence_change_nothing(rng, dtype, scale):
    """Residuals end at rounding errors; the gradient of further iterations stays finite and right."""
    matrix = dense_gram(rng, 6, 6).astype(dtype)
    rhs = jnp.asarray(scale * complex_normal(rng, 6), dtype)

    @jax.jit
    @jax.value_and_grad
    def energy(b):
        found = cg(lambda x: matrix @ x + x, b, iterations=100, dims=1)
        return jnp.vdot(b, found).real

    value, gradient = energy(rhs)
    want = np.linalg.solve(np.asarray(matrix) + np.eye(6), rhs)
    tol = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, np.vdot(rhs, want).real, rtol=tol)
    np.testing.assert_allclose(gradient, 2 * want.conj(), rtol=0, atol=tol * np.abs(want).max())


def test_an_image_is_what_the_gram_says_it_is(rng):
    """Its trailing axes are solved for together, those before it one by one; a ridge keeps that."""
    grid = CartesianEncoding((4, 5), jnp.asarray(rng.random((4, 5)) < 0.6))
    encoding = grid @ Mask(jnp.asarray(rng.random((4, 5))), 2)
    rhs = eqx.filter_jit(encoding.adjoint)(jnp.asarray(complex_normal(rng, 3, 4, 5)))

    def solve(dims=None):
        return jax.jit(lambda b: cg(encoding.normal() + RIDGE, b, iterations=3, dims=dims))

    together, alone = solve()(rhs), solve(2)
    for one, b in zip(together, rhs, strict=True):
        np.testing.assert_allclose(one, alone(b), rtol=1e-12)
    coupled = solve(3)(rhs)
    assert np.abs(coupled - together).max() > 1e-3 * np.abs(together).max()


def sense_loss(rng, iterations, coils):
    """A loss of points, and of real and imaginary parts of k-space, all in one vector; and where to start."""
    points = rng.uniform(-0.5, 0.5, (14, 2))
    target = jnp.asarray(complex_normal(rng, *SHAPE))
    kspace = eqx.filter_jit(lines(points + 0.02, coils).forward)(target)

    def loss(x):
        real, imaginary = x[28:].reshape(2, *kspace.shape)
        encoding, samples = lines(x[:28].reshape(14, 2), coils), real + 1j * imaginary
        found = cg_sense(encoding, samples, ridge=RIDGE, iterations=iterations)
        return jnp.sum(jnp.abs(found - target) ** 4)

    return loss, jnp.asarray(np.concatenate([points.ravel(), kspace.real.ravel(), kspace.imag.ravel()]))


def test_gradient_is_that_of_the_iterations_as_computed(rng):
    """By differences along random directions in points and in k-space; forward mode agrees.

    For complex images, whose Gram is Hermitian but not symmetric.
    """
    loss, start = sense_loss(rng, iterations=7, coils=3)
    directions = rng.standard_normal((6, start.size))
    directions[:3, 28:], directions[3:, :28] = 0, 0

    @jax.jit
    def everything(x, directions):
        moves = 1e-5 * directions
        values = jax.lax.map(loss, jnp.concatenate([x + moves, x - moves]))
        slopes = jax.lax.map(lambda d: jax.jvp(loss, (x,), (d,))[1], directions)
        return jax.grad(loss)(x), (values[:6] - values[6:]) / 2e-5, slopes

    gradient, want, forward = everything(start, jnp.asarray(directions))
    np.testing.assert_allclose(directions @ gradient, want, rtol=1e-6)
    np.testing.assert_allclose(forward, directions @ gradient, rtol=1e-9)


def curved(rng):
    """A loss of a few numbers that a Gram depends on, by iterations; None for the solution itself."""
    roots = jnp.asarray(complex_normal(rng, 3, 8, 8))
    target, rhs = jnp.asarray(complex_normal(rng, 2, 8))

    def loss(x, iterations):
        root = jnp.tensordot(x.astype(roots.dtype), roots, axes=1)
        gram = root @ root.conj().T
        if iterations is None:
            found = jnp.linalg.solve(gram + jnp.eye(8), rhs)
        else:
            found = cg(lambda v: gram @ v + v, rhs, iterations=iterations, dims=1)
        return jnp.sum(jnp.abs(found - target) ** 2)

    return loss, jnp.asarray(rng.standard_normal(3))


def test_second_derivatives_are_right(rng):
    """Forward over reverse equals differences of the gradient, and the Hessian is symmetric."""
    loss, x = curved(rng)
    slope, moves = jax.grad(lambda x: loss(x, 3)), 1e-5 * jnp.eye(3)

    @jax.jit
    def everything(x):
        slopes = jax.lax.map(slope, jnp.concatenate([x + moves, x - moves]))
        return jax.jacfwd(slope)(x), (slopes[:3] - slopes[3:]).T / 2e-5

    hessian, want = everything(x)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(hessian, want, rtol=0, atol=1e-6 * np.abs(want).max())


def test_the_gradient_of_converged_iterations_is_that_of_the_solution(rng):
    """That of a direct solver; before convergence it is another one."""
    loss, x = curved(rng)
    converged, early, want = jax.jit(lambda x: [jax.grad(loss)(x, n) for n in (60, 2, None)])(x)
    np.testing.assert_allclose(converged, want, rtol=1e-7)
    assert np.abs(early - want).max() > 1e-2 * np.abs(want).max()


@pytest.mark.parametrize("iterations", [1, 7, 9])
def test_the_gradient_is_the_same_whether_iterations_are_kept_or_made_again(rng, monkeypatch, iterations):
    loss, x = curved(rng)
    kept = jax.value_and_grad(loss)(x, iterations)
    monkeypatch.setattr(sys.modules["acqdesign.recon.cg"], "_KEPT_BYTES", 0)
    again = jax.value_and_grad(loss)(x, iterations)
    np.testing.assert_allclose(again[0], kept[0], rtol=1e-12)
    np.testing.assert_allclose(again[1], kept[1], rtol=1e-10)


def test_memory_of_the_gradient_grows_as_the_root_of_the_iterations(monkeypatch):
    """16 times the iterations take four times the memory of states, not 16 times, where all would be too many."""
    monkeypatch.setattr(sys.modules["acqdesign.recon.cg"], "_KEPT_BYTES", 0)
    size = 4096
    scale, rhs = jax.ShapeDtypeStruct((size,), np.float32), jax.ShapeDtypeStruct((size,), np.complex64)

    def states(iterations):
        def loss(scale, rhs):
            found = cg(lambda x: scale * x + 0.1 * x, rhs, iterations=iterations, dims=1)
            return jnp.sum(jnp.abs(found) ** 2)

        compiled = jax.jit(jax.grad(loss)).lower(scale, rhs).compile()
        return compiled.memory_analysis().temp_size_in_bytes / (8 * size)

    few, many = states(16), states(256)
    assert many < 4.5 * few
    # Kept by itself, each iteration would hold an image, a residual, a direction and the Gram's of it.
    assert many < 256


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ridge": -1.0}, "ridge: got -1.0, expected a finite number >= 0"),
        ({"ridge": float("nan")}, "ridge: got nan"),
        ({"ridge": float("inf")}, "ridge: got inf"),
        ({"iterations": 0}, "iterations: got 0"),
        ({"iterations": 2.5}, "iterations: got 2.5"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_wrong_arguments_are_named(arguments, message):
    encoding = lines(np.zeros((5, 2)), 1)
    with pytest.raises(UsageError, match=message):
        jax.eval_shape(lambda y: cg_sense(encoding, y, **({"iterations": 3} | arguments)), jnp.ones((5, SAMPLES)))


def test_fewer_axes_than_an_image_has_are_named():
    with pytest.raises(UsageError, match="rhs: got an array of shape"):
        cg(lambda x: x, jnp.ones(SHAPE, complex), iterations=3, dims=4)
    with pytest.raises(UsageError, match="rhs: got an array of shape"):
        cg(lines(np.zeros((5, 2)), 1).normal() + 1.0, jnp.ones(SHAPE[1:], complex), iterations=3)

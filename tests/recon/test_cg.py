"""Laws of conjugate gradients: the dense solution, the gradient of what is computed, and little memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import CartesianEncoding, NUFFTEncoding, StraightLineEncoding
from acqdesign.recon import cg_sense, conjugate_gradients
from acqdesign.scene import birdcage_maps

SHAPE = (2, 4, 3)
SAMPLES = 3
RIDGE = 0.1


def complex_normal(rng, *shape):
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


def lines(points, coils, dtype=np.complex128):
    smaps = None if coils == 1 else birdcage_maps(coils, SHAPE, dtype=dtype)
    return StraightLineEncoding(jnp.asarray(points, np.finfo(dtype).dtype), SHAPE, SAMPLES, smaps=smaps)


def operator(kind, rng):
    if kind == "nufft":
        return NUFFTEncoding(jnp.asarray(rng.uniform(-0.5, 0.5, (9, 1))), (7,))
    if kind == "cartesian":
        return CartesianEncoding((4, 5), jnp.asarray(rng.random((4, 5)) < 0.6))
    return lines(rng.uniform(-0.5, 0.5, (14, 2)), coils=3 if kind == "coils" else 1)


def least_squares(encoding, kspace):
    """argmin ‖A x - y‖² + ridge ‖x‖² by a direct solver."""
    basis = jnp.eye(np.prod(encoding.shape), dtype=jnp.complex128).reshape(-1, *encoding.shape)
    matrix = np.asarray(jax.jit(lambda image: encoding.forward(image))(basis)).reshape(len(basis), -1).T
    normal = matrix.conj().T @ matrix + RIDGE * np.eye(len(basis))
    return np.linalg.solve(normal, matrix.conj().T @ kspace.ravel())


@pytest.mark.parametrize("kind", ["lines", "coils", "nufft", "cartesian"])
def test_operators_converge_to_the_dense_solution(rng, kind):
    """From k-space that no image explains, with and without coils or a precomputed Gram, in 1D to 3D."""
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


@pytest.mark.parametrize("iterations", [1, 2, 3, 5, 7])
def test_every_iteration_counts(rng, iterations):
    """The k-th iterate minimises the quadratic over its Krylov space, however iterations are grouped."""
    gram, rhs = dense_gram(rng, 8, 8), jnp.asarray(complex_normal(rng, 8))
    found = conjugate_gradients(lambda x: gram @ x, rhs, ridge=RIDGE, iterations=iterations, dims=1)
    matrix = np.asarray(gram + RIDGE * np.eye(8))
    powers = [np.linalg.matrix_power(matrix, k) @ rhs for k in range(iterations)]
    krylov, _ = np.linalg.qr(np.stack(powers, axis=1))
    want = krylov @ np.linalg.solve(krylov.conj().T @ matrix @ krylov, krylov.conj().T @ rhs)
    np.testing.assert_allclose(found, want, rtol=1e-8, atol=1e-10)


def test_each_image_is_solved_by_itself(rng):
    """A batch, one of whose images is zero, equals its images one by one; zero stays zero."""
    matrix = dense_gram(rng, 8, 8)
    rhs = jnp.asarray(complex_normal(rng, 3, 8) * np.array([[1e-12], [0.0], [1e12]]))

    def solve(b):
        return conjugate_gradients(lambda x: x @ matrix.T, b, ridge=RIDGE, iterations=4, dims=1)

    together = solve(rhs)
    for one, alone in zip(together, rhs, strict=True):
        np.testing.assert_allclose(one, solve(alone), rtol=1e-9)
    np.testing.assert_array_equal(together[1], 0)


@pytest.mark.parametrize("dtype", [np.complex64, np.complex128])
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_iterations_beyond_convergence_change_nothing(rng, dtype, scale):
    """Residuals end at rounding errors; the gradient of further iterations stays finite and right."""
    matrix = dense_gram(rng, 6, 6).astype(dtype)
    rhs = jnp.asarray(scale * complex_normal(rng, 6), dtype)

    @jax.jit
    @jax.value_and_grad
    def energy(b):
        found = conjugate_gradients(lambda x: matrix @ x, b, ridge=1.0, iterations=100, dims=1)
        return jnp.vdot(b, found).real

    value, gradient = energy(rhs)
    want = np.linalg.solve(np.asarray(matrix) + np.eye(6), rhs)
    tol = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, np.vdot(rhs, want).real, rtol=tol)
    np.testing.assert_allclose(gradient, 2 * want.conj(), rtol=0, atol=tol * np.abs(want).max())


def central_differences(function, x, step=1e-5):
    moves = step * jnp.eye(x.size, dtype=x.dtype).reshape(-1, *x.shape)
    values = jax.jit(jax.vmap(function))(jnp.concatenate([x + moves, x - moves]))
    return ((values[: x.size] - values[x.size :]) / (2 * step)).reshape(x.shape)


# The unconverged iteration must be differentiated as computed; the implicit gradient needs convergence.
@pytest.mark.parametrize(
    ("gradient", "iterations", "coils"),
    [pytest.param("unrolled", 4, 3, marks=pytest.mark.slow), ("unrolled", 40, 1), ("implicit", 40, 3)],
)
def test_gradients_in_points_and_kspace_are_those_of_central_differences(rng, gradient, iterations, coils):
    """For complex images, whose Gram is Hermitian but not symmetric; forward mode agrees."""
    points = rng.uniform(-0.5, 0.5, (14, 2))
    target = jnp.asarray(complex_normal(rng, *SHAPE))
    kspace = lines(points + 0.02, coils).forward(target)
    start = jnp.asarray(np.concatenate([points.ravel(), kspace.real.ravel(), kspace.imag.ravel()]))

    def loss(x):
        real, imaginary = x[28:].reshape(2, *kspace.shape)
        encoding, samples = lines(x[:28].reshape(14, 2), coils), real + 1j * imaginary
        found = cg_sense(encoding, samples, ridge=RIDGE, iterations=iterations, gradient=gradient)
        return jnp.sum(jnp.abs(found - target) ** 4)

    found, want = jax.jit(jax.grad(loss))(start), central_differences(loss, start)
    for part in (slice(28), slice(28, None)):
        assert np.linalg.norm(found[part] - want[part]) < 1e-6 * np.linalg.norm(want[part])
    direction = jnp.asarray(rng.standard_normal(start.shape))
    forward = jax.jit(lambda d: jax.jvp(loss, (start,), (d,))[1])(direction)
    np.testing.assert_allclose(forward, jnp.vdot(found, direction), rtol=1e-9)


def curved(rng):
    """A loss of a few numbers that a Gram depends on, by iterations and gradient."""
    roots = jnp.asarray(complex_normal(rng, 3, 8, 8))
    target, rhs = jnp.asarray(complex_normal(rng, 2, 8))

    def loss(x, iterations, gradient):
        root = jnp.tensordot(x.astype(roots.dtype), roots, axes=1)
        gram = root @ root.conj().T
        found = conjugate_gradients(
            lambda v: gram @ v, rhs, ridge=1.0, iterations=iterations, dims=1, gradient=gradient
        )
        return jnp.sum(jnp.abs(found - target) ** 2)

    return loss, jnp.asarray(rng.standard_normal(3))


def test_implicit_and_unrolled_gradients_agree_only_once_converged(rng):
    loss, x = curved(rng)
    gradients = {
        (mode, n): np.asarray(jax.jit(jax.grad(loss), static_argnums=(1, 2))(x, n, mode))
        for mode in ("unrolled", "implicit")
        for n in (2, 60)
    }
    np.testing.assert_allclose(gradients["implicit", 60], gradients["unrolled", 60], rtol=1e-7)
    early = np.abs(gradients["implicit", 2] - gradients["unrolled", 2])
    assert early.max() > 1e-2 * np.abs(gradients["unrolled", 2]).max()


@pytest.mark.parametrize(("gradient", "iterations"), [("unrolled", 3), ("implicit", 60)])
def test_second_derivatives_are_right(rng, gradient, iterations):
    """Forward over reverse equals differences of the gradient, and the Hessian is symmetric."""
    loss, x = curved(rng)
    slope = jax.jit(jax.grad(lambda x: loss(x, iterations, gradient)))
    hessian = jax.jit(jax.jacfwd(slope))(x)
    np.testing.assert_allclose(hessian, hessian.T, rtol=1e-6, atol=1e-9)
    moves = 1e-5 * np.eye(3)
    want = jnp.stack([(slope(x + move) - slope(x - move)) / 2e-5 for move in moves], axis=1)
    np.testing.assert_allclose(hessian, want, rtol=0, atol=1e-6 * np.abs(want).max())


def test_memory_of_the_gradient_grows_as_the_root_of_the_iterations():
    """16 times the iterations take four times the memory of states, not 16 times."""
    size = 4096
    scale, rhs = jax.ShapeDtypeStruct((size,), np.float32), jax.ShapeDtypeStruct((size,), np.complex64)

    def states(iterations):
        def loss(scale, rhs):
            found = conjugate_gradients(lambda x: scale * x, rhs, ridge=0.1, iterations=iterations, dims=1)
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
        ({"ridge": 0.0, "gradient": "implicit"}, "ridge: got 0.0, expected values > 0"),
        ({"iterations": 0}, "iterations: got 0"),
        ({"dims": 4}, "rhs: got an array of shape"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    defaults = {"ridge": RIDGE, "iterations": 3}
    with pytest.raises(ValueError, match=message):
        conjugate_gradients(lambda x: x, jnp.ones(SHAPE, complex), **(defaults | arguments))

"""Sampling density compensation: weights `w` with which `Aᴴ w A` is close to the identity.

Both methods aim at the weights that minimise `‖A_unitᴴ w A_unit - I‖_F`, whose normal equations are

    C w = 1,    C_st = |Σ_r exp(-2πi (k_s - k_t)·r)|² / (∏N)²

with `C` the Fejér kernel of the field of view: positive, periodic and one on its diagonal (Sedarat & Nishimura, "On the
optimality of the gridding reconstruction algorithm", IEEE Trans. Med. Imaging 19 (2000)). Full Cartesian sampling gets
weights of one; a point alone in its cell too. For straight lines this is a problem in the plane.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice, check_count, check_number, check_shape, usage_error
from acqdesign.base.types import Array, Float, Points
from acqdesign.encoding import _backends, toeplitz
from acqdesign.encoding.nufft import check_points

# Up to this many points the kernel is a matrix (64 MiB in single precision), beyond it a pair of transforms.
_DENSE_POINTS = 4096


def _of_differences(sin: Array, cos: Array) -> tuple[Array, Array]:
    """Sine and cosine of `a_s - a_t` by outer products of those of `a`."""
    return sin[:, None] * cos[None] - cos[:, None] * sin[None], cos[:, None] * cos[None] + sin[:, None] * sin[None]


def _kernel_factors(points: Array, shape: tuple[int, ...]) -> tuple[list[Array], list[Array]]:
    """The factor of `C` along each axis and its derivative in `k_s - k_t`, as matrices."""
    size = jnp.asarray(shape, points.dtype)[:, None]
    angle = math.pi * _backends.wrap(points.T)
    trig = jnp.stack([jnp.sin(size * angle), jnp.cos(size * angle), jnp.sin(angle), jnp.cos(angle)])
    # Without the barrier XLA evaluates the sines again for every entry of the matrix: 50 times slower.
    trig = jax.lax.optimization_barrier(trig)
    factors, slopes = [], []
    for d, n in enumerate(shape):
        sin_n, cos_n, sin, cos = trig[:, d]
        top, cos_top = _of_differences(sin_n, cos_n)
        bottom, cos_bottom = _of_differences(sin, cos)
        # sin(n x) / (n sin x) and its derivative cancel near zero; there their series are exact to rounding.
        square = (n * bottom) ** 2
        small = square < (0.09 if points.dtype == jnp.float32 else 4e-4)
        a, b = (1 - n**-2) / 6, (3 - 27 * n**-2) / 60
        series, series_slope = (1 - a * square * (1 - b * square), -2 * a * n**2 * bottom * (1 - 2 * b * square))
        safe = jnp.where(small, 1, bottom)
        ratio = jnp.where(small, series, top / (n * safe))
        slope = jnp.where(small, series_slope * cos_bottom, (cos_top - ratio * cos_bottom) / safe)
        factors.append(ratio**2)
        slopes.append(2 * math.pi * ratio * slope)
    return factors, slopes


def _kernel_matrix(points: Array, shape: tuple[int, ...]) -> Array:
    return functools.reduce(jnp.multiply, _kernel_factors(points, shape)[0])


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _dense_multiply(points: Array, weights: Array, shape: tuple[int, ...]) -> Array:
    return jnp.matmul(weights, _kernel_matrix(points, shape), precision="highest")


@_dense_multiply.defjvp
def _dense_multiply_jvp(shape: tuple[int, ...], primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # Differentiating the matrix entry by entry costs 20 times these products with its slopes.
    (points, weights), (d_points, d_weights) = primals, tangents
    factors, slopes = _kernel_factors(points, shape)
    tangent = _dense_multiply(points, d_weights, shape)
    for d, slope in enumerate(slopes):
        # C' is antisymmetric: Σ_t C'_st (k̇_s - k̇_t) w_t = ((k̇ w) C')_s - k̇_s (w C')_s.
        matrix = functools.reduce(jnp.multiply, [*factors[:d], slope, *factors[d + 1 :]])
        moved = jnp.broadcast_to(d_points[:, d], weights.shape)
        tangent += jnp.matmul(moved * weights, matrix, precision="highest")
        tangent -= moved * jnp.matmul(weights, matrix, precision="highest")
    return _dense_multiply(points, weights, shape), tangent


def _multiply(points: Array, shape: tuple[int, ...], weights: Array, backend: str) -> Array:
    """`C w` for a stack of weights `(..., M)`."""
    if points.shape[0] <= _DENSE_POINTS:
        return _dense_multiply(points, weights, shape)
    # The Fejér kernel is the transform of a triangle over the differences.
    sides = [(n - np.abs(away)) / n**2 for n, away in zip(shape, toeplitz.differences(shape), strict=True)]
    psf = toeplitz.kernel_pieces(points, weights, shape, backend=backend)
    triangle = jnp.asarray(math.prod(sides), psf.dtype)
    return toeplitz.transform_pieces(psf * jnp.broadcast_to(triangle, psf.shape), points, backend=backend)


def _multiplier(points: Array, shape: tuple[int, ...], backend: str) -> Callable[[Array], Array]:
    """`_multiply` of weights in a loop, outside of which a kernel's matrix is made."""
    if points.shape[0] > _DENSE_POINTS:
        return lambda weights: _multiply(points, shape, weights, backend)
    matrix = _kernel_matrix(points, shape)
    return lambda weights: jnp.matmul(weights, matrix, precision="highest")


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2, 3))
def _pipe(points: Array, shape: tuple[int, ...], iterations: int, backend: str) -> Array:
    return _pipe_history(points, shape, iterations, backend)[0]


def _pipe_history(points: Array, shape: tuple[int, ...], iterations: int, backend: str) -> tuple[Array, Array, Array]:
    """The weights after all iterations; those before each, and `C w` of them, `(iterations, M)`."""
    multiply = _multiplier(points, shape, backend)

    def iterate(weights: Array, _: None) -> tuple[Array, tuple[Array, Array]]:
        product = multiply(weights)
        return weights / product, (weights, product)

    last, history = jax.lax.scan(iterate, jnp.ones_like(points[:, 0]), length=iterations)
    return last, *history


@_pipe.defjvp
def _pipe_jvp(shape: tuple, iterations: int, backend: str, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    # The points' share of every iteration's tangent, Ċ w_i, in one pass over the kernel rather than one each.
    (points,), (d_points,) = primals, tangents
    last, weights, products = _pipe_history(points, shape, iterations, backend)
    _, moved = jax.jvp(lambda k: _multiply(k, shape, weights, backend), (points,), (d_points,))
    multiply = _multiplier(points, shape, backend)

    def iterate(tangent: Array, each: tuple[Array, Array, Array]) -> tuple[Array, None]:
        w, c, m = each
        return tangent / c - w / c**2 * (multiply(tangent) + m), None

    return last, jax.lax.scan(iterate, jnp.zeros_like(last), (weights, products, moved))[0]


_compiled_pipe = jax.jit(_pipe, static_argnums=(1, 2, 3))


def _checked(points: Array, shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = check_shape("shape", shape)
    check_points(points, len(shape))
    if points.ndim != 2:
        raise usage_error("points", points, "shape (M, D)", "Use jax.vmap for several sets of points.")
    return shape


def pipe_density(
    points: Points, shape: tuple[int, ...], iterations: int = 10, *, backend: str = "auto"
) -> Float[Array, " points"]:
    """Pipe and Menon's multiplicative iteration `w ← w / (C w)`, started from ones.

    The iteration is unrolled, so the gradient is that of the weights as computed, converged or not. Pipe & Menon,
    "Sampling density compensation in MRI", Magn. Reson. Med. 41 (1999), with the kernel above.

    Args:
        points: `(M, D)` in cycles per voxel.
        shape: voxels along each of the `D` axes.
        iterations: how many; 10 come within a few per cent of the fixed point.
        backend: of the transforms that stand in for the kernel's matrix beyond 4096 points, as in `nufft_forward`.

    Returns:
        Positive weights `(M,)`: one on a full Cartesian grid, less where points crowd.
    """
    return _compiled_pipe(points, _checked(points, shape), check_count("iterations", iterations), backend)


def least_squares_density(
    points: Points, shape: tuple[int, ...], *, ridge: float = 0.1, backend: str = "auto"
) -> Float[Array, " points"]:
    """The minimiser of `‖Aᴴ w A - I‖_F² + ridge·‖w‖²`: the solution of `(C + ridge) w = 1`.

    Solved to convergence, so the implicit gradient through the linear system is exact.

    The ridge, a number above zero relative to the kernel's diagonal of one, keeps clusters of points well conditioned;
    other arguments are those of `pipe_density`. Some weights may be negative where points crowd.
    """
    check_number("ridge", ridge, positive=True)
    return _least_squares(points, ridge, _checked(points, shape), backend)


@functools.partial(jax.jit, static_argnums=(2, 3))
def _least_squares(points: Array, ridge: Array, shape: tuple[int, ...], backend: str) -> Array:
    ones = jnp.ones(points.shape[0], points.dtype)
    if points.shape[0] <= _DENSE_POINTS:
        matrix = _kernel_matrix(points, shape) + ridge * jnp.eye(points.shape[0], dtype=points.dtype)
        return jax.scipy.linalg.solve(matrix, ones, assume_a="pos")
    tol = float(jnp.finfo(points.dtype).eps) ** 0.75

    def normal(weights: Array) -> Array:
        return _multiply(points, shape, weights, backend) + ridge * weights

    return jax.scipy.sparse.linalg.cg(normal, ones, tol=tol)[0]


DENSITIES = ("pipe", "pipe-stopped", "least-squares", "none")
"""Names that `density_weights` knows."""


def density_weights(
    name: str, points: Points, shape: tuple[int, ...], iterations: int = 10, *, backend: str = "auto"
) -> Float[Array, " points"]:
    """Density weights `(M,)` by name; further arguments are those of `pipe_density`.

    `pipe` has gradients through it, `pipe-stopped` is constant under differentiation, `none` is ones.
    """
    check_choice("density", name, DENSITIES)
    if name == "none":
        return jnp.ones(points.shape[0], points.dtype)
    if name == "least-squares":
        return least_squares_density(points, shape, backend=backend)
    points = jax.lax.stop_gradient(points) if name == "pipe-stopped" else points
    return pipe_density(points, shape, iterations, backend=backend)

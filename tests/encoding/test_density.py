"""Laws of density compensation: the plain iterations on the exact kernel, with every derivative."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.encoding import density, density_weights, least_squares_density, pipe_density

from . import _exact


def clustered(rng, count, dims, dtype=np.float64):
    """Random points with coincident ones, nearly coincident ones, and the same a period away."""
    points = rng.uniform(-0.7, 0.7, (count, dims))
    points[1:5] = points[0] + np.array([0.0, 1e-9, 1e-5, 1e-3])[:, None]
    points[5], points[6] = points[0] + 1.0, -0.5
    return jnp.asarray(points, dtype)


@pytest.fixture(params=["dense", "transforms"])
def path(request, monkeypatch):
    """Both ways to apply the kernel, whatever the number of points."""
    if request.param == "transforms":
        monkeypatch.setattr(density, "_DENSE_POINTS", 0)
    return request.param


def compiled(method, *args, **options):
    """A method as one compiled function of the points, traced afresh."""
    return jax.jit(lambda points: method(points, *args, **options))


@pytest.mark.parametrize(
    ("shape", "iterations", "dtype"),
    [((15,), 1, jnp.float64), ((12, 9), 10, jnp.float32), ((12, 9), 3, jnp.float64), ((4, 5, 3), 3, jnp.float64)],
)
def test_pipe_is_the_plain_iteration(rng, path, shape, iterations, dtype):
    points = clustered(rng, 30, len(shape), dtype)
    got = compiled(pipe_density, shape, iterations)(points)
    assert got.dtype == dtype
    assert (got > 0).all()
    want = _exact.pipe(np.asarray(points, np.float64), shape, iterations)
    assert _exact.error(got, want) <= (1e-5 if dtype == jnp.float32 else 1e-10)


@pytest.mark.parametrize("method", [pipe_density, functools.partial(least_squares_density, ridge=1e-9)])
@pytest.mark.parametrize("shape", [(7, 6), (5, 4, 3)])
def test_full_cartesian_sampling_has_weights_of_one(method, shape):
    axes = [_exact.coordinates(n) / n for n in shape]
    points = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, len(shape)))
    np.testing.assert_allclose(compiled(method, shape)(points), 1, atol=1e-8)


def test_coincident_points_share_one_weight(rng):
    """Two lines at one place weigh together what one line there would."""
    single = jnp.asarray(rng.uniform(-0.5, 0.5, (12, 2)))
    double = jnp.concatenate([single, single[:1]])
    method = compiled(least_squares_density, (6, 5), ridge=1e-12)
    alone, twice = method(single), method(double)
    np.testing.assert_allclose(twice[0] + twice[-1], alone[0], rtol=1e-5)


def solve(points, shape, ridge, xp=np):
    kernel = _exact.fejer_matrix(points, shape, xp)
    return xp.linalg.solve(kernel + ridge * xp.eye(len(points)), xp.ones(len(points)))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-4), (jnp.float64, 1e-7)])
def test_least_squares_solves_its_normal_equations(rng, path, dtype, tolerance):
    """`(C + ridge) w = 1` with the exact kernel, points crowded as they may be."""
    points = clustered(rng, 60, 2, dtype)
    weights = compiled(least_squares_density, (9, 8), ridge=0.1)(points)
    assert weights.dtype == dtype
    kernel = _exact.fejer_matrix(np.asarray(points), (9, 8))
    assert _exact.error(kernel @ weights + 0.1 * weights, np.ones(60)) <= tolerance


def test_least_squares_minimises_its_objective(rng):
    """`‖Aᴴ w A - I‖_F² + ridge ‖w‖²`, with `A` of unit rows, from the definition."""
    points, shape = rng.uniform(-0.5, 0.5, (14, 2)), (3, 4)
    rows = _exact.matrix(points, shape) / np.sqrt(12)

    def objective(weights):
        gap = rows.conj().T @ (weights[:, None] * rows) - np.eye(12)
        return np.linalg.norm(gap) ** 2 + 0.1 * weights @ weights

    weights = np.asarray(compiled(least_squares_density, shape)(jnp.asarray(points)))
    for direction in rng.normal(size=(2, 14)):
        assert abs(_exact.directional(objective, weights, direction, 1e-4)) <= 1e-8
        assert objective(weights + 0.1 * direction) > objective(weights)


METHODS = {
    "pipe": (lambda k, s: pipe_density(k, s, 2), lambda k, s: _exact.pipe(k, s, 2, jnp)),
    "least squares": (least_squares_density, lambda k, s: solve(k, s, 0.1, jnp)),
}


def derivatives(function, points, along, gains, names):
    """Reverse, forward and second derivatives, compiled together."""
    gradient = jax.grad(lambda k: jnp.sum(gains * function(k) ** 2))
    kinds = {
        "jvp": lambda k: jax.jvp(function, (k,), (along,))[1],
        "gradient": gradient,
        "gradient and forward over reverse": lambda k: jax.jvp(gradient, (k,), (along,)),
        "reverse over reverse": jax.grad(lambda k: jnp.sum(gradient(k) * along)),
    }
    return jax.jit(lambda k: {name: kinds[name](k) for name in names})(points)


@pytest.mark.parametrize("limit", [10**6, pytest.param(0, marks=pytest.mark.slow)], ids=["dense", "transforms"])
@pytest.mark.parametrize("dtype", [jnp.float64, jnp.float32])
@pytest.mark.parametrize("method", METHODS)
def test_derivatives_are_those_of_the_exact_kernel(rng, monkeypatch, method, dtype, limit):
    """Of the weights as computed, converged or not, coincident points included."""
    monkeypatch.setattr(density, "_DENSE_POINTS", limit)
    shape, (mine, exact) = (7, 6), METHODS[method]
    points = clustered(rng, 14, 2, dtype)
    along, gains = (jnp.asarray(rng.normal(size=s), dtype) for s in (points.shape, 14))
    names = ["gradient"]
    if dtype == jnp.float64:
        names = ["jvp", "gradient and forward over reverse", *(["reverse over reverse"] if limit == 0 else [])]
    got = derivatives(lambda k: mine(k, shape), points, along, gains, names)
    double = [a.astype(jnp.float64) for a in (points, along, gains)]
    want = derivatives(lambda k: exact(k, shape), *double, names)
    for mine, exact in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert mine.dtype == dtype
        assert _exact.error(mine, exact) <= (1e-4 if dtype == jnp.float32 else 1e-6)


def test_stopped_weights_have_zero_gradient(rng):
    points = clustered(rng, 9, 2)
    stopped = jax.jit(jax.value_and_grad(lambda k: jnp.sum(density_weights("pipe-stopped", k, (5, 4), 2) ** 2)))
    value, gradient = stopped(points)
    assert not np.any(gradient)
    np.testing.assert_allclose(value, np.sum(np.square(pipe_density(points, (5, 4), 2))), rtol=1e-12)


def test_vmap_over_sets_of_points(rng):
    """Of the solved weights; of the iterated ones with straight lines."""
    points = jnp.stack([clustered(rng, 9, 2) for _ in range(3)])
    one = compiled(least_squares_density, (5, 4))
    for mine, k in zip(jax.jit(jax.vmap(one))(points), points, strict=True):
        assert _exact.error(mine, one(k)) <= 1e-12


def test_callers_may_forbid_implicit_promotion(rng, path):
    points = clustered(rng, 8, 2, np.float32)
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        for method in (functools.partial(pipe_density, iterations=2), least_squares_density):
            gradient = jax.grad(lambda k, m=method: jnp.sum(m(k, (5, 4))))
            jax.jit(lambda k, g=gradient: jax.jvp(g, (k,), (k,))).lower(points)


K = jnp.zeros((5, 2))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: pipe_density(K, (4, 4, 4)), r"^points: got .*\(5, 2\).*, expected .*D = 3"),
        (lambda: pipe_density(K[None], (4, 4)), r"^points: got .*\(1, 5, 2\).*, expected shape \(M, D\)"),
        (lambda: pipe_density(K.astype(int), (4, 4)), r"^points: got .*int64, expected a real floating-point"),
        (lambda: pipe_density(K.at[0].set(jnp.nan), (4, 4)), r"^points: got 2 non-finite values"),
        (lambda: pipe_density(K, (4, -1)), r"^shape: got \(4, -1\), expected .*positive integers"),
        (lambda: pipe_density(K, (4, 4), 0), r"^iterations: got 0, expected an integer >= 1"),
        (lambda: pipe_density(K, (4, 4), 2.5), r"^iterations: got 2.5"),
        (lambda: least_squares_density(K, (4, 4), ridge=0.0), r"^ridge: got 0.0, expected values > 0"),
        (lambda: least_squares_density(K, (4, 4), ridge=float("nan")), r"^ridge: got nan"),
        (lambda: least_squares_density(K, (4,)), r"^points: got .*\(5, 2\).*, expected .*D = 1"),
    ],
)
@pytest.mark.usefixtures("unchecked_types")
def test_bad_input_is_refused_by_name(call, says):
    with pytest.raises(ValueError, match=says):
        call()


@pytest.mark.parametrize("density", [pipe_density, least_squares_density])
def test_eager_calls_compile_once_for_a_shape(rng, density, caplog):
    """Other points: nothing is compiled again, so that calls outside of `jit` are as fast as within."""
    points = [jnp.asarray(rng.uniform(-0.5, 0.5, (40, 2)), jnp.float32) for _ in range(3)]
    for each in points[:2]:
        density(each, (6, 6))
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        density(points[2], (6, 6))
    assert not [each for each in caplog.records if "Compiling" in each.getMessage()]

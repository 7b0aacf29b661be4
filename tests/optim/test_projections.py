"""Projections are idempotent, feasible, nonexpansive, and the nearest point by an independent solver."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from acqdesign.optim import (
    ScheduleLimits,
    dykstra,
    project_bend,
    project_box,
    project_entries,
    project_rms,
    project_steps,
    schedule_projection,
)

SIZE, BATCH = 8, 24
LIMITS = {
    "ranges": ScheduleLimits(np.linspace(0, 1, SIZE), np.linspace(1, 1.2, SIZE)),
    "step": ScheduleLimits(step=0.3),
    "step in ranges": ScheduleLimits(np.linspace(0, 1, SIZE), np.linspace(1, 1.2, SIZE), step=0.2),
    "power and step": ScheduleLimits(0.2, 3.0, rms=1.0, step=0.3),
    "one fixed": ScheduleLimits([0.5, *[0.0] * 7], [0.5, *[3.0] * 7], rms=1.0, step=0.3),
    "symmetric, rising": ScheduleLimits(0.2, 3.0, symmetric=True, rising=((0, 3),)),
    "rising, falling": ScheduleLimits(0.2, 3.0, rms=1.0, rising=((0, 3),), falling=((4, 7),)),
    "bend": ScheduleLimits(bend=0.1),
    "bend and power": ScheduleLimits(0.2, 3.0, rms=1.0, bend=0.1),
    "everything": ScheduleLimits(0.2, 3.0, rms=1.0, step=0.3, bend=0.1, symmetric=True, rising=((0, 3),)),
}
STEP, BEND = np.diff(np.eye(SIZE), axis=0), np.diff(np.eye(SIZE), 2, axis=0)
every_set = pytest.mark.parametrize("name", LIMITS)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def rows(limits):
    """Linear inequalities `A z + b >= 0` of everything but range, power and bend; equalities twice."""
    found = [(np.zeros((0, SIZE)), 0.0)]
    if limits.step is not None:
        found += [(STEP, limits.step), (-STEP, limits.step)]
    found += [(STEP[a:b], 0.0) for a, b in limits.rising] + [(-STEP[a:b], 0.0) for a, b in limits.falling]
    if limits.symmetric:
        mirror = (np.eye(SIZE) - np.eye(SIZE)[::-1])[: SIZE // 2]
        found += [(mirror, 0.0), (-mirror, 0.0)]
    return np.concatenate([a for a, _ in found]), np.concatenate([np.full(len(a), b) for a, b in found])


def violation(limits, z):
    """By how much `z` is outside the limits."""
    matrix, offset = rows(limits)
    worst = [0.0, *-(matrix @ z + offset), *(np.asarray(limits.lower) - z), *(z - np.asarray(limits.upper))]
    if limits.rms is not None:
        worst.append(np.sqrt(np.mean(z**2)) - limits.rms)
    if limits.bend is not None:
        worst.append(np.sqrt(np.mean((BEND @ z) ** 2)) - limits.bend)
    return max(worst)


def nearest(limits, x):
    """The projection by sequential quadratic programming."""
    matrix, offset = rows(limits)
    constraints = [{"type": "ineq", "fun": lambda z: matrix @ z + offset, "jac": lambda z: matrix}]
    if limits.rms is not None:
        top = SIZE * limits.rms**2
        constraints.append({"type": "ineq", "fun": lambda z: top - z @ z, "jac": lambda z: -2 * z})
    if limits.bend is not None:
        room, gram = len(BEND) * limits.bend**2, BEND.T @ BEND
        constraints.append(
            {"type": "ineq", "fun": lambda z: room - z @ gram @ z, "jac": lambda z: -2 * gram @ z}
        )
    bounds = list(zip(*(np.broadcast_to(b, SIZE) for b in (limits.lower, limits.upper)), strict=True))
    found = minimize(
        lambda z: 0.5 * np.sum((z - x) ** 2),
        np.full(SIZE, 0.8),
        jac=lambda z: z - x,
        bounds=bounds,
        constraints=constraints if len(offset) or len(constraints) > 1 else (),
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 2000},
    )
    return found.x


@functools.cache
def projection(name):
    """Compiled once for all tests, for batches `(BATCH, SIZE)`."""
    return jax.jit(schedule_projection(LIMITS[name], SIZE))


def schedules(rng, dtype=np.float64):
    return jnp.asarray(1 + 1.5 * rng.normal(size=(BATCH, SIZE)), dtype)


@every_set
@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # SciPy before 1.15 says how it copes
def test_is_the_nearest_point_of_a_quadratic_programme(name, rng):
    x = schedules(rng)
    expected = [nearest(LIMITS[name], row) for row in np.asarray(x)[:8]]
    np.testing.assert_allclose(projection(name)(x)[:8], expected, atol=2e-6)


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        pytest.param(
            name, dtype, marks=pytest.mark.slow if (name, dtype) == ("everything", np.float32) else ()
        )
        for name in LIMITS
        for dtype in (np.float32, np.float64)
    ],
)
def test_is_feasible_and_idempotent(name, dtype, rng):
    z = projection(name)(schedules(rng, dtype))
    assert z.dtype == dtype
    assert max(violation(LIMITS[name], row) for row in np.asarray(z, float)) <= 1e-6
    np.testing.assert_allclose(projection(name)(z), z, atol=2e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.slow
@every_set
def test_is_nonexpansive(name, rng):
    x, y = schedules(rng), schedules(rng)
    before, after = (np.linalg.norm(a - b, axis=1) for a, b in ((x, y), map(projection(name), (x, y))))
    assert (after <= before + 1e-6).all()


def test_goes_under_vmap_as_alone(rng):
    project, x = projection("bend and power"), schedules(rng)
    alone = jax.jit(schedule_projection(LIMITS["bend and power"], SIZE))
    np.testing.assert_allclose(project(x)[:3], [alone(row) for row in x[:3]], atol=1e-9)
    np.testing.assert_allclose(jax.vmap(project)(x[None])[0], project(x), atol=1e-9)


@both_dtypes
def test_steps_against_quadratic_programmes_with_mixed_bounds(dtype, rng):
    """Free, one-sided and two-sided steps and values at random: the dynamic programme takes every branch."""
    project = jax.jit(lambda x, a, b, c, d: project_steps(x, a, b, lower=c, upper=d))
    for _ in range(60):
        x = 2 * rng.normal(size=SIZE)
        down, up = (np.where(rng.random(SIZE - 1) < 0.3, np.inf, rng.random(SIZE - 1)) for _ in range(2))
        low, high = (np.where(rng.random(SIZE) < 0.4, np.inf, rng.random(SIZE)) for _ in range(2))
        bounded, capped = np.isfinite(down), np.isfinite(up)
        matrix = np.concatenate([STEP[bounded], -STEP[capped], np.zeros((1, SIZE))])
        offset = np.concatenate([down[bounded], up[capped], [1.0]])
        found = minimize(
            lambda z, x=x: 0.5 * np.sum((z - x) ** 2),
            np.zeros(SIZE),
            jac=lambda z, x=x: z - x,
            bounds=list(zip(-low, high, strict=True)),
            constraints={
                "type": "ineq",
                "fun": lambda z, a=matrix, b=offset: a @ z + b,
                "jac": lambda z, a=matrix: a,
            },
            method="SLSQP",
            options={"ftol": 1e-16, "maxiter": 1000},
        )
        z = project(*(np.asarray(a, dtype) for a in (x, -down, up, -low, high)))
        np.testing.assert_allclose(z, found.x, atol=1e-8 if dtype == np.float64 else 3e-6)


@both_dtypes
def test_long_sequences_keep_their_steps_and_equal_isotonic_regression(dtype, rng):
    """400 entries: a limited change holds, and a rising one equals the min-max formula of averages."""
    x = jnp.asarray(np.linspace(0, 2, 400) + rng.normal(size=400), dtype)
    project = jax.jit(lambda x, down, up: project_steps(x, down, up, lower=0.0, upper=3.0))
    slow = np.asarray(project(x, -0.02, 0.02))
    assert np.abs(np.diff(slow.astype(float))).max() <= 0.02 + 1e-6
    rising = np.asarray(project(x, 0.0, np.inf))
    sums = np.concatenate([[0], np.cumsum(np.asarray(x, float))])
    ends = np.arange(400)
    means = (sums[None, 1:] - sums[:-1, None]) / np.maximum(ends[None] - ends[:, None] + 1, 1)
    means = np.where(ends[None] >= ends[:, None], means, np.inf)
    expected = np.maximum.accumulate(
        np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1], axis=0
    ).diagonal()
    # A range that is the same everywhere may be imposed afterwards.
    expected = np.clip(expected, 0, 3)
    np.testing.assert_allclose(rising, expected, atol=1e-10 if dtype == np.float64 else 2e-5)


@both_dtypes
def test_bend_removes_no_straight_line_and_no_more_than_needed(dtype, rng):
    line = jnp.linspace(0.1, 2, 50, dtype=dtype)
    project = jax.jit(lambda x: project_bend(x, 0.01))
    np.testing.assert_array_equal(project(line), line)
    rough = jnp.asarray(line + 0.3 * rng.normal(size=50), dtype)
    smooth = np.asarray(project(rough)).astype(float)
    np.testing.assert_allclose(np.sqrt(np.mean(np.diff(smooth, 2) ** 2)), 0.01, rtol=1e-4)


@both_dtypes
def test_box_and_power_on_trees_and_arrays(dtype, rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), dtype)
    boxed = project_box({"a": x, "b": x}, {"a": -1.0, "b": 0.0}, {"a": 0.5, "b": np.inf})
    np.testing.assert_array_equal(boxed["a"], np.clip(x, -1, 0.5))
    np.testing.assert_array_equal(boxed["b"], np.maximum(x, 0))
    ball = np.asarray(project_rms(x, 0.5))
    assert ball.dtype == dtype
    np.testing.assert_allclose(ball, x * 0.5 / np.sqrt(np.mean(x**2)), rtol=1e-5)
    np.testing.assert_array_equal(project_rms(0.1 * x, 0.5), 0.1 * x)


def test_dykstra_finds_the_nearest_common_point_where_turns_do_not(rng):
    """A disc and a half-plane: alternating projections end elsewhere, Dykstra's at the nearest point."""

    def disc(z):
        return z / jnp.maximum(1.0, jnp.linalg.norm(z))

    def half_plane(z):
        return jnp.array([jnp.minimum(z[0], 0.3), z[1]])

    x = jnp.array([2.0, 1.0])
    found = dykstra(x, [half_plane, disc], iterations=5000)
    expected = np.array([0.3, np.sqrt(1 - 0.09)])
    np.testing.assert_allclose(found, expected, atol=1e-8)
    turns = disc(half_plane(x))
    assert np.linalg.norm(turns - x) < np.linalg.norm(found - x) or not np.allclose(turns, expected)


def test_entries_without_a_projection_stay(rng):
    params = {"points": jnp.array([0.7, 0.2]), "flips": jnp.array([4.0])}
    moved = project_entries({"points": lambda p: project_box(p, -0.5, 0.5)})(params)
    np.testing.assert_array_equal(moved["points"], [0.5, 0.2])
    assert moved["flips"] is params["flips"]
    with pytest.raises(ValueError, match="point"):
        project_entries({"point": lambda p: p})(params)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"lower": 1.0, "upper": 2.0, "rms": 0.5}, "rms: got 0.5, expected at least 1."),
        ({"lower": 2.0, "upper": 1.0}, "lower: got 2 at entry 0, expected at most upper, 1."),
        (
            {"lower": [0.0, 3.0, 0.0, 0.0], "upper": [1.0, 3.0, 1.0, 1.0], "step": 0.5},
            "step: got 0.5, expected at least 2.",
        ),
        (
            {"lower": [0.0, 3.0, 0.0, 0.0], "upper": [1.0, 3.0, 1.0, 1.0], "rising": ((0, 3),)},
            "rising and falling",
        ),
        (
            {"lower": [0.0, 3.0, 0.0, 0.0], "upper": [1.0, 3.0, 1.0, 1.0], "bend": 0.5},
            "bend: got 0.5, expected above 3.1",
        ),
        ({"rising": ((0, 9),)}, "rising"),
        ({"step": -1.0}, "step: got -1"),
        ({"rms": float("nan")}, "rms: got nan"),
        ({"lower": float("nan")}, "lower: got nan"),
    ],
)
def test_limits_that_nothing_meets_name_the_nearest_that_something_does(limits, message):
    with pytest.raises(ValueError, match=message):
        schedule_projection(ScheduleLimits(**limits), 4)


def test_a_schedule_of_the_wrong_length_is_refused():
    with pytest.raises(ValueError, match="schedule: got an array of shape \\(5,\\)"):
        schedule_projection(ScheduleLimits(0.0, 1.0), 4)(jnp.zeros(5))

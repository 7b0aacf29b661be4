"""Projections by themselves: steps, bends, power, and the nearest common point of several sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from acqdesign.optim import dykstra, project_bend, project_steps, project_within_rms

SIZE = 8
STEP = np.diff(np.eye(SIZE), axis=0)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


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
            constraints={"type": "ineq", "fun": lambda z, a=matrix, b=offset: a @ z + b, "jac": lambda z, a=matrix: a},
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
    expected = np.maximum.accumulate(np.minimum.accumulate(means[:, ::-1], axis=1)[:, ::-1], axis=0).diagonal()
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
def test_power_on_top_of_another_set_is_met_exactly(dtype, rng):
    """A box and a ball: clip(s x) for the largest s in (0, 1] that is short enough."""
    box = lambda x: jnp.clip(x, -0.5, 2.0)  # noqa: E731
    x = jnp.asarray(3 * rng.normal(size=9), dtype)
    most = 0.7 * float(jnp.sqrt(jnp.mean(box(x) ** 2)))
    z = np.asarray(project_within_rms(box, x, most), float)
    np.testing.assert_allclose(np.sqrt(np.mean(z**2)), most, rtol=2e-6)
    assert np.sqrt(np.mean(z**2)) <= most * (1 + 1e-7)
    inner = (z > -0.5 + 1e-6) & (z < 2 - 1e-6)
    ratio = z[inner] / np.asarray(x)[inner]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    assert 0 < ratio[0] < 1
    np.testing.assert_array_equal(project_within_rms(box, x, 9.0), box(x))


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

"""Splines stay within their control points' range and limits; maps into a range invert; means are nearest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline
from scipy.optimize import minimize

from acqdesign.optim import ScheduleLimits
from acqdesign.optim.parametrise import (
    from_range,
    project_mean,
    spline_basis,
    spline_fit,
    spline_projection,
    to_range,
)

SIZE, CONTROL = 40, 9
LIMITS = ScheduleLimits(0.2, 2.5, rms=1.0, step=0.15)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.mark.parametrize("control", [2, 3, 4, 9, SIZE])
def test_the_basis_sums_to_one_is_nonnegative_and_ends_on_the_end_points(control):
    basis = spline_basis(SIZE, control)
    assert basis.shape == (SIZE, control)
    assert basis.min() >= 0
    np.testing.assert_allclose(basis.sum(axis=1), 1, atol=1e-14)
    np.testing.assert_allclose(basis[[0, -1]] @ np.arange(control), [0, control - 1], atol=1e-14)


def test_the_basis_is_that_of_a_clamped_cubic_spline(rng):
    control = rng.normal(size=CONTROL)
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, CONTROL - 2), np.ones(3)])
    expected = BSpline(knots, control, 3)(np.linspace(0, 1, SIZE))
    np.testing.assert_allclose(spline_basis(SIZE, CONTROL) @ control, expected, atol=1e-13)


@both_dtypes
def test_a_fit_recovers_the_control_points_of_a_spline(rng, dtype):
    control = rng.normal(size=CONTROL)
    found = spline_fit((spline_basis(SIZE, CONTROL) @ control).astype(dtype), CONTROL)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, control, atol=1e-12 if dtype == np.float64 else 1e-5)


@both_dtypes
def test_projected_control_points_give_schedules_within_all_limits(rng, dtype):
    project = jax.jit(spline_projection(LIMITS, SIZE, CONTROL))
    scale = np.repeat([0.3, 2.0, 8.0], 5)[:, None]
    control = project(jnp.asarray(scale * rng.normal(size=(15, CONTROL)) + 1, dtype))
    assert control.dtype == dtype
    flips = np.asarray(control, float) @ spline_basis(SIZE, CONTROL).T
    close = 1e-6 if dtype == np.float32 else 1e-12
    assert flips.min() >= LIMITS.lower - close
    assert flips.max() <= LIMITS.upper + close
    assert np.abs(np.diff(flips)).max() <= LIMITS.step + close
    assert np.sqrt(np.mean(flips**2, axis=-1)).max() <= LIMITS.rms * (1 + close)
    np.testing.assert_allclose(project(control), control, atol=50 * close)


def test_the_spline_projection_is_the_nearest_point_by_an_independent_solver(rng):
    project = jax.jit(spline_projection(LIMITS, SIZE, CONTROL))
    basis = spline_basis(SIZE, CONTROL)
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, CONTROL - 2), np.ones(3)])
    reach = LIMITS.step * (SIZE - 1) * (knots[4 : CONTROL + 3] - knots[1:CONTROL]) / 3
    for point in rng.normal(1, 2, size=(4, CONTROL)):
        found = minimize(
            lambda z, x=point: np.sum((z - x) ** 2),
            np.full(CONTROL, 0.5),
            jac=lambda z, x=point: 2 * (z - x),
            bounds=[(LIMITS.lower, LIMITS.upper)] * CONTROL,
            constraints=[
                {"type": "ineq", "fun": lambda z: reach - np.diff(z)},
                {"type": "ineq", "fun": lambda z: reach + np.diff(z)},
                {"type": "ineq", "fun": lambda z: LIMITS.rms**2 - np.mean((basis @ z) ** 2)},
            ],
            method="SLSQP",
            options={"ftol": 1e-14, "maxiter": 500},
        )
        np.testing.assert_allclose(project(jnp.asarray(point)), found.x, atol=2e-6)


def test_control_points_within_the_limits_stay_as_they_are():
    control = jnp.full(CONTROL, 0.7)
    np.testing.assert_array_equal(spline_projection(LIMITS, SIZE, CONTROL)(control), control)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (ScheduleLimits(0.5, 2.0, rms=0.4), r"rms: got 0.4, expected at least 0.5"),
        (ScheduleLimits(2.0, 1.0), r"lower: got 2.0, expected at most upper, 1"),
        (ScheduleLimits(0.0, 2.0, bend=0.1), "limits: got bend"),
        (ScheduleLimits(np.zeros(SIZE), 2.0), "one lower and one upper"),
        (ScheduleLimits(0.0, 2.0, step=-1.0), "step: got -1.0"),
    ],
)
def test_limits_that_a_spline_cannot_meet_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        spline_projection(limits, SIZE, CONTROL)


@pytest.mark.parametrize("control", [1, SIZE + 1])
def test_wrong_numbers_of_control_points_are_refused(control):
    with pytest.raises(ValueError, match="control_points"):
        spline_basis(SIZE, control)


@both_dtypes
def test_maps_into_a_range_invert_and_stay_inside(rng, dtype):
    values = jnp.asarray(rng.uniform(0.3, 1.9, size=20), dtype)
    free = from_range(values, 0.2, 2.0)
    assert free.dtype == dtype
    np.testing.assert_allclose(to_range(free, 0.2, 2.0), values, rtol=1e-12 if dtype == np.float64 else 1e-5)
    wide = to_range(jnp.asarray([-1e3, 1e3], dtype), 0.2, 2.0)
    np.testing.assert_allclose(wide, [0.2, 2.0], rtol=1e-6)
    ends = from_range(jnp.asarray([0.2, 2.0], dtype), 0.2, 2.0)
    assert np.isfinite(ends).all()
    assert (np.abs(jax.vmap(jax.grad(lambda x: to_range(x, 0.2, 2.0)))(ends)) > 0).all()


def test_values_outside_the_range_are_refused():
    with pytest.raises(ValueError, match="values: got some outside"):
        from_range(jnp.asarray([0.1]), 0.2, 2.0)


@both_dtypes
def test_a_mean_is_capped_at_the_nearest_point(rng, dtype):
    """Against SLSQP; a sequence within the cap only meets its range."""
    for point in rng.uniform(0, 3, size=(4, 7)):
        found = minimize(
            lambda z, x=point: np.sum((z - x) ** 2),
            np.full(7, 0.6),
            jac=lambda z, x=point: 2 * (z - x),
            bounds=[(0.5, 2.0)] * 7,
            constraints=[{"type": "ineq", "fun": lambda z: 1.0 - np.mean(z)}],
            method="SLSQP",
            options={"ftol": 1e-14},
        )
        z = project_mean(jnp.asarray(point, dtype), 1.0, lower=0.5, upper=2.0)
        assert z.dtype == dtype
        assert np.mean(np.asarray(z, float)) <= 1 + 1e-6
        np.testing.assert_allclose(z, found.x, atol=3e-6)
    low = jnp.asarray([0.1, 0.6, 0.9], dtype)
    np.testing.assert_array_equal(project_mean(low, 1.0, lower=0.5, upper=2.0), jnp.maximum(low, 0.5))

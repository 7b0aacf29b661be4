"""Splines: their basis, the nearest one to given values, and the nearest within limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import BSpline

from acqdesign.optim import Box, Limits, MeanAtMost, Spline, spline_basis

from ._fits import nearest

SIZE, CONTROL = 40, 9
LIMITS = Limits(0.2, 2.5, rms=1.0, step=0.15)
both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def projection(limits=LIMITS):
    """Of control points."""
    return jax.jit(jnp.vectorize(lambda x: Spline(x, SIZE).projected(limits).control, signature="(n)->(n)"))


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
    values = (spline_basis(SIZE, CONTROL) @ control).astype(dtype)
    found = Spline.near(values, CONTROL)
    assert found.control.dtype == found.basis.dtype == found.value().dtype == dtype
    np.testing.assert_allclose(found.value(), values, atol=1e-12 if dtype == np.float64 else 1e-5)
    np.testing.assert_allclose(found.control, control, atol=1e-12 if dtype == np.float64 else 1e-5)


@both_dtypes
def test_projected_control_points_give_schedules_within_all_limits(rng, dtype):
    project = projection()
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
    project = projection()
    basis = spline_basis(SIZE, CONTROL)
    knots = np.concatenate([np.zeros(3), np.linspace(0, 1, CONTROL - 2), np.ones(3)])
    reach = LIMITS.step * (SIZE - 1) * (knots[4 : CONTROL + 3] - knots[1:CONTROL]) / 3
    for point in rng.normal(1, 2, size=(4, CONTROL)):
        expected = nearest(
            point, np.full(CONTROL, 0.5), [(LIMITS.lower, LIMITS.upper)] * CONTROL, lambda z: reach - np.diff(z),
            lambda z: reach + np.diff(z), lambda z: LIMITS.rms**2 - np.mean((basis @ z) ** 2),
        )  # fmt: skip
        np.testing.assert_allclose(project(jnp.asarray(point)), expected, atol=2e-6)


def test_control_points_within_the_limits_stay_as_they_are():
    control = jnp.full(CONTROL, 0.7)
    np.testing.assert_array_equal(Spline(control, SIZE).projected(LIMITS).control, control)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(0.5, 2.0, rms=0.4), r"rms: got 0.4, expected at least 0.5"),
        (Limits(2.0, 1.0), r"lower: got 2.0, expected at most upper, 1"),
        (Limits(0.0, 2.0, bend=0.1), "limits: got bend"),
        (Limits(np.zeros(SIZE), 2.0), "one lower and one upper"),
        (Limits(0.0, 2.0, symmetric=True), "limits: got bend, symmetric"),
        (Limits(0.0, 2.0, rising=((0, 3),)), "limits: got bend, symmetric, rising"),
        (Box("x", 0.0, 1.0), "limits: got Box on a spline, expected Limits alone"),
        (MeanAtMost("x", 0.5, 0.0, 1.0), "limits: got MeanAtMost on a spline"),
    ],
)
def test_limits_that_a_spline_cannot_meet_are_refused(limits, message):
    with pytest.raises(ValueError, match=message):
        Spline(jnp.ones(CONTROL), SIZE).projected(limits)


@pytest.mark.parametrize("control", [1, SIZE + 1])
def test_wrong_numbers_of_control_points_are_refused(control):
    with pytest.raises(ValueError, match="control_points"):
        spline_basis(SIZE, control)


def test_values_of_several_axes_have_no_nearest_spline():
    with pytest.raises(ValueError, match=r"values: got an array of shape \(2, 9\).*expected a vector"):
        Spline.near(np.ones((2, 9)), 4)


def test_the_basis_is_no_part_of_what_is_learned():
    """Its gradient is that of the values, brought to the control points."""
    spline = Spline(jnp.arange(4.0), SIZE)
    gradient = jax.grad(lambda s: jnp.sum(s.value() ** 2))(spline)
    np.testing.assert_allclose(gradient.control, 2 * spline.basis.T @ spline.value(), rtol=1e-12)

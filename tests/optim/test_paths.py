"""Paths of limited steps and bends: feasible, nearest by another method, with the derivative of what is found."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

from acqdesign.base.checks import UsageError
from acqdesign.optim import Box, PathLimits, Scaled, project_onto

STEP, BEND = 0.11, 0.03
# Ends and what is held, the box, and how lengths are taken.
KINDS = {
    "rest": {},
    "per axis": {"per_axis": True},
    "free": {"start": None, "end": None},
    "moving": {"start": (0.02, -0.01), "end": None},
    "held": {"held": ((7, 0.0),)},
    "held twice": {"held": ((5, (0.0, 0.05)), (9, 0.0)), "start": None, "end": 0.01},
    "box": {"reach": 0.3},
    "ellipsoid": {"step": (0.11, 0.06), "bend": (0.02, 0.04), "held": ((3, 0.1),)},
}


def limits(**more):
    return PathLimits("x", **{"step": STEP, "bend": BEND} | more)


def wish(rng, *shape, scale=0.08):
    return np.cumsum(rng.normal(0, scale, shape), axis=-2) / 1.5


def lengths(path, limit, *, single=False):
    """Parts of the limits that steps and bends of one path take, and the box; by nothing that the package does."""
    path = np.asarray(path, np.float64)
    d = path.shape[1]
    start, end = (np.full((1, d), np.nan if e is None else e, float) for e in (limit.start, limit.end))
    steps = np.concatenate([start, np.diff(path, axis=0), end])
    bends = np.nan_to_num(np.diff(steps, axis=0) / np.asarray(limit.bend))
    steps = steps[1:-1] / np.asarray(limit.step)
    size = np.abs if limit.per_axis else lambda v: np.linalg.norm(v, axis=1)
    return size(steps).ravel(), size(bends).ravel(), np.abs(path).ravel() / limit.reach


def nearest(wanted, limit):
    """The same projection by sequential quadratic programming."""
    shape = wanted.shape
    rules = [{"type": "ineq", "fun": lambda x: 1 - np.concatenate([p**2 for p in lengths(x.reshape(shape), limit)])}]
    for index, value in limit.held:
        rules.append({"type": "eq", "fun": lambda x, i=index, v=value: x.reshape(shape)[i] - v})
    found = scipy.optimize.minimize(
        lambda x: 0.5 * np.sum((x - wanted.ravel()) ** 2), np.zeros(wanted.size), jac=lambda x: x - wanted.ravel(),
        constraints=rules, method="SLSQP", options={"maxiter": 500, "ftol": 1e-13},
    )  # fmt: skip
    return found.x.reshape(shape)


@pytest.mark.parametrize("kind", KINDS)
def test_the_nearest_path_is_that_of_another_method(rng, kind):
    """Distances within 1e-4, limits within 1e-6 of themselves, held points exact; each path of a batch by itself."""
    limit, wanted = limits(**KINDS[kind]), wish(rng, 3, 14, 2)
    found = jax.jit(limit.project)(jnp.asarray(wanted))
    for path, own in zip(found, wanted, strict=True):
        assert max(part.max() for part in lengths(path, limit)) <= 1 + 1e-6
        for index, value in limit.held:
            np.testing.assert_allclose(path[index], value, atol=1e-15)
        best = nearest(own, limit)
        assert abs(np.linalg.norm(path - own) / np.linalg.norm(best - own) - 1) <= 1e-4
        np.testing.assert_allclose(path, best, atol=2e-4)
    np.testing.assert_allclose(found[1], limit.project(jnp.asarray(wanted[1])), atol=1e-6)


@pytest.mark.parametrize("per_axis", [False, True], ids=["vector", "per axis"])
@pytest.mark.parametrize("bend", [1e-3, 1e-5])
def test_single_precision_never_exceeds_a_limit(rng, bend, per_axis):
    """Also where a bend is not much longer than what rounds; near to the path that double precision finds."""
    limit = limits(step=1e-2, bend=bend, held=((100, 0.2),), per_axis=per_axis)
    wanted = jnp.asarray(0.2 + np.sqrt(bend) * wish(rng, 4, 200, 2), jnp.float32)
    found = jax.jit(limit.project)(wanted)
    assert found.dtype == jnp.float32
    for path in found:
        assert max(part.max() for part in lengths(path, limit)) <= 1
    exact = limit.project(wanted.astype(jnp.float64))
    assert np.linalg.norm(found - exact) <= 0.02 * np.linalg.norm(exact - wanted)


def test_a_path_within_the_limits_stays():
    t = np.linspace(0, 1, 60)[:, None]
    path = jnp.asarray(0.3 * np.concatenate([np.cos(np.pi * t), np.cos(2 * np.pi * t)], axis=1))
    np.testing.assert_allclose(limits().project(path), path, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_the_derivative_is_that_of_differences(rng, kind):
    limit, wanted = limits(**KINDS[kind]), jnp.asarray(wish(rng, 2, 14, 2))
    slope, way = (jnp.asarray(rng.normal(size=wanted.shape)) for _ in range(2))

    @jax.jit
    def value(x):
        return jnp.sum(slope * limit.project(x))

    h = 1e-5
    want = (value(wanted + h * way) - value(wanted - h * way)) / (2 * h)
    got = jnp.sum(jax.jit(jax.grad(value))(wanted) * way)
    assert abs(got - want) <= 1e-6 * abs(want) + 1e-6 * float(jnp.linalg.norm(way))


def test_a_limit_of_a_design_meets_others(rng):
    """As a `Constraint` beside another, by its array's name."""
    wanted, where = jnp.asarray(wish(rng, 1, 14, 2)), "relative"
    limit = dataclasses.replace(limits(), where=where)
    found = project_onto(Scaled(wanted, 1.0), [limit, Box(where, -0.2, 0.2)], {}).relative
    both = limits(reach=0.2).project(wanted)
    np.testing.assert_allclose(found, both, atol=1e-4)


@pytest.mark.parametrize(
    ("more", "shape", "says"),
    [
        ({"held": ((0, 0.0), (9, 1.0))}, (10, 2), r"^x: got 10 points.*expected at least 17"),
        ({"start": 1.0, "end": 0.0, "reach": 0.5}, (10, 2), r"^x: got 10 points.* expected limits that some path"),
        ({"held": ((3, 0.9),), "reach": 0.5}, (10, 2), r"^x: got 10 points.* expected limits that some path"),
        ({"held": ((10, 0.0),)}, (10, 2), r"^held: got points \[10\], expected different ones of 0 to 9"),
        ({"start": (0.0, 0.0, 0.0)}, (10, 2), r"^start: got \(0.0, 0.0, 0.0\), expected one number, or 2"),
        ({}, (1, 2), r"^x: got .*\(1, 2\).*two points or more"),
        ({"step": 0.0}, (10, 2), "^step: got 0.0"),
        ({"bend": np.inf}, (10, 2), "^bend: got inf"),
        ({"end": np.nan}, (10, 2), "^end: got 1 non-finite"),
    ],
)
def test_limits_that_no_path_meets_are_told_with_what_would(more, shape, says):
    with pytest.raises(UsageError, match=says):
        limits(**more).check(jnp.zeros(shape))


def test_points_that_are_not_finite_are_told():
    with pytest.raises(UsageError, match=r"^x: got 1 non-finite"):
        limits().check(jnp.zeros((10, 2)).at[3, 1].set(jnp.nan))

"""Limits are met and reached by the nearest point: idempotent, nonexpansive, an independent solver's answer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize

from acqdesign.optim import Box, Limits

SIZE, BATCH = 8, 24
LIMITS = {
    "ranges": Limits(np.linspace(0, 1, SIZE), np.linspace(1, 1.2, SIZE)),
    "step": Limits(step=0.3),
    "step in ranges": Limits(np.linspace(0, 1, SIZE), np.linspace(1, 1.2, SIZE), step=0.2),
    "power and step": Limits(0.2, 3.0, rms=1.0, step=0.3),
    "one fixed": Limits([0.5, *[0.0] * 7], [0.5, *[3.0] * 7], rms=1.0, step=0.3),
    "symmetric, rising": Limits(0.2, 3.0, symmetric=True, rising=((0, 3),)),
    "rising, falling": Limits(0.2, 3.0, rms=1.0, rising=((0, 3),), falling=((4, 7),)),
    "bend": Limits(bend=0.1),
    "bend and power": Limits(0.2, 3.0, rms=1.0, bend=0.1),
    "everything": Limits(0.2, 3.0, rms=1.0, step=0.3, bend=0.1, symmetric=True, rising=((0, 3),)),
}
STEP, BEND = np.diff(np.eye(SIZE), axis=0), np.diff(np.eye(SIZE), 2, axis=0)
every_set = pytest.mark.parametrize("name", LIMITS)


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
        constraints.append({"type": "ineq", "fun": lambda z: room - z @ gram @ z, "jac": lambda z: -2 * gram @ z})
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
    return jax.jit(LIMITS[name].project)


def schedules(rng, dtype=np.float64):
    return jnp.asarray(1 + 1.5 * rng.normal(size=(BATCH, SIZE)), dtype)


def check_feasible(name, x, close):
    """The projection of `x` is, and stays as it is when projected again."""
    z = projection(name)(x)
    assert z.dtype == x.dtype
    assert max(violation(LIMITS[name], row) for row in np.asarray(z, float)) <= 1e-6
    np.testing.assert_allclose(projection(name)(z), z, atol=close)


@every_set
@pytest.mark.filterwarnings("ignore:Values in x were outside bounds")  # SciPy before 1.15 says how it copes
def test_is_the_nearest_point_of_a_quadratic_programme(name, rng):
    x = schedules(rng)
    expected = [nearest(LIMITS[name], row) for row in np.asarray(x)[:8]]
    np.testing.assert_allclose(projection(name)(x)[:8], expected, atol=2e-6)
    check_feasible(name, x, 1e-12)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name == "everything" else ()) for name in LIMITS]
)
def test_is_feasible_and_idempotent_in_single_precision(name, rng):
    check_feasible(name, schedules(rng, np.float32), 2e-6)


@pytest.mark.slow
@every_set
def test_is_nonexpansive(name, rng):
    x, y = schedules(rng), schedules(rng)
    before, after = (np.linalg.norm(a - b, axis=1) for a, b in ((x, y), map(projection(name), (x, y))))
    assert (after <= before + 1e-6).all()


def test_goes_under_vmap_as_alone(rng):
    project, x = projection("bend and power"), schedules(rng)
    alone = jax.jit(LIMITS["bend and power"].project)
    np.testing.assert_allclose(project(x)[:3], [alone(row) for row in x[:3]], atol=1e-9)
    np.testing.assert_allclose(jax.vmap(project)(x[None])[0], project(x), atol=1e-9)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"lower": 1.0, "upper": 2.0, "rms": 0.5}, "rms: got 0.5, expected at least 1."),
        ({"lower": 2.0, "upper": 1.0}, "lower: got 2 at entry 0, expected at most upper, 1."),
        (
            {"lower": [0.0, 3.0, 0.0, 0.0], "upper": [1.0, 3.0, 1.0, 1.0], "step": 0.5},
            "step: got 0.5, expected at least 2.",
        ),
        ({"lower": [0.0, 3.0, 0.0, 0.0], "upper": [1.0, 3.0, 1.0, 1.0], "rising": ((0, 3),)}, "rising and falling"),
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
        Limits(**limits).check(jnp.zeros(4))


@pytest.mark.parametrize("name", ["lower", "upper"])
def test_a_range_for_another_number_of_entries_is_refused(name):
    limits = Limits(**{name: [1.0, 1.0, 1.0, 1.0]})
    for refuse in (limits.check, limits.project):
        with pytest.raises(ValueError, match=f"{name}: got 4 numbers, expected one, or one for each of 5 entries"):
            refuse(jnp.zeros(5))


@pytest.mark.usefixtures("unchecked_types")
def test_a_single_number_is_not_in_a_row():
    for refuse in (Limits(0.0, 1.0).check, Limits(0.0, 1.0).project):
        with pytest.raises(ValueError, match=r"sequence.flips: got an array of shape \(\).*Box limits a single number"):
            refuse(jnp.array(3.0))


def test_limits_are_values_equal_limits_are_one_key():
    """Static fields of compiled programs: hashable, whatever kinds of numbers they were made from."""
    one = Limits([0.0, 1.0], np.float32(2.0), rms=1.0, rising=((0, 1),))
    others = [
        Limits((0.0, 1.0), 2, rms=1.0, rising=((0, 1),)),
        Limits(np.arange(2), jnp.array(2.0), rms=1.0, rising=((0, 1),)),
    ]
    assert others == [one, one]
    assert {hash(other) for other in others} == {hash(one)}
    assert one != Limits((0.0, 1.0), 2.0, rms=1.0, rising=((0, 1),), where="sequence.tr")


# Two limits in one


def test_and_takes_the_tighter_of_each():
    one = Limits(0.1, [1.0, 2.0, 3.0], rms=1.0, step=0.5, rising=((0, 1),), where="trajectory.x")
    other = Limits([0.0, 0.2, 0.3], 2.5, rms=1.5, bend=0.2, symmetric=True, falling=((1, 2),), where="trajectory.x")
    both = Limits(
        [0.1, 0.2, 0.3], [1.0, 2.0, 2.5], rms=1.0, step=0.5, bend=0.2, symmetric=True,
        rising=((0, 1),), falling=((1, 2),), where="trajectory.x",
    )  # fmt: skip
    assert one & other == both
    assert (other & one) == both
    assert one & Limits(where="trajectory.x") == one


def test_and_projects_onto_what_both_allow(rng):
    """Feasible for each, and the nearest point by an independent solver."""
    one, other = Limits(0.2, 2.0, step=0.3), Limits(0.0, 3.0, rms=1.0, rising=((0, 3),))
    x = schedules(rng)[:4]
    z = np.asarray((one & other).project(x))
    for row, found in zip(np.asarray(x), z, strict=True):
        assert max(violation(one, found), violation(other, found)) <= 1e-6
        np.testing.assert_allclose(found, nearest(one & other, row), atol=2e-6)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (Limits(where="sequence.tr"), "where: got sequence.flips and sequence.tr, expected limits on one array"),
        (Limits([0.0, 0.0, 0.0]), r"lower and upper: got ranges for \[2, 3\] entries"),
    ],
)
def test_and_refuses_limits_on_other_arrays(other, message):
    with pytest.raises(ValueError, match=message):
        Limits([0.0, 0.0]) & other


def test_and_of_another_kind_of_constraint_is_not_a_limit():
    with pytest.raises(TypeError, match="Limits"):
        Limits() & Box("sequence.flips", 0.0, 1.0)

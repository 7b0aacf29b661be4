"""Constraints on a tree: all of them met at once by the nearest tree, what is held exactly, mistakes by name."""

import dataclasses

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.optim import Box, Constraint, Limits, MeanAtMost, Scaled, Spline, project_onto

from ._fits import nearest

both_dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])
SIZE = 8
HELD = np.array([False, False, True, False, True, False, False, False])


class Sequence(eqx.Module):
    flips: jax.Array | Scaled | Spline
    tr: jax.Array


class Design(eqx.Module):
    sequence: Sequence


def design(flips, tr=(1.0, 2.0)):
    return Design(Sequence(flips, jnp.asarray(tr)))


def projected(flips, constraints, kept=None):
    """Flips within constraints, some of them held."""
    found = project_onto(design(flips), constraints, {} if kept is None else {"sequence.flips": kept})
    return found.sequence.flips


def rms(z):
    return np.sqrt(np.mean(np.square(np.asarray(z, float)), axis=-1))


# One constraint


@both_dtypes
def test_a_box_clips(dtype, rng):
    x = jnp.asarray(rng.normal(size=(4, 5)), dtype)
    z = Box("x", -1.0, 0.5).project(x)
    assert z.dtype == dtype
    np.testing.assert_array_equal(z, np.clip(x, -1, 0.5))
    np.testing.assert_array_equal(Box("x", 0.0, np.inf).project(x), np.maximum(x, 0))


@both_dtypes
def test_a_mean_is_capped_at_the_nearest_point(rng, dtype):
    """Against SLSQP; a sequence within the cap only meets its range."""
    limit = MeanAtMost("x", 1.0, lower=0.5, upper=2.0)
    for point in rng.uniform(0, 3, size=(4, 7)):
        expected = nearest(point, np.full(7, 0.6), [(0.5, 2.0)] * 7, lambda z: 1.0 - np.mean(z))
        z = limit.project(jnp.asarray(point, dtype))
        assert z.dtype == dtype
        assert np.mean(np.asarray(z, float)) <= 1 + 1e-6
        np.testing.assert_allclose(z, expected, atol=3e-6)
    low = jnp.asarray([0.1, 0.6, 0.9], dtype)
    np.testing.assert_array_equal(limit.project(low), jnp.maximum(low, 0.5))


@pytest.mark.parametrize(
    ("constraint", "message"),
    [
        (Box("x", 2.0, 1.0), "lower: got 2.0, expected at most upper, 1"),
        (Box("x", float("nan"), 1.0), "lower: got nan"),
        (MeanAtMost("x", 0.4, 0.5, 2.0), "mean: got 0.4, expected at least lower, 0.5"),
        (MeanAtMost("x", 3.0, 2.5, 2.0), "lower: got 2.5, expected at most upper, 2"),
    ],
)
def test_what_nothing_meets_is_refused(constraint, message):
    with pytest.raises(ValueError, match=message):
        constraint.check(jnp.zeros(3))


def test_a_constraint_touches_its_own_array_alone():
    before = design(jnp.array([4.0, 5.0]))
    after = project_onto(before, [Box("sequence.flips", 0.0, 4.5)], {})
    np.testing.assert_array_equal(after.sequence.flips, [4.0, 4.5])
    assert after.sequence.tr is before.sequence.tr
    assert project_onto(before, [], {}) is before


@pytest.mark.parametrize("tree", [design(jnp.ones(2)), {"sequence": {"flip": jnp.ones(2)}}])
def test_a_name_that_is_none_of_the_tree_is_refused(tree):
    with pytest.raises(ValueError, match=r"where: got 'sequence\.flip', expected the name of an array"):
        project_onto(tree, [Box("sequence.flip", 0.0, 1.0)], {})


# Several on one array


@pytest.mark.parametrize(("dtype", "order"), [(np.float32, 1), (np.float64, -1)])
def test_two_constraints_on_one_array_are_both_met_by_dykstra(dtype, order, rng):
    """To 1e-6, whichever comes first; one after the other breaks the first."""
    limits = Limits(0.2, 2.5, rms=1.25, step=0.4)
    mean = MeanAtMost("sequence.flips", 0.9, 0.1, 2.4)
    x = jnp.asarray(1 + 1.5 * rng.normal(size=(8, 12)), dtype)
    both = [limits, mean][::order]
    z = np.asarray(jax.jit(jax.vmap(lambda row: projected(row, both)))(x), float)
    assert z.min() >= 0.2 - 1e-6
    assert z.max() <= 2.4 + 1e-6
    assert rms(z).max() <= 1.25 + 1e-6
    assert np.abs(np.diff(z)).max() <= 0.4 + 1e-6
    assert z.mean(axis=1).max() <= 0.9 + 1e-6


def test_the_common_point_is_the_nearest_one_by_an_independent_solver(rng):
    both = [Limits(0.2, 2.5, rms=1.0), MeanAtMost("sequence.flips", 0.8, 0.1, 2.4)]
    project = jax.jit(lambda x: projected(x, both))
    for x in 1 + 1.5 * rng.normal(size=(4, SIZE)):
        limits = (lambda z: 0.8 - np.mean(z)), (lambda z: 1.0 - np.mean(z**2))
        expected = nearest(x, np.full(SIZE, 0.5), [(0.2, 2.4)] * SIZE, *limits)
        np.testing.assert_allclose(project(jnp.asarray(x)), expected, atol=2e-6)


@dataclasses.dataclass(frozen=True)
class SumAtMost(Constraint):
    """A limit on two arrays together."""

    where: tuple[str, ...] = ("sequence.flips", "sequence.tr")
    most: float = 1.0

    def project(self, *values):
        flips, tr = values
        over = jnp.maximum((flips.sum() + tr.sum() - self.most) / (flips.size + tr.size), 0.0)
        return flips - over, tr - over


def test_a_constraint_may_tie_arrays_together_and_others_hold_beside_it():
    """All of them are met by one nearest point."""
    before = design(jnp.array([3.0, -2.0]), [4.0, 1.0])
    after = project_onto(before, [Box("sequence.flips", -1.0, 1.0), SumAtMost(), Box("sequence.tr", 0.0, 9.0)], {})
    z = np.concatenate([after.sequence.flips, after.sequence.tr])
    expected = nearest(
        np.array([3.0, -2, 4, 1]), np.zeros(4), [(-1, 1), (-1, 1), (0, 9), (0, 9)], lambda z: 1.0 - z.sum()
    )
    np.testing.assert_allclose(z, expected, atol=1e-6)


# Held entries


@both_dtypes
def test_held_entries_are_exact_and_others_free(dtype, rng):
    x, own = (jnp.asarray(rng.normal(size=SIZE), dtype) for _ in range(2))
    z = projected(x, [], (~HELD, own))
    np.testing.assert_array_equal(z, np.where(HELD, own, x))


@both_dtypes
def test_a_power_limit_with_held_entries_is_met_and_used_up(dtype):
    """The root mean square is 1.250 and not more than 1e-6 above; to project and then restore gave 1.48."""
    own = jnp.linspace(0.5, 3.0, SIZE, dtype=dtype)
    z = projected(own, [Limits(rms=1.25)], (~HELD, own))
    np.testing.assert_array_equal(np.asarray(z)[HELD], own[HELD])
    assert 1.25 - 1e-4 <= rms(z) <= 1.25 + 1e-6
    # The nearest: free entries share one factor.
    ratio = np.asarray(z / own)[~HELD]
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
    restored = np.where(HELD, own, Limits(rms=1.25).project(own))
    assert rms(restored) > 1.35


@pytest.mark.parametrize(
    ("limits", "count", "size"),
    [
        (Limits(0.2, 2.5, step=0.4), 8, 12),
        # Fifty among which some take Dykstra's algorithm over five hundred rounds.
        pytest.param(Limits(0.2, 2.5, rms=1.25, step=0.4), 50, 24, marks=pytest.mark.slow),
    ],
    ids=["steps", "steps and power"],
)
@both_dtypes
def test_ranges_steps_and_power_with_held_entries_are_all_met(dtype, limits, count, size, rng):
    """To 1e-6, from starts far outside."""
    held, own = rng.random(size) > 0.7, jnp.linspace(0.5, 1.1, size, dtype=dtype)
    x = jnp.asarray(1 + 1.5 * rng.normal(size=(count, size)), dtype)
    z = np.asarray(jax.jit(jax.vmap(lambda row: projected(row, [limits], (~held, own))))(x), float)
    np.testing.assert_array_equal(z[:, held], np.tile(np.asarray(own, float)[held], (count, 1)))
    assert 0 < held.sum() < size
    assert z.min() >= 0.2 - 1e-6
    assert z.max() <= 2.5 + 1e-6
    assert rms(z).max() <= (limits.rms or 9) + 1e-6
    assert np.abs(np.diff(z)).max() <= 0.4 + 1e-6


def test_held_entries_may_lie_outside_a_range_that_counts_entry_by_entry():
    own = jnp.array([9.0, 0.5, -3.0])
    z = projected(jnp.array([1.0, 7.0, 1.0]), [Box("sequence.flips", 0.0, 2.0)], (np.array([False, True, False]), own))
    np.testing.assert_array_equal(z, [9.0, 2.0, -3.0])


def test_held_rows_of_a_matrix_by_a_mask_that_broadcasts():
    x, own = jnp.full((3, 2), 5.0), jnp.arange(6.0).reshape(3, 2)
    z = projected(x, [], (np.array([[True], [False], [True]]), own))
    np.testing.assert_array_equal(z, [[5.0, 5.0], [2.0, 3.0], [5.0, 5.0]])


def test_held_entries_of_a_scaled_array_count_for_its_limits():
    """What is held are the scaled numbers; the limit is on the array that they stand for."""
    own = jnp.linspace(0.5, 3.0, SIZE)
    scaled = Scaled(own / 0.5, 0.5)
    kept = {"sequence.flips.relative": (~HELD, scaled.relative)}
    z = project_onto(design(scaled), [Limits(rms=1.25)], kept).sequence.flips
    np.testing.assert_array_equal(np.asarray(z.relative)[HELD], scaled.relative[HELD])
    np.testing.assert_allclose(z.value(), projected(own, [Limits(rms=1.25)], (~HELD, own)), atol=1e-9)
    assert rms(z.value()) <= 1.25 + 1e-6


# Arrays made of other numbers


def test_two_constraints_on_a_scaled_array_are_those_on_the_array(rng):
    flips = jnp.asarray(1 + rng.normal(size=SIZE))
    both = [Limits(0.0, 2.5, rms=1.0), MeanAtMost("sequence.flips", 0.7, 0.0, 2.5)]
    z = projected(Scaled(flips / 0.2, 0.2), both)
    assert z.unit == 0.2
    np.testing.assert_allclose(z.value(), projected(flips, both), atol=1e-9)


def test_a_constraint_on_several_arrays_needs_their_own_values():
    with pytest.raises(ValueError, match=r"limits: got SumAtMost on sequence\.flips and sequence\.tr"):
        projected(Scaled(jnp.ones(3), 0.5), [SumAtMost()])


# One's own


class EqualPairs(Constraint):
    """A reader's own."""

    where = "sequence.flips"

    def project(self, *values):
        return jnp.repeat(values[0].reshape(-1, 2).mean(1), 2)


def test_one_s_own_constraint_is_a_class_with_a_projection():
    z = projected(jnp.array([1.0, 3.0, 0.0, 9.0]), [EqualPairs(), Box("sequence.flips", 0.0, 4.0)])
    # The nearest: pairs of (1, 3) and (0, 9) at their means, of which 4.5 is too much.
    np.testing.assert_allclose(z, [2.0, 2.0, 4.0, 4.0], atol=1e-6)
    EqualPairs().check(jnp.ones(4))
    assert EqualPairs().names == ("sequence.flips",)


@pytest.mark.parametrize(
    ("give", "got"),
    [
        (lambda x: x[:2], r"an array of shape \(2,\) and dtype float64"),
        (lambda x: x.astype(jnp.float32), r"an array of shape \(4,\) and dtype float32"),
        (lambda x: [1.0, 2.0], r"\[1\.0, 2\.0\]"),
        (lambda x: None, "None"),
        (lambda x: (x, x), r"\("),
    ],
    ids=["shape", "dtype", "list", "none", "two"],
)
def test_one_s_own_constraint_that_gives_another_array_is_told_by_its_class(give, got):
    class Odd(EqualPairs):
        def project(self, *values):
            return give(values[0])

    expected = r"expected an array like sequence\.flips, of shape \(4,\) and dtype float64"
    with pytest.raises(ValueError, match=rf"^Odd\.project: got {got}.*{expected}"):
        projected(jnp.ones(4), [Odd()])
    with pytest.raises(ValueError, match=r"^Odd\.project: got"):
        jax.jit(lambda x: projected(x, [Odd(), Limits()]))(jnp.ones(4))


@pytest.mark.parametrize(
    ("give", "got"),
    [
        (lambda x, y: (x,), "1 values"),
        (lambda x, y: (x, y, y), "3 values"),
        (lambda x, y: x, "a .*Array.*"),
        (lambda x, y: None, "a NoneType"),
    ],
    ids=["one", "three", "array", "none"],
)
def test_one_s_own_constraint_on_two_arrays_that_gives_another_number_is_told_by_its_class(give, got):
    class Odd(SumAtMost):
        def project(self, *values):
            return give(*values)

    with pytest.raises(ValueError, match=rf"^Odd\.project: got {got}, expected 2 arrays, like sequence\.flips, seq"):
        projected(jnp.ones(4), [Odd()])


def test_a_constraint_without_a_projection_is_none():
    with pytest.raises(NotImplementedError):
        projected(jnp.ones(4), [type("Empty", (EqualPairs,), {"project": Constraint.project})()])

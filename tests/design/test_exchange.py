"""Readouts exchange their echoes only where that lowers the loss, and rounding never decides."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acqdesign.base.checks import UsageError
from acqdesign.design import Design, Problem, exchange_step, learn
from acqdesign.design.exchange import exchanged
from acqdesign.design.problem import stacked
from acqdesign.encoding import Lines, Radial
from acqdesign.recon import Prior

from ._problems import KEY, joint, loss, of_lines


def moved_points(problem, points):
    """What is learned, with other points."""
    return eqx.tree_at(lambda d: d.trajectory.points, problem.split()[0], points)


def test_exchange_lowers_the_loss_and_moves_moments():
    """Positions and the optimiser's moments move together, only where that lowers the loss; starts by themselves."""
    problem, taken = joint(), 0
    learned, rest = problem.split()
    exchange, before_points = exchange_step(problem, KEY, problem.design), problem.trajectory.points
    for step in range(3):
        moments = {"mu": before_points * 10, "count": jnp.zeros(())}
        moved, state = exchange(step, learned, moments)
        key = jax.random.fold_in(KEY, step)
        before, after = (float(loss(problem, eqx.combine(d, rest), key)) for d in (learned, moved))
        changed = not np.array_equal(moved.trajectory.points, before_points)
        assert after < before if changed else after == before
        np.testing.assert_array_equal(state["mu"], moved.trajectory.points * 10)
        ours, theirs = (sorted(map(tuple, np.asarray(p))) for p in (moved.trajectory.points, before_points))
        assert ours == theirs
        taken += changed
    assert taken
    other = Design(Lines(-before_points), problem.sequence)
    own = stacked([problem.design, other])
    both, rest = problem.split(own)
    moved_both, state = exchange_step(problem, KEY, own)(2, both, {"mu": both.trajectory.points * 10})
    np.testing.assert_array_equal(moved_both.trajectory.points[0], moved.trajectory.points)
    np.testing.assert_array_equal(state["mu"], moved_both.trajectory.points * 10)


def test_held_lines_stay_at_their_readout():
    base = joint()
    moves = jnp.arange(24) >= 8
    problem = Problem(base.scene, Lines(base.trajectory.points, moves), base.sequence, noise=0.05, order=None)
    exchange = exchange_step(problem, KEY, problem.design)
    moved = [exchange(step, problem.split()[0], {})[0].trajectory.points for step in range(3)]
    for found in moved:
        np.testing.assert_array_equal(found[:8], base.trajectory.points[:8])
    assert any(not np.array_equal(found, base.trajectory.points) for found in moved)


def test_an_exchange_moves_positions_to_their_echoes_and_no_others():
    """Whatever line of an echo the assignment names, the same one is taken."""
    rng = np.random.default_rng(0)
    echo = rng.permutation(np.arange(24) % 6)
    for _ in range(20):
        slot = rng.permutation(24)
        source = exchanged(slot, echo)
        np.testing.assert_array_equal(np.sort(source), np.arange(24))
        np.testing.assert_array_equal(echo[np.argsort(source)], echo[slot])
        stay = echo[slot] == echo
        np.testing.assert_array_equal(source[stay], np.arange(24)[stay])
        # Slots of one echo shuffled among themselves.
        other = np.arange(24)
        for e in range(6):
            other[np.flatnonzero(echo == e)] = rng.permutation(np.flatnonzero(echo == e))
        np.testing.assert_array_equal(exchanged(other[slot], echo), source)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True], ids=["lines of an echo", "mirrored lines too"])
def test_exchange_does_not_follow_rounding(tied):
    """Parameters changed by their last digits exchange alike; also where lines of an echo lie at k and -k."""
    problem = joint()
    if tied:
        pairs = jnp.asarray(np.random.default_rng(2).uniform(-0.4, 0.4, (4, 2)))
        own = jnp.array([[0.0, 0.0], [-0.5, 0.0], [0.0, -0.5], [-0.5, -0.5]])
        mirrored = jnp.concatenate([pairs, -pairs, own])
        problem = joint(lines=12, flips=jnp.linspace(0.5, 1.2, 4), noise=0.0, reconstruction=Prior(ridge=1e-2))
        problem = Problem(
            problem.scene, Lines(mirrored), problem.sequence, reconstruction=problem.reconstruction, order=None
        )
    learned, rng, moved = problem.split()[0], np.random.default_rng(0), 0
    exchange = exchange_step(problem, jax.random.key(7), problem.design)
    for step in range(1 if tied else 3):
        wanted = exchange(step, learned, {})[0].trajectory.points
        moved += not np.array_equal(wanted, learned.trajectory.points)
        for _ in range(10 if tied else 4):
            near = jax.tree.map(lambda v: v * (1 + 1e-14 * rng.normal(size=v.shape)), learned)
            np.testing.assert_allclose(exchange(step, near, {})[0].trajectory.points, wanted, rtol=1e-12)
        learned = eqx.tree_at(lambda d: d.trajectory.points, learned, wanted)
    assert moved


def test_any_trajectory_exchanges():
    """Spokes as well as lines: what moves is every array with an entry for each readout."""
    base = joint()
    spokes = Radial.start(base.scene, KEY, lines=24, samples=10)
    problem = Problem(base.scene, spokes.permuted(np.arange(24)), base.sequence, noise=0.05, order=None)
    exchange = exchange_step(problem, KEY, problem.design)
    learned, rest = problem.split()
    moved = exchange(0, learned, {})[0]
    before, after = (float(loss(problem, eqx.combine(d, rest), jax.random.fold_in(KEY, 0))) for d in (learned, moved))
    angles = [sorted(np.asarray(jax.tree.leaves(d.trajectory)[0]).tolist()) for d in (learned, moved)]
    assert angles[0] == angles[1]
    assert after <= before


def test_exchanges_happen_while_learning():
    """Two steps alone would move each position by a fiftieth of a cycle at most."""
    problem = joint()
    found = learn(problem, 2, key=KEY, exchange_every=1)[1]
    assert np.abs(found.trajectory.points - problem.trajectory.points).max() > 0.1


def test_one_half_has_nothing_to_exchange():
    with pytest.raises(UsageError, match="exchange: got a problem with one half"):
        exchange_step(of_lines(), KEY, of_lines().design)

"""Which readout is acquired at which echo, by linear assignment on the loss linearised in the exchange."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Integer

from acqdesign.base.checks import usage_error
from acqdesign.base.types import Array, PRNGKey, PyTree
from acqdesign.design.problem import Design, Problem

# Weights of the distance that readouts move in amplitude, in units of the mean first-order change per distance.
_STRIDES = (0.0, 2.0, 32.0)
# Smaller relative differences are rounding's: what they decide would differ from one set of devices to another.
_DIGITS = 6


def exchanged(
    slot: Integer[np.ndarray, " readouts"], echo: Integer[np.ndarray, " readouts"]
) -> Integer[np.ndarray, " readouts"]:
    """Whose position each readout takes over, so that each position moves to the echo of the readout in its `slot`.

    As many go to each echo, numbered from 0, as there are readouts; no other position moves.
    """
    to, source = echo[slot], np.arange(len(echo))
    movers = np.flatnonzero(to != echo)
    # As many leave an echo as come to it.
    left = movers[np.argsort(echo[movers], kind="stable")]
    source[left] = movers[np.argsort(to[movers], kind="stable")]
    return source


def _rounded(part: np.ndarray) -> np.ndarray:
    """In units of its largest entry, without the digits that depend on the order of sums."""
    return np.round(part / max(np.abs(part).max(), np.finfo(np.float64).tiny), _DIGITS)


def exchange_step(
    problem: Problem, key: PRNGKey, own: Design
) -> Callable[[int, PyTree, PyTree], tuple[PyTree, PyTree]]:
    """A change between gradient steps, for `optim.Between`, that lets readouts exchange their echoes.

    The loss depends on readout `s` through its amplitudes `w_cs = m_c[e(s)]`; to first order, moving it to
    echo `t` changes it by `Σ_c ∂L/∂w_cs (m_c[t] - w_cs)`. To this comes `μ Σ_c (m_c[t] - w_cs)²`, which keeps readouts
    near where the first order holds. The assignment of least total is found by
    `scipy.optimize.linear_sum_assignment` for a few `μ`, and that with the lowest loss itself, under the same noise,
    is kept if it is lower than before. Readouts keep their echoes and exchange positions, and the optimiser's moments
    move with the positions; held ones stay. Positions that stay at their echo stay at their readout too, and others
    fill the readouts of their new echo in their order: to first order readouts of one echo are alike, so nothing but
    rounding would choose.

    Args:
        problem: with both halves.
        key: for its noise.
        own: the design that held values are of; of several starts, which exchange each by itself, along the first axis.
    """
    if problem.trajectory is None or problem.sequence is None:
        raise usage_error("exchange", "a problem with one half", "one with a trajectory and a sequence")
    rest = problem.split(own)[1]
    readouts = problem.trajectory.readouts()
    echo = np.arange(readouts) % problem.sequence.readouts()

    @eqx.filter_jit
    def slope(problem: Problem, design: Design, change: Array, key: PRNGKey) -> tuple[Array, Array, Array]:
        held = problem.scan(design, key).amplitudes
        assert held is not None
        value, found = jax.value_and_grad(lambda c: problem.loss(design, key, change=c)[0])(change)
        return value, found, held

    @eqx.filter_jit
    def value(problem: Problem, design: Design, key: PRNGKey) -> Array:
        return problem.loss(design, key)[0]

    def movable(design: Design) -> np.ndarray:
        """Readouts none of whose entries is held."""
        free = np.ones(readouts, bool)
        for mask in jax.tree.leaves(design.trajectory.learned()):
            if not isinstance(mask, bool) and np.shape(mask)[:1] == (readouts,):
                free &= np.asarray(mask).reshape(readouts, -1).all(axis=1)
        return free

    def order(design: Design, key: PRNGKey) -> np.ndarray:
        """Whose position each readout takes over."""
        dtype = problem.noise.dtype
        assert problem.scene.maps is not None
        none = jnp.zeros((len(problem.scene.maps), readouts), dtype)
        before, change, held = slope(problem, design, none, key)
        free = np.flatnonzero(movable(design))
        change, held = (jnp.asarray(x)[:, free] for x in (change, held))
        # cost[s, t]: readout s moved to the slot, and so to the echo, of readout t.
        cost = np.array(jnp.einsum("cs,ct->st", change, held, precision="highest"), np.float64)
        away = np.asarray(jnp.sum((held[:, :, None] - held[:, None, :]) ** 2, axis=0), np.float64)
        cost, away = (_rounded(part) for part in (cost - np.diag(cost)[:, None], away))
        unit = np.abs(cost).sum() / max(away.sum(), np.finfo(np.float64).tiny)
        best, kept, tried = float(before), np.arange(readouts), {tuple(range(readouts))}
        for stride in _STRIDES:
            _, slot = scipy.optimize.linear_sum_assignment(cost + stride * unit * away)
            source = np.arange(readouts)
            source[free] = free[exchanged(slot, echo[free])]
            if tuple(source) in tried:
                continue
            tried.add(tuple(source))
            moved = eqx.tree_at(lambda d: d.trajectory, design, design.trajectory.permuted(source))
            after = float(value(problem, moved, key))
            if after < best * (1 - 10.0**-_DIGITS):
                best, kept = after, source
        return kept

    def change(step: int, learned: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        noise_key = jax.random.fold_in(key, step)
        leaves = jax.tree.leaves(learned.trajectory)
        axis = leaves[0].ndim - jax.tree.leaves(problem.split()[0].trajectory)[0].ndim
        designs = eqx.combine(learned, rest)
        if axis:
            one = lambda n: jax.tree.map(lambda x: x[n] if eqx.is_array(x) else x, designs)  # noqa: E731
            source = jnp.stack([order(one(n), noise_key) for n in range(len(leaves[0]))])
        else:
            source = jnp.asarray(order(designs, noise_key))
        moved = {leaf.shape for leaf in leaves if leaf.shape[axis : axis + 1] == (readouts,)}

        def follow(leaf: Array) -> Array:
            if getattr(leaf, "shape", None) not in moved:
                return leaf
            index = source.reshape(*source.shape, *[1] * (leaf.ndim - source.ndim))
            return jnp.take_along_axis(leaf, index, axis=axis)

        trajectory = jax.tree.map(follow, learned.trajectory)
        return eqx.tree_at(lambda d: d.trajectory, learned, trajectory), jax.tree.map(follow, state)

    return change

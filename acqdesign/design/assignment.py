"""Which line is acquired at which echo, by linear assignment on the loss linearised in the exchange."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
from jaxtyping import Integer

from acqdesign.base.types import Array, PRNGKey, PyTree
from acqdesign.design.joint_objective import JointObjective

# Weights of the distance that lines move in amplitude, in units of the mean first-order change per distance.
_STRIDES = (0.0, 2.0, 32.0)
# Smaller relative differences are rounding's: what they decide would differ from one set of devices to another.
_DIGITS = 6


def exchanged(
    slot: Integer[np.ndarray, " lines"], echo: Integer[np.ndarray, " lines"]
) -> Integer[np.ndarray, " lines"]:
    """Whose position each line takes over, where any line of an echo is as good as another.

    Args:
        slot: `(S,)` line whose echo each line's position is to move to.
        echo: `(S,)` of each line, from 0.

    Returns:
        `(S,)` a permutation that takes as many positions to each echo as there are lines, and moves no others.
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
    objective: JointObjective, key: PRNGKey
) -> Callable[[int, PyTree, PyTree], tuple[PyTree, PyTree]]:
    """A step between gradient steps, for `fit(between=…)`, that lets lines exchange their echoes.

    The loss depends on line `s` through its amplitudes `w_cs = m_c[e(s)]`; to first order, moving the line to
    echo `t` changes it by `Σ_c ∂L/∂w_cs (m_c[t] - w_cs)`. To this comes `μ Σ_c (m_c[t] - w_cs)²`, which keeps lines
    near where the first order holds. The assignment of least total is found by
    `scipy.optimize.linear_sum_assignment` for a few `μ`, and that with the lowest loss itself, under the same noise,
    is kept if it is lower than before. Lines keep their echoes and exchange positions, and the optimiser's moments
    move with the positions. Positions that stay at their echo stay at their line too, and others fill the lines of
    their new echo in their order: to first order lines of one echo are alike, so nothing but rounding would choose.

    Args:
        objective: the loss.
        key: for its noise.

    Returns:
        `(step, params, optimizer_state) -> (params, optimizer_state)`, run on the host; with points `(starts, S, 2)`
        every start exchanges by itself.
    """

    @jax.jit
    def slope(objective: JointObjective, params: PyTree, change: Array, key: PRNGKey) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda c: objective(params, key, c)[0])(change)

    @jax.jit
    def value(objective: JointObjective, params: PyTree, key: PRNGKey) -> Array:
        return objective(params, key)[0]

    def order(params: PyTree, key: PRNGKey) -> np.ndarray:
        """Whose position each line takes over."""
        by_echo = objective.amplitudes(params["flips"])
        lines = params["points"].shape[0]
        none = jnp.zeros((by_echo.shape[0], lines), by_echo.dtype)
        before, change = slope(objective, params, none, key)
        held = by_echo[:, objective.echo]
        # cost[s, t]: line s moved to the slot, and so to the echo, of line t.
        cost = np.array(jnp.einsum("cs,ct->st", change, held, precision="highest"), np.float64)
        away = np.asarray(jnp.sum((held[:, :, None] - held[:, None, :]) ** 2, axis=0), np.float64)
        cost, away = (_rounded(part) for part in (cost - np.diag(cost)[:, None], away))
        unit = np.abs(cost).sum() / max(away.sum(), np.finfo(np.float64).tiny)
        best, kept, tried = float(before), np.arange(lines), {tuple(range(lines))}
        for stride in _STRIDES:
            _, slot = scipy.optimize.linear_sum_assignment(cost + stride * unit * away)
            source = exchanged(slot, np.asarray(objective.echo))
            if tuple(source) in tried:
                continue
            tried.add(tuple(source))
            after = float(value(objective, {**params, "points": params["points"][source]}, key))
            if after < best * (1 - 10.0**-_DIGITS):
                best, kept = after, source
        return kept

    def between(step: int, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        noise_key, points = jax.random.fold_in(key, step), params["points"]
        if points.ndim == 2:
            source = order(params, noise_key)
            if np.array_equal(source, np.arange(len(source))):
                return params, state
        else:
            starts = [jax.tree.map(lambda leaf, n=n: leaf[n], params) for n in range(len(points))]
            source = np.stack([order(start, noise_key) for start in starts])

        def follow(leaf: Array) -> Array:
            if getattr(leaf, "shape", None) != points.shape:
                return leaf
            return jnp.take_along_axis(leaf, jnp.asarray(source)[..., None], axis=-2)

        return {**params, "points": follow(points)}, jax.tree.map(follow, state)

    return between

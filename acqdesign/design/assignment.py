"""Which line is acquired at which echo, by linear assignment on the loss linearised in the exchange."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize

from acqdesign._types import Array, PRNGKey, PyTree
from acqdesign.design.joint_objective import JointObjective


def exchange_step(
    objective: JointObjective, key: PRNGKey
) -> Callable[[int, PyTree, PyTree], tuple[PyTree, PyTree]]:
    """A step between gradient steps, for `fit(between=…)`, that lets lines exchange their echoes.

    The loss depends on line `s` through its amplitudes `w_cs = m_c[e(s)]`; to first order, moving the line to
    echo `t` changes it by `Σ_c ∂L/∂w_cs (m_c[t] - w_cs)`. The assignment of least total change is found by
    `scipy.optimize.linear_sum_assignment` and kept where it lowers the loss itself, under the same noise. Lines
    keep their echoes and exchange positions, and the optimiser's moments move with the positions.

    Args:
        objective: the loss.
        key: for its noise.

    Returns:
        `(step, params, optimizer_state) -> (params, optimizer_state)`, run on the host.
    """

    @jax.jit
    def slope(objective: JointObjective, params: PyTree, change: Array, key: PRNGKey) -> tuple[Array, Array]:
        return jax.value_and_grad(lambda c: objective(params, key, c)[0])(change)

    @jax.jit
    def value(objective: JointObjective, params: PyTree, key: PRNGKey) -> Array:
        return objective(params, key)[0]

    def between(step: int, params: PyTree, state: PyTree) -> tuple[PyTree, PyTree]:
        noise_key = jax.random.fold_in(key, step)
        by_echo = objective.amplitudes(params["flips"])
        lines = params["points"].shape[0]
        none = jnp.zeros((by_echo.shape[0], lines), by_echo.dtype)
        before, change = slope(objective, params, none, noise_key)
        # cost[s, t]: line s moved to the slot, and so to the echo, of line t.
        cost = np.asarray(jnp.einsum("cs,ct->st", change, by_echo[:, objective.echo]), np.float64)
        _, slot = scipy.optimize.linear_sum_assignment(cost)
        source = np.argsort(slot)
        moved = {**params, "points": params["points"][source]}
        if not float(value(objective, moved, noise_key)) < float(before):
            return params, state
        shape = params["points"].shape
        follow = lambda leaf: leaf[source] if getattr(leaf, "shape", None) == shape else leaf  # noqa: E731
        return moved, jax.tree.map(follow, state)

    return between

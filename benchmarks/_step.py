"""The value and gradient of a problem's loss as a function of arrays: to compile, count and time."""

from typing import Any

import equinox as eqx
import jax

from acqdesign.design import Problem


def value_and_gradient(problem: Problem) -> tuple[Any, tuple[Any, ...]]:
    """A function of what is learned, all other arrays and a key, with these arguments."""
    learned, rest = problem.split()
    arrays, static = eqx.partition((problem.prepared(), rest), eqx.is_array)

    def step(learned: Any, arrays: Any, key: Any) -> tuple[Any, Any]:
        problem, rest = eqx.combine(arrays, static)
        return jax.value_and_grad(lambda moved: problem.loss(eqx.combine(moved, rest), key)[0])(learned)

    return step, (learned, arrays, jax.random.key(0))

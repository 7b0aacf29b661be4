"""Optimisers and schedules by name, from optax; and L-BFGS that keeps to a constraint set."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from acqdesign.base.checks import check_choice, check_count, check_positive, usage_error
from acqdesign.base.types import PyTree

_OPTIMIZERS: dict[str, Callable[[Any], optax.GradientTransformation]] = {
    "adam": optax.adam,
    "adamw": optax.adamw,
    "nadam": optax.nadam,
    "amsgrad": optax.amsgrad,
    "radam": optax.radam,
    "adabelief": optax.adabelief,
    "lion": optax.lion,
    "rmsprop": optax.rmsprop,
    "sgd": optax.sgd,
    "momentum": lambda rate: optax.sgd(rate, momentum=0.9, nesterov=True),
}

OPTIMIZERS = (*_OPTIMIZERS, "lbfgs")
"""Names that `make_optimizer` knows."""

_SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {
    "constant": lambda lr, steps: optax.constant_schedule(lr),
    "cosine": optax.cosine_decay_schedule,
    "exponential": lambda lr, steps: optax.exponential_decay(lr, steps, decay_rate=0.01),
    "linear": lambda lr, steps: optax.linear_schedule(lr, 0.0, steps),
    # The cosine part may not be empty: over two steps at least.
    "warmup-cosine": lambda lr, steps: optax.warmup_cosine_decay_schedule(0, lr, max(1, steps // 10), max(2, steps)),
}

SCHEDULES = tuple(_SCHEDULES)
"""Names of learning-rate schedules that `make_schedule` knows."""


def make_schedule(name: str, lr: float, steps: int) -> optax.Schedule:
    """A learning rate by step number.

    Args:
        name: `constant`; `cosine`, to zero over the run; `exponential`, to 1 % of `lr` over the run;
            `linear`, to zero over the run; `warmup-cosine`, up from zero over a tenth, then as `cosine`.
        lr: the largest learning rate, in units of the parameters.
        steps: length of the run.
    """
    check_choice("schedule", name, SCHEDULES)
    check_positive("lr", lr)
    check_count("steps", steps)
    return _SCHEDULES[name](lr, steps)


def make_optimizer(
    name: str,
    lr: float | None = None,
    *,
    steps: int,
    schedule: str = "constant",
    clip: float | None = None,
    gentle: bool = False,
) -> optax.GradientTransformation:
    """An optax optimiser by name, with its learning-rate schedule and optional gradient clipping.

    Args:
        name: one of `OPTIMIZERS`.
        lr: learning rate in units of the parameters, 1e-2 unless given. For `lbfgs` the largest multiple of
            the quasi-Newton step that its line search may take, 1 unless given.
        steps: length of the run, which the schedules span.
        schedule: one of `SCHEDULES`; `lbfgs` has a line search in its place.
        clip: largest global norm of the gradient; longer ones are scaled down to it.
        gentle: over the first quarter of the steps the rate grows from nothing, for a start that has been learned:
            optimisers that divide by the gradient's size take it away from there at full rate. Nothing to `lbfgs`.
    """
    check_choice("optimizer", name, OPTIMIZERS)
    check_count("steps", steps)
    if clip is not None:
        check_positive("clip", clip)
    if name == "lbfgs":
        if schedule != "constant" or clip is not None:
            what = f"schedule {schedule!r}" if schedule != "constant" else f"clip {clip}"
            raise usage_error("optimizer", f"'lbfgs' with {what}", "neither", "Its line search sets the step.")
        return lbfgs(max_step=1.0 if lr is None else lr)
    rate = make_schedule(schedule, 1e-2 if lr is None else lr, steps)
    grown = lambda step: rate(step) * jnp.minimum(1, (step + 1) / (steps / 4))  # noqa: E731
    optimizer = _OPTIMIZERS[name](grown if gentle else rate)
    return optimizer if clip is None else optax.chain(optax.clip_by_global_norm(clip), optimizer)


_MEMORY, _SEARCH = 10, 20  # pairs of steps and gradient differences that are kept, and evaluations of a line search


def lbfgs(*, max_step: float = 1.0) -> optax.GradientTransformationExtraArgs:
    """L-BFGS whose every trial point lies in a convex set.

    With `x` in the set, gradient `g`, and `H` the L-BFGS inverse Hessian, the direction is the feasible one
    `d = P(x - H g) - x`; where that does not descend, the memory is forgotten and the direction is
    `d = P(x - g / max(1, |g|)) - x`, which does. A line search by strong Wolfe conditions then moves along `x + t d`,
    `0 < t <= max_step <= 1`, which stays in the set by convexity, so neither the objective nor its gradient is
    ever asked for outside it.

    The loss must be a fixed function of the parameters: curvature is read from differences of gradients.

    Args:
        max_step: largest `t`, which is tried first; above 1 only for unconstrained problems.

    Its `update` also takes `value`, `grad`, `value_fn` and `project`.

    Reference:
        J. Nocedal, S. Wright, Numerical Optimization, 2nd ed., algorithms 7.4 and 3.6; M. Schmidt et al.,
        Projected Newton-type methods in machine learning, 2011.
    """
    check_positive("max_step", max_step)
    quasi_newton = optax.scale_by_lbfgs(_MEMORY)

    def update(
        updates: PyTree,
        state: PyTree,
        params: PyTree = None,
        *,
        value: Any,
        grad: PyTree,
        value_fn: Callable[[PyTree], Any],
        project: Callable[[PyTree], PyTree],
        **_: Any,
    ) -> tuple[PyTree, PyTree]:
        newton, memory = quasi_newton.update(updates, state, params)
        length = jnp.maximum(1, optax.tree.norm(updates))
        plain = jax.tree.map(lambda g: (g / length).astype(g.dtype), updates)

        def unfinished(carry: Any) -> Any:
            tries, _, slope = carry
            return (tries == 0) | ((tries == 1) & ~(slope < 0))

        def attempt(carry: Any) -> Any:
            tries, _, _ = carry
            step = jax.tree.map(lambda a, b: jnp.where(tries == 0, a, b), newton, plain)
            direction = optax.tree.sub(project(optax.tree.sub(params, step)), params)
            return tries + 1, direction, optax.tree.vdot(direction, updates)

        begin = (jnp.int32(0), optax.tree.zeros_like(params), optax.tree.vdot(updates, updates))
        tries, direction, slope = jax.lax.while_loop(unfinished, attempt, begin)
        forgotten = quasi_newton.init(params)._replace(count=jnp.ones((), jnp.int32), params=params, updates=updates)
        memory = jax.tree.map(lambda a, b: jnp.where(tries == 1, a, b), memory, forgotten)

        def along(t: Any) -> tuple[Any, Any]:
            point = jax.tree.map(lambda x, d: x + (t * d).astype(x.dtype), params, direction)
            found, there = jax.value_and_grad(value_fn)(point)
            return found, optax.tree.vdot(direction, there)

        t = _wolfe(along, value, slope, max_step, _SEARCH)
        return jax.tree.map(lambda d: (t * d).astype(d.dtype), direction), memory

    return optax.GradientTransformationExtraArgs(quasi_newton.init, update)


def _wolfe(along: Callable[[Any], tuple[Any, Any]], value: Any, slope: Any, most: float, evaluations: int) -> Any:
    """A step `t` in `(0, most]` of strong Wolfe conditions for `along(t) -> (value, slope)`, by zooming in from `most`.

    That lowers the value where none is found after so many evaluations; zero where nothing does. One evaluation in the
    program: compiling the loss is most of what there is to compile.
    """

    class Search(NamedTuple):
        low: Any  # the best so far: t, value, slope
        high: Any  # the other end of the bracket
        t: Any  # to be tried
        done: Any
        count: Any

    def better(search: Search) -> Search:
        (a, va, sa), t = search.low, search.t
        v, s = along(t)
        worse = ~((v <= value + 1e-4 * t * slope) & (v < va))
        enough = ~worse & ((jnp.abs(s) <= -0.9 * slope) | ((search.count == 0) & (s < 0)))
        back = s * (search.high[0] - a) >= 0
        low = pick(worse, search.low, (t, v, s))
        high = pick(worse, (t, v, s), pick(back, search.low, search.high))
        # The least of the cubic through both ends, well inside.
        (a, va, sa), (b, vb, sb) = low, high
        first = sa + sb - 3 * (va - vb) / (a - b)
        root = jnp.sqrt(jnp.maximum(first**2 - sa * sb, 0)) * jnp.sign(b - a)
        share = 1 - (sb + root - first) / (sb - sa + 2 * root)
        share = jnp.clip(jnp.where(jnp.isfinite(share), share, 0.5), 0.1, 0.9)
        return Search(low, high, a + share * (b - a), enough | (-slope * jnp.abs(b - a) <= least), search.count + 1)

    def pick(first: Any, a: Any, b: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(first, x, y), a, b)

    zero, full = jnp.zeros_like(value), jnp.full_like(value, most)
    least = jnp.finfo(value.dtype).eps * jnp.abs(value)  # what rounding leaves of a gain
    begin = Search((zero, value, slope), (full, value, slope), full, slope >= 0, jnp.int32(0))
    found = jax.lax.while_loop(lambda search: ~search.done & (search.count < evaluations), better, begin)
    return found.low[0]

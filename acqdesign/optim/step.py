"""The one compiled step that every fit is made of."""

import contextlib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from acqdesign.base.checks import usage_error
from acqdesign.base.types import PRNGKey, PyTree, Scalar

# How far, of the parameters' size, is looked along a gradient for what constraints make of it.
_NUDGE = 1e-2

Loss = Callable[[PyTree, PRNGKey], tuple[Scalar, dict[str, Scalar]]]


class State(NamedTuple):
    """What a step takes and gives; with several starts, each leaf has a leading axis."""

    params: PyTree
    optimizer: PyTree
    step: Any


class Record(NamedTuple):
    """What a step says of itself: loss and terms before its update, and what of it was finite."""

    loss: Any
    terms: dict[str, Any]
    finite: dict[str, Any]


def compile_step(
    loss: Loss,
    optimizer: optax.GradientTransformation,
    constrain: Callable[[PyTree, PyTree], PyTree],
    masks: PyTree | None,
    state: State,
    key: PRNGKey,
    steps_per_call: int,
    batched: Callable[..., Any],
    mesh: Mesh | None,
) -> Callable[..., tuple[State, Record]]:
    """The compiled `program(key, state, count)`: `count` steps, or for zero a look without a step.

    Returns the new state and the record of the last step; the state that goes in is donated.
    """
    arrays, static = eqx.partition(loss, eqx.is_array)
    wants_project = "project" in inspect.signature(optimizer.update).parameters

    def one_step(arrays: PyTree, key: PRNGKey, state: State, moves: Any) -> tuple[State, Record]:
        params = state.params
        step_key = jax.random.fold_in(key, state.step)

        def value(trial: PyTree) -> tuple[Any, dict[str, Any]]:
            return _evaluate(eqx.combine(arrays, static), _keep(masks, trial, params), step_key)

        (scalar, terms), grads = jax.value_and_grad(value, has_aux=True)(params)
        extra: dict[str, Any] = {"value": scalar, "grad": grads, "value_fn": lambda trial: value(trial)[0]}
        if wants_project:
            extra["project"] = lambda trial: constrain(trial, params)
        tool = optax.with_extra_args_support(optimizer)
        # Those that know of the constraints take the gradient as it is.
        steer = grads if wants_project else within(constrain, params, grads)
        updates, memory = tool.update(steer, state.optimizer, params, **extra)
        moved = constrain(optax.apply_updates(params, updates), params)
        finite = {"loss": jnp.isfinite(scalar)} | _finite("gradient", grads) | _finite("update", moved)
        sound = moves & jnp.all(jnp.stack(list(finite.values())))
        new = State(moved, memory, state.step + 1)
        kept = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, state)
        return kept, Record(scalar, terms, finite)

    # A jitted step is traced once however often the loop below asks for it.
    step = jax.jit(batched(one_step, in_axes=(None, None, 0, None)))

    def program(arrays: PyTree, key: PRNGKey, state: State, count: Any) -> tuple[State, Record]:
        if steps_per_call == 1:
            return step(arrays, key, state, count > 0)
        record = jax.tree.map(
            lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(step, arrays, key, state, count > 0)[1]
        )
        return jax.lax.fori_loop(
            0, jnp.maximum(count, 1), lambda _, carry: step(arrays, key, carry[0], count > 0), (state, record)
        )

    # On a mesh what goes in again has to come out as it went in: whole on every device.
    where: dict[str, Any] = {} if mesh is None else {"out_shardings": NamedSharding(mesh, PartitionSpec())}

    @functools.cache
    def number(count: int) -> Any:
        # Kept on the device: nothing is sent there from one step to the next.
        return jax.device_put(np.int32(count), where.get("out_shardings"))

    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        jitted = jax.jit(program, donate_argnums=2, **where)
        compiled = jitted.lower(arrays, key, state, number(0)).compile()
    return lambda key, state, count: compiled(arrays, key, state, number(count))


def _evaluate(loss: Loss, params: PyTree, key: PRNGKey) -> tuple[Any, dict[str, Any]]:
    """The loss and its terms, once they have the form that `fit` asks for."""
    out = loss(params, key)
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], Mapping)):
        raise usage_error("loss", f"a return value of type {type(out).__name__}", "(scalar, dict of scalars)")
    scalar, terms = jnp.asarray(out[0]), {name: jnp.asarray(term) for name, term in out[1].items()}
    for name, term in {"loss": scalar, **terms}.items():
        if term.shape != () or jnp.iscomplexobj(term):
            raise usage_error(f"loss: {name}", term, "a real scalar")
    for name in ("step", "loss"):
        if name in terms:
            raise usage_error(
                "loss", f"a term named {name!r}", "any other name", "That one is a column of the log."
            )
    return scalar, terms


def _keep(masks: PyTree | None, new: PyTree, old: PyTree) -> PyTree:
    """`new` where learned, `old` (as a constant) where frozen."""
    if masks is None:
        return new
    return jax.tree.map(lambda m, a, b: jnp.where(m, a, jax.lax.stop_gradient(b)), masks, new, old)


def constrainer(
    project: Callable[[PyTree], PyTree] | None, masks: PyTree | None
) -> Callable[[PyTree, PyTree], PyTree]:
    """`constrain(new, old)`: `new` projected, with frozen entries from `old`."""

    def constrain(new: PyTree, old: PyTree) -> PyTree:
        if project is None:
            return _keep(masks, new, old)
        moved = project(new)
        before, after = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), t) for t in (new, moved))
        if before != after:
            raise usage_error(
                "project", f"a map from {before} to {after}", "one that keeps structure, shape and dtype"
            )
        return _keep(masks, moved, old)

    return constrain


def _finite(what: str, tree: PyTree) -> dict[str, Any]:
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    paths = [jax.tree_util.keystr(path, simple=True, separator=".") for path, _ in named]
    return {
        f"{what} of {path}" if path else what: jnp.all(jnp.isfinite(leaf))
        for path, (_, leaf) in zip(paths, named, strict=True)
    }


def within(constrain: Callable[[PyTree, PyTree], PyTree], params: PyTree, grads: PyTree) -> PyTree:
    """The part of a gradient that constraints let the parameters follow: `g - (P(x - h g) - (x - h g)) / h`, h small.

    On a limit of power nearly all of a gradient points outwards; scaled entry by entry, as Adam does, that part would
    move the design although no step along it is allowed. The gradient mapping of projected-gradient methods: Beck,
    "First-Order Methods in Optimization" (2017), section 10.3. Where nothing is projected it is the gradient itself.
    """

    def length(x: Any, g: Any) -> Any:
        size, slope = (jnp.sqrt(jnp.mean(leaf**2)) for leaf in (x, g))
        return _NUDGE * jnp.where(size > 0, size, 1) / jnp.where(slope > 0, slope, 1)

    h = jax.tree.map(length, params, grads)
    moved = jax.tree.map(lambda x, g, h: x - h * g, params, grads, h)
    return jax.tree.map(lambda g, to, at, h: g - (to - at) / h, grads, constrain(moved, params), moved, h)


def check_masks(learned: PyTree | None, params: PyTree) -> PyTree | None:
    """`learned` as arrays, once its structure, dtypes and shapes go with those of `params`."""
    if learned is None:
        return None
    masks = jax.tree.map(jnp.asarray, learned)
    got, expected = str(jax.tree.structure(masks)), str(jax.tree.structure(params))
    if got != expected:
        raise usage_error("learned", f"the structure {got}", f"that of the parameters, {expected}")

    def check(mask: Any, leaf: Any) -> Any:
        try:
            fits = np.broadcast_shapes(mask.shape, leaf.shape) == tuple(leaf.shape)
        except ValueError:
            fits = False
        if mask.dtype != bool or not fits:
            raise usage_error("learned", mask, f"bool, of a shape that broadcasts to {tuple(leaf.shape)}")
        return mask

    return jax.tree.map(check, masks, params)

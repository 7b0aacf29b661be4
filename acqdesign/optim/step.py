"""The one compiled step that every fit is made of."""

import contextlib
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
from acqdesign.base.trees import leaf_names
from acqdesign.base.types import PRNGKey, PyTree, Scalar

# How far, of the parameters' size, is looked along a gradient for what constraints make of it.
_NUDGE = 1e-2

Loss = Callable[..., tuple[Scalar, dict[str, Scalar]]]
"""`loss(params, key) -> (scalar, named scalars)`; with `given` of `fit`, `loss(params, key, given)`."""


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
    constrain: Callable[..., PyTree],
    state: State,
    key: PRNGKey,
    extra: tuple[PyTree, ...],
    batched: Callable[..., Any],
    mesh: Mesh | None,
) -> Callable[..., tuple[State, Record]]:
    """The compiled `program(key, state, extra, moves)`: a step or, without `moves`, a look at the state.

    The state that goes in is donated.
    """
    arrays, static = eqx.partition(loss, eqx.is_array)
    wants_project = "project" in inspect.signature(optimizer.update).parameters

    def one_step(arrays: PyTree, key: PRNGKey, state: State, extra: Any, moves: Any) -> tuple[State, Record]:
        params = state.params
        step_key = jax.random.fold_in(key, state.step)

        value = lambda trial: _evaluate(eqx.combine(arrays, static), trial, step_key, extra)  # noqa: E731
        allowed = lambda trial: constrain(trial, *extra)  # noqa: E731
        (scalar, terms), grads = jax.value_and_grad(value, has_aux=True)(params)
        more: dict[str, Any] = {"value": scalar, "grad": grads, "value_fn": lambda trial: value(trial)[0]}
        if wants_project:
            more["project"] = allowed
        tool = optax.with_extra_args_support(optimizer)
        # Those that know of the constraints take the gradient as it is.
        steer = grads if wants_project else within(allowed, params, grads)
        updates, memory = tool.update(steer, state.optimizer, params, **more)
        moved = allowed(optax.apply_updates(params, updates))
        finite = {"loss": jnp.isfinite(scalar)} | _finite("gradient", grads) | _finite("update", moved)
        sound = moves & jnp.all(jnp.stack(list(finite.values())))
        new = State(moved, memory, state.step + 1)
        kept = jax.tree.map(lambda a, b: jnp.where(sound, a, b), new, state)
        return kept, Record(scalar, terms, finite)

    # On a mesh what goes in again has to come out as it went in: whole on every device.
    where: dict[str, Any] = {} if mesh is None else {"out_shardings": NamedSharding(mesh, PartitionSpec())}
    # Kept on the device: nothing is sent there from one step to the next.
    moves = {flag: jax.device_put(np.bool_(flag), where.get("out_shardings")) for flag in (False, True)}
    with contextlib.nullcontext() if mesh is None else jax.set_mesh(mesh):
        step = jax.jit(batched(one_step, in_axes=(None, None, 0, 0, None)), donate_argnums=2, **where)
        ahead = not jax.config.jax_disable_jit  # type: ignore[attr-defined]
        compiled = step.lower(arrays, key, state, extra, moves[True]).compile() if ahead else step
    return lambda key, state, extra, flag: compiled(arrays, key, state, extra, moves[flag])


def _evaluate(loss: Loss, params: PyTree, key: PRNGKey, extra: tuple[PyTree, ...]) -> tuple[Any, dict[str, Any]]:
    """The loss and its terms, once they have the form that `fit` asks for."""
    out = loss(params, key, *extra)
    if not (isinstance(out, tuple) and len(out) == 2 and isinstance(out[1], Mapping)):
        raise usage_error("loss", f"a return value of type {type(out).__name__}", "(scalar, dict of scalars)")
    scalar, terms = jnp.asarray(out[0]), {name: jnp.asarray(term) for name, term in out[1].items()}
    for name, term in {"loss": scalar, **terms}.items():
        if term.shape != () or jnp.iscomplexobj(term):
            raise usage_error(f"loss: {name}", term, "a real scalar")
    for name in ("step", "loss"):
        if name in terms:
            raise usage_error("loss", f"a term named {name!r}", "any other name", "That one is a column of the log.")
    return scalar, terms


def constrainer(project: Callable[..., PyTree] | None) -> Callable[..., PyTree]:
    """`project`, once it keeps structure, shapes and dtypes; the identity where there is none."""

    def constrain(params: PyTree, *extra: PyTree) -> PyTree:
        if project is None:
            return params
        moved = project(params, *extra)
        before, after = (jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype.name), t) for t in (params, moved))
        if before != after:
            raise usage_error("project", f"a map from {before} to {after}", "one that keeps structure, shape and dtype")
        return moved

    return constrain


def _finite(what: str, tree: PyTree) -> dict[str, Any]:
    named = leaf_names(tree).items()
    return {f"{what} of {path}" if path else what: jnp.all(jnp.isfinite(leaf)) for path, leaf in named}


def within(constrain: Callable[[PyTree], PyTree], params: PyTree, grads: PyTree) -> PyTree:
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
    return jax.tree.map(lambda g, to, at, h: g - (to - at) / h, grads, constrain(moved), moved, h)

"""Convex limits on what is learned, and the nearest point that meets all of them."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from acqdesign.base.checks import usage_error
from acqdesign.base.trees import node, with_node
from acqdesign.base.types import Array, PyTree
from acqdesign.optim.parts import is_parametrised
from acqdesign.optim.projections import dykstra


class Constraint:
    """A convex set that an array of the design must lie in; subclass it for your own.

    Attributes:
        where: dotted name of the array, such as `sequence.flips`; or several names, for a limit on arrays together.
        separable: whether entries are limited one by one, so that holding some of them changes nothing for the others.
    """

    where: str | tuple[str, ...]
    separable = False

    def project(self, *values: Array) -> Any:
        """The nearest allowed value: an array for one name, a tuple of arrays for several."""
        raise NotImplementedError

    def check(self, *values: Array) -> None:
        """Raises `UsageError` where nothing is allowed; called with the start's arrays before learning."""

    @property
    def names(self) -> tuple[str, ...]:
        """The arrays' names."""
        return (self.where,) if isinstance(self.where, str) else tuple(self.where)


@dataclasses.dataclass(frozen=True)
class Box(Constraint):
    """Every entry within `[lower, upper]`, numbers in the array's units."""

    where: str
    lower: float
    upper: float
    separable = True

    def check(self, *values: Array) -> None:
        _check_range(self.lower, self.upper)

    def project(self, *values: Array) -> Array:
        return jnp.clip(values[0], self.lower, self.upper)


@dataclasses.dataclass(frozen=True)
class MeanAtMost(Constraint):
    """Entries within `[lower, upper]` whose mean is at most `mean`: repetition times within a scan time, say.

    The nearest is `clip(x - λ, lower, upper)` with the least `λ >= 0` that is enough, found by bisection. All numbers
    are in the array's units.
    """

    where: str
    mean: float
    lower: float
    upper: float

    def check(self, *values: Array) -> None:
        _check_range(self.lower, self.upper)
        if not self.lower <= self.mean:
            raise usage_error("mean", self.mean, f"at least lower, {self.lower:.6g}")

    def project(self, *values: Array) -> Array:
        self.check()
        (x,) = values

        def too_long(shift: Array) -> Array:
            return jnp.mean(jnp.clip(x - shift, self.lower, self.upper)) > self.mean

        def halve(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            low, high = carry
            middle = 0.5 * (low + high)
            long = too_long(middle)
            return (jnp.where(long, middle, low), jnp.where(long, high, middle)), None

        zero = jnp.zeros((), x.dtype)
        ends = (zero, jnp.maximum(jnp.max(x) - self.lower, 0.0))
        shift = jax.lax.scan(halve, ends, None, length=jnp.finfo(x.dtype).nmant + 10)[0][1]
        return jnp.clip(x - jnp.where(too_long(zero), shift, zero), self.lower, self.upper)


def _check_range(lower: float, upper: float) -> None:
    if not lower <= upper:
        raise usage_error("lower", lower, f"at most upper, {upper:.6g}")


def project_onto(tree: PyTree, constraints: Sequence[Constraint], kept: Mapping[str, tuple[Any, Array]]) -> PyTree:
    """The nearest tree that meets all constraints and keeps held entries.

    Arrays that constraints tie together are projected together, by Dykstra's algorithm where there are several sets.

    Args:
        tree: of modules.
        constraints: their names are of nodes of the tree.
        kept: by an array's name, or by that of an array within a `Parametrised`, a boolean mask of what is learned and
            the values of the rest.
    """
    groups: list[tuple[set[str], list[Constraint]]] = []
    for constraint in constraints:
        names, members = set(constraint.names), [constraint]
        for group in [g for g in groups if g[0] & names]:
            names, members = names | group[0], group[1] + members
            groups.remove(group)
        groups.append((names, members))
    for name in kept:
        if not any(_inside(name, names) for names, _ in groups):
            groups.append(({name}, []))
    for names, members in groups:
        values = {name: node(tree, name) for name in sorted(names)}
        for name, value in values.items():
            if value is None:
                raise usage_error("where", repr(name), "the name of an array of what is projected")
        mine = {name: kept[name] for name in kept if _inside(name, names)}
        for name, value in _nearest(values, members, mine).items():
            tree = with_node(tree, name, value)
    return tree


def _inside(name: str, names: Collection[str]) -> str:
    """Which of the names is that of a leaf's array: its own, or that of the `Parametrised` in its place; or none."""
    return next((n for n in names if name == n or name.startswith(n + ".")), "")


def _nearest(values: dict[str, Any], members: Sequence[Constraint], kept: Mapping[str, Any]) -> dict[str, Any]:
    def onto(constraint: Constraint, values: dict[str, Any]) -> dict[str, Any]:
        given = [values[name] for name in constraint.names]
        if any(map(is_parametrised, given)):
            if len(given) > 1:
                what = f"{type(constraint).__name__} on " + " and ".join(constraint.names)
                raise usage_error("limits", what, "arrays that are given by their own values")
            return values | {constraint.names[0]: given[0].projected(constraint)}
        moved = constraint.project(*given)
        moved = (moved,) if len(given) == 1 else moved
        if not isinstance(moved, tuple | list) or len(moved) != len(given):
            expected = f"{len(given)} arrays, like " + ", ".join(constraint.names)
            what = f"{len(moved)} values" if isinstance(moved, tuple | list) else f"a {type(moved).__name__}"
            raise usage_error(f"{type(constraint).__name__}.project", what, expected)
        for name, before, after in zip(constraint.names, given, moved, strict=True):
            if any(getattr(before, what, None) != getattr(after, what, None) for what in ("shape", "dtype")):
                expected = f"an array like {name}, of shape {tuple(before.shape)} and dtype {before.dtype}"
                got = after if hasattr(after, "shape") else repr(after)
                raise usage_error(f"{type(constraint).__name__}.project", got, expected)
        return values | dict(zip(constraint.names, moved, strict=True))

    def holding(values: dict[str, Any]) -> dict[str, Any]:
        for leaf, (mask, value) in kept.items():
            name = _inside(leaf, values)
            if leaf == name:
                fixed = jnp.where(mask, values[name], value)
            else:
                inner = leaf.removeprefix(name + ".")
                fixed = with_node(values[name], inner, jnp.where(mask, node(values[name], inner), value))
            values = values | {name: fixed}
        return values

    sets: list[Any] = [lambda v, c=constraint: onto(c, v) for constraint in members]
    if kept:
        sets.append(holding)
    if len(sets) <= 1 or all(constraint.separable for constraint in members):
        for project in sets:
            values = project(values)
        return values
    # Dykstra ends in the last set: held entries are exact, and the others' limits are met as far as it converges.
    arrays, form = eqx.partition(values, eqx.is_inexact_array)
    alone = [lambda a, p=p: eqx.filter(p(eqx.combine(a, form)), eqx.is_inexact_array) for p in sets]
    return eqx.combine(dykstra(arrays, alone, iterations=5000), form)

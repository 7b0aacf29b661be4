"""Work split over the devices of a mesh: which axis means what, and sums that know what was split.

The mesh in use is JAX's own (`jax.set_mesh`). Its axes have names with a meaning, `AXES`. Inside `shard_map` an array's
type says over which of them it varies, so a sum over local coils or lines knows by itself whether it is the whole sum.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from acqdesign._types import Array

AXES = ("anatomies", "tissues", "coils", "planes", "lines")
"""What may be split over the devices of a mesh."""


def varying(array: Array) -> frozenset[str]:
    """The mesh axes of an enclosing `shard_map` over which an array varies."""
    return _varying(jax.typeof(array))


def _varying(aval: Any) -> frozenset[str]:
    return aval.mat.varying if hasattr(aval, "mat") else aval.vma


def vary(array: Array, axes: frozenset[str]) -> Array:
    """An array marked as varying over these axes too: the sum over devices in its gradient happens here."""
    return jax.lax.pcast(array, tuple(sorted(axes - varying(array))), to="varying")


def alike(*arrays: Array) -> tuple[Array, ...]:
    """Arrays marked as varying over the same mesh axes, so that `shard_map` sums shared ones' gradients."""
    axes = frozenset.union(*map(varying, arrays))
    return tuple(vary(array, axes) for array in arrays)


def none_of(function: Callable[..., Array], *arguments: Any) -> Array:
    """Zeros like what `function` gives, varying over the same mesh axes."""
    (aval,) = jax.make_jaxpr(function)(*arguments).out_avals
    return vary(jnp.zeros(aval.shape, aval.dtype), _varying(aval))


def total(array: Array, *axes: str) -> Array:
    """The sum over devices of local sums along these axes, as far as the array varies over them."""
    split = tuple(axis for axis in axes if axis in varying(array))
    return jax.lax.psum(array, split) if split else array


def piece(length: int, axis: str, array: Array) -> tuple[int, Array | int]:
    """How many of `length` this device has along an axis, and from which on: all where the array does not vary so."""
    if axis not in varying(array):
        return length, 0
    mine = length // jax.lax.axis_size(axis)
    return mine, mine * jax.lax.axis_index(axis)


def across(function: Callable[..., Any], in_specs: Any, out_specs: Any) -> Callable[..., Any]:
    """`function` of local pieces, with its results as of whole arrays; itself where no mesh with `AXES` is in use.

    Args:
        function: takes and returns arrays; what it sums over a split axis goes through `total`.
        in_specs: a `PartitionSpec` for every argument's arrays, by `AXES`; those that the mesh lacks are not split.
        out_specs: likewise of the results.
    """
    mesh = jax.sharding.get_abstract_mesh()
    known = set(mesh.axis_names) & set(AXES) - set(mesh.manual_axes)
    if not known:
        return function

    def present(spec: PartitionSpec) -> PartitionSpec:
        return PartitionSpec(*(axis if axis in known else None for axis in spec))

    is_spec = lambda leaf: isinstance(leaf, PartitionSpec)  # noqa: E731
    ins, outs = (jax.tree.map(present, specs, is_leaf=is_spec) for specs in (in_specs, out_specs))
    return jax.shard_map(function, in_specs=ins, out_specs=outs)

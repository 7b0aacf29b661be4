"""Work split over the devices of a mesh: axes with a meaning, local pieces and sums, placement, processes that agree.

The mesh in use is JAX's own (`jax.set_mesh`). Its axes have names with a meaning, `AXES`. Inside `shard_map` an array's
type says over which of them it varies, so a sum over local coils knows by itself whether it is the whole sum.
"""

import functools
import math
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from acqdesign.base.checks import check_choice, usage_error
from acqdesign.base.trees import field_metadata
from acqdesign.base.types import Array, PyTree

AXES = ("anatomies", "tissues", "coils", "planes")
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


def local_part(length: int, axis: str, array: Array) -> tuple[int, Array | int]:
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
    is_spec = lambda leaf: isinstance(leaf, PartitionSpec)  # noqa: E731
    ins, outs = jax.tree.map(functools.partial(_among, known), (in_specs, out_specs), is_leaf=is_spec)
    return jax.shard_map(function, in_specs=ins, out_specs=outs)


def _among(axes: Collection[str], spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*(axis if axis in axes else None for axis in spec))


REASONS = ("", "settled", "time", "SIGINT", "SIGTERM")
"""Why a fit stops before its last step, in the order in which one process's reason wins over another's."""


def mesh_sizes(text: str) -> dict[str, int]:
    """Devices along each of `AXES` from `AXIS=N[,AXIS=N...]`, such as `anatomies=2,coils=4`."""
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, count = part.strip().partition("=")
        if not count.isdecimal() or int(count) < 1:
            raise usage_error("--mesh", text, "AXIS=N[,AXIS=N...], such as anatomies=2,coils=4")
        check_choice("--mesh", axis, AXES)
        if axis in sizes:
            raise usage_error("--mesh", f"{axis} twice in {text}", "each axis once")
        sizes[axis] = int(count)
    return sizes


def device_mesh(text: str, lengths: Mapping[str, int]) -> Mesh:
    """The mesh that a text stands for, of this process's devices or, with several, of all of theirs.

    Args:
        text: as in `mesh_sizes`.
        lengths: how many there are of what can be split, by axis; other axes make no sense here.
    """
    sizes = mesh_sizes(text)
    for axis, size in sizes.items():
        if axis not in lengths:
            raise usage_error("--mesh", text, "one or more of " + ", ".join(lengths), "Only these are split here.")
        length = lengths[axis]
        if length % size:
            fits = ", ".join(str(n) for n in range(1, length + 1) if length % n == 0)
            got = f"{axis}={size} for {length} {axis}"
            raise usage_error("--mesh", got, f"a divisor of {length}", f"Those are {fits}.")
    needed, there = math.prod(sizes.values()), jax.device_count()
    several = jax.process_count() > 1
    if needed > there or (several and needed != there):
        fitting = _fitting(sizes, lengths, there, exact=several)
        kind = jax.devices()[0].platform
        what = f"{'exactly' if several else 'at most'} the {there} {kind} device{'s' * (there > 1)} here"
        remedy = f"This would fit: {fitting}." if fitting else ""
        if kind == "cpu" and not several:
            remedy += f' jax.config.update("jax_num_cpu_devices", {needed}), before all else, makes that many.'
        raise usage_error("--mesh", f"{text}, which takes {needed} devices", what, remedy)
    kinds = (AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), axis_types=kinds, devices=jax.devices()[:needed])


def _fitting(sizes: Mapping[str, int], lengths: Mapping[str, int], devices: int, *, exact: bool) -> str:
    """The same axes for as many of the devices as they can use."""
    found, left = {}, devices
    for axis in sorted(sizes, key=sizes.__getitem__):
        most = left if axis == max(sizes, key=sizes.__getitem__) else min(left, sizes[axis])
        found[axis] = max(n for n in range(1, most + 1) if lengths[axis] % n == 0 and left % n == 0)
        left //= found[axis]
    if exact and left > 1:
        return ""
    return ",".join(f"{axis}={found[axis]}" for axis in sizes)


def split(*axes: str | None) -> dict[str, PartitionSpec]:
    """Metadata of a field whose array is split over these mesh axes, as a `PartitionSpec` says; see `place`."""
    return {"split": PartitionSpec(*axes)}


def specs(tree: PyTree) -> PyTree:
    """How the arrays of a tree are split: as their fields declare with `split`, others not at all."""

    def spec(path: Any, leaf: Any) -> PartitionSpec:
        found = field_metadata(tree, path).get("split", PartitionSpec())
        return found(leaf) if callable(found) else found

    return jax.tree_util.tree_map_with_path(spec, tree)


def place(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """The arrays of a tree on the devices of a mesh, split as their fields declare; as it is where there is none."""
    if mesh is None:
        return tree

    def put_one(leaf: Any, spec: PartitionSpec) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        return _put(leaf, NamedSharding(mesh, _among(mesh.axis_names, spec)))

    return jax.tree.map(put_one, tree, specs(tree))


def everywhere(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """A tree with all of it on every device of a mesh; as it is where there is none."""
    if mesh is None:
        return tree
    whole = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(lambda leaf: _put(leaf, whole), tree)


def _put(leaf: Any, sharding: NamedSharding) -> Any:
    """An array that every process holds whole, placed on devices of theirs."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(_put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf))
    if getattr(leaf, "sharding", None) == sharding:
        return leaf
    return jax.device_put(np.asarray(leaf), sharding)


def is_main_process() -> bool:
    """Whether this is the process that writes: the only one, or the first of several."""
    return jax.process_index() == 0


def agree_on_stop(reason: str) -> str:
    """One reason to stop for all processes; of several, that which comes last in `REASONS`."""
    if jax.process_count() == 1:
        return reason
    found = multihost_utils.process_allgather(np.array([REASONS.index(reason)], np.int32))
    return REASONS[int(found.max())]


def first_says(flag: bool) -> bool:
    """What the first process says, for all of them: clocks differ."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.broadcast_one_to_all(np.array(flag)))


def peak_memory_bytes() -> int:
    """Most memory in use so far: of the accelerator, or of this process where the CPU computes."""
    stats = jax.devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in stats:
        return int(stats["peak_bytes_in_use"])
    try:
        import resource
    except ImportError:  # not a POSIX system
        return 0
    # Linux counts in KiB, macOS in bytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

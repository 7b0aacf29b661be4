"""Devices for a fit: a mesh from words such as `anatomies=2,coils=4`, arrays placed on it, processes that agree."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from acqdesign._checks import bad, check_choice
from acqdesign._mesh import AXES
from acqdesign._types import PyTree

ENDS = ("finished", "time", "SIGINT", "SIGTERM")
"""Why a fit stops, in the order in which one process's reason wins over another's."""


def mesh_sizes(text: str) -> dict[str, int]:
    """Sizes by axis from `AXIS=N[,AXIS=N...]`.

    Args:
        text: as in `anatomies=2,coils=4`; axes are `AXES`.

    Returns:
        Devices along each axis.

    Raises:
        ValueError: it does not read so, or an axis is unknown or named twice.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, count = part.strip().partition("=")
        if not count.isdecimal() or int(count) < 1:
            raise bad("--mesh", text, "AXIS=N[,AXIS=N...], such as anatomies=2,coils=4")
        check_choice("--mesh", axis, AXES)
        if axis in sizes:
            raise bad("--mesh", f"{axis} twice in {text}", "each axis once")
        sizes[axis] = int(count)
    return sizes


def device_mesh(text: str, lengths: Mapping[str, int]) -> Mesh:
    """The mesh that a text stands for, of this process's devices or, with several, of all of theirs.

    Args:
        text: as in `mesh_sizes`.
        lengths: how many there are of what can be split, by axis; other axes make no sense here.

    Returns:
        A mesh with the text's axes.

    Raises:
        ValueError: a mesh that needs more devices than there are, leaves a process without work, or does not divide
            what it splits; with what would fit.
    """
    sizes = mesh_sizes(text)
    for axis, size in sizes.items():
        if axis not in lengths:
            raise bad("--mesh", text, "one or more of " + ", ".join(lengths), "Only these are split here.")
        length = lengths[axis]
        if length % size:
            fits = ", ".join(str(n) for n in range(1, length + 1) if length % n == 0)
            raise bad(
                "--mesh", f"{axis}={size} for {length} {axis}", f"a divisor of {length}", f"Those are {fits}."
            )
    needed, there = math.prod(sizes.values()), jax.device_count()
    several = jax.process_count() > 1
    if needed > there or (several and needed != there):
        fitting = _fitting(sizes, lengths, there, exact=several)
        kind = jax.devices()[0].platform
        what = f"{'exactly' if several else 'at most'} the {there} {kind} device{'s' * (there > 1)} here"
        remedy = f"This would fit: {fitting}." if fitting else ""
        if kind == "cpu" and not several:
            flag = f"XLA_FLAGS=--xla_force_host_platform_device_count={needed}"
            remedy += f" {flag} makes that many of one processor."
        raise bad("--mesh", f"{text}, which takes {needed} devices", what, remedy.strip())
    axes = tuple(sizes)
    return jax.make_mesh(
        tuple(sizes.values()), axes, axis_types=(AxisType.Auto,) * len(axes), devices=jax.devices()[:needed]
    )


def _fitting(sizes: Mapping[str, int], lengths: Mapping[str, int], devices: int, *, exact: bool) -> str:
    """The same axes for as many of the devices as they can use."""
    found, left = {}, devices
    for axis in sorted(sizes, key=lambda axis: sizes[axis]):
        most = left if axis == max(sizes, key=lambda axis: sizes[axis]) else min(left, sizes[axis])
        found[axis] = max(n for n in range(1, most + 1) if lengths[axis] % n == 0 and left % n == 0)
        left //= found[axis]
    if exact and left > 1:
        return ""
    return ",".join(f"{axis}={found[axis]}" for axis in sizes)


def split_over(mesh: Mesh, tree: PyTree, specs: Mapping[str, P]) -> PyTree:
    """The arrays of a tree on the devices of a mesh.

    Args:
        mesh: from `device_mesh`.
        tree: anything that JAX takes as a tree of arrays and other leaves.
        specs: how fields of these names are split; those of names with a dot go before, others are whole everywhere.

    Returns:
        The same tree on the mesh.
    """

    def place(path: Any, leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array | np.ndarray):
            return leaf
        names = [str(getattr(key, "name", getattr(key, "key", key))) for key in path]
        spec = specs.get(".".join(names[-2:]), specs.get(names[-1] if names else "", P()))
        present = P(*(axis if axis in mesh.axis_names else None for axis in spec))
        return put(leaf, NamedSharding(mesh, present))

    return jax.tree_util.tree_map_with_path(place, tree)


def put(leaf: Any, sharding: NamedSharding) -> Any:
    """An array that every process holds whole, placed on devices of theirs."""
    if jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.wrap_key_data(
            put(jax.random.key_data(leaf), sharding), impl=jax.random.key_impl(leaf)
        )
    if getattr(leaf, "sharding", None) == sharding:
        return leaf
    return jax.device_put(np.asarray(leaf), sharding)


def whole(mesh: Mesh | None, tree: PyTree) -> PyTree:
    """A tree with all of it on every device of a mesh; as it is where there is none."""
    return tree if mesh is None else split_over(mesh, tree, {})


def leads() -> bool:
    """Whether this is the process that writes: the only one, or the first of several."""
    return jax.process_index() == 0


def agreed(end: str, due: bool) -> tuple[str, bool]:
    """One of `ENDS` for all processes, the last of theirs, and whether a save is due, by the clock of the first."""
    if jax.process_count() == 1:
        return end, due
    found = multihost_utils.process_allgather(np.array([ENDS.index(end), due], np.int32))
    return ENDS[int(found[:, 0].max())], bool(found[0, 1])

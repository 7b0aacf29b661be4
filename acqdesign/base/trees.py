"""Trees of modules: what a field's metadata says of its arrays, and nodes by their dotted names."""

import dataclasses
import functools
from typing import Any

import equinox as eqx
import jax

from acqdesign.base.types import PyTree


def field_metadata(tree: PyTree, path: tuple[Any, ...]) -> dict[str, Any]:
    """Metadata of the dataclass fields that lead to a leaf of a tree by its key path, the innermost counting most."""
    found: dict[str, Any] = {}
    for key in path:
        if isinstance(key, jax.tree_util.GetAttrKey):
            if dataclasses.is_dataclass(tree):
                fields = {field.name: field.metadata for field in dataclasses.fields(tree)}
                found |= fields.get(key.name, {})
            tree = getattr(tree, key.name)
        elif isinstance(key, jax.tree_util.SequenceKey):
            tree = tree[key.idx]
        elif isinstance(key, jax.tree_util.DictKey):
            tree = tree[key.key]
        else:
            break
    return found


def node(tree: PyTree, name: str) -> Any:
    """The node with a dotted name, such as `sequence.flips`; None where there is none."""
    return functools.reduce(lambda inner, part: getattr(inner, part, None), name.split("."), tree)


def with_node(tree: PyTree, name: str, value: Any) -> PyTree:
    """The tree with another node under a dotted name."""
    return eqx.tree_at(lambda t: node(t, name), tree, value, is_leaf=lambda leaf: leaf is None)


def leaf_names(tree: PyTree) -> dict[str, Any]:
    """The leaves of a tree by their dotted names."""
    named = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="."): leaf for path, leaf in named}

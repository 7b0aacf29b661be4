"""Nodes of trees by their dotted names, and what the fields that lead to a leaf say of it."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.trees import field_metadata, leaf_names, node, with_node


class Inner(eqx.Module):
    x: jax.Array = eqx.field(metadata={"unit": "rad", "held": True})
    y: jax.Array | None = None


class Outer(eqx.Module):
    inner: Inner = eqx.field(metadata={"unit": "s", "split": "coils"})
    several: tuple = ()
    named: dict = eqx.field(default_factory=dict)


def tree():
    return Outer(Inner(jnp.ones(2)), (Inner(jnp.zeros(1)), jnp.arange(2)), {"a": Inner(jnp.zeros(3))})


def test_a_node_is_found_by_its_dotted_name_and_none_is_not_there():
    found = tree()
    assert node(found, "inner") is found.inner
    assert node(found, "inner.x") is found.inner.x
    assert node(found, "inner.z") is None
    assert node(found, "outer.inner.x") is None


def test_another_node_takes_its_place_and_the_rest_stays():
    found = tree()
    other = with_node(found, "inner.x", jnp.zeros(5))
    assert other.inner.x.shape == (5,)
    assert other.several is found.several or other.several[0].x is found.several[0].x
    np.testing.assert_array_equal(found.inner.x, np.ones(2))
    assert with_node(found, "inner.y", jnp.ones(1)).inner.y.shape == (1,)
    assert with_node(found, "inner", None).inner is None


def test_leaves_have_dotted_names():
    names = leaf_names(tree())
    assert {name: leaf.shape for name, leaf in names.items()} == {
        "inner.x": (2,), "several.0.x": (1,), "several.1": (2,), "named.a.x": (3,),
    }  # fmt: skip


def test_metadata_are_those_of_all_fields_on_the_way_the_innermost_first():
    found = tree()
    leaves = jax.tree_util.tree_flatten_with_path(found)[0]
    said = {jax.tree_util.keystr(path, simple=True, separator="."): field_metadata(found, path) for path, _ in leaves}
    assert said == {
        "inner.x": {"unit": "rad", "held": True, "split": "coils"},
        "several.0.x": {"unit": "rad", "held": True},
        "several.1": {},
        "named.a.x": {"unit": "rad", "held": True},
    }

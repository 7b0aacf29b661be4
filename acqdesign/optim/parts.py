"""What of a module learning may move: its float arrays, but for fields and entries that are held.

A number of Python's is never learned. A field declared with `held()` is not either. Single entries of an array are held
by a mask: override `Part.learned`. An array may be made of fewer or freer numbers, which are then what is learned: a
`Parametrised` takes its place in the module.
"""

from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.trees import field_metadata
from acqdesign.base.types import Array, PyTree

if TYPE_CHECKING:  # by this name type checkers know it for a field of a dataclass
    from equinox import field as held
else:

    def held(**more: Any) -> Any:
        """A field of a module whose arrays learning leaves as they are; arguments as of `equinox.field`."""
        return eqx.field(metadata={"held": True}, **more)


def learned_mask(tree: PyTree) -> PyTree:
    """A tree like the given one that is True at float arrays outside of `held` fields, and False elsewhere."""

    def mask(path: Any, leaf: Any) -> bool:
        is_real = eqx.is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.floating)
        return bool(is_real and not field_metadata(tree, path).get("held"))

    return jax.tree_util.tree_map_with_path(mask, tree)


class Part(eqx.Module):
    """One half of a design, a module of its design variables: the base of `Trajectory` and `Sequence`."""

    def learned(self) -> PyTree:
        """Which leaves may move: a tree like `self` of True, False, or boolean arrays that broadcast to the leaf."""
        return learned_mask(self)

    def limits(self) -> tuple[Any, ...]:
        """Constraints that hold for every such part, each `where` being a name within it."""
        return ()


class Parametrised(eqx.Module):
    """An array made of other numbers, in the place of a module's array."""

    def value(self) -> Array:
        """The array itself."""
        raise NotImplementedError

    def projected(self, constraint: Any) -> "Parametrised":
        """The nearest such object whose array a constraint allows."""
        raise NotImplementedError


def is_parametrised(node: Any) -> bool:
    """Whether a node of a tree is a `Parametrised`."""
    return isinstance(node, Parametrised)


def resolve(tree: PyTree) -> PyTree:
    """The tree with every `Parametrised` replaced by its array."""
    return jax.tree.map(lambda x: x.value() if is_parametrised(x) else x, tree, is_leaf=is_parametrised)


def as_arrays(tree: PyTree) -> PyTree:
    """The tree with NumPy's float arrays as JAX's, so that they count as learned."""
    return jax.tree.map(lambda x: jnp.asarray(x) if isinstance(x, np.ndarray) else x, tree)


class Scaled(Parametrised):
    """`unit * relative`: an array in units in which its entries are of order one, as L-BFGS likes them.

    Args:
        relative: the learned array [unit].
        unit: a number in the units of the array.
    """

    relative: Array
    unit: float

    def value(self) -> Array:
        return self.unit * self.relative

    def projected(self, constraint: Any) -> "Scaled":
        """Exact, as all entries have one unit."""
        return type(self)(constraint.project(self.value()) / self.unit, self.unit)

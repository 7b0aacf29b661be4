"""What a trajectory is: a module that is its parameters, and gives every sample of k-space."""

import copy
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_choice, check_finite, usage_error
from acqdesign.base.trees import leaf_names
from acqdesign.base.types import Array, Float, PRNGKey
from acqdesign.encoding.encoding import Coils, Encoding, NUFFTEncoding, Plane
from acqdesign.encoding.hardware import Hardware
from acqdesign.encoding.nufft import check_cycles
from acqdesign.encoding.ordering import ORDERINGS, order_readouts
from acqdesign.optim import Constraint, Part, held, resolve
from acqdesign.optim.parts import is_parametrised
from acqdesign.scene.scene import Scene


class Trajectory(Part):
    """Readouts through k-space, as a module of its parameters; subclass it for your own.

    Give `coordinates`. Where a trajectory has a faster operator than the general one, override `operator` too. Float
    arrays are learned unless declared with `acqdesign.optim.held()`; Python numbers are not.
    """

    def coordinates(self) -> Float[Array, "readouts samples dims"]:
        """Every sample, `(readouts, samples, D)` in cycles per voxel, within ±0.5.

        Two columns go with the scene's axes that are longer than one, three with all of them.
        """
        name = type(self).__name__
        raise usage_error("trajectory", f"{name} without coordinates()", "a method that gives (readouts, samples, D)")

    def operator(self, scene: Scene) -> Encoding:
        """The encoding of an image of the scene, without coils."""
        points, shape = checked_coordinates(self), scene.shape
        if points.shape[-1] == 3:
            return NUFFTEncoding(points, shape)
        plane = tuple(n for n in shape if n > 1)
        if points.shape[-1] != len(plane):
            expected = f"{len(plane)} or 3 columns for a scene of shape {shape}"
            raise usage_error(f"{type(self).__name__}.coordinates", points, expected)
        return NUFFTEncoding(points, plane) @ Plane(shape)

    def encoding(self, scene: Scene) -> Encoding:
        """The encoding with the scene's coils."""
        operator = self.operator(scene)
        return operator if scene.smaps is None else operator @ Coils(scene.smaps)

    def readouts(self) -> int:
        """How many readouts there are."""
        return eqx.filter_eval_shape(lambda t: checked_coordinates(resolve(t)), self).shape[0]

    def planes_apart(self, scene: Scene) -> bool:
        """Whether planes of the scene across the first axis are problems of their own."""
        return False

    def positions(self) -> Float[Array, "readouts 2"] | None:
        """Where each readout lies in a plane, for orders that go by it; None where no such place is."""
        return None

    def permuted(self, source: np.ndarray | Array) -> "Trajectory":
        """The readouts in another order, the n-th being the `source[n]`-th of now."""
        return Permuted(self, jnp.asarray(source))

    def ordered(self, name: str, echoes: int, *, te_echo: int, key: PRNGKey) -> "Trajectory":
        """The readouts so that the s-th is acquired at echo `s % echoes`; see `order_readouts` for the arguments."""
        check_choice("ordering", name, ORDERINGS)
        where = self.positions()
        if where is None and name != "random":
            what = f"{name} for {type(self).__name__}, which has no positions"
            raise usage_error("ordering", what, "random", "Or give it a method positions().")
        points = np.zeros((self.readouts(), 2)) if where is None else np.asarray(where)
        order = order_readouts(name, points, echoes, te_echo=te_echo, key=key)
        return self.permuted(np.lexsort((order.echo, order.train)))

    def within(self, hardware: Hardware) -> "Trajectory":
        """This trajectory as a scanner can play it."""
        hardware.check(checked_coordinates(resolve(self)))
        return Played(self, hardware)

    def played_by(self) -> Hardware | None:
        """The limits that it is played within, where there are any."""
        return None

    def finished(self) -> "Trajectory":
        """What is acquired once learning has ended: this itself, unless learning only comes near it."""
        return self

    def design(self) -> Mapping[str, Any]:
        """Entries of `design.npz`: the coordinates, and every array by its field's name after `trajectory.`."""
        this = resolve(self)
        own = {f"trajectory.{n}": np.asarray(x) for n, x in leaf_names(this).items() if hasattr(x, "dtype")}
        return {"coordinates": np.asarray(this.coordinates()), **own}

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey) -> "Trajectory":
        """A trajectory of a scene to start learning from: for the command line, and for several starts.

        Further arguments with defaults become settings of the command line, by their names there.
        """
        what = f"{cls.__name__} without a classmethod start(scene, key)"
        raise usage_error("trajectory", what, "one that makes a trajectory to start from")


class _Around(Trajectory):
    """Another trajectory, of which its own arrays are learned."""

    of: Trajectory

    def positions(self) -> Float[Array, "readouts 2"] | None:
        return self.of.positions()

    def learned(self) -> Any:
        return eqx.tree_at(lambda p: p.of, jax.tree.map(lambda _: False, self), self.of.learned())

    def limits(self) -> tuple[Any, ...]:
        return of_inner(self.of)

    def played_by(self) -> Hardware | None:
        return self.of.played_by()

    def design(self) -> Mapping[str, Any]:
        return {**self.of.design(), "coordinates": np.asarray(resolve(self).coordinates())}


class Permuted(_Around):
    """Another trajectory's readouts in another order."""

    source: Array = held()

    def coordinates(self) -> Float[Array, "readouts samples dims"]:
        return checked_coordinates(self.of)[self.source]

    def positions(self) -> Float[Array, "readouts 2"] | None:
        where = self.of.positions()
        return None if where is None else where[self.source]

    def permuted(self, source: np.ndarray | Array) -> "Permuted":
        return Permuted(self.of, self.source[jnp.asarray(source)])


class Played(_Around):
    """Another trajectory as a scanner plays it: the nearest waveforms within its limits; gradients run through.

    Args:
        of: the trajectory that is wished for.
        hardware: the limits.
    """

    hardware: Hardware = eqx.field(static=True)

    def coordinates(self) -> Float[Array, "readouts samples dims"]:
        return self.hardware.project(checked_coordinates(self.of))

    def played_by(self) -> Hardware:
        return self.hardware

    def permuted(self, source: np.ndarray | Array) -> "Played":
        return Played(self.of.permuted(source), self.hardware)


def of_inner(part: Trajectory) -> tuple[Constraint, ...]:
    """A trajectory's own constraints, by the names that its arrays have as `of` of another."""
    found = []
    for limit in part.limits():
        inner, names = copy.copy(limit), tuple(f"of.{name}" for name in limit.names)
        object.__setattr__(inner, "where", names[0] if isinstance(limit.where, str) else names)
        found.append(inner)
    return tuple(found)


def checked_coordinates(trajectory: Trajectory) -> Float[Array, "readouts samples dims"]:
    """The coordinates of a trajectory, once they have the right shape and dtype; errors are by its name."""
    points, name = trajectory.coordinates(), f"{type(trajectory).__name__}.coordinates"
    if not hasattr(points, "dtype") or not jnp.issubdtype(points.dtype, jnp.floating):
        raise usage_error(name, points, "a real floating-point array")
    if points.ndim != 3 or points.shape[-1] not in (1, 2, 3) or 0 in points.shape:
        raise usage_error(name, points, "shape (readouts, samples, D) with D = 1, 2 or 3")
    check_finite(name, points)
    check_cycles(name, points)
    return points


def real_of(scene: Scene) -> Any:
    """The real dtype that a scene is computed in."""
    return jnp.float32 if scene.support is None else scene.support.dtype


def plane_of(scene: Scene, kind: str) -> tuple[int, int]:
    """The voxels of a scene of one plane; others are refused by the trajectory's name."""
    plane = tuple(n for n in scene.shape if n > 1)
    if len(plane) != 2:
        raise usage_error(
            "trajectory", f"{kind} for a scene of shape {scene.shape}", "a scene of one plane, such as 1 64 64"
        )
    return plane


def check_solid(scene: Scene, kind: str) -> None:
    """Raises unless a scene has three axes; errors are by the trajectory's name."""
    if 1 in scene.shape:
        raise usage_error("trajectory", f"{kind} for a scene of shape {scene.shape}", "a scene of more than one plane")


def check_parameter(name: str, value: Any, shape: str) -> None:
    """Raises unless `value` is a real array with as many axes as `shape` names, or what stands for one."""
    if is_parametrised(value):
        return
    axes = shape.strip("()").rstrip(",").count(",") + 1
    if getattr(value, "ndim", None) != axes or not value.size or not jnp.issubdtype(value.dtype, jnp.floating):
        raise usage_error(name, value, f"real numbers of shape {shape}")
    check_finite(name, value)

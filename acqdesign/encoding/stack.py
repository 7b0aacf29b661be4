"""Any trajectory of a plane, in planes along the last axis."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import usage_error
from acqdesign.base.types import Array, Float, PRNGKey
from acqdesign.encoding.radial import GOLDEN, Radial
from acqdesign.encoding.spiral import Spiral
from acqdesign.encoding.trajectory import Trajectory, check_solid, checked_coordinates, of_inner, real_of
from acqdesign.optim import Box, Constraint
from acqdesign.scene.scene import Scene


class Stack(Trajectory):
    """The readouts of a plane in each of several planes, in each of them rotated.

    Args:
        of: a trajectory with two columns.
        kz: `(planes,)` where planes lie [cycles/voxel].
        angles: `(planes,)` by which each is rotated [rad].
    """

    of: Trajectory
    kz: Float[Array, " planes"]
    angles: Float[Array, " planes"]

    def coordinates(self) -> Float[Array, "readouts samples 3"]:
        """Those of the first plane, of the second, and so on."""
        flat = checked_coordinates(self.of)
        if flat.shape[-1] != 2:
            raise usage_error("of", flat, "coordinates with two columns")
        cos, sin = jnp.cos(self.angles), jnp.sin(self.angles)
        turned = jnp.einsum("rsi,ijp->prsj", flat, jnp.array([[cos, sin], [-sin, cos]]), precision="highest")
        height = jnp.broadcast_to(self.kz[:, None, None, None], (*turned.shape[:-1], 1))
        return jnp.concatenate([turned, height], axis=-1).reshape(-1, flat.shape[1], 3)

    def learned(self) -> "Stack":
        return eqx.tree_at(lambda s: s.of, super().learned(), self.of.learned())

    def limits(self) -> tuple[Constraint, ...]:
        return (Box("kz", -0.5, 0.5), *of_inner(self.of))

    @classmethod
    def start_of(cls, kind: Any, scene: Scene, key: PRNGKey, lines: int | None, samples: int) -> "Stack":
        """As many planes as the scene has voxels along z, each turned by a golden angle from the one before."""
        check_solid(scene, cls.__name__)
        planes, dtype = scene.shape[2], real_of(scene)
        lines = 16 * planes if lines is None else lines
        if lines % planes:
            near = max(1, round(lines / planes)) * planes
            raise usage_error("lines", lines, f"a multiple of the {planes} planes", f"The nearest: {near}.")
        flat = Scene(jnp.ones((1, 1, *scene.shape[:2], 1), dtype))
        of = kind.start(flat, key, lines=lines // planes, samples=samples)
        kz = (np.arange(planes) - planes // 2) / planes
        return cls(of, jnp.asarray(kz, dtype), jnp.asarray(GOLDEN * np.arange(planes), dtype))


class StackOfStars(Stack):
    """Spokes in planes along z: a `Stack` of `Radial`."""

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey, *, lines: int | None = None, samples: int = 128) -> "Stack":
        """Golden angles in every plane; 16 spokes a plane unless `lines` says how many in all."""
        return cls.start_of(Radial, scene, key, lines, samples)


class StackOfSpirals(Stack):
    """Spirals in planes along z: a `Stack` of `Spiral`."""

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey, *, lines: int | None = None, samples: int = 512) -> "Stack":
        """Archimedean spirals in every plane; 16 a plane unless `lines` says how many in all."""
        return cls.start_of(Spiral, scene, key, lines, samples)

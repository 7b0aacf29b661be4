"""Readouts of free form: samples learned one by one, or by the control points of splines."""

import dataclasses
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count
from acqdesign.base.types import Array, Float, PRNGKey
from acqdesign.encoding.hardware import Hardware
from acqdesign.encoding.radial import Kooshball, Radial
from acqdesign.encoding.trajectory import Trajectory, check_parameter, checked_coordinates
from acqdesign.optim import Box, Constraint, spline_basis
from acqdesign.optim.parts import is_parametrised
from acqdesign.scene.scene import Scene


class FreeForm(Trajectory):
    """Samples that are learned one by one.

    Args:
        points: `(readouts, samples, D)` in cycles per voxel.
        hardware: what they are projected onto while they are learned; within ±0.5 alone unless given.
    """

    points: Float[Array, "readouts samples dims"]
    hardware: Hardware | None = eqx.field(static=True, default=None)

    def coordinates(self) -> Float[Array, "readouts samples dims"]:
        return self.points

    def limits(self) -> tuple[Constraint, ...]:
        return (Box("points", -0.5, 0.5) if self.hardware is None else self.hardware,)

    def played_by(self) -> Hardware | None:
        return self.hardware

    def within(self, hardware: Hardware) -> "FreeForm":
        hardware.check(self.points)
        return type(self)(self.points, dataclasses.replace(hardware, where="points"))

    def permuted(self, source: np.ndarray | Array) -> "FreeForm":
        return type(self)(self.points[jnp.asarray(source)], self.hardware)

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey, *, lines: int = 32, samples: int = 128) -> "FreeForm":
        """Spokes at golden angles, of a plane or of a ball; arguments as of `Radial.start`."""
        return cls(_spokes(scene, key, lines, samples))


class Splines(Trajectory):
    """Readouts that are B-splines, whose control points are learned.

    Args:
        control: `(readouts, control, D)` in cycles per voxel; a readout begins in the first and ends in the last.
        samples: of a readout.
        degree: 3 for cubic splines, 2 for quadratic ones.
    """

    control: Float[Array, "readouts control dims"]
    samples: int = eqx.field(static=True)
    degree: int = eqx.field(static=True, default=3)

    def __post_init__(self) -> None:
        check_count("samples", self.samples)
        check_count("degree", self.degree)
        check_parameter("control", self.control, "(readouts, control, D)")
        if not is_parametrised(self.control):
            self._basis()

    def _basis(self) -> np.ndarray:
        return spline_basis(self.samples, self.control.shape[1], self.degree)

    def coordinates(self) -> Float[Array, "readouts samples dims"]:
        basis = jnp.asarray(self._basis(), self.control.dtype)
        return jnp.einsum("tc,rcd->rtd", basis, self.control, precision="highest")

    def limits(self) -> tuple[Constraint, ...]:
        """Within ±0.5: a spline lies within the hull of its control points."""
        return (Box("control", -0.5, 0.5),)

    def permuted(self, source: np.ndarray | Array) -> "Splines":
        return type(self)(self.control[jnp.asarray(source)], self.samples, self.degree)

    def refined(self) -> "Splines":
        """The same readouts with twice as many intervals between knots: from coarse to fine."""
        finer = 2 * (self.control.shape[1] - self.degree) + self.degree
        return self.near(self.coordinates(), finer, self.degree)

    @classmethod
    def near(cls, coordinates: Array, control: int, degree: int = 3) -> "Splines":
        """The splines nearest to given readouts `(readouts, samples, D)`, by least squares.

        Args:
            coordinates: in cycles per voxel.
            control: control points of each.
            degree: as of the class.
        """
        basis = spline_basis(coordinates.shape[1], control, degree)
        inverse = jnp.asarray(np.linalg.pinv(basis), coordinates.dtype)
        return cls(jnp.einsum("ct,rtd->rcd", inverse, coordinates, precision="highest"), coordinates.shape[1], degree)

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey, *, lines: int = 32, samples: int = 128) -> "Splines":
        """Spokes as of `FreeForm.start`, a control point for every eight samples."""
        return cls.near(_spokes(scene, key, lines, samples), max(4, min(samples, samples // 8)))


def _spokes(scene: Scene, key: PRNGKey, lines: int, samples: int) -> Array:
    kind: Any = Radial if 1 in scene.shape else Kooshball
    return checked_coordinates(kind.start(scene, key, lines=lines, samples=samples))

"""Readouts that wind outwards from the centre: spirals of a plane, and on cones of a ball."""

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, check_key, check_number, usage_error
from acqdesign.base.types import Array, Float, PRNGKey
from acqdesign.encoding.radial import directions, golden_angles
from acqdesign.encoding.trajectory import Trajectory, check_parameter, check_solid, plane_of, real_of
from acqdesign.optim import spline_basis
from acqdesign.scene.scene import Scene

# How a readout's time is spent: its first part at an even rate of turning, then at an even speed.
_PACE = 0.3
_KNOTS = 8


def _check_winding(winding: Any) -> None:
    check_number("turns", winding.turns, positive=True)
    check_count("samples", winding.samples, minimum=2)
    check_parameter("density", winding.density, "(knots,)")
    if getattr(winding.density, "size", 1) + 1 > winding.samples:
        raise usage_error("density", winding.density, "a vector of fewer numbers than samples")


def _along(density: Array, samples: int, in_out: bool) -> tuple[Array, Array]:
    """Radius of each sample [cycles/voxel], negative on the far side, and its share of the turns, `(samples,)`."""
    side, turned, basis, even = (jnp.asarray(x, density.dtype) for x in _schedule(samples, len(density) + 1, in_out))
    rise = even * jnp.exp(jnp.min(density) - density)
    control = 0.5 * jnp.append(0, jnp.cumsum(rise)).astype(density.dtype) / jnp.sum(rise)
    return side * jnp.matmul(basis, control, precision="highest"), turned


@functools.lru_cache(maxsize=16)
def _schedule(samples: int, control: int, in_out: bool) -> tuple[np.ndarray, ...]:
    """Side of the centre and share of the turns at each sample, splines at them, and the rises of an even one."""
    time = np.linspace(-1.0 if in_out else 0.0, 1.0, samples)
    turned = np.clip(np.sqrt(_PACE**2 + (1 + 2 * _PACE) * np.abs(time)) - _PACE, 0, 1)
    basis, at = spline_basis(turned, control), np.linspace(0, 1, 8 * control)
    even = np.linalg.lstsq(spline_basis(at, control), at, rcond=None)[0]
    return np.where(time < 0, -1, 1), turned, basis, np.diff(even)


class Spiral(Trajectory):
    """Spirals in a plane, from the centre outwards, or in and out again through it.

    The radius rises with the angle from 0 to 0.5 as a cubic B-spline, between its control points `exp(-density)` times
    as fast as that of an Archimedean spiral, all in proportion: equal numbers are one; where larger, turns lie closer.

    Args:
        angles: `(shots,)` by which each is rotated [rad].
        density: `(knots,)` logarithm of how closely turns lie, from the centre outwards.
        turns: of a spiral.
        samples: of a readout.
        in_out: whether a readout begins on the far side and goes through the centre.
    """

    angles: Float[Array, " shots"]
    density: Float[Array, " knots"]
    turns: float = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    in_out: bool = eqx.field(static=True, default=False)

    def __post_init__(self) -> None:
        _check_winding(self)

    def coordinates(self) -> Float[Array, "shots samples 2"]:
        radius, turned = _along(self.density, self.samples, self.in_out)
        angle = self.angles[:, None] + 2 * math.pi * self.turns * turned
        return radius[None, :, None] * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)

    def permuted(self, source: np.ndarray | Array) -> "Spiral":
        return eqx.tree_at(lambda s: s.angles, self, self.angles[jnp.asarray(source)])

    @classmethod
    def start(
        cls, scene: Scene, key: PRNGKey, *, lines: int = 16, samples: int = 512, in_out: bool = False
    ) -> "Spiral":
        """Archimedean spirals, evenly rotated from a random angle on.

        As many turns as leave gaps of twice the grid in the radius, or as samples can follow a cell of it apart.

        Args:
            scene: of one plane.
            key: of the first angle.
            lines: number of spirals.
            samples: of a spiral.
            in_out: as of the class.
        """
        plane = plane_of(scene, "spiral")
        dtype = real_of(scene)
        check_key("key", key)
        first = jax.random.uniform(key, maxval=2 * math.pi, dtype=dtype)
        angles = first + 2 * math.pi * jnp.arange(check_count("lines", lines), dtype=dtype) / lines
        return cls(angles, jnp.zeros(_KNOTS, dtype), _turns(max(plane), lines, samples, in_out), samples, in_out)


class Cones(Trajectory):
    """Spirals on cones about the last axis, from the centre outwards.

    Args:
        polar: `(shots,)` opening angles [rad].
        azimuth: `(shots,)` by which each is rotated [rad].
        density: as of `Spiral`.
        turns: on the widest cone; on others as many as their width has.
        samples: of a readout.
        in_out: as of `Spiral`.
    """

    polar: Float[Array, " shots"]
    azimuth: Float[Array, " shots"]
    density: Float[Array, " knots"]
    turns: float = eqx.field(static=True)
    samples: int = eqx.field(static=True)
    in_out: bool = eqx.field(static=True, default=False)

    def __post_init__(self) -> None:
        _check_winding(self)

    def coordinates(self) -> Float[Array, "shots samples 3"]:
        radius, turned = _along(self.density, self.samples, self.in_out)
        polar = self.polar[:, None]
        azimuth = self.azimuth[:, None] + 2 * math.pi * self.turns * jnp.sin(polar) * turned
        return radius[None, :, None] * directions(polar, azimuth)

    def permuted(self, source: np.ndarray | Array) -> "Cones":
        where = jnp.asarray(source)
        return eqx.tree_at(lambda s: (s.polar, s.azimuth), self, (self.polar[where], self.azimuth[where]))

    @classmethod
    def start(
        cls, scene: Scene, key: PRNGKey, *, lines: int = 256, samples: int = 256, in_out: bool = False
    ) -> "Cones":
        """Cones of equal shares of the sphere, a golden angle apart; arguments as of `Spiral.start`, of a solid scene.

        P. T. Gurney et al., Design and analysis of a practical 3D cones trajectory, Magn. Reson. Med. 55:575, 2006.
        """
        check_solid(scene, "cones")
        dtype = real_of(scene)
        height = (2 * np.arange(check_count("lines", lines)) + 1) / lines - 1
        azimuth = golden_angles(scene, key, lines, 2 * math.pi)
        turns = _turns(max(scene.shape), math.ceil(math.sqrt(lines)), samples, in_out)
        return cls(jnp.asarray(np.arccos(height), dtype), azimuth, jnp.zeros(_KNOTS, dtype), turns, samples, in_out)


def _turns(voxels: int, shots: int, samples: int, in_out: bool) -> float:
    """Turns at which spirals lie two cells apart, but no more than samples a cell and a half apart can follow."""
    arms = 2 * shots if in_out else shots
    length = 1.5 * (samples / 2 if in_out else samples) / voxels
    return float(np.clip(voxels / (4 * arms), 1.0, max(2 * length / math.pi, 1.0)))

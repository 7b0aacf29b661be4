"""Straight readouts through the centre: spokes of a plane, and of a ball."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, check_key
from acqdesign.base.types import Array, Float, PRNGKey
from acqdesign.encoding.trajectory import Trajectory, check_solid, plane_of, real_of
from acqdesign.scene.scene import Scene

GOLDEN = math.pi * (math.sqrt(5.0) - 1) / 2
"""The golden angle of spokes, 111.2° [rad]."""
# The golden means of two dimensions: the real root of x³ + x = 1, and its square.
_MEANS = (0.4655712318767681, 0.6823278038280193)


class Radial(Trajectory):
    """Spokes through the centre of a plane.

    Args:
        angles: `(spokes,)` [rad].
        samples: of a spoke, from -0.5 to 0.5.
    """

    angles: Float[Array, " spokes"]
    samples: int = eqx.field(static=True)

    def __post_init__(self) -> None:
        check_count("samples", self.samples)

    def coordinates(self) -> Float[Array, "spokes samples 2"]:
        """`r (cos φ, sin φ)`."""
        return _spokes(jnp.stack([jnp.cos(self.angles), jnp.sin(self.angles)], axis=-1), self.samples)

    def permuted(self, source: np.ndarray | Array) -> "Radial":
        return type(self)(self.angles[jnp.asarray(source)], self.samples)

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey, *, lines: int = 32, samples: int = 128) -> "Radial":
        """Golden angles from a random one on.

        Args:
            scene: of one plane.
            key: of the first angle.
            lines: number of spokes.
            samples: of a spoke.
        """
        plane_of(scene, "radial")
        return cls(golden_angles(scene, key, lines, math.pi), samples)


class Kooshball(Trajectory):
    """Spokes through the centre of a ball.

    Args:
        polar: `(spokes,)` angles from the last axis [rad].
        azimuth: `(spokes,)` angles about it [rad].
        samples: of a spoke, from -0.5 to 0.5.
    """

    polar: Float[Array, " spokes"]
    azimuth: Float[Array, " spokes"]
    samples: int = eqx.field(static=True)

    def __post_init__(self) -> None:
        check_count("samples", self.samples)

    def coordinates(self) -> Float[Array, "spokes samples 3"]:
        """`r (sin θ cos φ, sin θ sin φ, cos θ)`."""
        return _spokes(directions(self.polar, self.azimuth), self.samples)

    def permuted(self, source: np.ndarray | Array) -> "Kooshball":
        return type(self)(self.polar[jnp.asarray(source)], self.azimuth[jnp.asarray(source)], self.samples)

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey, *, lines: int = 256, samples: int = 128) -> "Kooshball":
        """Golden means from a random azimuth on; arguments as of `Radial.start`, of a solid scene.

        R. W. Chan et al., Temporal stability of adaptive 3D radial MRI using multidimensional golden means, Magn.
        Reson. Med. 61:354, 2009.
        """
        check_solid(scene, "kooshball")
        dtype, n = real_of(scene), np.arange(lines)
        azimuth = 2 * math.pi * jnp.asarray(n * _MEANS[1] % 1, dtype)
        check_key("key", key)
        first = jax.random.uniform(key, maxval=2 * math.pi, dtype=dtype)
        return cls(jnp.arccos(jnp.asarray(n * _MEANS[0] % 1, dtype)), first + azimuth, samples)


def golden_angles(scene: Scene, key: PRNGKey, count: int, turn: float) -> Float[Array, " count"]:
    """Angles a golden angle apart, within a `turn` of a random one [rad]."""
    dtype = real_of(scene)
    check_key("key", key)
    first = jax.random.uniform(key, maxval=turn, dtype=dtype)
    return (first + jnp.asarray(GOLDEN * np.arange(check_count("lines", count)), dtype)).astype(dtype)


def directions(polar: Array, azimuth: Array) -> Float[Array, "... 3"]:
    """Unit vectors of polar angles and azimuths [rad]."""
    across = jnp.sin(polar)
    return jnp.stack([across * jnp.cos(azimuth), across * jnp.sin(azimuth), jnp.cos(polar) + 0 * azimuth], axis=-1)


def _spokes(directions: Array, samples: int) -> Array:
    radius = jnp.linspace(-0.5, 0.5, samples, dtype=directions.dtype)
    return radius[None, :, None] * directions[:, None, :]

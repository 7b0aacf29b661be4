"""Echo-planar readouts: many lines of a plane in one shot, there and back."""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from acqdesign.base.checks import check_count, check_key
from acqdesign.base.types import Array, Float, PRNGKey
from acqdesign.encoding.trajectory import Trajectory, check_parameter, plane_of, real_of
from acqdesign.optim import Box
from acqdesign.optim.parts import is_parametrised
from acqdesign.scene.scene import Scene

# The share of a line's time, on both sides of it, in which the next one is gone to.
_TURN = 0.1


class EPI(Trajectory):
    """Lines along the first axis of a plane, read there and back in turn.

    Args:
        encodes: `(shots, lines)` phase encodes in the order in which they are read [cycles/voxel].
        samples: of a readout, all its lines together.
    """

    encodes: Float[Array, "shots lines"]
    samples: int = eqx.field(static=True)

    def __post_init__(self) -> None:
        check_parameter("encodes", self.encodes, "(shots, lines)")
        lines = 1 if is_parametrised(self.encodes) else self.encodes.shape[1]
        check_count("samples", self.samples, minimum=2 * lines)

    def coordinates(self) -> Float[Array, "shots samples 2"]:
        """Triangles along the first axis; along the second each line is gone to while the first turns."""
        lines, dtype = self.encodes.shape[1], self.encodes.dtype
        time = np.linspace(0, lines, self.samples)
        along = 0.5 - np.abs((time % 2) - 1)
        stays = np.repeat(np.arange(lines), 2) + np.tile([_TURN, 1 - _TURN], lines)
        share = np.interp(time, stays, np.repeat(np.arange(lines), 2))
        near = np.maximum(1 - np.abs(share[:, None] - np.arange(lines)), 0)
        across = jnp.einsum("tl,sl->st", jnp.asarray(near, dtype), self.encodes, precision="highest")
        return jnp.stack([jnp.broadcast_to(jnp.asarray(along, dtype), across.shape), across], axis=-1)

    def limits(self) -> tuple[Box, ...]:
        return (Box("encodes", -0.5, 0.5),)

    def permuted(self, source: np.ndarray | Array) -> "EPI":
        return type(self)(self.encodes[jnp.asarray(source)], self.samples)

    @classmethod
    def start(cls, scene: Scene, key: PRNGKey, *, lines: int = 4, samples: int = 1024) -> "EPI":
        """Interleaved shots of every second phase encode, shifted by a random part of a step.

        Args:
            scene: of one plane; phase encodes go along the second of its axes.
            key: of the shift.
            lines: number of shots.
            samples: of a shot.
        """
        voxels = plane_of(scene, "epi")[1]
        each = math.ceil(voxels / (2 * check_count("lines", lines)))
        check_key("key", key)
        shift = jax.random.uniform(key, dtype=real_of(scene))
        place = np.arange(each) * lines + np.arange(lines)[:, None]
        return cls(((jnp.asarray(place, real_of(scene)) + shift) / (each * lines) - 0.5), samples)

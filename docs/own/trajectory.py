"""Spokes whose angles are learned."""

import equinox as eqx
import jax
import jax.numpy as jnp

import acqdesign as aq


class RotatedSpokes(aq.encoding.Trajectory):
    angles: jax.Array  # (spokes,) [rad]
    samples: int = eqx.field(static=True, default=64)

    def coordinates(self):  # (spokes, samples, 2) in cycles per voxel
        r = jnp.linspace(-0.5, 0.5, self.samples)
        return r[:, None] * jnp.stack([jnp.cos(self.angles), jnp.sin(self.angles)], -1)[:, None, :]

    @classmethod
    def start(cls, scene, key, lines=32):  # for the command line, and for several starts
        return cls(jax.random.uniform(key, (lines,), maxval=jnp.pi))
